"""A method from outside that is wrong: its name, and what it must return."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.attribution import METHODS

PIXELS = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
LABELS = np.array([3, 4])


@pytest.fixture
def register() -> Iterator[Callable[[Any], Any]]:
    """Registers a function as the method "own"."""
    yield castream.register_method("own")
    METHODS.pop("own", None)


def raising(inputs: Any) -> Any:
    return {}["no such key"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (raising, r"^Attribution method 'own' fails: KeyError: 'no such key' \(.*test_own_method\.py, line \d+\)\."),
        (lambda inputs: {"gap": np.asarray(inputs.features)}, "'own' fails: TracerArrayConversionError: "),
        (
            lambda inputs: jnp.zeros((2, 3, 3)),
            r"must return \{head: scores\}, for heads of ca, gap .*got float32 \[2, 3, 3\]",
        ),
        (lambda inputs: {"gap": jnp.zeros((2, 3))}, r"with B = 2, got \{'gap': 'float32 \[2, 3\]'\}"),
        (lambda inputs: {"gap": jnp.zeros((1, 3, 3))}, r"got \{'gap': 'float32 \[1, 3, 3\]'\}"),
        (lambda inputs: {"gap": jnp.zeros((2, 0, 3))}, "must return"),
        (lambda inputs: {"gap": jnp.zeros((2, 3, 3), bool)}, r"got \{'gap': 'bool \[2, 3, 3\]'\}"),
        (lambda inputs: {"gap": jnp.zeros((2, 3, 3), complex)}, "must return"),
        (lambda inputs: {"gap": 1.0}, r"got \{'gap': 'float'\}"),
        (lambda inputs: {"other": jnp.zeros((2, 3, 3))}, "for heads of ca, gap"),
        (lambda inputs: {}, r"has no map for any head of the model \(ca, gap\)"),
        (
            lambda inputs: {"ca": jnp.full((2, 3, 3), jnp.nan)},
            r"is not finite on image 0 of 2: .* method 'own' \(under head",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked_calls")
def test_what_is_wrong_with_a_method_is_said(small_model, register, method: Callable[..., Any], said: str):
    register(method)
    with pytest.raises(ValueError, match=said):
        castream.attribute(small_model, PIXELS, LABELS, ("own",))


def test_a_map_that_is_not_finite_is_not_shown(small_model, register):
    register(lambda inputs: {"ca": jnp.full((inputs.pixels.shape[0], 3, 3), jnp.inf)})
    with pytest.raises(ValueError, match="image: the map of 'own' under head 'ca' is not finite"):
        castream.explain(small_model, (255 * PIXELS[0]).astype(np.uint8), methods=("own",))
