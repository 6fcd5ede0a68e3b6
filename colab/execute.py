"""Runs notebooks from top to bottom, each in a kernel of its own, and writes them with their outputs.

    python colab/execute.py colab/*.ipynb                                  # in place
    python colab/execute.py colab/quick_tour.ipynb --out DIR --set EPOCHS=1

`--set` replaces values in the cell tagged `parameters`. What the kernel says on stderr is of this machine (paths,
missing widgets) and is not kept.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
import re

from nbclient import NotebookClient
import nbformat


def execute(notebook: nbformat.NotebookNode, values: Mapping[str, str], folder: Path) -> None:
    """Runs `notebook` in `folder` and leaves its outputs in it.

    Args:
        notebook: whose cell tagged `parameters` assigns, a line each, what `values` replaces.
        values: `{name: expression}`.
        folder: the kernel's.

    Raises:
        ValueError: if there is no such parameter.
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for name, value in values.items():
        line = re.compile(rf"^{re.escape(name)} = .*?(?=\s*(#|$))", re.MULTILINE)
        if not any(line.search(cell.source) for cell in cells):
            raise ValueError(f"The notebook has no parameter {name}.")
        for cell in cells:
            cell.source = line.sub(f"{name} = {value}", cell.source)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default each takes the place of its source")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    arguments = parser.parse_args()
    values = dict(text.split("=", 1) for text in arguments.set)
    for path in arguments.notebooks:
        notebook = nbformat.read(path, as_version=4)
        execute(notebook, values, path.parent.resolve())
        nbformat.write(notebook, (arguments.out or path.parent) / path.name)


if __name__ == "__main__":
    main()
