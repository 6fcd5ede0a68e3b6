"""What a model saw in one image: predictions, saliency maps and attention, to draw, save and print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image

from castream_jax.protocol import Protocol
from castream_jax.runtime.atomic_files import replacing, write_atomically

TOP = 5  # predictions that are shown


class Prediction(NamedTuple):
    """A class by its number, its name ("" where it is not known) and its probability."""

    number: int
    name: str
    probability: float

    @property
    def title(self) -> str:
        """The name or, where there is none, the number."""
        return self.name or f"class {self.number}"


@dataclass(frozen=True, repr=False)
class Explanation:
    """One image, explained. `h`, `w` are those of the features; `H`, `W` the model's input size.

    Attributes:
        name: path of the image, or "image".
        pixels: what the model saw, `[H, W, 3]`.
        picture: the same part of the image in its own proportions, to be looked at.
        class_names: name of class k at position k; empty where they are not known.
        probabilities: head -> `[K]`.
        classes: head -> the class that its maps explain.
        maps: (head, method) -> `[h, w]` in [0, 1], as `castream_jax.attribute` gives it.
        attention: stream head -> stage number -> softmax attention `[num_heads, h_l, w_l]`, as the stream gives it.
        protocol: what maps and probabilities follow.
    """

    name: str
    pixels: UInt8[np.ndarray, "H W 3"]
    picture: Image.Image
    class_names: Sequence[str]
    probabilities: Mapping[str, Float[np.ndarray, " k"]]
    classes: Mapping[str, int]
    maps: Mapping[tuple[str, str], Float[np.ndarray, "_h _w"]]
    attention: Mapping[str, Mapping[int, Float[np.ndarray, "_n _hl _wl"]]]
    protocol: Protocol

    def __repr__(self) -> str:
        best = [f"{head}: {self.predictions(head, 1)[0].title}" for head in self.probabilities]
        return f"Explanation({self.name!r}, {', '.join(best)}, {len(self.maps)} maps)"

    def prediction(self, head: str, number: int) -> Prediction:
        """A class by its number, with its probability under `head`."""
        name = self.class_names[number] if number < len(self.class_names) else ""
        return Prediction(number, name, float(self.probabilities[head][number]))

    def predictions(self, head: str, top: int = TOP) -> list[Prediction]:
        """The most probable classes under `head`, best first; of equals the first."""
        order = np.argsort(-self.probabilities[head], kind="stable")
        return [self.prediction(head, int(number)) for number in order[:top]]

    def explained(self, head: str) -> Prediction:
        """The class that the maps of `head` explain."""
        return self.prediction(head, self.classes[head])

    def overlay(self, head: str | None = None, method: str | None = None) -> Image.Image:
        """A map laid over the picture.

        Args:
            head, method: which map; by default the first there is.

        Raises:
            ValueError: if there is no such map.
        """
        for key, saliency in self.maps.items():
            if head in (None, key[0]) and method in (None, key[1]):
                return self._over_picture(saliency)
        there = ", ".join(f"{method} of {head}" for head, method in self.maps)
        raise ValueError(f"There is no map {method or ''} of {head or 'any head'}; there is {there}.")

    def attention_overlay(self, head: str, stage: int, attention_head: int | None = None) -> Image.Image:
        """The attention of a stage laid over the picture, from its least (0) to its greatest (1).

        Args:
            head: a stream.
            stage: S0 … SL.
            attention_head: from 0; by default the mean over attention heads.

        Raises:
            ValueError: if there is no such attention.
        """
        of_heads = self.attention.get(head, {}).get(stage)
        if of_heads is None or not 0 <= (attention_head or 0) < len(of_heads):
            wanted = f"S{stage}" + ("" if attention_head is None else f", attention head {attention_head}")
            there = "; ".join(
                f"{name} has {', '.join(f'S{number}' for number in stages)} of {len(next(iter(stages.values())))} "
                "attention head(s)"
                for name, stages in self.attention.items()
            )
            raise ValueError(f"There is no attention of {head!r} at {wanted}: {there or 'no head is a stream'}.")
        scores = of_heads.mean(0) if attention_head is None else of_heads[attention_head]
        span = scores.max() - scores.min()
        return self._over_picture((scores - scores.min()) / span if span > 0 else np.zeros_like(scores))

    def _over_picture(self, saliency: Float[np.ndarray, "h w"]) -> Image.Image:
        from castream_jax.reporting.gallery import overlay  # matplotlib is not needed before

        return Image.fromarray(overlay(np.asarray(self.picture), saliency))

    def attention_parts(self, head: str) -> list[tuple[int, int | None]]:
        """(stage, attention head) of all there is to see of a stream: of several attention heads, first their mean."""
        return [
            (stage, number)
            for stage, of_heads in self.attention[head].items()
            for number in (None, *(range(len(of_heads)) if len(of_heads) > 1 else ()))
        ]

    def overview(self) -> Image.Image:
        """Everything on one sheet."""
        from castream_jax.explanation.drawing import overview, rows_of

        return overview(self, rows_of(self))

    def show(self) -> None:
        """Shows everything: in a notebook below the cell, elsewhere in the system's image viewer."""
        if _in_notebook():
            from IPython.display import display  # pyright: ignore[reportMissingImports] - there, it is installed

            display(self)
        else:
            self.overview().show(title=self.name)

    def _repr_html_(self) -> str:
        """Everything as HTML with its pictures inside; a notebook shows it."""
        from castream_jax.explanation.drawing import html, rows_of

        return html(self, rows_of(self))

    def as_dict(self) -> dict[str, Any]:
        """Predictions as plain values."""
        return {
            "image": self.name,
            "heads": {
                head: {
                    "predictions": [_as_dict(prediction) for prediction in self.predictions(head)],
                    "explained": _as_dict(self.explained(head)),
                }
                for head in self.probabilities
            },
        }

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the sheet, the page, every overlay and the predictions to `folder`.

        Returns:
            `{"overview": path, "page": path, "overlays": {head: {method: path}}, "attention": {head: {"S0": path}}}`,
            of several attention heads `"S0"` their mean and `"S0:1"` one of them. The same, with `as_dict`, is in
            `explanation.json`.
        """
        from castream_jax.explanation.drawing import overview, page, rows_of

        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)

        def write(image: Image.Image, name: str) -> str:
            with replacing(folder / f"{_file_name(name)}.png") as temporary:
                image.save(temporary, compress_level=1)  # a third of the time for a little more disk
            return str(folder / f"{_file_name(name)}.png")

        rows = rows_of(self)
        write_atomically(folder / "index.html", page(self, rows))
        files: dict[str, Any] = {
            "overview": write(overview(self, rows), "overview"),
            "page": str(folder / "index.html"),
            "overlays": {},
            "attention": {},
        }
        for tile in (tile for row in rows for tile in row.tiles):
            match tile.key:
                case head, method:
                    files["overlays"].setdefault(head, {})[method] = write(tile.image, f"{head}.{method}")
                case head, stage, number:
                    part = f"S{stage}" if number is None else f"S{stage}:{number}"
                    name = f"{head}.attention.{part}"
                    files["attention"].setdefault(head, {})[part] = write(tile.image, name)
        text = json.dumps(self.as_dict() | {"files": files}, indent=2, ensure_ascii=False)
        write_atomically(folder / "explanation.json", text + "\n")
        return files


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    return {
        "class": prediction.number,
        "name": prediction.name or None,
        "probability": prediction.probability,
    }


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text)


def _in_notebook() -> bool:
    try:
        return get_ipython().has_trait("kernel")  # pyright: ignore[reportUndefinedVariable] - IPython defines it
    except (NameError, AttributeError):
        return False
