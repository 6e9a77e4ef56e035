"""Fixtures that more than one test module uses."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def released() -> Path:
    """The folder of released AlpacaEval files: `results/` in upstream's layout and `length_control/`."""
    folder = os.environ.get("ALIGNBOARD_RELEASED_DATA")
    if not folder:
        pytest.skip(
            "ALIGNBOARD_RELEASED_DATA is not set: no released AlpacaEval files to compare with"
        )
    return Path(folder)
