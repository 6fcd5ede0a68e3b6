"""The examples in the docstrings of public classes run, and every public class has one."""

# pyright: reportAttributeAccessIssue=false

import doctest
import inspect

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream

CLASSES = [name for name in castream.__all__ if inspect.isclass(getattr(castream, name))]
NAMES = {"castream": castream, "nnx": nnx, "jnp": jnp, "np": np}


@pytest.mark.parametrize("name", CLASSES)
def test_the_example_of_a_public_class_runs(name: str):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(castream, name), name, globs=dict(NAMES))
    assert example.examples, f"{name} has no example"
    output: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=output.append)
    assert not result.failed, "".join(output)
