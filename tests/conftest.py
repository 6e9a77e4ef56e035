"""Fixtures that more than one test module uses."""

import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from alignboard import registry

# Tiny models are fastest on one thread, which adds numbers in one order. torch reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# CI says whether a commit is good, so the same commit gets the same examples there; everywhere else they are new.
# Without a deadline: a busy machine is no failure.
settings.register_profile("new", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable" if os.environ.get("ALIGNBOARD_CI_LIMITED") else "new")


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


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Installs a file that CONTRIBUTING.md shows, as a package with an entry point; returns the folder it is in."""
    site, state, installed = tmp_path / "site", registry._STATE, []
    for kind in registry.HOMES:
        registry.names(kind)
    before = {kind: dict(parts) for kind, parts in state.targets.items()}
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")

    def install(module: str) -> Path:
        (source,) = re.findall(rf"```python\n(# {module}\.py\n.*?)```", text, re.DOTALL)
        info = site / f"{module}-1.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{module} = {module}\n")
        installed.append(module)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setattr(state, "plugins_loaded", False)
        return site

    yield install
    state.targets = before
    for module in installed:
        sys.modules.pop(module, None)
