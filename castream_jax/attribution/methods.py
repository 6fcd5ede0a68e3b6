"""Attribution methods by name."""

from collections.abc import Callable
import difflib
import inspect
from typing import NamedTuple

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


class Call(NamedTuple):
    """What a text asks for: `"inverted-attention:2"` is one minus the map of `attention` called with 2."""

    method: Method
    numbers: tuple[int, ...]
    inverted: bool


METHODS: dict[str, Method] = {}


def register_method(
    name: str, *, finished: bool = False, chunked: bool = False, check: Check | None = None
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

    Raises:
        ValueError: if the name is taken, or could not be told from numbers or an inversion.
    """
    if ":" in name or name.startswith(INVERTED):
        raise ValueError(f"An attribution method's name has no colon and does not begin with {INVERTED!r}: {name!r}.")

    def register(function: Function) -> Function:
        if name in METHODS:
            raise ValueError(f"There is already an attribution method {name!r}: choose another name.")
        METHODS[name] = Method(function, finished, chunked, check)
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
