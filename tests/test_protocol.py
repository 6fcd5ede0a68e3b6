"""Protocols: names, hashes, immutability, and no choice that does not exist."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import castream_jax as castream
from castream_jax.protocol import PROTOCOLS, differences


def other_values(field: dataclasses.Field, value: object) -> list:
    """Allowed values of a field that are not `value`."""
    if choices := [choice for choice in get_args(field.type) if isinstance(choice, str)]:
        return [choice for choice in choices if choice != value]
    return [0.25, 0.75] if field.type is float else [7, 9]


def test_hash_depends_on_every_field_but_the_name():
    base = castream.Protocol("a")
    assert base.hash == castream.Protocol("b").hash
    hashes, values = {base.hash}, 1
    for field in dataclasses.fields(base)[1:]:
        for value in other_values(field, getattr(base, field.name)):
            if value != getattr(base, field.name):
                changed = dataclasses.replace(base, **{field.name: value})
                assert list(differences(base, changed)) == [field.name]
                hashes.add(changed.hash)
                values += 1
    assert values > len(dataclasses.fields(base))
    assert len(hashes) == values


def test_hashes_are_stable_between_releases():
    assert {name: protocol.hash for name, protocol in PROTOCOLS.items()} == {
        "castream": "360fb410b49d",
        "castream-pred": "e0c47c1e4ff8",
        "rise": "e1747947dd0a",
        "opticam": "4f0495243d4b",
        "torchcam": "718432c0b3f4",
    }


def test_protocols_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        castream.get_protocol("castream").blur_size = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"masked_space": "normalized"}, "masked_space must be 'pixels' or 'normalised', got 'normalized'."),
        ({"blur_size": 4}, "blur_size must be odd"),
        ({"rows_per_step": 0}, "rows_per_step must be at least 1, got 0"),
        ({"blur_sigma": -5.0}, r"blur_sigma must be at least 0\.1, got -5\.0"),
        ({"blur_sigma": float("nan")}, r"blur_sigma must be at least 0\.1, got nan"),
        ({"rise_probability": 2.0}, r"rise_probability must be greater than 0 and less than 1, got 2\.0"),
        ({"rise_masks": 0}, "rise_masks must be at least 1, got 0"),
        ({"opticam_steps": 0}, "opticam_steps must be at least 1, got 0"),
        ({"opticam_learning_rate": -1}, "opticam_learning_rate must be greater than 0, got -1"),
        ({"scorecam_channels": -5}, "scorecam_channels must be at least 0, got -5"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"target_stage": "layer4"}, "target_stage must be a whole number or None, got 'layer4'."),
        ({"seed": True}, "seed must be a whole number, got True."),
        ({"name": 3}, "name must be text, got 3."),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(fields: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        castream.Protocol(**{"name": "mine"} | fields)


@pytest.mark.usefixtures("unchecked_calls")
@pytest.mark.parametrize("given", [3, None, ["castream"]])
def test_what_is_no_protocol_is_refused(given):
    with pytest.raises(ValueError, match="A protocol is a name or a Protocol, got"):
        castream.get_protocol(given)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown protocol 'opti-cam': did you mean opticam\?"):
        castream.get_protocol("opti-cam")


def test_probabilities_are_softmax_or_sigmoid():
    logits = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    softmax = castream.Protocol("a").probabilities(jnp.asarray(logits))
    sigmoid = castream.Protocol("b", probability="sigmoid").probabilities(jnp.asarray(logits))
    np.testing.assert_allclose(softmax, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert isinstance(softmax, jax.Array)


def test_a_name_goes_with_one_hash():
    """A variant of a known protocol is called what it equals, or says what differs, however often it is changed."""
    base = castream.get_protocol("castream")
    predicted = dataclasses.replace(base, target_class="predicted")
    assert (predicted.name, predicted.hash) == ("castream-pred", castream.get_protocol("castream-pred").hash)
    assert dataclasses.replace(predicted, target_class="label") == base
    variant = dataclasses.replace(castream.get_protocol("rise"), target_class="label", seed=3)
    assert variant.name == "rise with target_class=label, seed=3"
    assert dataclasses.replace(variant, seed=0).name == "rise with target_class=label"
    assert dataclasses.replace(base, name="mine", seed=3).name == "mine"
    assert castream.Protocol() == base
    whole = castream.Protocol("castream", blur_sigma=5)
    assert (whole, whole.name, whole.hash) == (base, base.name, base.hash)
