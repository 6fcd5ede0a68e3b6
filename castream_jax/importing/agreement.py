"""What was imported beside the network that it was."""

from collections.abc import Iterator, Mapping
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from castream_jax.importing.capture import POOLED
from castream_jax.importing.found_taps import one_pixel_hint
from castream_jax.importing.network import Network
from castream_jax.importing.trunk_programs import Boundary, Functions

TOLERANCE = 1e-4  # of the spread, largest minus smallest value
_IMAGES = 2


def check_against_torch(
    network: Network, functions: Functions, weights: Mapping[str, np.ndarray], num_classes: int
) -> dict[str, float]:
    """Largest deviations of logits and of each map, as shares of their spread.

    A network that gives the same logits for all images, as one whose classifier is still zeros, would agree whatever
    its maps are: it is compared once more with noise in the parameters that are all one number.

    Raises:
        ValueError: if one exceeds the tolerance, or the logits are not those of the pooled vector.
    """
    deviations, varied = _compared(network, functions, weights, num_classes)
    if not varied:
        with _noise_in_constants(network, functions, weights) as others:
            _, varied = _compared(network, functions, others, num_classes)
    if not varied:
        raise ValueError(f"{network.name} gives the same logits for all images: look at its weights.")
    return deviations


def _compared(
    network: Network, functions: Functions, weights: Mapping[str, np.ndarray], num_classes: int
) -> tuple[dict[str, float], bool]:
    """The deviations, and whether the logits depend on the images."""
    deviations: dict[str, float] = {}
    complete: Any = functions.complete
    varied = False
    stages: Any = jax.jit(lambda w, x: functions.stages(w, x, ()))
    for kind, pixels in _images(network.image_size).items():
        x = ((pixels - np.asarray(network.mean)) / np.asarray(network.std)).astype(np.float32)
        logits, marked, attention = _of_torch(network, functions, x)
        if logits.shape != (_IMAGES, num_classes) or not np.isfinite(logits).all():
            raise ValueError(f"{network.name} gives logits that are not finite: look at its weights.")
        if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-5):
            raise ValueError(f"{network.name} gives probabilities, not logits: return what its softmax is given.")
        _check_alone(network, functions, x, (logits, *marked))
        varied = varied or bool(np.ptp(logits, axis=0).max() > 1e-5 * np.ptp(logits))
        maps, vector = stages(weights, x)
        for boundary, ours, theirs in zip(functions.boundaries, maps, marked, strict=True):
            _note(deviations, f"{network.place(boundary.mark)}, {kind}", np.asarray(ours), theirs)
        for boundary, one, all_ in zip(functions.boundaries, stages(weights, x[:1])[0], maps, strict=True):
            _note(deviations, f"{network.place(boundary.mark)} of one image, {kind}", one, np.asarray(all_[:1]))
        if functions.blocks:
            ours = jax.jit(lambda w, x: functions.attention(w, x))(weights, x)
            _note(deviations, f"attention in its blocks, {kind}", ours, attention)
        if network.target is not None:
            assert vector is not None
            _, _, features, context = jax.jit(lambda w, x: functions.target(w, x))(weights, x)
            completed = jax.jit(lambda w, *rest: complete(w, *rest))(weights, context, features)
            _note(deviations, f"{network.last} after its last block, {kind}", completed[0], np.asarray(maps[-1]))
            _note(deviations, f"class token after the last block, {kind}", completed[1], np.asarray(vector))
        vector = maps[-1].mean((1, 2)) if vector is None else vector
        _note(deviations, f"logits, {kind}", _logits(network, functions, weights, vector, logits), logits)
    worst = max(deviations, key=lambda name: deviations[name])
    if not deviations[worst] <= TOLERANCE:
        raise ValueError(
            f"{network.name} after its import differs from PyTorch by {deviations[worst]:.1e} of the spread in {worst} "
            f"(at most {TOLERANCE:.0e} may be): it uses an operation that is converted otherwise; report it."
        )
    return deviations, varied


def _check_alone(network: Network, functions: Functions, x: np.ndarray, batch: tuple[np.ndarray, ...]) -> None:
    """Raises a ValueError if PyTorch gives other logits or maps for an image alone than in its batch."""
    try:
        logits, maps, _ = _of_torch(network, functions, x[:1])
    except Exception as error:  # whatever a network may raise
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise ValueError(
            f"{network.name} takes no single image ({type(error).__name__}: {reason}): it must take any number of them."
        ) from error
    names = ["logits", *(network.place(boundary.mark) for boundary in functions.boundaries)]
    logits = logits.reshape(1, -1)  # of a batch of one, `squeeze()` takes the batch, too
    for name, alone, together in zip(names, (logits, *maps), batch, strict=True):
        spread = float(np.ptp(together)) or 1.0
        if alone.shape[1:] != together.shape[1:] or not np.abs(alone - together[:1]).max() <= TOLERANCE * spread:
            raise ValueError(
                f"What {network.name} gives for an image ({name}) depends on the other images of its batch: every "
                "image must be computed by itself, as BatchNorm does with its running statistics."
            )


