"""Protocols in Markdown: the list of them, the choices of one, and where two differ."""

from collections.abc import Iterator
from typing import Any

from castream_jax.protocol import PROTOCOLS, differences, get_protocol


def protocols_table() -> Iterator[str]:
    """Name, hash and the choices that are not those of `castream`, of every protocol."""
    yield "| protocol | hash | differs from `castream` in |"
    yield "|---|---|---|"
    for name, protocol in PROTOCOLS.items():
        changed = differences(get_protocol("castream"), protocol)
        choices = ", ".join(f"{field} = {_code(value)}" for field, (_, value) in changed.items())
        yield f"| {_code(name)} | {_code(protocol.hash)} | {choices or '–'} |"


def protocol_table(name: str) -> Iterator[str]:
    """Every choice of one protocol, and its hash.

    Raises:
        ValueError: for an unknown name.
    """
    protocol = get_protocol(name)
    yield f"| choice | {_code(name)} |"
    yield "|---|---|"
    yield f"| hash | {_code(protocol.hash)} |"
    for field, value in protocol.as_dict().items():
        if field != "name":
            yield f"| {field} | {_code(value)} |"


def differences_table(a: str, b: str) -> Iterator[str]:
    """The choices that differ between two protocols, under their names and hashes.

    Raises:
        ValueError: for an unknown name.
    """
    first, second = get_protocol(a), get_protocol(b)
    yield f"| choice | {_code(a)} {_code(first.hash)} | {_code(b)} {_code(second.hash)} |"
    yield "|---|---|---|"
    for field, values in differences(first, second).items():
        yield f"| {field} | {' | '.join(map(_code, values))} |"


def _code(value: Any) -> str:
    return f"`{value}`"
