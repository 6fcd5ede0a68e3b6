"""`castream reproduce` from end to end, on small configs; what an interruption leaves; what is refused."""

import csv
from pathlib import Path

from PIL import Image
import pytest

from castream_jax.cli import main
from castream_jax.reproduce.run import reproduce
from castream_jax.reproduce.runs import Options, open_runs

# Small enough for tests, whatever the config; four devices.
TINY = [
    "--config.data.image_size=32",
    "--config.data.canvases_per_digit=1",
    "--config.data.num_threads=1",
    "--config.train.epochs=1",
    "--config.train.batch_size=64",
    "--config.evaluation.batch_size=60",
    "--config.evaluation.max_images=8",
    "--config.evaluation.gallery=2",
    "--config.evaluation.baselines=False",
    "--config.evaluation.sanity_images=0",
    "--config.evaluation.methods=('gradcam','attention')",
]
CONFIG = """
from castream_jax.quickstart import get_config as digits

def get_config(form):
    config = digits()
    config.name = "{name}, " + form
    if {trains_backbone}:
        config.backbone.weights = ""
    if form == "small-backbone":
        config.train.target = "backbone"
        config.optimizer.learning_rate = 0.05
    return config
"""


def command(workdir: Path, *targets: str, configs: Path | None = None) -> int:
    where = [] if configs is None else ["--configs", str(configs)]
    return main(["reproduce", *targets, "--workdir", str(workdir), *where, *TINY])


