"""Fixtures that more than one test module uses."""

import os
from pathlib import Path

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
