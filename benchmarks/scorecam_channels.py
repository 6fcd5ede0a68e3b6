"""What a budget of channels costs Score-CAM's maps: the k most active channels against all of them.

    python benchmarks/scorecam_channels.py [--channels 8,16,32] [--images 16] [--quick]

On the reference arrays' CIFAR-10 images and ResNet-20 where they are found (CASTREAM_SHARED), else on random ones.
Prints, per head and number of channels, the largest and the mean difference of the two maps in [0, 1] and Spearman's
rank correlation of their positions (insertion and deletion follow the order), each as a mean over images.
"""

from flax import nnx
import numpy as np
from program import finish, new_parser, parse
from reference import ABSENT, load_arrays, make_model
import scipy.stats

import castream_jax as castream


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--channels", default="8,16,32", help="numbers of channels, separated by commas")
    parser.add_argument("--images", type=int, default=16)
    arguments = parse(parser, channels="4", images=1)
    model, pixels, labels = inputs(arguments.images)

    def maps(channels: int) -> dict[tuple[str, str], np.ndarray]:
        protocol = castream.Protocol(f"{channels} channels", scorecam_channels=channels)
        found = castream.attribute(model, pixels, labels, ("scorecam",), protocol)
        return {key: np.asarray(value) for key, value in found.items()}

    exact, results = maps(0), {}
    for channels in map(int, arguments.channels.split(",")):
        for (head, method), found in maps(channels).items():
            results.setdefault(head, {})[channels] = errors(found, exact[head, method])
    finish({"weights": "random" if ABSENT else "reference", "images": len(pixels), "heads": results})


def inputs(count: int) -> tuple[castream.Model, np.ndarray, np.ndarray]:
    if not ABSENT:
        arrays = load_arrays()
        return make_model(arrays), arrays["images"][:count].astype(np.float32) / 255, arrays["labels"][:count]
    backbone = castream.create_backbone("cifar_resnet20", rngs=nnx.Rngs(0))
    stream = castream.CrossAttentionStream(backbone.stage_dims, rngs=nnx.Rngs(1))
    model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling(), "ca": stream})
    rng = np.random.default_rng(0)
    return model, rng.random((count, 32, 32, 3), np.float32), rng.integers(0, 10, count)


def errors(maps: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    differences = np.abs(maps - exact)
    ranks = [(scipy.stats.rankdata(a), scipy.stats.rankdata(b)) for a, b in zip(maps, exact, strict=True)]
    return {
        "largest_difference": float(differences.max((1, 2)).mean()),
        "mean_difference": float(differences.mean()),
        "rank_correlation": float(np.mean([np.corrcoef(*pair)[0, 1] for pair in ranks])),
    }


if __name__ == "__main__":
    main()
