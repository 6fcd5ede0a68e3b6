"""Decoding and transforming images: images per second and core, beside a PyTorch loader on Pillow doing the same work.

    python benchmarks/data_pipeline.py [--path IMAGENET] [--split val] [--step resnet50] [--quick]

IMAGENET is a folder as `--config.data.source=imagenet` reads it; by default, 250 crops of 500 x 375 pixels, as large as
ImageNet's images, of two photographs that scikit-learn has. What is counted is processor time, of all threads and
worker processes together, so that images per second are images per second and core, and other load on the machine
matters little. The loaders take turns, A B C A B C …; medians and their ratios to PyTorch's are printed as one JSON
object.

Both sides hand over batches: PyTorch's are float32, normalised, on the host (torchvision's reference transforms, and
`DataLoader` in the same process, which spares it the worker's copies, and with one worker, as it is used); ours are
uint8, which the device normalises. "draft" decodes large JPEGs at a fraction of their size. Its deviation from exact
decoding is printed as the mean and the largest difference of pixel values, of 255.

"prepared" reads what `castream data prepare` makes of these images, at side 256 and quality 90: decoded alone, with the
host's random crops, and as the device wants them that crops itself. `ratio_to_raw` is to the host's random crops of the
images as they are; the loader's own cost is what its batches take beside decoding.

`--step` measures something else, on the device JAX uses and all cores: the share of a training step (streams beside the
named frozen backbone) that is spent waiting for data.
"""

# PyTorch is for comparison, where it is installed.
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

import argparse
from collections.abc import Callable, Iterable, Sequence
import itertools
import os
from pathlib import Path
import resource
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from PIL import features
import PIL.Image
from program import finish, new_parser, parse
from sklearn.datasets import load_sample_image

from castream_jax.data import (
    BrightnessJitter,
    ImageNet,
    RandomFlip,
    RandomResizedCrop,
    Squash,
    Subset,
    eval_loader,
    train_loader,
)
from castream_jax.data.decode import Decoding
from castream_jax.data.jpeg import simplejpeg
from castream_jax.data.prepare import Split, prepare
from castream_jax.data.prepared_images import JpegForm, PreparedImage
from castream_jax.data.prepared_source import PreparedSource
from castream_jax.data.reader import Transform
from castream_jax.data.source import Source
from castream_jax.data.transforms import IntoSquare
from castream_jax.runtime.cpu import prepare_cpu

try:
    from pytorch_models import torch, torchvision
except ModuleNotFoundError:
    torch = torchvision = None

SIZE, SIDE, BATCH = 224, 256, 50
REPEATS = 8  # of each prepared image in a round
MANY_REPEATS = 200  # where shuffling counts: for few thousand records, grain takes twice as long for each


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--path")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=250, help="images per round and loader")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="threads that build our batches")
    parser.add_argument("--step", metavar="BACKBONE", help="measure the share of a training step spent waiting")
    parser.add_argument("--steps", type=int, default=20, help="training steps, with --step")
    parser.add_argument("--step-batch", type=int, default=BATCH, help="batch size, with --step")
    parser.add_argument("--workers", type=int, default=0, help="worker processes, with --step")
    arguments = parse(parser, images=BATCH, rounds=1, steps=2, step_batch=4)
    with tempfile.TemporaryDirectory() as temporary:
        path = arguments.path or write_photographs(Path(temporary), arguments.split, arguments.images)
        finish(measure(ImageNet(path, arguments.split), arguments))


