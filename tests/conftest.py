"""Fixtures that more than one test module uses."""

import importlib
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# CI says whether a commit is good, so the same commit gets the same examples there; everywhere else they are new.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("ALIGNBOARD_CI_LIMITED"):
    settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def released() -> Path:
    """The folder of released AlpacaEval files: `results/` in upstream's layout and `length_control/`."""
    folder = os.environ.get("ALIGNBOARD_RELEASED_DATA")
    if not folder:
        pytest.skip(
            "ALIGNBOARD_RELEASED_DATA is not set: no released AlpacaEval files to compare with"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def upstream() -> Callable[[str], ModuleType]:
    """Imports a module of upstream's own alpaca_eval, which takes five seconds and needs an old setuptools."""
    pytest.importorskip(
        "pkg_resources", reason="upstream's alpaca_eval cannot be imported without it"
    )

    def load(name: str) -> ModuleType:
        level = logging.root.level
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"alpaca_eval.{name}")
        logging.root.setLevel(level)  # which importing it sets
        return module

    return load
