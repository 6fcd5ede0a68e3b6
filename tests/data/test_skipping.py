"""`data.on_error = "skip"` from the command line: a damaged image is reported and counted in no mean."""

import json
from pathlib import Path

from PIL import Image
import pyarrow.parquet as pq
import pytest

from castream_jax.cli import main

CONFIG = str(Path(__file__).parents[2] / "configs" / "cifar10" / "resnet20.py")


@pytest.mark.slow
def test_damaged_images_are_reported_and_counted_nowhere(tmp_path, resnet8_weights, capsys):
    for split in ("train", "test"):
        for label in range(10):
            folder = tmp_path / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (32, 32), (20 * label, 100, 50 * number)).save(folder / f"{number}.png")
    for split in ("train", "test"):
        (tmp_path / "images" / split / "class3" / "0.png").write_bytes(b"broken")
    fields = [f"--config.data.path={tmp_path / 'images'}", f"--config.backbone.weights={resnet8_weights}"]
    fields += ["--config.backbone.name=cifar_resnet8", "--config.train.batch_size=8", "--config.train.epochs=1"]
    fields += ["--config.evaluation.batch_size=8", "--config.data.on_error=skip"]
    fields += [f"--config.evaluation.{field}" for field in ("methods=gradcam,", "baselines=False", "sanity_images=0")]
    command = ["--config", CONFIG, "--workdir", str(tmp_path / "run"), *fields]

    assert main(["train", *command]) == 0
    errors = capsys.readouterr().err
    assert "1 unreadable image was skipped: train/class3/0.png" in errors
    assert main(["evaluate", *command]) == 0
    errors = capsys.readouterr().err
    assert "1 unreadable image was skipped: test/class3/0.png" in errors
    summary = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())
    assert (summary["accuracy_images"], summary["images"], summary["unreadable_images"]) == (19, 19, 1)
    rows = pq.read_table(tmp_path / "run" / "evaluation" / "rows").to_pylist()
    assert {row["name"] for row in rows} == {
        f"test/class{label}/{number}.png" for label in range(10) for number in range(2)
    } - {"test/class3/0.png"}
    for head, values in summary["heads"].items():
        correct = {row["index"]: row["prediction"] == row["label"] for row in rows if row["head"] == head}
        assert values["accuracy"] == pytest.approx(sum(correct.values()) / 19)