def measure(source: ImageNet, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.step:
        return waiting_share(source, arguments)
    return {
        "evaluation (squash)": compare(source, arguments, train=False, draft=False),
        "evaluation (squash), draft": compare(source, arguments, train=False, draft=True),
        "training (random crop, flip, brightness)": compare(source, arguments, train=True, draft=False),
        "training, draft": compare(source, arguments, train=True, draft=True),
        "prepared (random crop, flip, brightness)": compare_prepared(source, arguments),
        "pillow": PIL.__version__,
        "simplejpeg": None if simplejpeg is None else simplejpeg.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "torch": None if torch is None else torch.__version__,
    }


def compare_prepared(source: ImageNet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images per second of processor time from files as they are and from prepared ones, cropped by host or device."""
    with tempfile.TemporaryDirectory() as temporary:
        count = min(arguments.images, len(source))
        batch = min(BATCH, count)
        images = Subset(source, range(count))
        prepare({"train": Split(images, JpegForm(SIDE, 90))}, Path(temporary), origin={})
        small = PreparedSource(temporary, "train")
        files = [small.open(index)["pixels"].stored() for index in range(count)]
        on_device = [IntoSquare(SIDE)]

        def batches(source: Source, repeats: int, chain: Sequence[Transform], numbered: bool = False) -> Iterable[Any]:
            # All of them, to the last batch, or threads would work for a loader that nobody reads any more.
            records = Subset(source, np.resize(np.arange(count), repeats * count))
            options: dict[str, Any] = {"batch_size": batch, "transforms": chain, "num_threads": arguments.threads}
            return train_loader(records, num_epochs=1, seed=0, numbered=numbered, **options)

        def decoded() -> Iterable[Any]:
            for file in REPEATS * files:
                yield [PreparedImage(file, "", (SIDE, SIDE), (SIDE, SIDE), Decoding()).pixels()], None

        sides: dict[str, Callable[[], Iterable[Any]]] = {
            "raw": lambda: batches(images, 1, transforms(True, False)),
            "prepared": lambda: batches(small, REPEATS, transforms(True, False)),
            "prepared_cropped_on_device": lambda: batches(small, MANY_REPEATS, on_device, numbered=True),
            "prepared_decoding_alone": decoded,
        }
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.rounds + 1):  # the first is for the file cache
            for side, each in sides.items():
                rates[side].append(consume(each()))
    median = {side: statistics.median(values[1:]) for side, values in rates.items()}
    result: dict[str, Any] = {f"{side}_images_per_second": round(value, 1) for side, value in median.items()}
    for side in ("prepared", "prepared_cropped_on_device"):
        result[f"ratio_to_raw_of_{side}"] = round(median[side] / median["raw"], 3)
    decoding, loading = median["prepared_decoding_alone"], median["prepared_cropped_on_device"]
    return result | {"loader_own_cost_of_decoding": round(decoding / loading - 1, 3)}


def write_photographs(root: Path, split: str, count: int) -> Path:
    """An ImageNet folder of random crops."""
    folder = root / split / "n01440764"
    folder.mkdir(parents=True)
    photographs = [PIL.Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    for number in range(count):
        left, top = rng.integers(0, (140, 52))
        crop = photographs[number % 2].crop((left, top, left + 500, top + 375))
        crop.save(folder / f"{number:04}.JPEG", quality=95)
    return root


def compare(source: ImageNet, arguments: argparse.Namespace, *, train: bool, draft: bool) -> dict[str, Any]:
    """Images per second of processor time of each loader, the ratios to PyTorch's, and what draft decoding changes."""
    count = min(arguments.images, len(source))
    batch = min(BATCH, count)
    sides: dict[str, Callable[[], Iterable[Any]]] = {
        "ours": lambda: our_batches(source, transforms(train, draft), count, batch, train, arguments.threads)
    }
    if torchvision is not None:
        sides["torch_in_process"] = lambda: torch_batches(source, count, batch, train, 0)
        sides["torch_one_worker"] = lambda: torch_batches(source, count, batch, train, 1)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:  # once for the file cache
        consume(sides[side]())
    for _ in range(arguments.rounds):
        for side, batches in sides.items():
            rates[side].append(consume(batches()))
    median = {side: statistics.median(values) for side, values in rates.items()}
    result: dict[str, Any] = {f"{side}_images_per_second": round(value, 1) for side, value in median.items()}
    for side in median.keys() - {"ours"}:
        result[f"ratio_to_{side}"] = round(median["ours"] / median[side], 3)
    if draft:
        result["deviation"] = deviation(source, count, train)
    return result


def consume(batches: Iterable[Any]) -> float:
    """Images per second of processor time."""
    begin = processor_seconds()
    images = sum(map(number_of_images, batches))
    return images / (processor_seconds() - begin)


def number_of_images(batch: Any) -> int:
    """Of a batch of ours, without padding, or of PyTorch's."""
    if not isinstance(batch, dict):
        return len(batch[0])
    return int(batch["mask"].sum()) if "mask" in batch else len(batch["pixels"])


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def transforms(train: bool, draft: bool) -> Sequence[Transform]:
    if train:
        return [RandomResizedCrop(SIZE, draft=draft), RandomFlip(), BrightnessJitter(0.4)]
    return [Squash(SIZE, draft)]


def our_batches(
    source: ImageNet, chain: Sequence[Transform], count: int, batch: int, train: bool, threads: int
) -> Iterable[dict[str, np.ndarray]]:
    options: dict[str, Any] = {"batch_size": batch, "transforms": chain, "num_threads": threads}
    if train:
        return itertools.islice(train_loader(source, num_epochs=1, seed=0, **options), count // batch)
    return eval_loader(source, limit=count, **options)


def torch_batches(source: ImageNet, count: int, batch: int, train: bool, workers: int) -> Iterable[Any]:
    assert torch is not None
    assert torchvision is not None
    torch.set_num_threads(1)
    t = torchvision.transforms
    steps: list[Any] = [t.Resize((SIZE, SIZE))]
    if train:
        steps = [t.RandomResizedCrop(SIZE), t.RandomHorizontalFlip(), t.ColorJitter(brightness=0.4)]
    normalise = t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    files = [str(source.root / file) for file in source.files[:count]]
    dataset: Any = TorchFiles(files, t.Compose([*steps, t.ToTensor(), normalise]))
    return torch.utils.data.DataLoader(dataset, batch, num_workers=workers)


class TorchFiles:
    """A dataset as PyTorch's users write it."""

    def __init__(self, files: list[str], transform: Callable[[Any], Any]):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with PIL.Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), 0


def deviation(source: ImageNet, count: int, train: bool) -> dict[str, float]:
    """How far pixels are from those of exact decoding, and the share of images that were decoded smaller at all."""
    exact, coarse = (
        our_batches(source, transforms(train, draft)[:1], count, min(BATCH, count), train, 0) for draft in (False, True)
    )
    pairs = [(a["pixels"].astype(int), b["pixels"].astype(int)) for a, b in zip(exact, coarse, strict=True)]
    difference = np.concatenate([np.abs(a - b) for a, b in pairs])
    changed = difference.any((1, 2, 3))
    return {
        "share_of_images": round(float(changed.mean()), 3),
        "mean_over_those": round(float(difference[changed].mean()), 3) if changed.any() else 0.0,
        "largest": int(difference.max()),
    }


def waiting_share(source: ImageNet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Share of the time of training steps that passes in the loader, once the step is compiled."""
    from flax import nnx
    import jax

    import castream_jax as castream
    from castream_jax.experiment.config import base_config
    from castream_jax.experiment.model_parts import model_parts
    from castream_jax.training.optimizer import make_optimizer
    from castream_jax.training.step import initial_state, make_train_step

    backbone = castream.create_backbone(arguments.step, rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(0))
    parts = model_parts(castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream}), "streams")
    optimizer, _ = make_optimizer(base_config(), steps_per_epoch=100, steps=1000)
    state, frozen = initial_state(parts, optimizer), jax.device_put(parts.frozen)
    step = jax.jit(make_train_step(parts, optimizer), donate_argnums=0)
    batch_size = arguments.step_batch
    epochs = 2 + (arguments.steps + 3) * batch_size // len(source)
    loader = train_loader(
        source,
        batch_size=batch_size,
        num_epochs=epochs,
        seed=0,
        transforms=transforms(True, False),
        num_threads=len(os.sched_getaffinity(0)) if not arguments.workers else 1,
        num_workers=arguments.workers,
    )
    batches = iter(loader)
    for _ in range(2):  # compiled, and the loader at its pace
        state = step(state, frozen, jax.device_put(next(batches)))
    jax.block_until_ready(state)
    waited, begin = 0.0, time.perf_counter()
    for _ in range(arguments.steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        state = step(state, frozen, jax.device_put(batch))
        jax.block_until_ready(state)
    seconds = time.perf_counter() - begin
    batches.close()
    return {
        "backbone": arguments.step,
        "batch": batch_size,
        "images_per_second": round(arguments.steps * batch_size / seconds, 1),
        "share_waiting": round(waited / seconds, 4),
        "cores": len(os.sched_getaffinity(0)),
        "workers": arguments.workers,
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    main()
