"""The same maps and images scored by other libraries: the value of each, ours, and ours under its choices.

    python benchmarks/other_libraries.py [--images 60] [--json FILE] [--quick]

Needs PyTorch, torchcam, grad-cam (pytorch-grad-cam) and quantus; what is not installed is left out. The network is the
bundled ResNet-8, the images are bundled digits amid clutter (of 60 × 60 pixels: Quantus's steps must divide them), the
maps are ours: Grad-CAM under GAP of the class that is predicted, at the images' size, so that no library enlarges one,
plus a ramp of 0.001, so that no two pixels are equally salient: libraries differ in which of these goes first. They run
their own code on the same network in PyTorch. Prints Markdown; `--json FILE` writes all that was measured. Under a
library's choices our value of each image must be its value within `BARS`, or this exits with an error at the end.
"""

# The libraries are for comparison, where they are installed.
# pyright: reportMissingImports=false

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple
import warnings

import jax.numpy as jnp
import numpy as np
from program import above, as_json, exit_if, new_parser, parse

import castream_jax as castream
from castream_jax.attribution import upsample
from castream_jax.commands.bench import machine
from castream_jax.data import CanvasDigits
from castream_jax.runtime.cpu import prepare_cpu
from castream_jax.version import installed_version

KEY = ("gap", "gradcam")
PREDICTED = castream.get_protocol("castream-pred")
NORMALISED = dataclasses.replace(PREDICTED, masked_space="normalised")
# Largest difference of an image's value: float32 sums in another order; ROAD adds noise, drawn by another generator.
BARS = {"torch-cam": 1e-4, "pytorch-grad-cam": 1e-4, "pytorch-grad-cam, ROAD": 0.05, "Quantus": 1e-4}


class Compared(NamedTuple):
    """One metric of one library.

    Attributes:
        library, metric: as they call themselves.
        theirs: value of each image.
        usual: ours of each image, as `castream evaluate` defines it for the predicted class; none where it is another
            quantity.
        matched: ours under the library's choices.
        choices: in which these differ from the usual ones.
    """

    library: str
    metric: str
    theirs: np.ndarray
    usual: np.ndarray | None
    matched: np.ndarray
    choices: str

    @property
    def bar(self) -> float:
        return BARS.get(f"{self.library}, {self.metric}", BARS[self.library])

    @property
    def difference(self) -> float:
        """The largest of an image."""
        return float(np.abs(self.theirs - self.matched).max())


class Case(NamedTuple):
    """What all libraries score.

    Attributes:
        model: ours.
        network: the same in PyTorch, from normalised images to logits.
        pixels: `[B, H, W, 3]` in [0, 1].
        labels: the classes that are predicted.
        maps: `[B, H, W]` in [0, 1].
        usual: our scores of the maps.
    """

    model: castream.Model
    network: Any
    pixels: np.ndarray
    labels: np.ndarray
    maps: np.ndarray
    usual: Mapping[str, np.ndarray]

    def inputs(self) -> Any:
        """Normalised images for PyTorch."""
        import torch

        normalised = np.asarray(self.model.backbone.normalise(jnp.asarray(self.pixels)))
        return torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())

    def ours(self, protocol: castream.Protocol, *metrics: str) -> dict[str, np.ndarray]:
        """Our scores under a protocol."""
        scores = castream.score(self.model, self.pixels, self.labels, {KEY: self.maps}, protocol, metrics=metrics)
        return {name: np.asarray(values) for name, values in scores[KEY].items()}


def main() -> None:
    prepare_cpu()  # as the command line does
    parser = new_parser(__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parse(parser, images=3)
    case = make_case(arguments.images)
    print("| library | metric | its value | ours, `castream-pred` | ours, its choices | an image, at most | choices |")
    print("|---|---|---:|---:|---:|---:|---|")
    found = []
    for library in (by_torchcam, by_gradcam, by_quantus):
        with contextlib.suppress(ModuleNotFoundError):
            for compared in library(case):
                found.append(compared)
                print(row(compared), flush=True)
    missed = [
        sentence
        for compared in found
        for sentence in above({compared.metric: compared.bar}, {compared.metric: compared.difference}, compared.library)
    ]
    if arguments.json:
        values = [
            {
                "library": compared.library,
                "metric": compared.metric,
                "theirs": float(compared.theirs.mean()),
                "matched": float(compared.matched.mean()),
                "difference": compared.difference,
            }
            for compared in found
        ]
        report = {"images": arguments.images, "compared": values, "versions": versions(), "machine": machine()}
        arguments.json.write_text(as_json(report, missed))
    exit_if(missed)


def make_case(count: int) -> Case:
    """Images, maps and both networks."""
    from pytorch_models import Network

    backbone = castream.load_backbone("cifar_resnet8", "digits")
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()})
    source = CanvasDigits("test")
    places = np.linspace(0, len(source) - 1, count).astype(int)
    pixels = np.stack([source[int(place)]["pixels"][2:-2, 2:-2] for place in places]).astype(np.float32) / 255
    labels = np.asarray(jnp.argmax(model(pixels)["gap"], 1))
    maps = castream.attribute(model, pixels, labels, ("gradcam",), PREDICTED)[KEY]
    maps = np.array(upsample(jnp.asarray(maps), *pixels.shape[1:3]))
    maps = 0.999 * maps + 0.001 * np.linspace(1, 0, maps[0].size, dtype=np.float32).reshape(maps.shape[1:])
    case = Case(model, Network(backbone), pixels, labels, maps, {})
    return case._replace(usual=case.ours(PREDICTED, "AD", "AI", "I", "D", "ROAD"))


