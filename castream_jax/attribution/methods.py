"""Attribution methods by name."""

from collections.abc import Callable, Mapping
import difflib
import inspect
import traceback
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from castream_jax.plugins import load_plugins

# Of a batch and the numbers that follow the method's name (`"attention:2"`), the scores `[B, h, w]` of every head that
# the method explains.
Function = Callable[..., dict[str, Float[Array, "b h w"]]]

# Of model, protocol and the same numbers; raises a ValueError where the method explains none of the model's heads.
Check = Callable[..., None]

INVERTED = "inverted-"


class Method(NamedTuple):
    """A registered function; `finished` if its maps are in [0, 1] as they are, `chunked` if it reads `Inputs.chunk`."""

    function: Function
    finished: bool
    chunked: bool
    check: Check | None
    paper: str = ""

    @property
    def line(self) -> str:
        """What the method computes: the first line of the function's docstring, empty where there is none."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


class Call(NamedTuple):
    """What a text asks for: `"inverted-attention:2"` is one minus the map of `attention` called with 2."""

    method: Method
    numbers: tuple[int, ...]
    inverted: bool


METHODS: dict[str, Method] = {}


def register_method(
    name: str, *, finished: bool = False, chunked: bool = False, check: Check | None = None, paper: str = ""
) -> Callable[[Function], Function]:
    """Makes `attribute(…, methods=(name,))` call the decorated function.

    The function takes `Inputs`, and the integers that follow the name after colons, if it takes any; it returns
    `{head: scores [B, h, w]}`, from which `attribute` makes maps in [0, 1] unless they are `finished`. One minus its
    map is the method `inverted-<name>`.

    Args:
        name: the new name.
        finished: the scores are maps in [0, 1] as they are.
        chunked: the function reads `Inputs.chunk`, whose default takes a compilation to work out.
        check: called with model, protocol and the numbers before anything is computed; raises a ValueError where the
            method has no map for them.
        paper: where the method was published, for `castream methods`, which prints the first line of the function's
            docstring, too.

    Raises:
        ValueError: if the name is taken, or could not be told from numbers or an inversion.
    """
    if ":" in name or name.startswith(INVERTED):
        raise ValueError(f"An attribution method's name has no colon and does not begin with {INVERTED!r}: {name!r}.")

    def register(function: Function) -> Function:
        if name in METHODS:
            raise ValueError(f"There is already an attribution method {name!r}: choose another name.")
        METHODS[name] = Method(function, finished, chunked, check, paper)
        return function

    return register


def parse_method(text: str) -> Call:
    """The method that `text` names, with its numbers.

    Raises:
        ValueError: if there is no such method, or it does not take these numbers.
    """
    name, *numbers = text.removeprefix(INVERTED).split(":")
    if name not in METHODS:
        load_plugins("castream_jax.methods")
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no attribution method {text!r}: {hint}choose from {', '.join(METHODS)}.")
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{text!r}: what follows an attribution method's name must be numbers, as in attention:2.")
    signature = inspect.signature(METHODS[name].function)
    try:
        signature.bind(None, *numbers)
    except TypeError:
        _, *names = signature.parameters
        takes = f"the numbers {', '.join(names)}" if names else "no numbers"
        raise ValueError(f"{text!r}: {name} takes {takes} after its name, got {len(numbers)}.") from None
    return Call(METHODS[name], tuple(map(int, numbers)), text.startswith(INVERTED))


def scores_of(text: str, method: Method, numbers: tuple[int, ...], inputs: Any) -> dict[str, Float[Array, "b h w"]]:
    """What a method returns for `inputs`, if it is what a method must return.

    Raises:
        ValueError: if it is not, or the method fails; names the method.
    """
    try:
        scores = method.function(inputs, *numbers)
    except Exception as error:  # whatever somebody's method may raise
        reason = " ".join(str(error).split("\n", 1)[0].split())
        place = _line_in(method.function, error)
        raise ValueError(f"Attribution method {text!r} fails: {type(error).__name__}: {reason}{place}.") from error
    heads = tuple(inputs.model.heads)
    if isinstance(scores, Mapping) and not scores:
        raise ValueError(f"{text!r} has no map for any head of the model ({', '.join(heads)}).")
    if isinstance(scores, Mapping) and all(head in heads and _are_scores(s, inputs) for head, s in scores.items()):
        return dict(scores)
    found = {head: _described(s) for head, s in scores.items()} if isinstance(scores, Mapping) else _described(scores)
    raise ValueError(
        f"Attribution method {text!r} must return {{head: scores}}, for heads of {', '.join(heads)} floating-point "
        f"arrays [B, h, w] with B = {inputs.pixels.shape[0]}, got {found}."
    )


def _are_scores(scores: Any, inputs: Any) -> bool:
    return (
        getattr(scores, "ndim", 0) == 3
        and scores.shape[0] == inputs.pixels.shape[0]
        and 0 not in scores.shape
        and jnp.issubdtype(scores.dtype, jnp.floating)
    )


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__


def _line_in(function: Callable[..., Any], error: Exception) -> str:
    """Where in the function's file it happened, if that is known."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if lines else ""
