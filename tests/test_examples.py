"""The notebooks of examples/: executed, without a fault, and the same when they are run again."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MACHINE = re.compile(r"/(home|root|tmp|Users|work)/")


def outputs(path):
    return [
        output
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
    ]


def test_there_are_three():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["compare_models", "methods_of_one_family", "reproduce_alpaca_eval"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_its_first_cell_to_its_last(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for output in outputs(path)}.isdisjoint({"error"})
    assert code[-1]["outputs"]
    assert MACHINE.search(path.read_text(encoding="utf-8")) is None


@pytest.mark.slow
@pytest.mark.skipif(
    "ALIGNBOARD_RELEASED_DATA" not in os.environ, reason="ALIGNBOARD_RELEASED_DATA is not set"
)
def test_a_notebook_that_is_run_again_says_the_same(tmp_path):
    """That of released data; the two on the demo's models run after `make demo` (.ci/run)."""
    for name in ("execute.py", "reproduce_alpaca_eval.ipynb"):
        (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    again = tmp_path / "reproduce_alpaca_eval.ipynb"
    done = subprocess.run(
        [sys.executable, "execute.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def numbers(path):
        texts = ["".join(o.get("data", {}).get("text/plain", ())) for o in outputs(path)]
        return [float(n) for text in texts for n in re.findall(r"-?\d+\.\d{2,}", text)]

    found = numbers(again)
    assert len(found) > 20
    assert found == pytest.approx(numbers(EXAMPLES / again.name), abs=2e-4)
