"""What a run will cost, from its config alone: trunk passes, floating point operations, bytes read, hours.

Nothing is loaded and nothing is computed: operations are XLA's count over the lowered program, at abstract shapes.
"""

from collections.abc import Callable, Sequence
import math
import textwrap
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from castream_jax.backbones import create_backbone
from castream_jax.data import open_source
from castream_jax.evaluation.sanity import BASELINES
from castream_jax.experiment.build import open_streams
from castream_jax.experiment.config import Config
from castream_jax.metrics.causal import pixels_moved
from castream_jax.model import Model
from castream_jax.protocol import get_protocol
from castream_jax.runtime.traced_rngs import traced_rngs
from castream_jax.stream import GlobalAveragePooling


class DataSize(NamedTuple):
    """Records of the two splits, and the mean size of an image file in bytes."""

    train: int
    test: int
    image_bytes: int


# Records of the public datasets by source and split, for plans made before the data is there. Of Pascal VOC a test
# record is a pair of an image and a class that it shows: about 1.46 of them in each of 5,823 images.
_RECORDS = {
    ("imagenet", "train"): 1_281_167,
    ("imagenet", "val"): 50_000,
    ("cub", "train"): 5_994,
    ("cub", "test"): 5_794,
    ("voc", "train"): 5_717,
    ("voc", "val"): 8_500,
    ("image_folder", "train"): 50_000,  # CIFAR-10
    ("image_folder", "test"): 10_000,
}
_IMAGE_BYTES = {"imagenet": 112_000, "cub": 98_000, "voc": 112_000, "image_folder": 900, "digits": 0}


class Machine(NamedTuple):
    """Sustained throughputs of one machine.

    Attributes:
        name: as the plan prints it.
        flops: floating point operations a second, by the type that the trunk computes in.
        decoded: JPEGs decoded and resized a second, all cores together.
        read: bytes read from storage a second.
        measured: the types whose `flops` were measured there; the other throughputs are assumed.
    """

    name: str
    flops: dict[str, float]
    decoded: float
    read: float
    measured: frozenset[str]


# In bfloat16, ResNet-50 passed 22,344 images a second forward, of 8.0 GFLOP each: the tensor cores wait for memory.
# TF32 moves twice the bytes. Of float32, about 40 % of the CUDA cores' 67 TFLOP/s are assumed. Of JPEGs, 385 a second
# and core, measured on other CPUs.
H200 = Machine(
    "one H200, 16 CPU cores",
    {"float32": 25e12, "tensorfloat32": 90e12, "bfloat16": 179e12},
    decoded=6_000,
    read=1e9,
    measured=frozenset({"bfloat16"}),
)


class ImageCost(NamedTuple):
    """Floating point operations of one image: trunk, GAP and classifier; all streams together. Channels of the maps."""

    trunk: float
    heads: float
    channels: int


class Work(NamedTuple):
    """One step of an experiment.

    Attributes:
        step: `"train backbone"`, `"train"` or `"evaluate"`.
        images: images decoded, every epoch anew.
        passes: forward passes through the trunk.
        flops: floating point operations, a multiply-add counted as two.
        bytes_read: of image files.
        dtype: type that the trunk computes in.
    """

    step: str
    images: int
    passes: int
    flops: float
    bytes_read: int
    dtype: str

    def seconds(self, machine: Machine) -> float:
        """Time of the slowest of computing, decoding and reading, which overlap."""
        return max(
            self.flops / machine.flops[self.dtype], self.images / machine.decoded, self.bytes_read / machine.read
        )


class PlannedStep(NamedTuple):
    """A `Work` of a named experiment, and how far it is: `"done"`, `"begun"` or `"to do"`."""

    experiment: str
    work: Work
    state: str


def data_size(config: Config) -> DataSize:
    """Size of a config's data: counted where it is bundled or its path is given, else as published.

    Raises:
        FileNotFoundError: if a path is given and there is no such data.
    """
    source = config.data.source
    if config.data.path or source == "digits":
        train, test = (len(open_source(config.data, split)) for split in ("train", "test"))
    else:
        train, test = (_RECORDS[source, split] for split in (config.data.train_split, config.data.test_split))
    return DataSize(train, test, _IMAGE_BYTES[source])


def image_cost(config: Config) -> ImageCost:
    """What one image costs in the model of a config, from shapes alone."""
    model = nnx.eval_shape(lambda: _random_model(config))
    graphdef, state = nnx.split(model)
    size = config.data.image_size
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def reference(state: Any, pixels: jax.Array) -> jax.Array:
        backbone = nnx.merge(graphdef, state).backbone
        return backbone.classify(backbone.stages(pixels)[-1].mean((1, 2)))

    def everything(state: Any, pixels: jax.Array) -> dict[str, jax.Array]:
        return nnx.merge(graphdef, state)(pixels)

    trunk, together = (_count_flops(function, state, pixels) for function in (reference, everything))
    return ImageCost(trunk, together - trunk, channels=model.backbone.stage_dims[-1])


