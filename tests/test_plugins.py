"""The registry of parts: lazy targets, duplicates, suggestions, and plug-ins of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard import registry
from alignboard.registry import RegistryError, lookup, names, register


def test_a_target_is_imported_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_part.py").write_text("class Box:\n    value = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    register("t-lazy", "box", "late_part:Box.value")
    assert "late_part" not in sys.modules
    assert names("t-lazy") == ("box",)
    assert lookup("t-lazy", "box") == 7


def test_an_object_is_its_own_target() -> None:
    part = object()
    register("t-object", "it", part)
    assert lookup("t-object", "it") is part


def test_a_second_target_for_a_name_is_refused_with_both() -> None:
    register("t-twice", "a", "math:pi")
    register("t-twice", "a", "math:pi")  # the same again changes nothing
    with pytest.raises(RegistryError, match=r"'math:pi' and as 'math:e'; rename"):
        register("t-twice", "a", "math:e")


def test_an_unknown_name_gets_the_nearest_or_all() -> None:
    register("t-near", "bradley-terry", "math:pi")
    with pytest.raises(RegistryError, match="did you mean 'bradley-terry'"):
        lookup("t-near", "bradly-terry")
    with pytest.raises(RegistryError, match="known are bradley-terry"):
        lookup("t-near", "zzz")
    with pytest.raises(RegistryError, match="known are none"):
        lookup("t-nothing", "zzz")


@pytest.mark.parametrize("target", ["no_such_module_here:x", "math:no_such_attribute"])
def test_a_target_that_cannot_be_imported_is_named(target: str) -> None:
    register("t-broken", target, target)
    with pytest.raises(RegistryError, match=target):
        lookup("t-broken", target)


PLUGIN = """
from alignboard.registry import register

def add():
    register("t-plugin", "theirs", "their_package:VALUE")

VALUE = 42
"""


def _installed(folder: Path, entry: str) -> dict[str, str]:
    """A folder that looks like an installed package with one entry point."""
    (folder / "their_package.py").write_text(PLUGIN)
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = {entry}\n")
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path}


def _ask(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    code = "from alignboard.registry import lookup; print(lookup('t-plugin', 'theirs'))"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_an_installed_package_adds_its_parts(tmp_path: Path) -> None:
    done = _ask(_installed(tmp_path, "their_package:add"))
    assert done.stdout.strip() == "42", done.stderr


def test_a_broken_plugin_is_named_with_its_package(tmp_path: Path) -> None:
    done = _ask(_installed(tmp_path, "their_package:missing"))
    assert "The plug-in 'theirs' of the package their-package cannot be imported" in done.stderr