@contextlib.contextmanager
def _noise_in_constants(
    network: Network, functions: Functions, weights: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """The weights with noise in those that are all one number; so has the network itself, for as long."""
    import torch  # pyright: ignore[reportMissingImports]

    rng, others, before = np.random.default_rng(0), dict(weights), {}
    with torch.no_grad():
        for name, parameter in network.module.named_parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                noisy = parameter.numpy() + rng.normal(0, 0.1, parameter.shape).astype(np.float32)
                before[parameter] = parameter.clone()
                parameter.copy_(torch.from_numpy(noisy))
                if name in others:
                    others[name] = noisy.transpose(2, 3, 1, 0) if name in functions.graph.kernels else noisy
        try:
            yield others
        finally:
            for parameter, value in before.items():
                parameter.copy_(value)


def _logits(
    network: Network, functions: Functions, weights: Mapping[str, Any], vector: jax.Array, expected: np.ndarray
) -> np.ndarray:
    """Logits of the pooled vector.

    Raises:
        ValueError: if they are not those that are expected, with what may be wrong.
    """
    found = _follow(functions, weights, vector, expected)
    deviation = _deviation(found, expected)
    if deviation <= 10 * TOLERANCE:
        return found
    pooled = "class token" if functions.has_vector else "mean over positions"
    if network.classifier is not None:
        marks = {mark: node for mark, node in functions.graph.marks.items() if mark != POOLED}
        plain = Functions(network, functions.graph._replace(marks=marks), functions.boundaries)
        if _deviation(_follow(plain, weights, vector, expected), expected) <= 10 * TOLERANCE:
            raise ValueError(
                f"{network.classifier!r} is not the classifier of {network.name}, which is given the {pooled} of "
                f"{network.last!r}: name another sub-module, or none."
            )
    figure = f" (they differ by {deviation:.1e} of the spread)" if np.isfinite(deviation) else ""
    other = f", or {network.classifier!r} is not the classifier" if network.classifier is not None else ""
    way_out = ""
    if network.last != "forward_features":
        way_out = one_pixel_hint(network.module, network.image_size) or (
            " Make what is pooled the output of a sub-module: nn.ReLU() or nn.Identity() of its own, used once."
        )
    raise ValueError(
        f"The logits of {network.name} are not those of the {pooled} of {network.last!r}{figure}{other}: the last tap "
        "must be the map that is pooled, and nothing but its mean, or a class token, may be read of it."
        f"{way_out}"
    )


def _follow(functions: Functions, weights: Mapping[str, Any], vector: jax.Array, expected: np.ndarray) -> np.ndarray:
    """Logits of the pooled vector; tries maps of one position and, if these will not do, of the size of the last."""
    found = np.full(0, np.nan)
    for constant_map in dict.fromkeys((functions.constant_map, True)):
        functions.constant_map = constant_map
        try:
            found = np.asarray(jax.jit(lambda w, v: functions.classify(w, v))(weights, vector))
        except (TypeError, ValueError, AssertionError):  # shapes that are written into the network
            continue
        if found.shape == expected.shape and _deviation(found, expected) <= 10 * TOLERANCE:
            return found
    return found


def _images(size: int) -> dict[str, np.ndarray]:
    """Pixels in [0, 1] of noise, and of a spectrum as photographs have, `1 / frequency`."""
    rng = np.random.default_rng(0)
    noise = rng.random((_IMAGES, size, size, 3))
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequencies[0, 0] = 1 / size
    spectrum = np.fft.rfft2(noise - 0.5, axes=(1, 2)) / frequencies[None, :, :, None]
    smooth = np.fft.irfft2(spectrum, (size, size), axes=(1, 2))
    low, high = smooth.min((1, 2, 3), keepdims=True), smooth.max((1, 2, 3), keepdims=True)
    return {"noise": noise, "smooth images": (smooth - low) / (high - low)}


def _of_torch(network: Network, functions: Functions, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Logits, the maps at the boundaries, `[B, h, w, d]`, and `Functions.attention`, by the network itself."""
    import torch  # pyright: ignore[reportMissingImports]

    found: dict[str, Any] = {}

    def keep(mark: str) -> Any:
        return lambda _, __, y: found.__setitem__(mark, y.clone())  # what follows may write into it

    modules = dict(network.module.named_modules())
    handles = []
    named = {boundary.mark: network.place(boundary.mark) for boundary in functions.boundaries}
    for mark, name in (named | {name: name for _, name in functions.blocks}).items():
        if name in modules:
            handles.append(modules[name].register_forward_hook(keep(mark)))
    try:
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            logits = network.module(images.clone())
            if network.last == "forward_features":
                found["last"] = network.module.forward_features(images)
    finally:
        for handle in handles:
            handle.remove()
    maps = [_as_map(found[boundary.mark].numpy(), boundary, network) for boundary in functions.boundaries]
    attention = [found[name].numpy().mean(1) for _, name in functions.blocks]
    return logits.numpy(), maps, np.stack(attention, 1) if attention else np.empty(0)


def _as_map(value: np.ndarray, boundary: Boundary, network: Network) -> np.ndarray:
    if boundary.layout == "nchw":
        return value.transpose(0, 2, 3, 1)
    if boundary.layout == "nhwc":
        return value
    patches = value[:, network.prefix_tokens :]
    return patches.reshape(len(value), boundary.height, boundary.width, boundary.dim)


def _note(deviations: dict[str, float], name: str, ours: Any, theirs: np.ndarray) -> None:
    deviations[name] = _deviation(np.asarray(jnp.asarray(ours, jnp.float32)), theirs)


def _deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    spread = float(theirs.max() - theirs.min()) or 1.0
    deviation = float(np.abs(ours - theirs).max() / spread) if ours.shape == theirs.shape else np.inf
    return np.inf if np.isnan(deviation) else deviation
