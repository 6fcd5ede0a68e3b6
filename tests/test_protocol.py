"""Protocols: names, hashes, immutability."""

import dataclasses

import pytest

import castream_jax as castream


def test_hash_depends_on_every_field_but_the_name():
    base = castream.Protocol("a")
    assert base.hash == castream.Protocol("b").hash
    hashes = {base.hash}
    for field in dataclasses.fields(base)[1:]:
        for value in (-1, "another"):
            hashes.add(dataclasses.replace(base, **{field.name: value}).hash)
    assert len(hashes) == 1 + 2 * (len(dataclasses.fields(base)) - 1)


def test_hash_is_stable_between_releases():
    assert castream.get_protocol("castream").hash == "c8f7072ff817"


def test_protocols_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        castream.get_protocol("castream").blur_size = 3  # pyright: ignore[reportAttributeAccessIssue]
