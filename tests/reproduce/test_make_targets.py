"""`castream reproduce` from end to end, on small configs; what an interruption leaves; what is refused."""

import csv
from pathlib import Path
import shutil

from PIL import Image
import pytest

from castream_jax.cli import main
from castream_jax.reproduce.make_targets import reproduce
from castream_jax.reproduce.needed_runs import Options, open_runs

# Small enough for tests, whatever the config; four devices.
TINY = [
    "--config.data.image_size=32",
    "--config.data.canvases_per_digit=1",
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
from castream_jax.experiment.quickstart import get_config as digits

def get_config(form=""):
    config = digits()
    config.name = "{name}, " + form
    config.backbone.weights = ""
    if form == "backbone":
        config.train.target = "backbone"
        config.optimizer.learning_rate = 0.05 if "{name}" == "cub" else 0.04
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


ABLATIONS = ("supp-table3", "supp-table4", "supp-table5")


@pytest.fixture(scope="module")
def ablations(once) -> Path:
    """The ablations' tables, reproduced on digits by one command; to read."""

    def make(path: Path) -> None:
        assert command(path, *(f"{table}:small" for table in ABLATIONS)) == 0

    return once("ablations", make)


@pytest.fixture
def ablations_copy(ablations: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ablations, tmp_path / "ablations"))


def training_stamps(workdir: Path) -> list[dict[str, int]]:
    return [stamps(workdir / "ablations-all-small" / part) for part in ("checkpoints", "config.json")]


@pytest.mark.slow
def test_the_tables_of_the_ablations_are_one_run(ablations: Path):
    assert sorted(path.name for path in ablations.iterdir()) == ["ablations-all-small", "tables"]
    written = {path.name for path in (ablations / "tables").iterdir()}
    assert written == {f"{table}.{kind}" for table in ABLATIONS for kind in ("md", "html", "tex", "csv")}
    rows = [row for table in ABLATIONS for row in read_table(ablations, table)]
    measured = {row["head"] for row in rows if row["ours"]}
    assert measured == {"ca", "proj_ca", "from_s1", "from_s2", "from_s3", "class_specific"}


@pytest.mark.slow
def test_the_tables_count_the_parameters_of_each_stream(ablations: Path):
    # Streams over the 16, 16, 32 and 64 channels of ResNet-8, and 9 more CLS tokens of 16.
    rows = {table: read_table(ablations, table) for table in ABLATIONS}
    counts = {row["label"]: row["ours"] for row in rows["supp-table4"] if row["quantity"] == "parameters"}
    assert counts == {"S0–S4": "7104", "S1–S4": "6832", "S2–S4": "6304", "S3–S4": "4224", "S4–S4": ""}
    specific, agnostic = (
        int(row["ours"]) for head in ("class_specific", "ca") for row in rows["supp-table5"]
        if row["head"] == head and row["quantity"] == "parameters"
    )  # fmt: skip
    assert (specific - agnostic, agnostic) == (9 * 16, 75_290 + 7_104)


@pytest.mark.slow
def test_results_on_digits_stand_beside_the_paper_for_orientation_only(ablations: Path):
    assert {row["comparable"] for table in ABLATIONS for row in read_table(ablations, table)} == {"False"}
    text = (ablations / "tables" / "supp-table4.md").read_text()
    assert "for orientation only" in text
    assert "ablations/all:small --config.data.image_size=32" in text


@pytest.mark.slow
def test_a_table_is_made_again_without_training(ablations_copy: Path, capsys):
    before, rows = training_stamps(ablations_copy), read_table(ablations_copy, "supp-table4")
    for path in (ablations_copy / "tables").iterdir():
        path.unlink()
    assert command(ablations_copy, "supp-table4:small") == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [ablations_copy / "tables" / f"supp-table4.{kind}" for kind in ("md", "html", "tex", "csv")]
    assert training_stamps(ablations_copy) == before
    assert read_table(ablations_copy, "supp-table4") == rows


@pytest.mark.slow
def test_the_ablations_serve_table_1(ablations: Path):
    runs = open_runs(["table1"], ablations, Options("small", overrides=TINY))
    assert [run.name for run in runs] == ["ablations/all"]  # there is no small ConvNeXt
    assert runs[0].serves == ("imagenet/resnet50",)


