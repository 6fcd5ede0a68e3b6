"""Annotations in Pascal's XML format, which ImageNet uses too: the objects of an image and their boxes."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

Box = tuple[float, float, float, float]


class AnnotatedObject(NamedTuple):
    """An object: its class, whether it is marked difficult, and xmin, ymin, xmax, ymax as the file has them."""

    name: str
    difficult: bool
    box: Box


def read_objects(path: Path) -> list[AnnotatedObject]:
    """The objects of one image (not their parts).

    Raises:
        ValueError: the file is no such annotation; names it.
    """
    try:
        return [_read_object(item) for item in ElementTree.parse(path).iterfind("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"'{path}' is no annotation of objects ({error}); unpack the annotations again") from error


def _read_object(item: ElementTree.Element) -> AnnotatedObject:
    sides = [item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = (float(side or "") for side in sides)
    return AnnotatedObject((item.findtext("name") or "").strip(), item.findtext("difficult") == "1", (x0, y0, x1, y1))
