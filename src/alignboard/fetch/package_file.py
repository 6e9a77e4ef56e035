"""Data files of the installed ``alpaca-eval`` package.

The package is located without being imported: in a current environment it cannot be (it needs ``pkg_resources``).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from alignboard.errors import InputError


def package_file(relative: str) -> Path:
    """A data file of the installed ``alpaca-eval`` package, such as a board or a judge's prompt."""
    # Finding the package does not run it; importlib.metadata would, too, but takes 50 ms to import.
    spec = importlib.util.find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The published boards are data files of the package alpaca-eval, which is not installed; "
            "run: pip install alpaca-eval==0.6.6"
        )
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise InputError(
            f"The installed alpaca-eval has no file {relative}; alignboard reads the data of version 0.6.6."
        )
    return path
