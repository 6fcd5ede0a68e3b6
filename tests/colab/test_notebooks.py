"""Every notebook runs from top to bottom without a network, and shows what it promises."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = Path(__file__).parents[2]
COLAB = ROOT / "colab"
NOTEBOOKS = sorted(COLAB.glob("*.ipynb"))

pytest.importorskip("nbclient", reason="notebooks are run by nbclient: pip install -r requirements-dev.txt")


def run(name: str, out: Path, **values: object) -> str:
    """Everything that the executed notebook shows as text, and the kinds of all else."""
    nowhere = "http://127.0.0.1:9/"  # the discard port: nothing listens
    offline = {"PYTHONPATH": str(ROOT), "CASTREAM_WEIGHTS_URL": nowhere, "CASTREAM_CACHE": str(out / "cache")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    done = subprocess.run(
        [sys.executable, COLAB / "execute.py", COLAB / f"{name}.ipynb", "--out", out]
        + [f"--set={key}={value!r}" for key, value in values.items()],
        env=os.environ | proxies | offline | {"NO_PROXY": "127.0.0.1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return shown(out / f"{name}.ipynb")


def shown(path: Path) -> str:
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", ())]
    assert all(output["output_type"] != "error" for output in outputs)
    parts = []
    for output in outputs:
        parts += output.get("text", [])
        for kind, value in output.get("data", {}).items():
            parts += ["\n", f"<{kind}>\n"] + (list(value) if kind.startswith("text") else [])
    return "".join(parts)


@pytest.mark.system
def test_the_quick_tour(tmp_path: Path):
    text = run("quick_tour", tmp_path, EPOCHS=1, IMAGES=12)
    assert "S3 (64, 16, 16, 64)" in text
    assert "parameters 7104" in text
    assert float(re.search(r"\nca ([\d.]+)% of 64", text)[1]) > 85  # one epoch; the trunk under GAP has 94
    assert "| Grad-CAM | ca − GAP |" in text
    assert "Percent over 12 images, protocol castream" in text
    assert "<image/png>" in text
    assert "Explanation('image', gap: 4, ca: 4, 3 maps)" in text


@pytest.mark.system
def test_explaining_a_photograph_without_a_network(tmp_path: Path):
    text = run("explain_your_image", tmp_path)
    assert "size=640x427" in text, "scikit-learn's photograph"
    assert re.search(r" \d\d\.\d\d%  bell cote\n", text)
    assert re.search(r"\nrandom +AD [\d.]+ I [\d.]+ D [\d.]+\n", text)


@pytest.mark.system
def test_training_on_a_folder(tmp_path: Path):
    text = run("train_on_your_folder", tmp_path, EPOCHS=1)
    assert "1,686 images of 6 classes" in text
    assert "Percent over 234 images" in text
    assert '<iframe srcdoc="&lt;!doctype html&gt;' in text.replace("DOCTYPE", "doctype")
    assert "images/test/eight/" in text, "the reloaded export explains"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_with_their_outputs(path: Path):
    text = shown(path)
    assert "<text/html>" in text
    assert path.stat().st_size < 1e6
    cells = json.loads(path.read_text())["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run once, from top to bottom"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badge_and_installation_name_the_repository(path: Path):
    """The address of the repository stands in pyproject.toml; what else must name it agrees."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    badge, install = ("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"][:2])
    slug = repository.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{slug}/blob/main/colab/{path.name}" in badge
    assert f"git+{repository}" in install
    assert f"repo_url: {repository}\n" in (ROOT / "mkdocs.yml").read_text()
