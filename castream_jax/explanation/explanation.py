"""What a model saw in one image: predictions, saliency maps and attention, to look at, save and print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image

from castream_jax.drawing.attention_scale import on_scale, ratio_text
from castream_jax.drawing.contact_sheet import Bar, BarChart, Sheet, Tile, TileRow, draw_sheet
from castream_jax.drawing.overlay import overlay
from castream_jax.drawing.titles import head_title, method_title
from castream_jax.explanation.file_names import distinct, file_name
from castream_jax.protocol import Protocol
from castream_jax.runtime.atomic_files import json_text, replacing, write_atomically
from castream_jax.runtime.local_path import local_path

TOP = 5  # predictions that are shown
_COLUMN, _HIGHEST = 224, 336  # of a picture on the sheet, in pixels


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
        orientation_ignored: whether the image has an EXIF orientation that was not applied.

    Examples:
        >>> backbone = castream.load_backbone("cifar_resnet8", "digits")
        >>> model = castream.Model(backbone, {"gap": castream.GlobalAveragePooling()}, castream.ImageSpec(64))
        >>> explanation = castream.explain(model, np.zeros((64, 64, 3), np.uint8))
        >>> explanation.explained("gap") == explanation.predictions("gap")[0]
        True
        >>> explanation.maps["gap", "gradcam"].shape, explanation.overlay().size
        ((16, 16), (256, 256))
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
    orientation_ignored: bool = False

    def __repr__(self) -> str:
        best = [f"{head}: {self.predictions(head, 1)[0].title}" for head in self.probabilities]
        return f"Explanation({self.name!r}, {', '.join(best)}, {len(self.maps)} maps)"

    def prediction(self, head: str, number: int) -> Prediction:
        """A class by its number, with its probability under `head`; a ValueError if there is none."""
        probabilities = self._probabilities(head)
        if not 0 <= number < len(probabilities):
            raise ValueError(f"There is no class {number}: classes are 0 … {len(probabilities) - 1}.")
        name = self.class_names[number] if number < len(self.class_names) else ""
        return Prediction(number, name, float(probabilities[number]))

    def predictions(self, head: str, top: int = TOP) -> list[Prediction]:
        """The `top` most probable classes under `head`, best first, of equals the first; a ValueError if there is no
        such head, or `top` is not positive."""
        if top < 1:
            raise ValueError(f"top must be the number of predictions wanted, at least 1, got {top}.")
        order = np.argsort(-self._probabilities(head), kind="stable")
        return [self.prediction(head, int(number)) for number in order[:top]]

    def explained(self, head: str) -> Prediction:
        """The class that the maps of `head` explain; a ValueError if there is no such head."""
        self._probabilities(head)
        return self.prediction(head, self.classes[head])

    def _probabilities(self, head: str) -> Float[np.ndarray, " k"]:
        if head not in self.probabilities:
            raise ValueError(f"There is no head {head!r}: this explanation is of {', '.join(self.probabilities)}.")
        return self.probabilities[head]

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

    def attention_overlay(
        self, head: str, stage: int, attention_head: int | None = None, *, absolute: bool = False
    ) -> Image.Image:
        """The attention of a stage laid over the picture, from its least (0) to its greatest (1).

        Args:
            head: a stream.
            stage: S0 … SL.
            attention_head: from 0; by default the mean over attention heads.
            absolute: draw it instead in multiples of uniform attention (`castream_jax.drawing.attention_scale`), on one
                scale for all images and stages, on which a nearly uniform attention looks so.

        Raises:
            ValueError: if there is no such attention.
        """
        scores = self._attention(head, stage, attention_head)
        if absolute:
            return self._over_picture(on_scale(scores * scores.size))
        span = scores.max() - scores.min()
        return self._over_picture((scores - scores.min()) / span if span > 0 else np.zeros_like(scores))

    def _attention(self, head: str, stage: int, attention_head: int | None) -> Float[np.ndarray, "h w"]:
        attention = self.attention.get(head, {}).get(stage)
        if attention is None or not 0 <= (attention_head or 0) < len(attention):
            wanted = f"S{stage}" + ("" if attention_head is None else f", attention head {attention_head}")
            there = "; ".join(
                f"{name} has {', '.join(f'S{number}' for number in stages)} of {len(next(iter(stages.values())))} "
                "attention head(s)"
                for name, stages in self.attention.items()
            )
            raise ValueError(f"There is no attention of {head!r} at {wanted}: {there or 'no head is a stream'}.")
        return attention.mean(0) if attention_head is None else attention[attention_head]

    def _over_picture(self, saliency: Float[np.ndarray, "h w"]) -> Image.Image:
        return Image.fromarray(overlay(np.asarray(self.picture), saliency))

    def attention_parts(self, head: str) -> list[tuple[int, int | None]]:
        """(stage, attention head) of all there is to see of a stream: of several attention heads, first their mean."""
        return [
            (stage, number)
            for stage, attention in self.attention[head].items()
            for number in (None, *(range(len(attention)) if len(attention) > 1 else ()))
        ]

    def overview(self) -> Image.Image:
        """Everything on one sheet."""
        return self._draw(self._sheet(self._map_tiles(), self._attention_tiles()))

    def show(self) -> None:
        """Shows everything: in a notebook below the cell, elsewhere in the system's image viewer."""
        if _in_notebook():
            from IPython.display import display  # pyright: ignore[reportMissingImports] - there, it is installed

            display(self)
        else:
            self.overview().show(title=self.name)

    def _repr_html_(self) -> str:
        """Everything as HTML with its pictures inside; a notebook shows it."""
        from castream_jax.explanation.explanation_page import render_fragment  # with all of the report's page

        return render_fragment(self._sheet(self._map_tiles(), self._attention_tiles()), self.name)

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
        from castream_jax.explanation.explanation_page import render_page

        folder = local_path(folder)
        folder.mkdir(parents=True, exist_ok=True)

        taken: set[str] = set()

        def write(image: Image.Image, name: str) -> str:
            name = distinct(file_name(name), taken)  # heads may differ in what a file's name cannot have
            with replacing(folder / f"{name}.png") as temporary:
                image.save(temporary, compress_level=1)  # a third of the time for a little more disk
            return str(folder / f"{name}.png")

        maps, attention = self._map_tiles(), self._attention_tiles()
        sheet = self._sheet(maps, attention)
        write_atomically(folder / "index.html", render_page(sheet, self.name))
        files: dict[str, Any] = {
            "overview": write(self._draw(sheet), "overview"),
            "page": str(folder / "index.html"),
            "overlays": {},
            "attention": {},
        }
        for (head, method), tile in maps.items():
            files["overlays"].setdefault(head, {})[method] = write(tile.image, f"{head}.{method}")
        for head, tiles in attention.items():
            for (stage, number), tile in tiles.items():
                part = f"S{stage}" if number is None else f"S{stage}:{number}"
                files["attention"].setdefault(head, {})[part] = write(tile.image, f"{head}.attention.{part}")
        write_atomically(folder / "explanation.json", as_json(self.as_dict() | {"files": files}) + "\n")
        return files

    def _map_tiles(self) -> dict[tuple[str, str], Tile]:
        return {
            (head, method): Tile(
                self.overlay(head, method),
                f"{method_title(method)}, {head_title(head)}",
                "from least to greatest" if "attention" in method else f"for {self.explained(head).title}",
            )
            for head, method in self.maps
        }

    def _attention_tiles(self) -> dict[str, dict[tuple[int, int | None], Tile]]:
        return {
            head: {part: self._attention_tile(head, *part) for part in self.attention_parts(head)}
            for head in self.attention
        }

    def _attention_tile(self, head: str, stage: int, number: int | None) -> Tile:
        count, height, width = self.attention[head][stage].shape
        if number is not None:
            title = f"S{stage}, attention head {number}"
        else:
            title = f"S{stage}" if count == 1 else f"S{stage}, mean of {count} heads"
        highest = float(self._attention(head, stage, number).max()) * width * height
        picture = self.attention_overlay(head, stage, number, absolute=True)
        return Tile(picture, title, f"{width} × {height}, {ratio_text(highest)}")

    def _sheet(
        self, maps: Mapping[tuple[str, str], Tile], attention: Mapping[str, Mapping[tuple[int, int | None], Tile]]
    ) -> Sheet:
        """Predictions of each head, the image with its maps, then the attention of each stream, stage by stage."""
        height, width = self.pixels.shape[:2]
        rows = [TileRow("Saliency", [Tile(self.picture, "Image", f"seen at {width} × {height}"), *maps.values()])]
        for head, tiles in attention.items():
            title = f"Attention of {head_title(head)}"
            if len(tiles) == len(self.attention[head]):
                rows.append(TileRow(title, list(tiles.values())))
                continue
            # Of several attention heads, a row for each stage: their mean, and each of them.
            for stage in self.attention[head]:
                rows.append(TileRow(title, [tile for (at, _), tile in tiles.items() if at == stage]))
                title = ""
        charts = [BarChart(head_title(head), self._bars(head)) for head in self.probabilities]
        return Sheet(Path(self.name).name, charts, rows)

    def _bars(self, head: str) -> list[Bar]:
        """The most probable classes and, if it is not among them, the one that is explained."""
        shown = dict.fromkeys([*self.predictions(head), self.explained(head)])
        return [Bar(one.title, one.probability, one.number == self.classes[head]) for one in shown]

    def _draw(self, sheet: Sheet) -> Image.Image:
        ratio = self.picture.height / self.picture.width
        if ratio <= _HIGHEST / _COLUMN:
            size = (_COLUMN, max(1, round(_COLUMN * ratio)))
        else:
            size = (round(_HIGHEST / ratio), _HIGHEST)
        return draw_sheet(sheet, size, _COLUMN)


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    return {
        "class": prediction.number,
        "name": prediction.name or None,
        "probability": prediction.probability,
    }


def as_json(value: Mapping[str, Any]) -> str:
    """JSON to be read by people, too: letters stay letters, unless a path among them is not text."""
    text = json_text(value, "The explanation", indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a path that are not UTF-8
        return json_text(value, "The explanation", indent=2)
    return text


def _in_notebook() -> bool:
    try:
        return get_ipython().has_trait("kernel")  # pyright: ignore[reportUndefinedVariable] - IPython defines it
    except (NameError, AttributeError):
        return False
