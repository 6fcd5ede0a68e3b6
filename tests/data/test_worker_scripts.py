"""Worker processes as scripts start them: one sentence without a main guard, and nothing left behind."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

import castream_jax

READ = """
from castream_jax.data import CanvasDigits, train_loader

def read():
    loader = train_loader(CanvasDigits("test", canvas_size=32), batch_size=8, num_epochs=9, seed=0, num_workers=2)
    for number, batch in zip(range(3), loader):
        print(number, len(batch["pixels"]))
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(READ + text)
    environment = os.environ | {"PYTHONPATH": str(Path(castream_jax.__file__).parents[1])}
    command = [sys.executable, str(folder / "script.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_script_without_a_main_guard_is_refused_in_one_sentence(tmp_path):
    done = run(tmp_path, "read()\n")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: worker processes begin by running this script again")
    assert 'put what it does under `if __name__ == "__main__":`' in last
    assert done.stderr.count("Traceback") == 1
    assert len(done.stderr.splitlines()) < 20


@pytest.mark.slow
def test_a_guard_around_something_else_ends_in_the_same_sentence(tmp_path):
    done = run(tmp_path, 'if __name__ == "__main__":\n    print("begin")\nread()\n')
    assert done.returncode == 1
    assert "RuntimeError: worker processes begin by running this script again" in done.stderr
    assert done.stderr.count("Traceback") == 1


@pytest.mark.slow
def test_a_clean_run_leaves_no_shared_memory_and_says_nothing(tmp_path):
    done = run(tmp_path, 'if __name__ == "__main__":\n    read()\n')
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 8\n1 8\n2 8\n", "")
