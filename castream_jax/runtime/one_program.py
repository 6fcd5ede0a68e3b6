"""What a function computes operation by operation, computed by one compiled program instead: to the same bits."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any

import jax
from jax import lax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, UInt32
import numpy as np


def one_program(jaxpr: jex.ClosedJaxpr, name: str) -> Callable[..., list[jax.Array]]:
    """The function of a jaxpr as one program `name`, compiled when it is first called.

    Called outside of `jax.jit`, every operation of a function is a program of its own. XLA rounds otherwise where it
    sees several at once: it multiplies constants before they meet an array, divides by them no more, and adds to a
    product before it is rounded. Here no operation sees the one before, so that what is drawn is what was drawn one by
    one. Equal functions, such as the draws of kernels of one shape, are compiled once, as the body of a loop.
    """

    def program(zero: jax.Array, *arguments: jax.Array) -> list[jax.Array]:
        return _evaluate(jaxpr, arguments, functools.partial(_apart, zero))

    program.__name__ = name
    return functools.partial(jax.jit(program), np.uint32(0))


def _evaluate(
    closed: jex.ClosedJaxpr, arguments: Sequence[jax.Array], apart: Callable[[jax.Array], jax.Array]
) -> list[jax.Array]:
    jaxpr: Any = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, jex.Literal):
            aval: Any = atom.aval
            return apart(jnp.asarray(atom.val, aval.dtype))
        return values[atom]

    for equations in _groups(jaxpr.eqns):
        run = _function(equations[0])
        inputs = [[read(atom) for atom in equation.invars] for equation in equations]
        if len(equations) == 1:
            outputs = [run(inputs[0])]
        else:
            stacked = lax.map(run, [jnp.stack(column) for column in zip(*inputs, strict=True)])
            outputs = [[column[number] for column in stacked] for number in range(len(equations))]
        for equation, of_equation in zip(equations, outputs, strict=True):
            values.update(zip(equation.outvars, map(apart, of_equation), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _groups(equations: Iterable[Any]) -> list[list[Any]]:
    """Equations in an order in which they can be computed; those that call one function side by side are together."""
    depth: dict[Any, int] = {}
    groups = defaultdict(list)
    for equation in equations:
        here = 1 + max((depth.get(atom, 0) for atom in equation.invars if isinstance(atom, jex.Var)), default=0)
        depth.update(dict.fromkeys(equation.outvars, here))
        groups[here, _called(equation)].append(equation)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _called(equation: Any) -> Any:
    """Equal for equations of one function, of arguments of the same shapes: where that is worth a loop."""
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        return id(equation.params["jaxpr"])
    return (name, *(str(atom.aval) for atom in equation.invars)) if name == "random_fold_in" else id(equation)


def _function(equation: Any) -> Callable[[Sequence[jax.Array]], list[jax.Array]]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # jax 0.10.2: parameters alone

    def run(arguments: Sequence[jax.Array]) -> list[jax.Array]:
        results = equation.primitive.bind(*functions, *arguments, **parameters)
        return list(results) if equation.primitive.multiple_results else [results]

    return run


def _apart(zero: UInt32[Array, ""], array: jax.Array) -> jax.Array:
    """`array`, which no operation after it can be computed together with: its bits, changed by a number that is 0.

    `lax.optimization_barrier` is not enough: on a CPU, XLA takes it away before it puts operations together.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):  # integers and keys are not rounded
        return array
    bits = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    changed = lax.bitcast_convert_type(array, bits) ^ zero.astype(bits)
    return lax.bitcast_convert_type(changed, array.dtype)
