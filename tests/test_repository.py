"""What several files of the repository repeat agrees: versions, Pythons, addresses, how to cite."""

from pathlib import Path
import re
import tomllib

import pytest
import yaml

import castream_jax as castream

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOWS = ROOT / ".github" / "workflows"


def bibtex(entry: str) -> dict[str, str]:
    """Fields of the README's entry of a type, without the braces that keep capitals."""
    (block,) = re.findall(rf"^@{entry}{{(.*?)^}}$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return {name: re.sub(r"[{}\\]", "", value) for name, value in re.findall(r"(\w+) *= {(.*)},$", block, re.MULTILINE)}


def test_the_software_is_cited_as_what_it_is():
    holder = re.search(r"Copyright \(c\) (\d+) (.+)", (ROOT / "LICENSE").read_text())
    assert CITATION["version"] == castream.__version__
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["repository-code"] == PROJECT["urls"]["Repository"]
    assert CITATION["authors"] == [{"name": holder[2]}]
    assert bibtex("software") == {
        "title": CITATION["title"],
        "author": holder[2],
        "version": castream.__version__,
        "year": holder[1],
        "url": PROJECT["urls"]["Repository"],
    }


def test_the_readme_cites_the_paper_of_the_citation_file():
    (paper,) = CITATION["references"]
    cited = bibtex("inproceedings")
    assert [f"arXiv:{cited['eprint']}"] == [identifier["value"] for identifier in paper["identifiers"]]
    assert paper["url"] == f"https://arxiv.org/abs/{cited['eprint']}"
    assert cited["title"] == paper["title"]
    assert cited["year"] == str(paper["year"])
    assert cited["booktitle"] == paper["conference"]["name"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert cited["author"].replace("'e", "é").split(" and ") == names


def test_pre_commit_runs_the_pinned_ruff():
    pin = re.search(r"^ruff==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)[1]
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["rev"] for repo in repositories if "ruff" in repo["repo"]} == {f"v{pin}"}


@pytest.mark.parametrize(("workflow", "script"), [("test", "make test"), ("nightly", ".ci/run")])
def test_workflows_run_one_script_on_every_python(workflow: str, script: str):
    (job,) = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [script]
    declared = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert declared[0] == PROJECT["requires-python"].removeprefix(">=")
    assert set(declared) <= set(job["strategy"]["matrix"]["python"])


def test_addresses_are_in_the_repository():
    """Those of the package index and the issue forms: below the one address, and of files that exist."""
    repository = PROJECT["urls"]["Repository"]
    texts = [path.read_text() for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir()]
    addresses = [*PROJECT["urls"].values(), *re.findall(r"https://[^\s)]+", " ".join(texts))]
    assert len(addresses) > len(PROJECT["urls"])
    assert [address for address in addresses if not address.startswith(repository)] == []
    files = [address.split("/blob/main/")[1] for address in addresses if "/blob/main/" in address]
    assert [file for file in files if not (ROOT / file).is_file()] == []
