"""The sanity check beside an evaluation: do its maps change when the streams and the classifier become random?"""

import json
from typing import Any

from castream_jax.attribution.methods import parse_method
from castream_jax.data import Source, evaluation_batches
from castream_jax.data.subset import Subset
from castream_jax.evaluation.parts import evenly_spaced
from castream_jax.experiment.config import Config
from castream_jax.experiment.workdir import Workdir
from castream_jax.metrics.randomisation import cascading_randomisation
from castream_jax.model import Model, to_unit_range
from castream_jax.protocol import Protocol
from castream_jax.runtime.atomic_files import write_json
from castream_jax.runtime.progress import Progress

BASELINES = ("random", "centre", "ones")


def sanity_check(
    config: Config, source: Source, model: Model, protocol: Protocol, workdir: Workdir, run: str
) -> dict[str, Any]:
    """`cascading_randomisation` over evenly spaced images; kept in the workdir.

    There are `config.evaluation.sanity_images` of them, at most as many as are explained.

    Of the evaluation's methods those are checked that take a few trunk passes: not the ones that mask (Score-CAM,
    RISE), which would take the evaluation's time once more for every stage, and not the baselines, which see no
    weights.

    Args:
        config, source, model, protocol: of the evaluation.
        workdir: of the evaluation.
        run: hash of the evaluation; a check of the same run is read, not repeated.

    Returns:
        `{"run", "images", "rows"}`, rows as of `cascading_randomisation`, none where there is nothing to check.
    """
    methods = [name for name in config.evaluation.methods if not parse_method(name).method.chunked]
    methods = [name for name in methods if name not in BASELINES]
    most = config.evaluation.max_images or len(source)
    positions = evenly_spaced(len(source), min(config.evaluation.sanity_images, most))
    if not config.evaluation.sanity_images or not methods:
        return {"run": run, "images": 0, "rows": []}
    if workdir.sanity.exists():
        there = json.loads(workdir.sanity.read_text(encoding="utf-8"))
        if (there["run"], there["images"]) == (run, len(positions)):
            return there
    batches = iter(evaluation_batches(config.data, Subset(source, positions), len(positions)))
    batch = next(batches)
    batches.close()
    readable = batch["mask"]
    pixels, labels = to_unit_range(batch["pixels"][readable]), batch["label"][readable]
    Progress("sanity check", total=0, unit="").say(f"{len(positions)} images under random parameters")
    rows = cascading_randomisation(model, pixels, labels, methods, protocol)
    check = {"run": run, "images": len(positions), "rows": rows}
    write_json(workdir.sanity, check)
    return check