def read_table(workdir: Path, table: str) -> list[dict[str, str]]:
    with (workdir / "tables" / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_ablations_are_one_run_and_are_not_run_again(tmp_path: Path, capsys):
    tables = ["supp-table3", "supp-table4", "supp-table5"]
    assert command(tmp_path, *(f"{table}:small" for table in tables)) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written == [
        tmp_path / "tables" / f"{table}.{kind}" for table in tables for kind in ("md", "html", "tex", "csv")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ablations-all-small", "tables"]

    rows = {table: read_table(tmp_path, table) for table in tables}
    measured = {row["head"] for table in tables for row in rows[table] if row["ours"]}
    assert measured == {"ca", "proj_ca", "from_s1", "from_s2", "from_s3", "class_specific"}
    # Streams over the 16, 16, 32 and 64 channels of ResNet-8, and 9 more CLS tokens of 16.
    counts = {row["label"]: row["ours"] for row in rows["supp-table4"] if row["quantity"] == "parameters"}
    assert counts == {"S0–S4": "7104", "S1–S4": "6832", "S2–S4": "6304", "S3–S4": "4224", "S4–S4": ""}
    specific, agnostic = (
        int(row["ours"]) for head in ("class_specific", "ca") for row in rows["supp-table5"]
        if row["head"] == head and row["quantity"] == "parameters"
    )  # fmt: skip
    assert (specific - agnostic, agnostic) == (9 * 16, 75_290 + 7_104)
    assert {row["comparable"] for table in tables for row in rows[table]} == {"False"}
    assert "for orientation only" in (tmp_path / "tables" / "supp-table4.md").read_text()
    assert "ablations/all:small --config.data.image_size=32" in (tmp_path / "tables" / "supp-table4.md").read_text()

    training = [tmp_path / "ablations-all-small" / part for part in ("checkpoints", "config.json")]
    before = [stamps(folder) for folder in training]
    (tmp_path / "tables" / "supp-table4.csv").unlink()
    assert command(tmp_path, "supp-table4:small") == 0
    assert [stamps(folder) for folder in training] == before
    assert read_table(tmp_path, "supp-table4") == rows["supp-table4"]
    # Table 1's ResNet-50 is served by the ablations that are there.
    runs = open_runs(["table1"], tmp_path, Options("small", overrides=TINY))
    assert [run.name for run in runs] == ["ablations/all", "imagenet/convnext_base"]
    assert runs[0].serves == ("imagenet/resnet50",)

    # And so are the figures, of the digits.
    assert command(tmp_path, "fig2:small", "fig3:small") == 0
    assert [stamps(folder) for folder in training] == before
    columns = {}
    for figure in ("fig2", "fig3"):
        with Image.open(tmp_path / "figures" / f"{figure}.png") as image:
            columns[figure] = image.width / (1.2 / 1.3 * image.height)
        caption = (tmp_path / "figures" / f"{figure}.md").read_text()
        assert "ablations/all:small; protocol castream (" in caption
        assert rows["supp-table4"][0]["trunk_fingerprint"] in caption
    # The others show the same model and evaluation, of which no part is computed again.
    more = ["fig-depth", "fig-identity", "fig-curves", "fig-placement"]
    parts = [tmp_path / "ablations-all-small" / "evaluation" / kind for kind in ("rows", "predictions")]
    evaluated = [stamps(folder) for folder in parts]
    assert command(tmp_path, *(f"{figure}:small" for figure in more)) == 0
    assert [stamps(folder) for folder in training] == before
    assert [stamps(folder) for folder in parts] == evaluated
    for figure in more:
        for suffix in ("png", "pdf", "md"):
            assert (tmp_path / "figures" / f"{figure}.{suffix}").stat().st_size > 100
        assert "ablations/all:small" in (tmp_path / "figures" / f"{figure}.md").read_text()
    assert columns["fig2"] * 4 / (columns["fig3"] * 8) == pytest.approx(8 / 2, rel=0.1)


def test_a_backbone_is_trained_first_and_an_interruption_continues(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "configs" / "imagenet"
    folder.mkdir(parents=True)
    for name in ("resnet18", "convnext_small"):
        (folder / f"{name}.py").write_text(CONFIG.format(name=name, trains_backbone=name == "convnext_small"))
    workdir = tmp_path / "run"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # Both first trainings and one evaluation done, the last one interrupted.
    evaluations = iter([None])
    from castream_jax.reproduce import run

    evaluate = run.evaluate
    monkeypatch.setattr(run, "evaluate", lambda *a: evaluate(*a) if next(evaluations, 1) is None else interrupted())
    assert command(workdir, "supp-table1:small", configs=folder.parent) == 130
    there = read_table(workdir, "supp-table1")
    assert {row["network"] for row in there if row["ours"]} == {"ResNet-18"}
    backbone = workdir / "imagenet-convnext_small-small-backbone"
    assert (backbone / "export" / "backbone.safetensors").exists()

    monkeypatch.undo()
    before = stamps(backbone / "checkpoints") | stamps(workdir / "imagenet-convnext_small-small" / "checkpoints")
    assert command(workdir, "supp-table1:small", configs=folder.parent) == 0
    after = stamps(backbone / "checkpoints") | stamps(workdir / "imagenet-convnext_small-small" / "checkpoints")
    assert after == before
    rows = read_table(workdir, "supp-table1")
    assert {row["network"] for row in rows if row["ours"]} == {"ResNet-18", "ConvNeXt-S"}
    # Each beside a trunk of its own.
    assert len({row["trunk_fingerprint"] for row in rows}) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table7"], "There is no 'table7' to reproduce: choose from table1, supp-table1"),
        (["table1:tiny"], "There is no form 'tiny' of this experiment: give 'small' or 'sample' after the colon"),
        (["table1", "--configs", "/absent"], "There is no config /absent/imagenet/resnet50.py"),
        (["supp-table4:cifar10", "--data", "/absent"], "'/absent/train' does not exist"),
        (["table1:small", "--config.train.epoch=1"], "did you mean --config.train.epochs=…?"),
    ],
)
def test_mistakes_are_told_in_one_sentence_before_anything_is_made(tmp_path, capsys, arguments, sentence):
    assert main(["reproduce", *arguments, "--workdir", str(tmp_path / "run")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castream:")]
    assert len(lines) == 1
    assert sentence in lines[0]
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path, capsys):
    assert main(["reproduce", "supp-table1:small", "--workdir", str(tmp_path / "run"), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "imagenet/convnext_small:small" in output
    assert "train backbone" in output
    assert "H200" in output
    assert not (tmp_path / "run").exists()


def test_data_is_found_by_its_name_or_is_the_folder_itself(tmp_path: Path):
    def path_of(target: str, form: str = "") -> list[str]:
        runs = open_runs([target], tmp_path / "run", Options(form, str(tmp_path)))
        return [run.main.config.data.path for run in runs]

    assert path_of("supp-table2") == [str(tmp_path)] * 2
    (tmp_path / "cub").mkdir()
    assert path_of("supp-table2") == [str(tmp_path / "cub"), str(tmp_path)]
    assert path_of("table1", "small") == ["", ""]
    (tmp_path / "resnet20-12fca82f.th").touch()
    (run,) = open_runs(["supp-table4"], tmp_path / "run", Options("cifar10", str(tmp_path)))
    assert run.main.config.backbone.weights == str(tmp_path / "resnet20-12fca82f.th")


def test_the_function_takes_several_tables_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match="There is no 'fig9'"):
        reproduce(["table1", "fig9"], tmp_path, Options())
