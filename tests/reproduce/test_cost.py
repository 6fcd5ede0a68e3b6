"""The plan: passes, operations and hours against closed forms and independent counts."""

from collections.abc import Callable
import functools
import io
from pathlib import Path
import re
from typing import get_args

import jax
import numpy as np
import pytest
from rich.console import Console
from tiers import slow_after

from castream_jax.backbones.cifar_resnet import CifarResNet
from castream_jax.experiment.config import Config, open_config
from castream_jax.kernels.precision import Dtype
from castream_jax.metrics import score
from castream_jax.reproduce.cost import (
    H200,
    DataSize,
    ImageCost,
    PlannedStep,
    Work,
    data_size,
    evaluation_work,
    image_cost,
    passes_per_explained_image,
    plan_table,
    training_work,
)
from castream_jax.reproduce.make_targets import plan
from castream_jax.reproduce.needed_runs import Options
from castream_jax.reproduce.paper_experiments import EXPERIMENTS

ROOT = Path(__file__).parents[2]
SIZE = DataSize(train=1000, test=100, image_bytes=10)
COST = ImageCost(trunk=1e9, heads=1e7, channels=2048)


def paper_config(name: str) -> Config:
    return open_config(ROOT / "configs" / f"{name}.py")


@functools.cache
def paper_cost(name: str) -> ImageCost:
    return image_cost(paper_config(name))


def test_one_explained_resnet50_image_takes_2601_passes():
    """As counted by hand: 2,048 channels, 7 maps and 3 baselines of 55 masked images each, and 3 images for all."""
    assert passes_per_explained_image(paper_config("imagenet/resnet50"), 2048) == 2048 + 10 * 55 + 3 == 2601


@pytest.mark.slow
def test_metrics_take_as_many_passes_as_planned(tiny_config: Callable[..., Config], small_model, monkeypatch):
    """Counted while it runs: the images that the trunk is given."""
    config = tiny_config(data={"image_size": 24}, evaluation={"methods": ("gradcam", "attention")})
    images: list[int] = []
    stages = CifarResNet.stages

    def counted(self: CifarResNet, pixels: jax.Array, *rest: object) -> object:
        jax.debug.callback(lambda: images.append(len(pixels)))
        return stages(self, pixels, *rest)

    monkeypatch.setattr(CifarResNet, "stages", counted)
    maps = dict.fromkeys([("gap", "gradcam"), ("ca", "gradcam"), ("ca", "attention")], np.zeros((2, 3, 3)))
    score(small_model, np.zeros((2, 24, 24, 3), np.float32), np.zeros(2, np.int32), maps)
    jax.effects_barrier()
    assert sum(images) == 2 * passes_per_explained_image(config, channels=64)


@pytest.mark.parametrize(
    ("name", "macs"),
    slow_after(
        2, [("imagenet/resnet18", 1.814e9), ("imagenet/resnet50", 4.089e9), ("imagenet/convnext_base", 15.36e9)]
    ),
)
def test_operations_are_those_of_torchvision(name: str, macs: float):
    """torchvision publishes multiply-adds, counted with the zeros of padding, which XLA leaves out: up to 8 %."""
    cost = paper_cost(name)
    assert 0.92 * 2 * macs < cost.trunk < 1.01 * 2 * macs


def test_streams_cost_their_two_products_and_a_projection_per_stage():
    cost = paper_cost("imagenet/resnet50")
    positions, dims = (56**2, 56**2, 28**2, 14**2, 7**2), (64, 256, 512, 1024, 2048)
    products = sum(2 * 2 * p * d for p, d in zip(positions, dims, strict=True))
    projections = sum(2 * d * n for d, n in zip(dims, (*dims[1:], dims[-1]), strict=True))
    classifier = 2 * 2048 * 1000
    assert cost.channels == 2048
    assert cost.heads == pytest.approx(products + projections + classifier, rel=0.02)  # and softmax, biases


def test_work_in_closed_form(tiny_config: Callable[..., Config]):
    config = tiny_config(train={"epochs": 3}, evaluation={"max_images": 10, "methods": ("gradcam",)})
    assert training_work(config, SIZE, COST) == Work("train", 3000, 3000, 3000 * (1e9 + 3e7), 30_000, "float32")
    passes = 90 + 10 * (3 + 2 * (1 + 2 * 3))  # 32 rows, 8 a step: 3 inner steps
    assert evaluation_work(config, SIZE, COST) == Work("evaluate", 100, passes, passes * 1.01e9, 1000, "float32")
    config.train.target = "backbone"
    assert training_work(config, SIZE, COST) == Work("train backbone", 3000, 3000, 3000 * 3e9, 30_000, "float32")


