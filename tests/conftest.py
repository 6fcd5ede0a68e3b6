"""Strict mode for every test: several devices, no implicit rank promotion, warnings are errors (pyproject.toml)."""

from collections.abc import Callable, Iterator, Mapping
import gc
import importlib
import importlib.util
import os
from pathlib import Path
import shutil
from types import ModuleType
import uuid

from filelock import FileLock
from flax import nnx
from hypothesis import settings
import jax
import jaxlib.version
import jaxtyping
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.backbones import save_torch_weights
from castream_jax.experiment.config import Config, base_config
from castream_jax.runtime import bucket_folder
from castream_jax.runtime.compilation_cache import use_compilation_cache
from castream_jax.runtime.cpu import prepare_cpu
from castream_jax.training import train

pytest_plugins = ["tiers", "pytester"]

ROOT = Path(__file__).parent.parent
MEMORY_MAPS = Path("/proc/self/maps")

# A collection walks through the traces of all programs so far: with Python's thresholds a sixth of the time.
gc.set_threshold(100_000, 50, 100)
settings.register_profile("castream", deadline=None)  # a first call compiles
settings.load_profile("castream")
# MLIR makes faster loops of some programs, and takes half of the time of compiling; parts only need memory maps.
if jaxlib.version.__version_info__[:2] == (0, 10):
    flags = (os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_cpu_parallel_codegen_split_count=1"]).strip()
prepare_cpu()  # as the command line does
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# LLVM's optimisations take a quarter of the tests' time, and change results by rounding; deviation.py runs with them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
# Tests, the processes that they start, and the next run build the same programs again and again.
os.environ.setdefault("CASTREAM_COMPILATION_CACHE", str(ROOT / ".pytest_cache" / "compiled"))
if (COMPILED := use_compilation_cache()) is not None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(COMPILED), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module", autouse=True)
def _few_programs_are_kept() -> Iterator[None]:
    """Each program takes memory and some memory maps, of which Linux gives a process 65,530: with more, it crashes."""
    yield
    if MEMORY_MAPS.exists() and len(MEMORY_MAPS.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data that is kept outside the project: published weights, reference arrays, CIFAR-10."""
    path = Path(os.environ.get("CASTREAM_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"the data kept outside the repository is absent: no {path} (set CASTREAM_SHARED)")
    return path


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, np.ndarray]:
    """200 CIFAR-10 images through the official implementation."""
    with np.load(shared / "golden" / "castream_cifar10_resnet20.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def resnet20(shared: Path) -> castream.Backbone:
    """The published CIFAR-10 ResNet-20."""
    return castream.load_backbone("cifar_resnet20", shared / "weights" / "resnet20-12fca82f.th")


@pytest.fixture(scope="session")
def golden_model(golden: dict[str, np.ndarray], resnet20: castream.Backbone) -> castream.Model:
    """ResNet-20 with GAP and the stream whose outputs `golden` holds."""
    stream = castream.CrossAttentionStream(resnet20.stage_dims, rngs=nnx.Rngs(0))
    prefix = "stream/"
    castream.load_torch_stream(
        stream, {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}
    )
    return castream.Model(resnet20, {"gap": castream.GlobalAveragePooling(), "ca": stream})


@pytest.fixture(scope="session")
def small_model() -> castream.Model:
    """A CIFAR ResNet-8 with random weights under GAP and a stream: shapes and laws, not numbers."""
    backbone = castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(1))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(2))
    return castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`once(name, make)`: the path that `make(path)` has filled, in the first process of this run that asked for it.

    What lies there is shared by all tests of the run: they copy it before they change anything.
    """
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "once"
    root.mkdir(exist_ok=True)

    def made_once(name: str, make: Callable[[Path], object]) -> Path:
        path, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                make(path)
                done.touch()
        return path

    return made_once


@pytest.fixture(scope="session")
def resnet8_weights(once) -> Path:
    """A file with the weights of a random CIFAR ResNet-8."""

    def make(path: Path) -> None:
        save_torch_weights(castream.create_backbone("cifar_resnet8", rngs=nnx.Rngs(7)), path)

    return once("resnet8.safetensors", make)


@pytest.fixture(scope="session")
def trained_once(once, tiny_config) -> Path:
    """The workdir of a training by `tiny_config()`; to read."""
    return once("trained", lambda path: train(tiny_config(), path))


@pytest.fixture
def trained_workdir(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of it, for the test alone."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


@pytest.fixture(scope="session")
def reference_state_dict(shared: Path) -> Callable[[Mapping], dict[str, np.ndarray]]:
    """`{name: shape}` -> `{name: array}`, a function of names and shapes alone."""
    spec = importlib.util.spec_from_file_location("reference_weights", shared / "golden" / "reference_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference_state_dict


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    return pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")


@pytest.fixture(scope="session")
def torchvision(torch: ModuleType) -> ModuleType:
    """torchvision, also where it was installed without its compiled operators, which the models have no use for."""
    try:
        return pytest.importorskip("torchvision", reason="torchvision is not installed")
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        return pytest.importorskip("torchvision")


@pytest.fixture(scope="session")
def tiny_config(resnet8_weights: Path) -> Callable[..., Config]:
    """Configs of a training small enough for tests, with `section={field: value}` overrides."""

    def build(**sections: dict) -> Config:
        config = base_config()
        config.data.update(source="digits", image_size=32, resize="none", flip=False, num_threads=1)
        config.backbone.update(name="cifar_resnet8", weights=str(resnet8_weights), num_classes=10)
        config.optimizer.update(learning_rate=0.05, decay_every=1)
        config.train.update(epochs=1, batch_size=120, log_every=4, checkpoint_every=5)
        config.evaluation.update(batch_size=40, max_images=50, gallery=4, baselines=False, sanity_images=0)
        for section, fields in sections.items():
            config[section].update(fields)
        return config

    return build


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of a server on this machine that speaks S3."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: nothing speaks to buckets")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: no bucket on this machine")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch, tmp_path: Path) -> Iterator[str]:
    """Address of a new bucket, for this process and those that it starts."""
    s3fs = importlib.import_module("s3fs")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket_folder, "_copies", {})
    s3fs.S3FileSystem.clear_instance_cache()
    address = f"s3://bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(address)
    yield address
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def unchecked_calls() -> Iterator[None]:
    """For tests of what the package says of a wrong argument: annotations are not checked before it can say so."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def write() -> Callable[[Path, str], None]:
    """Writes a text file, with the folders it needs."""

    def write_text(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write_text


@pytest.fixture
def pascal_xml() -> Callable[..., str]:
    """An annotation as VOC and ImageNet have it, from (name, difficult, xmin, ymin, xmax, ymax) of each object."""

    def annotation(*objects: tuple) -> str:
        # Sides in the order of VOC's older files; a part has a box of its own.
        items = "".join(
            f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>"
            f"<bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymax>{y1}</ymax><ymin>{y0}</ymin></bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
            "</object>"
            for name, difficult, x0, y0, x1, y1 in objects
        )
        return f"<annotation><folder>VOC2012</folder><size><width>30</width></size>{items}</annotation>"

    return annotation