def training_work(config: Config, size: DataSize, cost: ImageCost) -> Work:
    """Training: each epoch one trunk pass per image; what is trained costs three times its forward pass."""
    images = config.train.epochs * size.train
    whole = config.train.target == "backbone"
    flops = images * (3 * cost.trunk if whole else cost.trunk + 3 * cost.heads)
    step = "train backbone" if whole else "train"
    return Work(step, images, images, flops, images * size.image_bytes, config.backbone.dtype)


def evaluation_work(config: Config, size: DataSize, cost: ImageCost) -> Work:
    """Evaluation: `config.evaluation.max_images` images are explained and scored, the others only classified."""
    explained = min(config.evaluation.max_images or size.test, size.test)
    passes = size.test - explained + explained * passes_per_explained_image(config, cost.channels)
    flops = passes * (cost.trunk + cost.heads)
    return Work("evaluate", size.test, passes, flops, size.test * size.image_bytes, config.backbone.dtype)


def passes_per_explained_image(config: Config, channels: int) -> int:
    """Trunk passes that the maps of one image and their metrics take, one pass serving all heads.

    The image as it is, blurred and empty: 3. Per map, the image masked by it and the inner steps of insertion and
    deletion; a baseline map is one for all heads. Score-CAM: one per channel, at most, for all heads together.
    Gradients of the heads: none.
    """
    protocol = get_protocol(config.evaluation.protocol)
    size = config.data.image_size
    steps = len(pixels_moved(size, size, protocol.rows_per_step, protocol.num_steps)) - 1
    streams = len(config.streams)
    passes_per_map = 1 + 2 * (steps - 1)
    passes = 3 + (len(BASELINES) * passes_per_map if config.evaluation.baselines else 0)
    for method in config.evaluation.methods:
        maps = streams if method.startswith("attention") else 1 + streams
        passes += maps * passes_per_map
        if method == "scorecam":
            passes += min(protocol.scorecam_channels or channels, channels)
    return passes


def plan_table(steps: Sequence[PlannedStep], machine: Machine = H200) -> Table:
    """The steps for the terminal, with the hours still to be spent; passes are those through the trunk.

    Eight machines take an eighth of the time: they exchange nothing in an evaluation, and in a training step 28 MB per
    stream (see docs/training.md).
    """
    rates = {dtype: f"{flops / 1e12:g} TFLOP/s in {dtype}" for dtype, flops in machine.flops.items()}
    measured = " · ".join(rate for dtype, rate in rates.items() if dtype in machine.measured) or "nothing"
    assumed = " · ".join(rate for dtype, rate in rates.items() if dtype not in machine.measured)
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption_justify="left",
        caption=textwrap.fill(
            f"Hours on {machine.name}, from throughputs. Measured there: {measured}. Assumed: {assumed} · "
            f"{machine.decoded:,.0f} JPEGs/s · {machine.read / 1e9:g} GB/s. On 8: eight times all of it.",
            width=76,
        ),
    )
    table.add_column("Experiment, step")
    table.add_column("State")
    for header in ("Passes", "FLOP", "Bytes", "Hours", "on 8"):
        table.add_column(header, justify="right", no_wrap=True)
    previous = ""
    for experiment, work, state in steps:
        if experiment != previous:  # a heading, not a column: the table then fits a terminal of 80 characters
            table.add_row(Text(experiment, style="bold"))  # Text: a name is the user's and no rich markup
            previous = experiment
        numbers = map(_with_prefix, (work.passes, work.flops, work.bytes_read))
        table.add_row(f"  {work.step}", state, *numbers, *_hours(work.seconds(machine)))
    table.add_section()
    left = sum(step.work.seconds(machine) for step in steps if step.state != "done")
    table.add_row("To do", "", "", "", "", *_hours(left), style="bold")
    return table


def _hours(seconds: float) -> tuple[str, str]:
    """On one machine and on eight."""
    one, eight = (f"{hours:,.2f}" if hours >= 0.005 else "<0.01" for hours in (seconds / 3600, seconds / 3600 / 8))
    return one, eight


def _with_prefix(number: float) -> str:
    """Three digits and the SI prefix: `"115 M"`."""
    power = min(int(math.log10(max(number, 1)) / 3), 6)
    value = number / 1000**power
    return f"{value:.{0 if value >= 100 or not power else 1}f} {' kMGTPE'[power]}".rstrip()


def _random_model(config: Config) -> Model:
    name, num_classes, taps = config.backbone.name, config.backbone.num_classes, config.backbone.taps
    backbone = create_backbone(name, num_classes, rngs=traced_rngs(0), taps=taps)
    return Model(backbone, {"gap": GlobalAveragePooling(), **open_streams(config, backbone)})


def _count_flops(function: Callable[..., Any], *shapes: Any) -> float:
    analysis = jax.jit(function).lower(*shapes).cost_analysis()
    return float(analysis["flops"])  # pyright: ignore[reportOptionalSubscript]