@pytest.mark.slow
def test_galleries_are_of_the_same_run(ablations_copy: Path):
    before = training_stamps(ablations_copy)
    assert command(ablations_copy, "fig2:small", "fig3:small") == 0
    assert training_stamps(ablations_copy) == before
    columns = {}
    for figure in ("fig2", "fig3"):
        with Image.open(ablations_copy / "figures" / f"{figure}.png") as image:
            columns[figure] = image.width / (1.2 / 1.3 * image.height)
        caption = (ablations_copy / "figures" / f"{figure}.md").read_text()
        assert "ablations/all:small; protocol castream (" in caption
        assert read_table(ablations_copy, "supp-table4")[0]["trunk_fingerprint"] in caption
    assert columns["fig2"] * 4 / (columns["fig3"] * 8) == pytest.approx(8 / 2, rel=0.1)


@pytest.mark.slow
def test_plots_compute_no_part_of_the_evaluation_again(ablations_copy: Path):
    figures = ["fig-depth", "fig-identity", "fig-curves", "fig-placement"]
    parts = [ablations_copy / "ablations-all-small" / "evaluation" / kind for kind in ("rows", "predictions")]
    training, evaluated = training_stamps(ablations_copy), [stamps(folder) for folder in parts]
    assert command(ablations_copy, *(f"{figure}:small" for figure in figures)) == 0
    assert training_stamps(ablations_copy) == training
    assert [stamps(folder) for folder in parts] == evaluated
    for figure in figures:
        for suffix in ("png", "pdf", "md"):
            assert (ablations_copy / "figures" / f"{figure}.{suffix}").stat().st_size > 100
        assert "ablations/all:small" in (ablations_copy / "figures" / f"{figure}.md").read_text()


@pytest.mark.slow
def test_a_backbone_is_trained_first_and_an_interruption_continues(tmp_path: Path, monkeypatch, capsys):
    for name in ("cub", "voc"):
        (tmp_path / "configs" / name).mkdir(parents=True)
        (tmp_path / "configs" / name / "resnet50.py").write_text(CONFIG.format(name=name))
    workdir = tmp_path / "run"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # All trainings and one evaluation done, the last one interrupted.
    evaluations = iter([None])
    from castream_jax.reproduce import make_targets

    evaluate = make_targets.evaluate
    monkeypatch.setattr(
        make_targets, "evaluate", lambda *a: evaluate(*a) if next(evaluations, 1) is None else interrupted()
    )
    assert command(workdir, "supp-table2", configs=tmp_path / "configs") == 130
    there = read_table(workdir, "supp-table2")
    assert {row["dataset"] for row in there if row["ours"]} == {"CUB-200-2011"}
    backbone = workdir / "voc-resnet50-backbone"
    assert (backbone / "export" / "backbone.safetensors").exists()

    monkeypatch.undo()
    before = stamps(backbone / "checkpoints") | stamps(workdir / "voc-resnet50" / "checkpoints")
    assert command(workdir, "supp-table2", configs=tmp_path / "configs") == 0
    after = stamps(backbone / "checkpoints") | stamps(workdir / "voc-resnet50" / "checkpoints")
    assert after == before
    rows = read_table(workdir, "supp-table2")
    assert {row["dataset"] for row in rows if row["ours"]} == {"CUB-200-2011", "Pascal VOC 2012"}
    # Each beside a trunk of its own.
    assert len({row["trunk_fingerprint"] for row in rows}) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table7"], "There is no 'table7' to reproduce: choose from table1, supp-table1"),
        (["table1:tiny"], "There is no form 'tiny' of this experiment: give 'small' or 'sample' after the colon"),
        (["table1:sample", "supp-table2:sample"], "supp-table2 has no form 'sample': give another after the colon"),
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
    assert "imagenet/resnet18:small" in output
    assert "imagenet/convnext" not in output  # there is no small one
    assert "H200" in output
    assert main(["reproduce", "supp-table2", "--workdir", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "train backbone" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_data_is_found_by_its_name_or_is_the_folder_itself(tmp_path: Path):
    def path_of(target: str, form: str = "") -> list[str]:
        runs = open_runs([target], tmp_path / "run", Options(form, str(tmp_path)))
        return [run.main.config.data.path for run in runs]

    assert path_of("supp-table2") == [str(tmp_path)] * 2
    (tmp_path / "cub").mkdir()
    assert path_of("supp-table2") == [str(tmp_path / "cub"), str(tmp_path)]
    assert path_of("supp-table2", "small") == ["", ""]
    (tmp_path / "resnet20-12fca82f.th").touch()
    (run,) = open_runs(["supp-table4"], tmp_path / "run", Options("cifar10", str(tmp_path)))
    assert run.main.config.backbone.weights == str(tmp_path / "resnet20-12fca82f.th")


def test_the_function_takes_several_tables_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match="There is no 'fig9'"):
        reproduce(["table1", "fig9"], tmp_path, Options())
