"""Small things that tests are made of: rows, files and results folders."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignboard.published.calibration import read_calibration
from alignboard.records import Annotations
from alignboard.results.formats import read_annotations
from alignboard.stats.length_control import GamedRows

BASELINE = "baseline"
JUDGE = "judge"


def generation(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "dataset": "helpful_base",
        "instruction": f"Question {number}?",
        "output": f"Answer {number}." + " More." * (number % 5),
        "generator": "model",
    }
    return row | changes


def judgment(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "instruction": f"Question {number}?",
        "output_1": f"Reference {number}." + " More." * (number % 3),
        "generator_1": BASELINE,
        "output_2": f"Answer {number}." + " More." * (number % 5),
        "generator_2": "model",
        "annotator": JUDGE,
        "preference": 1.0 + (number % 4) / 3,
    }
    return row | changes


def judgments(n: int, **changes: Any) -> list[dict[str, Any]]:
    return [judgment(number, **changes) for number in range(n)]


def generations(n: int, **changes: Any) -> list[dict[str, Any]]:
    return [generation(number, **changes) for number in range(n)]


def write_json(path: Path, rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def results_folder(
    root: Path,
    annotations: Mapping[str, Sequence[Mapping[str, Any]]],
    outputs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    annotator: str = JUDGE,
) -> Path:
    """``annotations`` and ``outputs`` are rows by model."""
    for model, rows in annotations.items():
        write_json(root / model / annotator / "annotations.json", rows)
    for model, rows in (outputs or {}).items():
        write_json(root / model / "model_outputs.json", rows)
    return root


def released_annotations(released: Path, annotator: str) -> dict[str, Annotations]:
    """The released verdicts of ``annotator`` by model, read without any cache."""
    paths = sorted((released / "results").glob(f"*/{annotator}/annotations.json"))
    assert paths, f"no annotations by {annotator} under {released}"
    return {path.parents[1].name: read_annotations(path) for path in paths}


def released_calibration(released: Path) -> tuple[np.ndarray, GamedRows]:
    """Difficulties by reference index, and the gamed rows."""
    found = read_calibration(released / "length_control")
    return found.difficulty, GamedRows(
        found.gamed_preference, found.gamed_length, found.gamed_difficulty
    )


def length_difference(table: Annotations) -> np.ndarray:
    return table.length_1.astype(np.float64) - table.length_2
