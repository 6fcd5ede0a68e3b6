"""Pascal VOC and CUB-200-2011 in their public layouts, made of the bundled digits: fine-tune, freeze, stream, evaluate.

The commands are those of configs/voc and configs/cub, on a small backbone.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from sklearn.metrics import average_precision_score

from castream_jax.backbones import fingerprint, load_backbone
from castream_jax.cli import main
from castream_jax.data import Voc
from castream_jax.data.digits import CanvasDigits
from castream_jax.data.voc import CLASS_NAMES
from castream_jax.experiment.config import open_config
from castream_jax.experiment.restore import restore_model

SIDE = 64
ROOT = Path(__file__).parents[2]


def overrides(data: Path) -> list[str]:
    return [
        f"--config.data.path={data}",
        f"--config.data.image_size={SIDE}",
        "--config.data.random_resized_crop=False",
        "--config.data.flip=False",
        "--config.data.num_threads=1",
        "--config.backbone.name=cifar_resnet8",
        "--config.backbone.weights=digits",
        "--config.train.batch_size=20",
        "--config.evaluation.batch_size=20",
        "--config.evaluation.max_images=20",
        "--config.evaluation.sanity_images=8",
        "--config.evaluation.methods=('gradcam','attention')",
    ]


def train_and_evaluate(
    tmp_path: Path, config: str, classes: int, fields: list[str], finetune: list[str], stream: list[str]
) -> Path:
    """Fine-tunes the backbone, trains a stream beside it, evaluates; returns the stream's workdir."""
    backbone, streams = tmp_path / "backbone", tmp_path / "streams"
    file = str(ROOT / "configs" / config)
    fields = [*fields, f"--config.backbone.num_classes={classes}"]
    assert main(["train", "--config", f"{file}:backbone", "--workdir", str(backbone), *fields, *finetune]) == 0
    frozen = f"--config.backbone.weights={backbone / 'export' / 'backbone.safetensors'}"
    assert main(["train", "--config", file, "--workdir", str(streams), *fields, *stream, frozen]) == 0
    assert main(["evaluate", "--workdir", str(streams)]) == 0
    trunk = fingerprint(
        load_backbone("cifar_resnet8", backbone / "export" / "backbone.safetensors", num_classes=classes)
    )
    summary = json.loads((streams / "evaluation" / "summary.json").read_text())
    assert summary["trunk_fingerprint"] == trunk
    assert (streams / "report" / "index.html").exists()
    return streams


