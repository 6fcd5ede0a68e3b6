"""Protocols: names, hashes, immutability."""

import dataclasses

import pytest

import castream_jax as castream


def test_hash_depends_on_every_field_but_the_name():
    base = castream.Protocol("a")
    assert base.hash == castream.Protocol("b").hash
    others = [
        castream.Protocol("a", target_class="predicted"),
        castream.Protocol("a", blur_size=7),
        castream.Protocol("a", blur_sigma=2.0),
        castream.Protocol("a", rows_per_step=2),
    ]
    assert len({protocol.hash for protocol in (base, *others)}) == 1 + len(others)
    assert len(others) == len(dataclasses.fields(castream.Protocol)) - 1


def test_hash_is_stable_between_releases():
    assert castream.get_protocol("castream").hash == "6e301fa97479"


def test_protocols_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        castream.get_protocol("castream").blur_size = 3  # pyright: ignore[reportAttributeAccessIssue]
