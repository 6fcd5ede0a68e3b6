"""Wall time of `castream explain` on one photograph, from the start of the command to its end.

    python benchmarks/explain.py [--backbone resnet50] [--image FILE] [--starts 3] [--quick]

A backbone with random weights under GAP and a stream from S0, exported to a file; every start is a process of its own.
The first one finds an empty cache and compiles; the others find its programs. `many` is a start that explains several
images. `cpu_seconds`, the time of the process itself on all cores, says how busy the machine was with other things.
Prints one JSON object.
"""

import json
import os
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from PIL import Image
from program import finish, new_parser, parse
from sklearn.datasets import load_sample_image

from castream_jax.version import installed_version

_EXPORT = """
import sys
from flax import nnx
import castream_jax as castream
backbone = castream.create_backbone(sys.argv[1], rngs=nnx.Rngs(0))
stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
castream.save_pretrained(castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream}), sys.argv[2])
"""


def start(cache: Path, export: Path, *images: Path, missed: list[str]) -> dict[str, float]:
    """One command; if it does not explain every image, `missed` gets a sentence."""
    command = [sys.executable, "-m", "castream_jax", "explain", *map(str, images), "--model", str(export), "--json"]
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR",)}
    environment["CASTREAM_COMPILATION_CACHE"] = str(cache)
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [*command, "--out", str(cache / "out")], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, after = time.perf_counter() - began, os.times()
    explained = len(json.loads(done.stdout)["images"])
    if explained != len(images):
        missed.append(f"images that a start explained: {explained} of {len(images)}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image", help="by default a photograph of 640 × 427 pixels that scikit-learn has")
    parser.add_argument("--starts", type=int, default=3, help="with programs in the cache, of which the median counts")
    arguments = parse(parser, backbone="cifar_resnet8", starts=1)
    name, missed = arguments.backbone, []
    with tempfile.TemporaryDirectory() as folder:
        cache, export, image = Path(folder, "cache"), Path(folder, "export"), Path(folder, "photo0.jpg")
        subprocess.run([sys.executable, "-c", _EXPORT, name, str(export)], check=True)
        with (
            Image.open(arguments.image) if arguments.image else Image.fromarray(load_sample_image("china.jpg")) as photo
        ):
            photo.convert("RGB").save(image, quality=95)
        many = [image]
        for number in range(1, 4 if arguments.quick else 16):
            many.append(image.with_name(f"photo{number}.jpg"))
            many[-1].write_bytes(image.read_bytes())
        first = start(cache, export, image, missed=missed)
        second = [start(cache, export, image, missed=missed) for _ in range(arguments.starts)]
        start(cache, export, *many, missed=missed)
        result = {
            "backbone": name,
            "first_start": first,
            "second_start": {key: statistics.median(one[key] for one in second) for key in first},
            "many": {"images": len(many), **start(cache, export, *many, missed=missed)},
            "cache_bytes": sum(path.stat().st_size for path in cache.rglob("*-cache")),
            "device": f"CPU, {os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
        }
    versions = ("castream_jax", "jax", "flax", "pillow", "numpy")
    result["versions"] = {package: installed_version(package) for package in versions}
    finish(result, missed)


if __name__ == "__main__":
    main()
