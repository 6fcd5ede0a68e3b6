"""The program in a shell: it starts fast, from anywhere, and completes its commands."""

# pyright: reportAttributeAccessIssue=false

import os
from pathlib import Path
import subprocess
import sys

import pytest

import castream_jax as castream
from castream_jax.cli import main
from castream_jax.version import __version__

ROOT = Path(__file__).parent.parent


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python …` in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["--version"]])
def test_help_does_not_wait_for_jax(tmp_path: Path, arguments: list[str]):
    code = (
        "import sys\n"
        "from castream_jax.cli import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "finally:\n"
        "    heavy = {'jax', 'flax', 'orbax', 'grain', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)\n"
    )
    done = run(tmp_path, "-c", code)
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_results_are_on_stdout_and_logs_on_stderr_from_any_directory(tmp_path: Path):
    done = run(tmp_path, "-m", "castream_jax", "convert", "digits", "--arch", "cifar_resnet8", "--out", "w.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'w.safetensors'}\nbackbone fingerprint ")
    failed = run(tmp_path, "-m", "castream_jax", "report", "--workdir", "absent")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith(f"castream: {tmp_path / 'absent'} holds no experiment: run `castream train")
    assert run(tmp_path, "-m", "castream_jax", "--version").stdout == f"castream_jax {__version__}\n"


def test_no_color_means_none(tmp_path: Path):
    code = (
        "from castream_jax.runtime.progress import Progress\n"
        "Progress('task', total=1, unit='images').say('text')\n"
    )  # fmt: skip
    coloured = run(tmp_path, "-c", code, FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="")
    plain = run(tmp_path, "-c", code, TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b[" in coloured.stderr
    assert plain.stderr == "task  text\n"


def test_the_help_says_what_exit_statuses_mean(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {status}" in text for status in ("0    done", "2    a mistake", "3    training", "130  interr"))
    assert "NO_COLOR" in text


def test_completion_knows_the_commands(tmp_path: Path, capsys):
    pytest.importorskip("shtab", reason="the extra castream_jax[completion] is not installed")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    script = capsys.readouterr().out
    # What bash does when TAB is pressed after "castream expo", and after "castream export --to s".
    ask = (
        f'{script}\nfunction words {{ COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); '
        '_shtab_castream; echo "${COMPREPLY[@]}"; }\nwords castream expo\nwords castream export --to s\n'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "export\nsafetensors stablehlo\n"


def test_completion_without_the_extra_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit, match="2"):
        main(["--print-completion", "bash"])
    assert capsys.readouterr().err == (
        "castream: completion needs the package shtab: pip install 'castream_jax[completion]'.\n"
    )


def test_every_public_name_can_be_imported():
    assert sorted(castream.__all__) == sorted(set(castream.__all__))
    assert all(getattr(castream, name) is not None for name in castream.__all__)
    with pytest.raises(AttributeError, match="attribut"):
        castream.atribute  # noqa: B018
