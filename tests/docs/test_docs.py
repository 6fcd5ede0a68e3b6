"""What the documentation says of the code holds, and the site builds."""

from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_method_quotes_the_code():
    """Every line of code on the page of the method stands in stream.py."""
    code = {line.strip() for line in (ROOT / "castream_jax" / "stream.py").read_text().splitlines()}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "method.md").read_text(), re.DOTALL)
    quoted = [line.strip() for block in blocks for line in block.splitlines()]
    assert len(quoted) >= 7
    assert [line for line in quoted if line not in code] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("mkdocstrings", reason="the site is built by mkdocs: pip install -r requirements-dev.txt")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    method = (site / "method" / "index.html").read_text()
    assert r'<div class="arithmatex">\[' in method
    score = (site / "reference" / "metrics" / "index.html").read_text()
    assert 'id="castream_jax.metrics.score.score"' in score
    # A reader behind no network, or one who minds: pages fetch nothing from elsewhere.
    fetched = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:)?//')
    assert [page for page in site.rglob("*.html") if fetched.search(page.read_text())] == []


def test_the_navigation_has_every_page():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    generated = {page for page in pages if re.fullmatch(r"results/\w+/(fig|table|supp-table)\S*\.md", page)}
    assert listed == pages - generated


def test_the_places_for_something_new_exist():
    """What CONTRIBUTING.md says about files and names is true."""
    rows = (ROOT / "CONTRIBUTING.md").read_text().split("## Where something new goes")[1]
    paths = re.findall(r"`([\w./-]*/[\w./-]*)`", rows)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "castream_jax" / path).exists()] == []


def test_every_text_file_is_utf8():
    for path in (*DOCS.rglob("*.md"), *ROOT.glob("*.md")):
        path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readmes_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    exec(block, names := {})
    best = names["explanation"].predictions("gap")[0]
    assert (best.number, best.name, round(best.probability, 2)) == (285, "Egyptian cat", 0.81)
    assert {method for _, method in names["scores"]} == {"gradcam", "layercam"}
    assert (tmp_path / "gradcam.png").is_file()
    assert (tmp_path / "export" / "model.json").is_file()
