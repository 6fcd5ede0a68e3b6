"""What the programs in `benchmarks/` measured beside what is aimed at, as Markdown."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One number that a program measures.

    Attributes:
        title: what it is.
        path: keys that lead to it in the program's JSON.
        aim: the number aimed at on two CPU cores in float32; None for none.
        on_accelerator: the same on one accelerator with a bfloat16 trunk.
        at_most: whether smaller is better.
    """

    title: str
    path: tuple[str, ...]
    aim: float | None
    on_accelerator: float | None = None
    at_most: bool = False


_PREPARED = "prepared (random crop, flip, brightness)"

# Program -> its figures, in the order of the table.
FIGURES = {
    "deviation": (
        Figure("largest deviation over its bar, official code", ("official code over bar",), 1, 1, at_most=True),
        Figure("the same, logits of torchvision", ("torchvision over bar",), 1, 1, at_most=True),
    ),
    "compilations": (
        Figure("programs compiled: a ResNet-50 drawn", ("compilations", "create_backbone"), 1, 1, at_most=True),
        Figure("the same: a stream drawn", ("compilations", "stream"), 1, 1, at_most=True),
        Figure("the same: weights loaded", ("compilations", "load_backbone"), 0, 0, at_most=True),
        Figure("the same: quickstart", ("compilations", "quickstart"), 12, 12, at_most=True),
        Figure("the same: `castream evaluate`", ("compilations", "evaluate"), 8, 8, at_most=True),
        Figure("the same: `castream explain`", ("compilations", "explain"), 4, 4, at_most=True),
    ),
    "forward": (
        Figure("forward pass of ResNet-50 ÷ PyTorch", ("backbones", "resnet50", "ratio"), 1.0, 1.0),
        Figure("the same ÷ PyTorch compiled", ("backbones", "resnet50", "ratio_compiled"), None),
        Figure("forward pass of ConvNeXt-T ÷ PyTorch", ("backbones", "convnext_tiny", "ratio"), 0.8, 0.8),
        Figure("the same ÷ PyTorch compiled", ("backbones", "convnext_tiny", "ratio_compiled"), None),
        Figure("forward pass of EfficientNet-B0 ÷ PyTorch", ("backbones", "efficientnet_b0", "ratio"), 0.8, 0.8),
        Figure("the same ÷ PyTorch compiled", ("backbones", "efficientnet_b0", "ratio_compiled"), None),
    ),
    "train_step": (
        Figure("training step ÷ forward pass, ResNet-50", ("step_over_forward",), 1.05, 1.10, at_most=True),
        Figure("training images/s ÷ PyTorch's best", ("over_pytorch",), 1.05, 1.2),
        Figure("training images/s", ("images_per_second", "step"), None, 10_000),
        Figure("share of time between steps in which the device waits", ("host_gap",), None, 0.03, at_most=True),
        Figure("step of seven streams ÷ step of one", ("seven_over_one",), 1.15, 1.15, at_most=True),
    ),
    "evaluation": (
        Figure("three methods, two heads, five metrics: official procedure ÷ ours", ("speed_up", "official"), 3, 10),
        Figure("the same: PyTorch at its best, compiled ÷ ours", ("speed_up", "best"), 1.8, 2),
        Figure("the same: pytorch-grad-cam and RISE ÷ ours", ("speed_up", "usual"), 3, 10),
        Figure("Score-CAM masks/s ÷ images/s of forward passes alone", ("scorecam_share",), 0.95, 0.9),
        Figure("evaluation: share of the floor of distinct forward passes", ("share_of_floor",), 0.9, 0.85),
        Figure("hours for 50,000 images", ("hours_for_50000_images",), None, 1, at_most=True),
    ),
    "data_pipeline": (
        Figure(
            "images read per core-second ÷ PyTorch's worker, evaluation",
            ("evaluation (squash)", "ratio_to_torch_one_worker"),
            1.5,
        ),
        Figure("the same, training", ("training (random crop, flip, brightness)", "ratio_to_torch_one_worker"), 1.5),
        Figure(
            "prepared images for crops on the device ÷ files as they are",
            (_PREPARED, "ratio_to_raw_of_prepared_cropped_on_device"),
            6,
        ),
        Figure("the same, all but decoding ÷ decoding", (_PREPARED, "loader_own_cost_of_decoding"), 0.2, at_most=True),
    ),
    "methods": (),
    "roofline": (),
    "loading": (Figure("peak memory of loading ÷ parameters", ("peak_over_parameter_bytes",), 3, 3, at_most=True),),
    "explain": (
        Figure("seconds to the first explanation, second start", ("second_start", "seconds"), 5, at_most=True),
    ),
}