def test_time_is_that_of_the_slowest_part():
    base = {"step": "train", "images": 0, "passes": 0, "flops": 0.0, "bytes_read": 0, "dtype": "float32"}
    assert Work(**base | {"flops": 50e12}).seconds(H200) == 2
    assert Work(**base | {"flops": 358e12, "dtype": "bfloat16"}).seconds(H200) == 2
    assert Work(**base | {"flops": 50e12, "images": 18_000}).seconds(H200) == 3
    assert Work(**base | {"images": 18_000, "bytes_read": 10**10}).seconds(H200) == 10


def test_every_type_of_a_trunk_has_a_throughput():
    assert set(get_args(Dtype)) == H200.flops.keys() >= H200.measured


def test_sizes_are_published_or_counted(tmp_path: Path):
    config = paper_config("imagenet/resnet18")
    assert data_size(config)[:2] == (1_281_167, 50_000)
    config.data.path = str(tmp_path / "absent")
    with pytest.raises((FileNotFoundError, ValueError), match=r"absent|unknown data source"):
        data_size(config)
    assert data_size(open_config(f"{ROOT / 'configs' / 'imagenet' / 'resnet18.py'}:small")) == (7190, 359, 0)


def test_table_shows_every_step_and_what_is_left():
    work = Work("train", 115_305_030, 115_305_030, 9.25e17, 12_914_163_360_000, "float32")
    steps = [
        PlannedStep("imagenet/convnext_[b]l:sample", work, "done"),
        PlannedStep("y", work._replace(step="evaluate"), "to do"),
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(plan_table(steps))
    text = console.file.getvalue()  # pyright: ignore
    assert "imagenet/convnext_[b]l:sample" in text
    assert re.search(r"train +done +115 M +925 P +12\.9 T +10\.28 +1\.28", text)
    assert re.search(r"To do +10\.28 +1\.28", text)
    assert "Measured there: 179 TFLOP/s in bfloat16. Assumed: 25 TFLOP/s in float32" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


EVERYDAY = ("imagenet/resnet50", "ablations/all")
OTHERS = {*EXPERIMENTS, "ablations/block_design", "ablations/placement", "ablations/class_specific"} - {*EVERYDAY}


@pytest.mark.parametrize("name", slow_after(len(EVERYDAY), [*EVERYDAY, *sorted(OTHERS)]))
def test_configs_state_the_hours_of_the_plan(name: str):
    file = ROOT / "configs" / f"{name}.py"
    stated = re.findall(r"([\d.]+) h of\s+(fine-tuning|training|evaluation)", file.read_text())
    config, form = open_config(file), EXPERIMENTS[name].backbone_form if name in EXPERIMENTS else ""
    cost, size = paper_cost(name), data_size(config)
    planned = {"training": training_work(config, size, cost), "evaluation": evaluation_work(config, size, cost)}
    if form:
        planned["fine-tuning"] = training_work(open_config(f"{file}:{form}"), size, cost)
    assert {kind for _, kind in stated} == set(planned)
    for hours, kind in stated:
        assert float(hours) == pytest.approx(planned[kind].seconds(H200) / 3600, rel=0.05, abs=0.006)


def test_plan_of_the_tables_trains_resnet50_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("castream_jax.reproduce.make_targets.image_cost", lambda config: COST)
    steps = plan(["table1", "supp-table3", "supp-table4", "supp-table5"], tmp_path, Options())
    assert [(step.experiment, step.work.step) for step in steps] == [
        (name, step) for name in ("ablations/all", "imagenet/convnext_base") for step in ("train", "evaluate")
    ]
    assert plan(["table1"], tmp_path, Options())[0].experiment == "imagenet/resnet50"
    (tmp_path / "ablations-all").mkdir()
    assert plan(["table1"], tmp_path, Options())[0].experiment == "ablations/all"
    assert [step.work.step for step in plan(["supp-table2"], tmp_path, Options())] == [
        "train backbone",
        "train",
        "evaluate",
    ] * 2
    figure = plan(["fig2", "fig3"], tmp_path / "new", Options())
    assert [(step.experiment, step.work.step) for step in figure] == [("imagenet/resnet50", "train")]
    assert not list(tmp_path.glob("**/*.json"))
