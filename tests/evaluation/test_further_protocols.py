"""Several protocols in one evaluation: one pass over the images, the numbers of each as if it were alone."""

from pathlib import Path
import re
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

import castream_jax as castream
from castream_jax.evaluation import evaluate, explain_parts
from castream_jax.evaluation.on_device import explain_batch
from castream_jax.experiment.workdir import Workdir


def rows(workdir: Workdir) -> list[dict]:
    return [row for path in sorted(workdir.rows.iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
def test_each_protocol_measures_what_it_measures_alone(tiny_config, trained_workdir: Path, tmp_path: Path, monkeypatch):
    settings = {"methods": ("gradcam",), "max_images": 10, "batch_size": 5, "images_per_part": 5}
    alone = Path(shutil.copytree(trained_workdir, tmp_path / "alone"))
    config = tiny_config(evaluation=settings | {"further_protocols": ("rise",)})
    original, written = explain_parts.write_part, []

    def write_part(*arguments, **options):
        if len(written) == 1:  # a part is there of the first protocol, and not of the second
            raise KeyboardInterrupt
        written.append(arguments)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(explain_parts, "write_part", write_part)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, trained_workdir)
    evaluate(config, trained_workdir)
    workdir = Workdir.at(trained_workdir)
    for protocol, found in {"castream": workdir, "rise": workdir.under("rise")}.items():
        expected = evaluate(tiny_config(evaluation=settings | {"protocol": protocol}), alone)
        assert found.read_summary()["run"] == expected["run"]
        assert found.read_summary()["protocol"]["name"] == protocol
        for row, reference in zip(rows(found), rows(Workdir.at(alone)), strict=True):
            for field, value in reference.items():
                # One program for both protocols may sum in another order than one for each.
                np.testing.assert_array_equal(row[field], value) if isinstance(value, str | int) else (
                    np.testing.assert_allclose(row[field], value, rtol=0, atol=2e-4, err_msg=field)
                )


@pytest.mark.slow
def test_several_protocols_are_one_trunk_pass(small_model):
    """In the program for two protocols, the passes outside of the loops over masked images are those of one."""
    shapes = (jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8), jax.ShapeDtypeStruct((2,), np.int32))

    def convolutions_outside_loops(*names: str) -> int:
        protocols = tuple(map(castream.get_protocol, names))
        options = {"methods": ("gradcam",), "protocols": protocols, "chunk": 8}
        text = explain_batch.lower(small_model, *shapes, **options).compile().as_text() or ""
        entry = text[text.index("\nENTRY ") :]
        return len(re.findall(r"convolution\(|__onednn\$conv|custom-call\(.*conv", entry))

    one = convolutions_outside_loops("castream")
    assert one > 0
    assert convolutions_outside_loops("castream", "castream-pred") == one


def test_protocols_that_differ_in_curves_alone_share_their_maps():
    castream_, rise, opticam = map(castream.get_protocol, ("castream", "rise", "opticam"))
    assert castream.Protocol("mine", blur_size=7, num_steps=9).makes_the_maps_of(castream_)
    assert not rise.makes_the_maps_of(castream_)  # explains another class
    assert not opticam.makes_the_maps_of(castream_)
