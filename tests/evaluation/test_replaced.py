"""A second evaluation takes nothing away from the first, and further protocols have results of their own."""

import json
from pathlib import Path
import sys

import jax.numpy as jnp
import pytest

from castream_jax.attribution import METHODS, Inputs, register_method
from castream_jax.cli import main
from castream_jax.evaluation import evaluate
from castream_jax.evaluation.identity import claim_results
from castream_jax.experiment.workdir import Workdir
from castream_jax.training import train


def results(workdir: Path) -> dict[str, bytes]:
    paths = (path for path in sorted((workdir / "evaluation").rglob("*")) if path.is_file())
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_mistake_takes_nothing_away(tiny_config, trained_workdir: Path):
    config = tiny_config(evaluation={"methods": ("attention",), "max_images": 10})
    evaluate(config, trained_workdir)
    before = results(trained_workdir)

    @register_method("broken")
    def broken(inputs: Inputs):
        """Has a mistake in it."""
        return inputs.nothing  # pyright: ignore[reportAttributeAccessIssue]

    @register_method("nan")
    def nan(inputs: Inputs):
        """Gives no numbers."""
        return {head: scores * jnp.nan for head, scores in METHODS["gradcam"].function(inputs).items()}

    try:
        for method in ("broken", "nan"):
            config.evaluation.methods = (method,)
            with pytest.raises(ValueError, match=method):
                evaluate(config, trained_workdir)
            assert results(trained_workdir) == before
    finally:
        METHODS.pop("broken")
        METHODS.pop("nan")


@pytest.mark.slow
def test_the_results_of_the_first_are_found_again(tiny_config, trained_workdir: Path, monkeypatch, capsys):
    config = tiny_config(evaluation={"methods": ("attention",), "max_images": 10})
    first = evaluate(config, trained_workdir)
    workdir = Workdir.at(trained_workdir)
    config.evaluation.methods = ("gradcam",)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["castream_jax.evaluation.evaluate"], "write_summary", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(config, trained_workdir)
    assert (workdir.earlier / first["run"] / "summary.json").is_file()
    assert not workdir.summary.is_file()
    second = evaluate(config, trained_workdir)  # goes on, and takes nothing away in the end either
    assert (workdir.earlier / first["run"] / "summary.json").is_file()
    config.evaluation.methods = ("attention",)
    capsys.readouterr()
    assert evaluate(config, trained_workdir)["metrics"] == first["metrics"]
    assert "were there already" in capsys.readouterr().err
    assert [path.name for path in workdir.earlier.iterdir()] == [second["run"]]


@pytest.mark.slow
def test_each_protocol_has_results_of_its_own(tiny_config, trained_workdir: Path, capsys):
    config = tiny_config(evaluation={"methods": ("attention",), "baselines": False, "max_images": 4, "gallery": 2})
    config.evaluation.further_protocols = ("castream-pred", "castream")
    with pytest.raises(ValueError, match=r"further_protocols names 'castream', which config.evaluation.protocol is"):
        evaluate(config, trained_workdir)
    config.evaluation.further_protocols = ("castream-pred",)
    first = evaluate(config, trained_workdir)
    workdir = Workdir.at(trained_workdir)
    (other,) = workdir.further_protocols
    assert first == workdir.read_summary()
    assert other.read_summary()["protocol"]["target_class"] == "predicted"
    assert first["protocol"]["target_class"] == "label"
    assert main(["report", "--workdir", str(trained_workdir)]) == 0
    pages = capsys.readouterr().out.split()
    assert [Path(page).name for page in pages] == ["index.html", "under-castream-pred.html"]
    assert "castream-pred" in Path(pages[1]).read_text()


def test_results_of_an_unknown_run_are_not_taken_for_ours(trained_workdir: Path):
    """`run.json` says whose results these are; where it is gone, or was removed as damaged, they are computed anew."""
    workdir, said = Workdir.at(trained_workdir), []
    workdir.rows.mkdir(parents=True)
    stranger = workdir.rows / "part-00000.parquet"
    stranger.write_bytes(b"of another run")
    claim_results(workdir, {"methods": ["attention"]}, 10, said.append)
    assert not stranger.exists()
    assert workdir.read_run()["identity"] == {"methods": ["attention"]}
    stranger.write_bytes(b"of this run")
    claim_results(workdir, {"methods": ["attention"]}, 10, said.append)
    assert stranger.exists()
    assert said == []


def test_other_training_images_are_told(tiny_config, trained_workdir: Path):
    origins = Workdir.at(trained_workdir).origins
    noted = json.loads(origins.read_text())
    train(tiny_config(), trained_workdir)  # has ended: nothing to do
    origins.write_text(json.dumps(noted | {"data": {"digest": "of others"}}))
    with pytest.raises(ValueError, match=r"The training images are no more those that .* was begun with"):
        train(tiny_config(), trained_workdir)
