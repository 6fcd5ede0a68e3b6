"""Peak memory of loading a backbone from a file, over its parameters' bytes.

    python benchmarks/loading.py [--backbone resnet152] [--quick]

A fresh process loads the file and reads its own high-water mark (Linux). Prints one JSON object.
"""

from pathlib import Path
import subprocess
import sys
import tempfile

from program import finish, new_parser, parse

_LOAD = """
import sys
from flax import nnx
import jax
import castream_jax as castream

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

jax.numpy.zeros(1).block_until_ready()
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again here
backbone = castream.load_backbone(sys.argv[1], sys.argv[2])
leaves = jax.block_until_ready(jax.tree.leaves(nnx.state(backbone)))
print((status("VmHWM") - before) / sum(leaf.nbytes for leaf in leaves))
"""

_SAVE = """
import sys
from flax import nnx
import castream_jax as castream
from castream_jax.backbones import save_torch_weights
save_torch_weights(castream.create_backbone(sys.argv[1], rngs=nnx.Rngs(0)), sys.argv[2])
"""


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--backbone", default="resnet152")
    name = parse(parser, backbone="resnet18").backbone
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "trunk.safetensors")
        subprocess.run([sys.executable, "-c", _SAVE, name, path], check=True)
        ratio = subprocess.run([sys.executable, "-c", _LOAD, name, path], check=True, stdout=subprocess.PIPE, text=True)
    finish({"backbone": name, "peak_over_parameter_bytes": round(float(ratio.stdout), 2)})


if __name__ == "__main__":
    main()
