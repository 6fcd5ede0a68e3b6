"""Draws docs/images/photographs.webp: photographs, Grad-CAM under GAP and under a stream, and the stream's attention.

python docs/photographs/draw.py WORKDIR    of configs/imagenet/efficientnet_lite0.py:sample
"""

from pathlib import Path
import sys

from PIL import Image, ImageOps

import castream_jax as castream
from castream_jax.exporting.from_workdir import open_workdir

HERE = Path(__file__).parent
SIDE, GAP = 240, 8  # pixels


def main(workdir: str) -> None:
    """Writes the picture, a row per photograph."""
    model, _ = open_workdir(workdir)
    last = len(model.backbone.stage_dims) - 1
    rows = []
    for explanation in castream.explain_many(model, sorted(HERE.glob("*.jpg")), methods=("gradcam",)):
        attention = explanation.attention_overlay("ca", last)
        rows.append(
            [explanation.picture, explanation.overlay("gap"), explanation.overlay("ca"), attention],
        )
    step = SIDE + GAP
    sheet = Image.new("RGB", (step * len(rows[0]) - GAP, step * len(rows) - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(ImageOps.fit(picture, (SIDE, SIDE)), (step * x, step * y))
    sheet.save(HERE.parent / "images" / "photographs.webp", quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
