"""Mistakes that people make, through the command line and from Python, and the sentence that each gets.

python tests/bad_inputs.py            prints the table of docs/mistakes.md
python tests/bad_inputs.py --write    puts it there

`tests/test_bad_inputs.py` holds the page to what is said today, and the workdir to what it was before.
"""

from collections.abc import Callable, Iterator
import contextlib
import io
import os
from pathlib import Path
import re
import shlex
import shutil
import sys
import tempfile
from typing import Any

from flax import nnx
import numpy as np
from PIL import Image
import safetensors.numpy

import castream_jax as castream
from castream_jax.backbones import save_torch_weights, torch_state_dict
from castream_jax.cli import main
from castream_jax.experiment.config import base_config
from castream_jax.training import train

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
MARK = "<!-- python tests/bad_inputs.py --write -->"

# Commands, run in the folder that `make_inputs` fills.
COMMANDS = (
    "explain photo.png --model resnet5O",
    "explain photo.png --model nowhere/workdir",
    "explain photo.png --model photos",
    "explain photo.png --model https://example.org/model",
    "explain absent.png --model run",
    "explain text.jpg --model run",
    "explain truncated.jpg --model run",
    "explain empty.jpg --model run",
    "explain deep.tif --model run",
    "explain 'photos/*.webp' --model run",
    "explain https://example.org/cat.jpg --model run",
    "explain photo.png --model run --methods gradcamm",
    "explain photo.png --model run --methods attention:9",
    "explain photo.png --model run --head cb",
    "explain photo.png --model run --class zebra",
    "explain photo.png --model run --class 12",
    "explain photo.png --model run --protocol castrem",
    "explain photo.png --model run --weights trunk.safetensors",
    "explain photo.png --model run --batch-size 0",
    "explain photo.png --model run --import absent.py",
    "explain photo.png --model run --import broken.py",
    "explain photo.png --model run --import leaving.py",
    "explain photo.png --model run --image-size 3",
    "explain photo.png --model cifar_resnet8 --weights absent.pth",
    "explain photo.png --model cifar_resnet8 --weights nan.safetensors",
    "explain photo.png --model cifar_resnet8 --weights other.safetensors",
    "explain photo.png --model cifar_resnet8 --weights text.pth",
    "train --workdir new --config absent.py",
    "train --workdir new --config broken.py",
    "train --workdir new --config unknown_field.py",
    "train --workdir new --config wrong_type.py",
    "train --workdir new --config flat.py",
    "train --workdir new --config nothing.py",
    "train --workdir new --config good.py --config.data.validation_split=train --config.train.validate_every=1",
    "train --workdir new --config good.py --config.train.epoch=3",
    "train --workdir new --config good.py --config.streams.ca.depth=3",
    "train --workdir new --config good.py --config.streams=3",
    "train --workdir new --config good.py --config.evaluation.methods=gradcamm",
    "train --workdir new --config good.py --config.evaluation.max_images=-5",
    "train --print-config",
    "train --workdir new --config good.py --config.train.epochs=many",
    "train --workdir new --config good.py --config.train.batch_size=0",
    "train --workdir new --config good.py --config.optimizer.learning_rate=-1",
    "train --workdir new --config good.py --config.train.loss=binary_cross_entropy --config.train.accumulate=7",
    "train --workdir new --config good.py --config.optimizer.schedule=linear",
    "train --workdir new --config good.py --config.train.loss=binary_cross_entropy",
    "train --workdir new --config good.py --config.train.validate_on=tset",
    "train --workdir new --config good.py --config.train.validate_on=validation",
    "train --workdir new --config good.py --config.data.validation_fraction=2",
    "train --workdir new --config good.py --config.backbone.num_classes=11",
    "train --workdir new --config good.py --config.backbone.weights=",
    "train --workdir new --config good.py --config.data.image_size=1",
    "train --workdir run --config good.py --config.optimizer.learning_rate=0.5",
    "train --workdir photo.png --config good.py",
    "evaluate --workdir nowhere",
    "evaluate --workdir run --config.evaluation.methods=\"('gradcamm',)\"",
    "evaluate --workdir run --config.evaluation.protocol=castrem",
    "evaluate --workdir run --config.evaluation.batch_size=0",
    "evaluate --workdir run --config.evaluation.checkpoint=best",
    "report --workdir run",
    "report --workdir run --epochs 3",
    "report --workdir run/evaluation",
    "report --workdir photos",
    "report --workdir run --compare photos",
    "export --workdir nowhere --to safetensors --out new",
    "export --workdir run --to safetensors --out photos",
    "export run --to safetensors --out new",
    "convert trunk.safetensors --arch resnet18 --out new.safetensors",
    "convert trunk.safetensors --arch cifar_resnet8 --out new.pth",
    "data check image_folder --path photos/flat",
    "data check image_folder --path photos --threads 0",
    "data check image_floder --path photos",
    "data check prepared --path photos",
    "data prepare image_folder --path photos --out prepared --quality 0",
    "protocol diff castream castrem",
    "reproduce table9 --workdir new",
)


