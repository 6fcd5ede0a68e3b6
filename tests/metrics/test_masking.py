"""Average drop, gain and increase: their definitions in float64, and no NaN anywhere."""

from hypothesis import given
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np

from castream_jax.metrics import masking

probability = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32, allow_subnormal=False))


@given(p=probability, o=probability)
def test_definitions_hold_and_stay_finite(p: float, o: float):
    drop = float(masking.average_drop(jnp.float32([p]), jnp.float32([o]))[0])
    gain = float(masking.average_gain(jnp.float32([p]), jnp.float32([o]))[0])
    increase = float(masking.average_increase(jnp.float32([p]), jnp.float32([o]))[0])
    # 1 - p is taken in float32, whose spacing at 1 is 6e-8: the quotient inherits that relative to 1 - p.
    np.testing.assert_allclose(drop, max(0, p - o) / p if p else 0, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(gain, max(0, o - p) / (1 - p) if p < 1 else 0, rtol=1e-6, atol=1e-7 / max(1e-7, 1 - p))
    assert increase == (o > p)
    assert 0 <= drop <= 1
    assert 0 <= gain <= 1
    assert drop == 0 or gain == 0
