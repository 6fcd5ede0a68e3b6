# Records that are asked for a box have one:
# pyright: reportTypedDictNotRequiredAccess=false

import re

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from castream_jax.data import CanvasDigits, Squash, eval_loader


@settings(max_examples=60, deadline=None)
@given(data=st.data(), length=st.integers(0, 40), batch_size=st.integers(1, 12), num_threads=st.sampled_from([0, 2]))
def test_every_index_comes_exactly_once_and_in_order(numbered, data, length, batch_size, num_threads):
    start = data.draw(st.integers(0, length))
    limit = data.draw(st.none() | st.integers(0, 45))
    loader = eval_loader(numbered(length), batch_size=batch_size, start=start, limit=limit, num_threads=num_threads)
    batches = list(loader)
    expected = list(range(length))[start:][:limit]
    assert len(batches) == -(-len(expected) // batch_size)
    assert [i for b in batches for i in b["index"][b["mask"]].tolist()] == expected
    for batch in batches:
        assert all(len(rows) == batch_size for rows in batch.values())
        assert (batch["index"][~batch["mask"]] == -1).all()


def test_last_batch_is_padded_with_zeros(numbered):
    *_, last = eval_loader(numbered(7, with_box=True), batch_size=4)
    assert last["mask"].tolist() == [True, True, True, False]
    assert last["index"].tolist() == [4, 5, 6, -1]
    assert last["label"].tolist() == [4, 5, 6, 0]
    assert last["pixels"][:, 0, 0, 0].tolist() == [4, 5, 6, 0]
    assert last["box"].tolist() == [[4, 0, 5, 1], [5, 0, 6, 1], [6, 0, 7, 1], [0, 0, 0, 0]]


def test_batches_have_the_declared_form(numbered):
    batch = next(iter(eval_loader(numbered(5), batch_size=4)))
    assert {key: (rows.shape, rows.dtype) for key, rows in batch.items()} == {
        "pixels": ((4, 2, 2, 3), np.uint8),
        "label": ((4,), np.int32),
        "index": ((4,), np.int32),
        "mask": ((4,), np.bool_),
    }


def test_boxes_follow_the_transforms():
    source = CanvasDigits("test")
    batch = next(iter(eval_loader(source, batch_size=3, transforms=[Squash(32)])))
    np.testing.assert_allclose(batch["box"], [source[i]["box"] / 2 for i in range(3)])
    assert batch["box"].dtype == np.float32
    assert batch["pixels"].shape == (3, 32, 32, 3)


@pytest.mark.parametrize("num_threads", [0, 1, 5])
def test_number_of_threads_changes_nothing(num_threads):
    source = CanvasDigits("test")
    batches = list(eval_loader(source, batch_size=25, limit=90, num_threads=num_threads))
    for batch, other in zip(batches, eval_loader(source, batch_size=25, limit=90, num_threads=2), strict=True):
        for key, rows in batch.items():
            np.testing.assert_array_equal(rows, other[key])


def test_resumes_from_its_state(numbered):
    iterator = iter(eval_loader(numbered(20), batch_size=3, num_threads=4))
    next(iterator)
    next(iterator)
    state = iterator.get_state()
    resumed = iter(eval_loader(numbered(20), batch_size=3, num_threads=1))
    resumed.set_state(state)
    assert next(resumed)["index"].tolist() == next(iterator)["index"].tolist() == [6, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "batch size 0 is not positive"),
        ({"start": 11}, "start 11 is not within the 10 records of the source"),
        ({"start": -1}, "start -1 is not within the 10 records of the source"),
        ({"limit": -1}, "limit -1 is negative; use None to read all records"),
    ],
)
def test_bad_arguments_are_explained(numbered, arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        eval_loader(numbered(10), **{"batch_size": 4} | arguments)
