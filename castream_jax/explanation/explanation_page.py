"""An explanation's sheet as HTML: a fragment for notebooks, and a page of its own."""

import functools

import jinja2
from PIL import Image

from castream_jax.drawing.contact_sheet import Sheet
from castream_jax.drawing.overlay import css_scale
from castream_jax.drawing.web_pictures import data_uri
from castream_jax.reporting.templates import html_environment

_QUALITY, _SIDE = 90, 256  # of a picture on the page


def render_fragment(sheet: Sheet, path: str) -> str:
    """HTML that needs nothing from outside and takes the colours of the page around it.

    Args:
        sheet: what to show.
        path: of the image, which its title shows in full under the pointer.
    """
    return _template("explanation.html.j2").render(sheet=sheet, path=path, scale=css_scale())


def render_page(sheet: Sheet, path: str) -> str:
    """The fragment as a page of its own."""
    return _template("explanation_page.html.j2").render(title=sheet.title, body=render_fragment(sheet, path))


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = html_environment("castream_jax.explanation")
    environment.filters["picture"] = _picture
    return environment.get_template(name)


def _picture(image: Image.Image) -> str:
    smaller = image.copy()
    smaller.thumbnail((_SIDE, _SIDE))
    return data_uri(smaller, _QUALITY)