def make_inputs(folder: Path) -> None:
    """What the commands name: images, weights, configs and, in `run`, a trained workdir."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    photo.save(folder / "photo.png")
    (folder / "photos" / "flat").mkdir(parents=True)
    for number in range(3):
        photo.save(folder / "photos" / "flat" / f"{number}.png")
    (folder / "text.jpg").write_text("this is no image")
    (folder / "empty.jpg").touch()
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG")
    (folder / "truncated.jpg").write_bytes(encoded.getvalue()[:400])
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "deep.tif")
    (folder / "text.pth").write_text("this is no checkpoint")

    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(7))
    save_torch_weights(backbone, folder / "trunk.safetensors")
    weights = {name: np.array(value) for name, value in torch_state_dict(backbone).items()}
    others = {f"encoder.layers.{number}.attention.weight": np.zeros((2, 2), np.float32) for number in range(9)}
    safetensors.numpy.save_file(others, folder / "other.safetensors")
    weights["conv1.weight"][0] = np.nan
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / "nan.safetensors"
    )

    config = base_config()
    config.data.update(source="digits", image_size=32, resize="none", flip=False)
    config.backbone.update(name="cifar_resnet8", weights="trunk.safetensors", num_classes=10)
    config.train.update(epochs=1, batch_size=120)
    (folder / "good.json").write_text(config.to_json())
    head = "from castream_jax.experiment.config import open_config\n\n\n"
    head += "def get_config():\n    c = open_config('good.json')\n"
    for name, line in {
        "good": "",
        "unknown_field": "    c.train.epoch = 3\n",
        "wrong_type": "    c.train.epochs = 'many'\n",
        "flat": "    c.data.update(source='image_folder', path='photos/flat')\n",
    }.items():
        (folder / f"{name}.py").write_text(f"{head}{line}    return c\n")
    (folder / "nothing.py").write_text("def get_config():\n    pass\n")
    (folder / "leaving.py").write_text("import sys\n\nsys.exit(0)\n")
    (folder / "broken.py").write_text("def get_config(:\n    pass\n")
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()):
        train(config, "run")


def said(command: str) -> tuple[int, str]:
    """Exit status of a command, and what it says on stderr, without progress."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(shlex.split(command))
        except SystemExit as error:  # argparse
            status = error.code if isinstance(error.code, int) else 1
    lines = [line for line in stderr.getvalue().splitlines() if line.startswith("castream")]
    return status, " ".join(line.partition(": ")[2] for line in lines)


