"""Programs that XLA compiles until something is done, each in a new process without kept programs.

    python benchmarks/compilations.py [--quick]

Their number is the same on every machine, and on an accelerator each one costs 0.05 to 0.5 s and more. What is counted:
ResNet-50 drawn (`create_backbone`) and a stream beside it, ResNet-8 with the bundled weights, the quickstart, and on
what it leaves `castream evaluate` and `castream explain`. `--quick` trains on a fifth of the images: the number is the
same.
Prints one JSON object, then exits with an error if a number exceeds its bar.
"""

import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from program import above, finish, new_parser, parse

from castream_jax.commands.bench import machine

BARS = {"create_backbone": 1, "stream": 1, "load_backbone": 0, "quickstart": 12, "evaluate": 8, "explain": 4}
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "digit.png"

_COUNTED = """
import json, sys
from castream_jax.runtime.compilations import counted
from castream_jax.cli import main
from flax import nnx
import castream_jax as castream
{before}
with counted() as compiled:
    {code}
print(json.dumps(compiled))
"""


def count(code: str, *arguments: str, before: str = "") -> int:
    """Programs compiled by `code`, in a process of its own, after another line of code that does not count."""
    environment = os.environ | {"CASTREAM_COMPILATION_CACHE": "off"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", _COUNTED.format(before=before, code=code), *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return len(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    arguments = parse(new_parser(__doc__))
    short = ["--config.train.epochs=1", "--config.data.canvases_per_digit=1"] if arguments.quick else []
    keys = "rngs = nnx.Rngs(0)"
    found = {
        "create_backbone": count('castream.create_backbone("resnet50", rngs=rngs)', before=keys),
        "stream": count("castream.CrossAttentionStream((64, 256, 512, 1024, 2048), rngs=rngs)", before=keys),
        "load_backbone": count('castream.load_backbone("cifar_resnet8", "digits", num_classes=10)'),
    }
    with tempfile.TemporaryDirectory() as folder:
        workdir, again = Path(folder, "quickstart"), Path(folder, "again")
        command = "assert main(sys.argv[1:]) == 0"
        found["quickstart"] = count(command, "quickstart", "--workdir", str(workdir), *short)
        (workdir / "evaluation").rename(again)
        found["evaluate"] = count(command, "evaluate", "--workdir", str(workdir))
        options = ["--model", str(workdir), "--out", str(Path(folder, "explained"))]
        found["explain"] = count(command, "explain", str(IMAGE), *options)
    finish({"compilations": found, "machine": machine()}, above(BARS, found, "compilations"))


if __name__ == "__main__":
    main()
