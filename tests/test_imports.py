"""Rooms import downwards and without circles, modules and functions fit a screen, no two modules have one name."""

import itertools
from pathlib import Path
import re
import textwrap

from imports import (
    FLOORS,
    PAGE,
    circles,
    drawing,
    import_graph,
    long_functions,
    long_modules,
    modules,
    page_with,
    room,
    twins,
    upward,
)


def test_every_room_has_a_floor():
    assert {room(name) for name in modules()} <= FLOORS.keys()


def test_rooms_import_downwards_only():
    wrong = [f"{importer} imports {imported}" for importer, imported in upward(import_graph())]
    assert not wrong, "\n".join(wrong)


def test_modules_import_each_other_without_a_circle():
    wrong = [" → ".join(circle) for circle in circles(import_graph())]
    assert not wrong, "\n".join(wrong)


def test_modules_and_functions_fit_a_screen():
    wrong = [f"{name} has {length} lines" for name, length in (*long_modules(), *long_functions())]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_have_one_name_or_its_plural():
    wrong = [f"{name} and {other}" for name, other in twins()]
    assert not wrong, "\n".join(wrong)


def test_the_page_shows_the_imports_of_today():
    assert PAGE.read_text() == page_with(drawing(import_graph())), "run python tests/imports.py --write"


def test_the_way_of_an_image_names_what_is_in_the_code():
    walk = PAGE.read_text().partition("## The way of an image")[2]
    code = "\n".join(path.read_text() for path in modules().values())
    wrong = set(re.findall(r"`(\w+)`", walk)) - set(re.findall(r"\w+", code))
    assert not wrong, wrong


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch):
    """Imports at the top, in functions, for type checkers, relative; floors, circles, lengths and names."""
    files = {
        "__init__.py": "",
        "cli.py": "from castream_jax import data",
        "data/__init__.py": "from .voc import Voc",
        "data/voc.py": "def f():\n    import castream_jax.training.step",
        "training/__init__.py": "",
        "training/step.py": """
            from typing import TYPE_CHECKING
            from castream_jax.training import steps
            if TYPE_CHECKING:
                from castream_jax.data import Voc
            """,
        "training/steps.py": 'def g():\n    """' + "\n" * 70 + '"""\n    return 1\n' + "x = 1\n" * 300,
        "model.py": "@h\ndef f(a):\n    def g():" + "\n        a" * 59 + "\n    return [\n    1,\n    2]\n",
    }
    for name, text in files.items():
        path = tmp_path / "castream_jax" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.setattr("imports.ROOT", tmp_path)
    monkeypatch.setattr("imports.PACKAGE", tmp_path / "castream_jax")
    modules.cache_clear()
    import_graph.cache_clear()
    try:
        graph = import_graph()
        assert graph["castream_jax.cli"] == {"castream_jax.data"}
        assert graph["castream_jax.training.step"] == {"castream_jax.training.steps", "castream_jax.data"}
        assert upward(graph) == [("castream_jax.data.voc", "castream_jax.training.step")]
        (circle,) = circles(graph)
        assert circle[0] == circle[-1]
        assert set(circle) == {"castream_jax.data", "castream_jax.data.voc", "castream_jax.training.step"}
        assert all(imported in graph[importer] for importer, imported in itertools.pairwise(circle))
        assert long_modules() == [("castream_jax.training.steps", 373)]
        assert long_functions() == [("castream_jax.model.f", 62)]
        assert twins() == [("castream_jax.training.step", "castream_jax.training.steps")]
        drawn = drawing(graph)
        assert "    data -. upwards .-> training\n" in drawn
        assert "    cli --> data\n" in drawn
    finally:
        modules.cache_clear()
        import_graph.cache_clear()