def benchmarks_table(report: Mapping[str, Any]) -> list[str]:
    """A report in Markdown; what a program could not measure, for want of PyTorch, has a dash.

    What misses its aim says so; below, the programs whose own check failed, and what they missed by how much.
    """
    machine, results = report["machine"], report["results"]
    accelerator = machine["device"] != "cpu"
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {machine['platform']}, Python {machine['python']}, "
        f"jax {machine['jax']}, castream_jax {machine['castream_jax']}"
        + (" (small forms: only to show that they work)" if report["quick"] else ""),
        "",
        *_header("what", "measured", "aim", "command"),
    ]
    for name, figures in FIGURES.items():
        if name in results:
            lines += [_row(figure, name, results[name], accelerator, report["quick"]) for figure in figures]
    for name in FIGURES:
        result = results.get(name, {})
        if "exit_status" in result:
            of_program = "; ".join(result.get("missed", ())) or "see what it said"
            lines += ["", f"`benchmarks/{name}.py` failed with status {result['exit_status']}: {of_program}."]
    if "methods" in results:
        lines += _methods_table(results["methods"])
    if "roofline" in results:
        lines += _roofline_table(results["roofline"])
    return lines


def _row(figure: Figure, program: str, result: Mapping[str, Any], accelerator: bool, quick: bool) -> str:
    value: Any = result
    for key in figure.path:
        value = value.get(key) if isinstance(value, Mapping) else None
    aim = figure.on_accelerator if accelerator else figure.aim
    missed = value is not None and aim is not None and not (value <= aim if figure.at_most else value >= aim)
    counts = not quick or "exit_status" in result  # small forms miss aims of speed
    text = "–" if value is None else f"{value:.2f}{' (missed)' if missed and counts else ''}"
    aimed = "–" if aim is None else f"{'≤' if figure.at_most else '≥'} {aim:g}"
    return f"| {figure.title} | {text} | {aimed} | `benchmarks/{program}.py` |"


def _methods_table(result: Mapping[str, Any]) -> list[str]:
    title = f"Alone, {result['backbone']}, {result['images']} images of {result['size']} × {result['size']}, two heads:"
    lines = ["", title, "", *_header("method or metric", "ms per image", "forward passes", "× pytorch-grad-cam")]
    for name, row in {**result["methods"], **result["metrics"]}.items():
        times = row.get("over_pytorch_grad_cam", "–")
        lines.append(f"| {name} | {row['milliseconds_per_image']:.3g} | {row['forward_passes']:,.4g} | {times} |")
    return lines


def _roofline_table(result: Mapping[str, Any]) -> list[str]:
    matrix, copy, side = result["matrix_flops"] / 1e9, result["copy_bytes"] / 1e9, result["size"]
    title = (
        f"Of the rates that this machine reaches, {matrix:,.0f} GFLOP/s in a product of {result['dtype']} matrices and "
        f"{copy:,.1f} GB/s in a copy; {result['batch']} images of {side} × {side}:"
    )
    columns = ("program", "images/s", "GFLOP per image", "of the matrix rate", "MB per image", "of the copy rate")
    lines = ["", title, "", *_header(*columns, "peak memory, MB")]
    for name, row in result["programs"].items():
        peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        lines.append(
            f"| {name} | {row['images_per_second']:,.4g} | {row['gflop_per_image']:.3g} | {row['flops_share']:.0%} "
            f"| {row['megabytes_per_image']:.3g} | {row['bytes_share']:.0%} | {peak} |"
        )
    return lines


def _header(first: str, *others: str) -> list[str]:
    return ["| " + " | ".join((first, *others)) + " |", "|---|" + "---:|" * len(others)]
