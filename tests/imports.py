"""Who imports whom in the package, read from its source: the floors of its rooms, circles, lengths, names.

python tests/imports.py            prints the drawing and the table of docs/architecture.md
python tests/imports.py --write    puts them there
"""

import ast
from collections.abc import Iterator, Mapping
import contextlib
import functools
import graphlib
import importlib.util
import itertools
from pathlib import Path
import sys

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "castream_jax"
PAGE = ROOT / "docs" / "architecture.md"

# The rooms (a folder, or a module beside the folders) from top to bottom, and what each is for. A module imports from
# its own room and from those below it. This is where their order is written.
FLOORS = {
    "__init__": "the public names, each imported when it is first used",
    "__main__": "`python -m castream_jax`",
    "cli": "the command line's parser",
    "commands": "one file per command",
    "ahead_of_time": "programs compiled for chips that are not there",
    "reproduce": "the paper's tables and figures as data, plans and runs",
    "importing": "networks of PyTorch as frozen trunks; the one room that needs PyTorch",
    "explanation": "what a model saw in one image",
    "exporting": "a model as files for others",
    "reporting": "tables and the HTML report of a workdir",
    "drawing": "pictures: overlays, curves, sheets, their titles and styles",
    "evaluation": "whole datasets: sharded, resumable, one row per image, statistics",
    "training": "optimiser, step, loop, validation",
    "experiment": "one run: config, workdir, model, checkpoint",
    "metrics": "numbers from maps: masking, insertion and deletion, recognition, localisation",
    "attribution": "maps from a model: CAM and its family, Score-CAM, attention",
    "model": "a backbone and its named heads",
    "stream_weights": "a stream's weights under the official names",
    "stream": "the paper: cross attention, projection, CLS token",
    "protocol": "the choices that turn maps into numbers",
    "backbones": "frozen trunks and their classifiers",
    "weights": "parameters in files: reading, writing, names, download",
    "layers": "textbook layers",
    "kernels": "how a layer or a loop is computed on a platform",
    "concrete": "range and finiteness of arrays whose values are there",
    "data": "sources, decoding, transforms, loaders",
    "runtime": "what the process needs: mesh, processes, caches, progress, atomic files",
    "plugins": "other distributions' backbones, methods and sources",
    "allowed": "which values a field may have",
    "version": "the version",
}

MODULE_LINES = 350
FUNCTION_LINES = 60

Graph = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module; that of a package is its `__init__`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@functools.cache
def import_graph() -> Graph:
    """Module -> modules of the package that it imports: inside functions and for type checkers alone, too.

    A package whose names are loaded lazily imports what its stub does. That importing `a.b` runs `a/__init__.py` is no
    arrow: it would make a circle of every package that gathers its modules' names.
    """
    graph = {}
    for name, path in modules().items():
        files = [file for file in (path, path.with_suffix(".pyi")) if file.is_file()]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = (_imports(ast.parse(file.read_text()), package) for file in files)
        graph[name] = frozenset(itertools.chain.from_iterable(found)) - {name}
    return graph


def _imports(tree: ast.Module, package: str) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names.update(name if name in modules() else source for name in inside)
    return names & modules().keys()


def room(module: str) -> str:
    """The room of a module: the folder right below the package, or the module there."""
    return module.split(".")[1] if "." in module else "__init__"


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Imports of a module on a higher floor."""
    floors = list(FLOORS)
    return [
        (importer, imported)
        for importer, found in graph.items()
        for imported in sorted(found)
        if floors.index(room(imported)) < floors.index(room(importer))
    ]


def circles(graph: Graph) -> list[list[str]]:
    """Circles of modules, each from a module back to itself; as many as have to be cut until there is none."""
    left, found = {name: set(names) for name, names in graph.items()}, []
    while True:
        try:
            graphlib.TopologicalSorter(left).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1][::-1]  # graphlib's arrows point at what comes later
            found.append(circle)
            left[circle[0]].remove(circle[1])
        else:
            return found


def long_modules() -> list[tuple[str, int]]:
    """Modules of more than `MODULE_LINES`: every line of the file counts."""
    lengths = [(name, len(path.read_text().splitlines())) for name, path in modules().items()]
    return [(name, length) for name, length in lengths if length > MODULE_LINES]


def long_functions() -> list[tuple[str, int]]:
    """Functions of more than `FUNCTION_LINES`: from `def` to the last line, without decorators and the docstring.

    A function inside counts for itself and for the one around it. A literal of constants counts as one line: it
    declares, as the fields of a config do, and has nothing to follow.
    """
    found = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = _lines(node).difference(*(_lines(literal) - {literal.lineno} for literal in _literals(node)))
                if ast.get_docstring(node) is not None:
                    lines -= _lines(node.body[0])
                if len(lines) > FUNCTION_LINES:
                    found.append((f"{name}.{node.name}", len(lines)))
    return found


def _lines(node: ast.stmt | ast.expr) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _literals(function: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Dict | ast.List | ast.Tuple | ast.Set):
            with contextlib.suppress(ValueError, TypeError):
                ast.literal_eval(node)
                yield node


def twins() -> list[tuple[str, str]]:
    """Pairs of modules of one name, or of a name and its plural.

    A command's module is named after its command, and may share that name with the one that does the work. A folder is
    no module: one of its modules may be its subject.
    """
    named = [
        (path.stem, name)
        for name, path in modules().items()
        if not path.stem.startswith("__") and room(name) != "commands"
    ]
    pairs = itertools.combinations(sorted(named), 2)
    return [(name, other) for (stem, name), (longer, other) in pairs if longer in (stem, *_plurals(stem))]


def _plurals(stem: str) -> tuple[str, ...]:
    return f"{stem}s", f"{stem}es", f"{stem.removesuffix('y')}ies"


def drawing(graph: Graph) -> str:
    """The rooms as a Mermaid graph, and as a table from top to bottom with all that each imports.

    An arrow that follows from others is left out of the graph, unless it points upwards.
    """
    below: dict[str, set[str]] = {name: set() for name in FLOORS if name in map(room, graph)}
    for importer, found in graph.items():
        below[room(importer)] |= {room(imported) for imported in found} - {room(importer)}
    floors = list(below)
    down = {name: {b for b in below[name] if floors.index(b) > floors.index(name)} for name in floors}
    lines = ["```mermaid", "graph TD"]
    for a, b in itertools.product(floors, floors):
        if b in below[a] - down[a]:
            lines.append(f"    {_node(a)} -. upwards .-> {_node(b)}")
        elif b in down[a] and not any(b in _reachable(other, down) for other in down[a]):
            lines.append(f"    {_node(a)} --> {_node(b)}")
    lines += ["```", "", "| room | what it is for | imports |", "|---|---|---|"]
    for name in floors:
        lines.append(f"| `{name}` | {FLOORS[name]} | {', '.join(sorted(below[name], key=floors.index)) or '–'} |")
    return "\n".join(lines)


def _node(name: str) -> str:
    return f'{name.strip("_")}["{name}"]' if name.startswith("_") else name


def _reachable(name: str, down: Mapping[str, set[str]]) -> set[str]:
    return down[name].union(*(_reachable(other, down) for other in down[name]))


def page_with(drawn: str) -> str:
    """docs/architecture.md with what `drawing` gives in place of what is there between its two marks."""
    before, begin, rest = PAGE.read_text().partition("<!-- python tests/imports.py --write -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    return f"{before}{begin}\n{drawn}\n\n{end}{after}"


if __name__ == "__main__":
    drawn = drawing(import_graph())
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page_with(drawn))
    else:
        print(drawn)
