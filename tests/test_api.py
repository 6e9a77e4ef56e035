"""The public names of the package, and the examples of docs/api.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import alignboard

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_every_public_name_is_there_and_documented():
    page = PAGE.read_text(encoding="utf-8")
    longer = {"benchmark": "_models", "judge": "_pairs", "run": "_plan", "train": "_recipe"}
    for name in alignboard.__all__:
        found: Any = getattr(alignboard, name)
        assert getattr(found, "__name__", "__version__") == name + longer.get(name, "")
    shown = {
        "__version__",
        "Board",
        "Battles",
        "Generation",
        "InstructionSet",
        "RunResult",
        "WinRate",
    }
    assert [
        name for name in alignboard.__all__ if f"`{name}`" not in page and name not in shown
    ] == []
    assert dir(alignboard) == sorted(alignboard.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'leaderbord'"):
        alignboard.leaderbord  # noqa: B018


PRINTED = [
    r"generate: \d+ jobs, \d+ calls",
    r"lm-eval smoke smollm2-135m-instruct",
    r"66.7 %, 2 wins, 1 losses",
]


@pytest.mark.parametrize(("example", "printed"), zip(EXAMPLES, PRINTED, strict=True))
def test_an_example_runs(example, printed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout), done.stdout


@pytest.mark.parametrize(
    "call",
    [
        lambda ab: ab.read_board("nowhere.json"),
        lambda ab: ab.read_annotations("nowhere.json"),
        lambda ab: ab.results_board("nowhere"),
        lambda ab: ab.ResultsFolder("nowhere"),
        lambda ab: ab.read_calibration("nowhere"),
        lambda ab: ab.compare("a", "b", results="nowhere", judge="mine"),
        lambda ab: ab.load_set("nowhere.json"),
        lambda ab: ab.rank("nowhere.csv"),
    ],
)
def test_paths_may_be_texts_as_notebooks_write_them(call):
    with pytest.raises(alignboard.InputError, match="nowhere"):
        call(alignboard)
    assert alignboard.read_examples("nowhere.json.gz") is None