def by_torchcam(case: Case) -> Iterator[Compared]:
    """Average Drop, its increase, insertion and deletion of torch-cam."""
    import torch
    from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

    class Given:
        """Stands for one of its extractors, and gives our map of image `number`."""

        model, number = case.network, 0

        def __call__(self, *_: Any, **__: Any) -> list[Any]:
            return [torch.from_numpy(case.maps[self.number][None])]

        def fuse_cams(self, cams: list[Any]) -> Any:
            return cams[0]

        def _hooks_off(self) -> Any:
            return contextlib.nullcontext()

    extractor, inputs = Given(), case.inputs()

    def of_each(kind: Any, *names: str) -> dict[str, np.ndarray]:
        values: dict[str, list[float]] = {name: [] for name in names}
        for number, label in enumerate(case.labels.tolist()):
            extractor.number = number
            metric = kind(extractor, lambda logits: logits.softmax(-1))
            metric.update(inputs[number : number + 1], label)
            for name in names:
                values[name].append(metric.summary()[name])
        return {name: np.array(of_name) for name, of_name in values.items()}

    theirs = of_each(ClassificationMetric, "avg_drop", "conf_increase")
    theirs |= of_each(DeletionInsertionMetric, "insertion_auc", "deletion_auc")
    matched = case.ours(castream.get_protocol("torchcam"), "AD", "AI", "I", "D")
    masked = "the normalised image is masked, so that black is the mean colour"
    curves = f"{masked}; insertion starts from it; 20 steps"
    for name, ours, choices in (
        ("avg_drop", "AD", masked),
        ("conf_increase", "AI", masked),
        ("insertion_auc", "I", curves),
        ("deletion_auc", "D", curves),
    ):
        yield Compared("torch-cam", f"`{name}`", theirs[name], case.usual[ours], matched[ours], choices)


def by_gradcam(case: Case) -> Iterator[Compared]:
    """Drop, increase and ROAD of pytorch-grad-cam."""
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = [ClassifierOutputSoftmaxTarget(label) for label in case.labels.tolist()]
    inputs, ours = case.inputs(), case.ours(NORMALISED, "AD", "AI")
    masked = "the normalised image is masked"
    drop, increase, road = (
        np.asarray(metric()(inputs, case.maps, targets, case.network))
        for metric in (DropInConfidence, IncreaseInConfidence, ROADCombined)
    )
    yield Compared(
        *("pytorch-grad-cam", "`DropInConfidence`", drop, case.usual["AD"], ours["AD"] * ours["p"]),
        f"not divided by the probability of the image; {masked}",
    )
    yield Compared("pytorch-grad-cam", "`IncreaseInConfidence`", increase, case.usual["AI"], ours["AI"], masked)
    yield Compared("pytorch-grad-cam", "ROAD", road, case.usual["ROAD"], case.usual["ROAD"], "none but the noise drawn")


def by_quantus(case: Case) -> Iterator[Compared]:
    """The mean of Quantus's PixelFlipping curve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        import quantus

    two_rows = dataclasses.replace(PREDICTED, rows_per_step=2)
    curve = case.ours(two_rows, "D")["deletion_curve"]
    values_per_step = 2 * 3 * case.pixels.shape[2]
    # 0, as ours; by default the least of the image's normalised values.
    options = {"features_in_step": values_per_step, "perturb_baseline": 0.0}
    metric = quantus.PixelFlipping(**options, disable_warnings=True, return_aggregate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own insides
        curves = metric(
            case.network,
            case.inputs().numpy(),
            case.labels,
            a_batch=case.maps[:, None],
            softmax=True,
            device="cpu",
        )
    yield Compared(
        *("Quantus", "`PixelFlipping`, mean of the curve", np.mean(curves, axis=1), case.usual["D"]),
        *(
            curve[:, 1:].mean(1),
            "steps of two rows; the mean of the curve's points, which the unchanged image is not",
        ),
    )


def row(compared: Compared) -> str:
    """One line of the table."""
    usual = "–" if compared.usual is None else f"{compared.usual.mean():.4f}"
    cells = (
        *(compared.library, compared.metric, f"{compared.theirs.mean():.4f}", usual),
        *(f"{compared.matched.mean():.4f}", f"{compared.difference:.0e}", compared.choices),
    )
    return f"| {' | '.join(cells)} |"


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {package: installed_version(package) for package in ("torch", "torchcam", "grad-cam", "quantus")}
    return {package: version for package, version in found.items() if version}


if __name__ == "__main__":
    main()