@pytest.mark.slow
def test_voc_from_fine_tuning_to_mean_average_precision(tmp_path, write, pascal_xml):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    for split, count in (("train", 200), ("val", 60)):
        digits = CanvasDigits("train" if split == "train" else "test", 1, canvas_size=SIDE)
        stems = [f"{split}_{i:06}" for i in range(count)]
        for i, stem in enumerate(stems):
            pair = [digits[2 * i], digits[2 * i + 1]] if 2 * i + 1 < len(digits) else [digits[i]]
            Image.fromarray(np.concatenate([item["pixels"] for item in pair], 1)).save(
                root / "JPEGImages" / f"{stem}.jpg", quality=95
            )
            # The second digit of every fifth image is difficult.
            objects = [
                (CLASS_NAMES[item["label"]], int(n == 1 and i % 5 == 0), 1 + SIDE * n, 1, SIDE * (n + 1), SIDE)
                for n, item in enumerate(pair)
            ]
            write(root / "Annotations" / f"{stem}.xml", pascal_xml(*objects))
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))

    workdir = train_and_evaluate(
        tmp_path,
        "voc/resnet50.py",
        20,
        [
            *overrides(tmp_path),
            *(f"--config.evaluation.{field}" for field in ("baselines=False", "sanity_images=0", "max_images=4")),
        ],
        ["--config.train.epochs=6", "--config.optimizer.learning_rate=0.2"],
        ["--config.train.epochs=4", "--config.optimizer.learning_rate=0.5"],
    )
    summary = json.loads((workdir / "evaluation" / "summary.json").read_text())
    model = restore_model(open_config(workdir / "config.json"), workdir)
    source = Voc(tmp_path, "val")
    pixels = [np.asarray(Image.fromarray(source[i]["pixels"]).resize((SIDE, SIDE), 2)) for i in range(len(source))]
    logits = model(jnp.asarray(np.stack(pixels), jnp.float32) / 255)
    records = [source.open(i) for i in range(len(source))]
    targets, counted = (np.stack([record[key] for record in records]) > 0 for key in ("target", "target_mask"))
    assert not counted.all()
    for head, scores in logits.items():
        expected = [
            average_precision_score(targets[here, k], np.asarray(scores)[here, k])
            for k, here in enumerate(counted.T)
            if targets[here, k].any()
        ]
        entry = summary["heads"][head]
        # 1e-3: pairs of images of nearly equal scores may change places, being computed in batches of another size.
        assert entry["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert summary["heads"]["gap"]["mean_average_precision"] > 0.4, "a random ranking has 0.19"
    low, high = summary["heads"]["ca"]["difference"]["intervals"]["mean_average_precision"]
    assert low < summary["heads"]["ca"]["difference"]["mean_average_precision"] < high


@pytest.mark.slow
def test_cub_from_fine_tuning_to_maps(tmp_path, write):
    root = tmp_path / "CUB_200_2011"
    names, labels, splits, boxes = [], [], [], []
    for split in ("train", "test"):
        digits = CanvasDigits(split, 1, canvas_size=SIDE)
        for i in range(200 if split == "train" else 80):
            label = int(digits[i]["label"])
            name = f"{label + 1:03}.Digit_{label}/{split}_{i:04}.jpg"
            (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits[i]["pixels"]).save(root / "images" / name, quality=95)
            names.append(name)
            labels.append(label + 1)
            splits.append(int(split == "train"))
            boxes.append("4.0 4.0 20.0 20.0")
    for file, column in (
        ("images", names),
        ("image_class_labels", labels),
        ("train_test_split", splits),
        ("bounding_boxes", boxes),
    ):
        write(root / f"{file}.txt", "".join(f"{i} {value}\n" for i, value in enumerate(column, 1)))
    write(root / "classes.txt", "".join(f"{k} {k:03}.Digit_{k - 1}\n" for k in range(1, 11)))

    workdir = train_and_evaluate(
        tmp_path,
        "cub/resnet50.py",
        10,
        overrides(tmp_path),
        ["--config.train.epochs=4", "--config.optimizer.learning_rate=0.02"],
        ["--config.train.epochs=4", "--config.optimizer.learning_rate=0.02"],
    )
    summary = json.loads((workdir / "evaluation" / "summary.json").read_text())
    assert summary["accuracy_images"] == 80
    assert min(entry["accuracy"] for entry in summary["heads"].values()) > 0.4
    # The baselines are in every table, one map for all heads: that of ones shows the image itself.
    ones = [entry for entry in summary["metrics"] if entry["method"] == "ones"]
    assert {entry["head"] for entry in ones} == {"gap", "ca"}
    assert {(entry["AD"], entry["AG"], entry["AI"]) for entry in ones} == {(0.0, 0.0, 0.0)}
    assert {entry["method"] for entry in summary["metrics"]} == {"gradcam", "attention", "random", "centre", "ones"}
    # So is the sanity check, of the methods that read weights.
    rows = summary["sanity"]
    assert {row["method"] for row in rows} == {"gradcam", "attention"}
    correlation = {(r["randomised"], r["head"], r["method"]): r["rank_correlation"] for r in rows}
    assert correlation["nothing", "ca", "attention"] == pytest.approx(1)
    assert correlation["S0", "ca", "attention"] < 0.9
