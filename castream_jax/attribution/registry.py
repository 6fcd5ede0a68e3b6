"""Attribution methods by name."""

from collections.abc import Callable
import difflib
from typing import NamedTuple

from jaxtyping import Array, Float

from castream_jax.attribution.inputs import Inputs

# Of a batch and the numbers that follow the method's name (`"attention:2"`), the scores `[B, h, w]` of every head that
# the method explains.
Function = Callable[..., dict[str, Float[Array, "b h w"]]]


class Method(NamedTuple):
    """A registered function; `finished` if its maps are in [0, 1] as they are, `chunked` if it reads `Inputs.chunk`."""

    function: Function
    finished: bool
    chunked: bool


METHODS: dict[str, Method] = {}


def register_method(name: str, *, finished: bool = False, chunked: bool = False) -> Callable[[Function], Function]:
    """Makes `attribute(…, methods=(name,))` call the decorated function.

    The function takes `Inputs`, and the integers that follow the name after colons, if it takes any; it returns
    `{head: scores [B, h, w]}`, from which `attribute` makes maps in [0, 1] unless they are `finished`.
    Only for a `chunked` one is the default of `Inputs.chunk` worked out, which takes a compilation.

    Raises:
        ValueError: if the name is taken.
    """

    def register(function: Function) -> Function:
        if name in METHODS:
            raise ValueError(f"There is already an attribution method {name!r}: choose another name.")
        METHODS[name] = Method(function, finished, chunked)
        return function

    return register


def scores_of_method(text: str, inputs: Inputs) -> dict[str, Float[Array, "b h w"]]:
    """The scores by the method that `text` names."""
    name, *numbers = text.split(":")
    return METHODS[name].function(inputs, *map(int, numbers))


def check_method(text: str) -> None:
    """Raises a ValueError if `text` names no method."""
    name, *numbers = text.split(":")
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no attribution method {text!r}: {hint}choose from {', '.join(METHODS)}.")
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{text!r}: what follows an attribution method's name must be numbers, as in attention:2.")
