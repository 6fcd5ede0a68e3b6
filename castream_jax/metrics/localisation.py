"""Where a map points: pointing game, energy inside the object's boxes, and the box that the map itself draws.

All functions run on the host. Maps are `[B, H, W]` at the image's size (see `castream_jax.attribution.upsample`), boxes
`[B, N, 4]` = (x0, y0, x1, y1) in pixels from the image's upper left corner: (0, 0, W, H) is the whole image. A pixel is
inside a box if its centre is, and inside the object if it is inside any of the object's boxes. Where images have
different numbers of boxes, `valid` `[B, N]` marks those that count.
"""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Bool, Float, Int, Num
import numpy as np
import scipy.ndimage

LOCALISATION = ("PG", "EPG", "IoU")

Boxes = Num[np.ndarray, "..."]  # as they are given: `_checked` says what they should be
Valid = Bool[np.ndarray, "b n"] | None


def localisation_scores(
    saliency: Float[np.ndarray, "b h w"], boxes: Num[np.ndarray, "b n 4"]
) -> dict[str, Float[np.ndarray, " b"]]:
    """Of each map whether it points at the object (`PG`), its energy there (`EPG`) and the overlap of boxes (`IoU`).

    See `pointing_game`, `energy_pointing_game` and `box_iou` at its default threshold.

    Args:
        saliency: maps at the image's size.
        boxes: of each image; one without extent, or without a pixel in the image, stands for no box.

    Returns:
        Each of `LOCALISATION`; NaN for an image without a box.
    """
    height, width = saliency.shape[1:]
    # A box of at least a pixel's side around a pixel's centre holds that centre.
    inside = np.minimum(boxes[..., 2:], [width, height]) - np.maximum(boxes[..., :2], 0)
    valid = (inside >= 1).all(-1)
    scores = {name: np.full(len(saliency), np.nan) for name in LOCALISATION}
    some = valid.any(1)
    if some.any():
        given = saliency[some], boxes[some], valid[some]
        scores["PG"][some] = pointing_game(*given)
        scores["EPG"][some] = energy_pointing_game(*given)
        scores["IoU"][some] = box_iou(*given)[:, 0]
    return scores


def object_mask(boxes: Boxes, height: int, width: int, valid: Valid = None) -> Bool[np.ndarray, "b {height} {width}"]:
    """Whether each pixel is inside the object.

    Raises:
        ValueError: if the shapes do not fit, a valid box has no extent, or an image has no box or none with a pixel.
    """
    boxes, valid = _checked(boxes, valid)
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)[..., None]  # [B, N, 1] each
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (x0 <= x) & (x < x1) & valid[..., None]
    rows = (y0 <= y) & (y < y1)
    mask = (rows[..., :, None] & columns[..., None, :]).any(1)
    empty = np.flatnonzero(~mask.any((1, 2)))
    if len(empty):
        raise ValueError(f"No pixel of image {empty[0]} of the batch is inside its boxes: are they that image's?")
    return mask


def pointing_game(
    saliency: Float[np.ndarray, "b h w"], boxes: Boxes, valid: Valid = None, *, tolerance: float = 0
) -> Bool[np.ndarray, " b"]:
    """Whether the map's maximum hits the object (Zhang et al., Excitation Backprop, 2018); the mean is the accuracy.

    Args:
        tolerance: how far, in pixels, the maximum may be from the nearest pixel of the object, centre to centre; the
            paper allows 15.

    Of several maxima the first in reading order counts.
    """
    saliency = np.asarray(saliency)
    height, width = saliency.shape[1:]
    mask = object_mask(boxes, height, width, valid)
    at = np.stack(np.divmod(saliency.reshape(len(saliency), -1).argmax(1), width), axis=1)
    distances = [np.linalg.norm(np.argwhere(m) - point, axis=1).min() for m, point in zip(mask, at, strict=True)]
    return np.array(distances) <= tolerance


def energy_pointing_game(
    saliency: Float[np.ndarray, "b h w"], boxes: Boxes, valid: Valid = None
) -> Float[np.ndarray, " b"]:
    """Share of the map's sum that lies inside the object (Wang et al., Score-CAM, 2020); 0 for a map of zeros.

    Maps must not be negative.
    """
    saliency = np.asarray(saliency, np.float64)
    height, width = saliency.shape[1:]
    inside = np.sum(saliency, axis=(1, 2), where=object_mask(boxes, height, width, valid))
    total = saliency.sum((1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def saliency_box(saliency: Float[np.ndarray, "h w"], threshold: float = 0.2) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) that a map draws, as Zhou et al. (CAM, 2016) do.

    It bounds the largest component, pixels touching at corners included, of those above `threshold` times the map's
    maximum; of components of one size, the first in reading order. (0, 0, 0, 0) where no pixel is above.
    """
    components, count = _components(saliency > threshold * saliency.max())
    if not count:
        return 0, 0, 0, 0
    largest = int(np.bincount(components.ravel())[1:].argmax())
    rows, columns = scipy.ndimage.find_objects(components)[largest]
    return columns.start, rows.start, columns.stop, rows.stop


def box_iou(
    saliency: Float[np.ndarray, "b h w"], boxes: Boxes, valid: Valid = None, *, thresholds: Sequence[float] = (0.2,)
) -> Float[np.ndarray, "b thresholds"]:
    """Intersection over union of each map's box (see `saliency_box`) and that of the object's boxes which it fits best.

    Localisation accuracy at one threshold is the share of images with at least 0.5; the best such share over all
    thresholds is MaxBoxAcc (Choe et al., 2020). 0 where a map has no box.

    Raises:
        ValueError: if the shapes do not fit, a valid box has no extent, or an image has no box.
    """
    boxes, valid = _checked(boxes, valid)
    drawn = np.array([[saliency_box(one, threshold) for threshold in thresholds] for one in np.asarray(saliency)])
    a, b = drawn[:, :, None].astype(float), boxes[:, None].astype(float)  # [B, T, 1, 4], [B, 1, N, 4]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = sides.clip(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - intersection
    iou = np.divide(intersection, union, out=np.zeros_like(union), where=valid[:, None])
    return iou.max(-1)


def _checked(boxes: Boxes, valid: Valid) -> tuple[Num[np.ndarray, "b n 4"], Bool[np.ndarray, "b n"]]:
    boxes = np.asarray(boxes)
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError(f"boxes must be [B, N, 4] = (x0, y0, x1, y1), got {list(boxes.shape)}.")
    valid = np.ones(boxes.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if valid.shape != boxes.shape[:2]:
        raise ValueError(f"valid must be [B, N] = {list(boxes.shape[:2])}, got {list(valid.shape)}.")
    if not valid.any(1).all():
        raise ValueError(f"Image {np.argmin(valid.any(1))} of the batch has no box: leave out images without boxes.")
    if not (boxes[..., 2:] > boxes[..., :2])[valid].all():
        raise ValueError("A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1: some valid box has no extent.")
    return boxes, valid


def _components(above: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Each pixel's component, from 1 in reading order, 0 for the background; and how many there are."""
    return cast(tuple[np.ndarray, int], scipy.ndimage.label(above, structure=np.ones((3, 3), int)))
