"""Run the notebooks of this folder again, in place: ``make examples``, or ``python examples/execute.py [NAME...]``.

Exits with 1 where a cell fails. ``--check`` runs them without writing. Outputs hold no times and no paths.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Warnings and progress differ from machine to machine.
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    names = chosen.names or sorted(path.stem for path in HERE.glob("*.ipynb"))
    for name in names:
        path = HERE / f"{name}.ipynb"
        print(name, flush=True)
        try:
            notebook = executed(path)
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
        if not chosen.check:
            nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