def calls(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls from Python, as they are written, and the functions that make them."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    pixels, labels = np.full((2, 16, 16, 3), 0.5, np.float32), np.zeros(2, np.int32)
    maps = {("gap", "gradcam"): np.full((2, 4, 4), 0.5, np.float32)}
    unregistered = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(0))
    unregistered.name = "mine"
    names: dict[str, Any] = {
        "unregistered": unregistered,
        "castream": castream,
        "nnx": nnx,
        "np": np,
        "backbone": backbone,
        "model": model,
        "pixels": pixels,
        "labels": labels,
        "maps": maps,
        "photo": folder / "photo.png",
    }
    for text in (
        "castream.attribute(model, 255 * pixels, labels)",
        "castream.attribute(model, pixels * np.nan, labels)",
        "castream.attribute(model, pixels[0], labels[:1])",
        "castream.attribute(model, pixels[:0], labels[:0])",
        "castream.attribute(model, pixels.tolist(), labels)",
        "castream.attribute(model, (255 * pixels).astype(np.uint8), labels)",
        "castream.attribute(model, pixels, [3.7, 1])",
        "castream.attribute(model, pixels, [True, False])",
        "castream.attribute(model, pixels, [0, 10])",
        "castream.attribute(model, pixels, labels, methods='gradcam')",
        "castream.attribute(model, pixels, labels, methods=('attention',))",
        "castream.score(model, pixels, labels, {'gap': maps['gap', 'gradcam']})",
        "castream.score(model, pixels, labels, {('ca', 'gradcam'): maps['gap', 'gradcam']})",
        "castream.score(model, pixels, labels, {key: 200 * map for key, map in maps.items()})",
        "castream.score(model, pixels, labels, maps, metrics=('A',))",
        "castream.score(model, pixels, labels, {('gap', 'own'): np.ones((2, 0, 4))})",
        "castream.score(model, pixels, labels, {('gap', 'own'): np.ones((2, 4, 4), complex)})",
        "castream.explain(model, pixels)",
        "castream.explain(model, photo, label=3.7)",
        "castream.explain(model, photo).predictions('ca')",
        "castream.explain(model, photo).predictions('gap', -1)",
        "castream.load_pretrained(photo.parent / 'run')",
        "castream.explain(model, photo, heads='gap')",
        "castream.explain_many(model, photo)",
        "castream.create_backbone('resnet5O', rngs=nnx.Rngs(0))",
        "castream.create_backbone('resnet50', 0, rngs=nnx.Rngs(0))",
        "castream.load_torch_state_dict(backbone, {})",
        "castream.CrossAttentionStream((64, 128), start_stage=2, rngs=nnx.Rngs(0))",
        "castream.CrossAttentionStream((64, 128), num_heads=3, rngs=nnx.Rngs(0))",
        "castream.Model(backbone, {})",
        "castream.Model(backbone, {'own': nnx.Linear(2, 2, rngs=nnx.Rngs(0))})",
        "castream.save_backbone(unregistered, photo.parent / 'saved')",
        "castream.save_pretrained(castream.Model(unregistered, dict(model.heads)), photo.parent / 'saved')",
        "castream.Protocol('mine', target_stage='layer4')",
        "castream.get_protocol('castrem')",
    ):
        yield text, lambda text=text: eval(text, dict(names))


def table(folder: Path) -> Iterator[tuple[str, str]]:
    """(input, what is said), the folder's name left out."""

    def clean(text: str) -> str:
        text = text.replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), "FOLDER")
        return re.sub(r"\s+", " ", text)

    with contextlib.chdir(folder):
        for command in COMMANDS:
            status, text = said(command)
            yield f"castream {command}", clean(text) if status == 2 else f"exit status {status}: {clean(text)}"
        for text, call in calls(folder):
            try:
                call()
            except (ValueError, TypeError, FileNotFoundError) as error:
                yield text, clean(str(error))
            else:
                yield text, "nothing"


def contents(workdir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}


def page_with(rows: list[tuple[str, str]]) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    before = PAGE.read_text().partition(MARK)[0]
    lines = ["| Input | What is said |", "|---|---|", *(f"| `{cell(given)}` | {cell(text)} |" for given, text in rows)]
    return before + "\n".join([MARK, "", *lines, ""])


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    os.environ.setdefault("CASTREAM_CACHE", str(place / "cache"))
    make_inputs(place)
    found = list(table(place))
    shutil.rmtree(place)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with(found))
    else:
        for given, text in found:
            print(f"{given}\n    {text}")
