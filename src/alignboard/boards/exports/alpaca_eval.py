"""A model's results in the layout of AlpacaEval's repository, for a submission to its leaderboard.

``results/<model>/model_outputs.json``, ``results/<model>/<annotator>/annotations.json`` and the leaderboard's csv with
the model's row, in the columns of alpaca-eval 0.6 and without ours.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.published.board_rows import BoardRow
from alignboard.published.calibration import Calibration
from alignboard.published.reproduce import reproduce
from alignboard.results.files import UNREADABLE, write_atomically
from alignboard.results.folder import ResultsFolder
from alignboard.suites import Suite

_OUTPUT = ("dataset", "instruction", "output", "generator")
_ANNOTATION = (
    "instruction", "output_1", "generator_1", "dataset", "output_2", "generator_2", "annotator", "preference",
    "price_per_example", "time_per_example", "raw_completion",
)  # fmt: skip
_MODE = "community"
"""what the leaderboard calls models that were submitted"""


def write_submission(
    model: Path, suite: Suite, calibration: Calibration | None, out: Path
) -> list[Path]:
    """Write the results of the folder ``model`` below ``out``.

    Parameters
    ----------
    model
        ``results/<model>``, with responses to all instructions and verdicts by the suite's own judge.
    calibration
        For the length-controlled win rate; without it the column is empty.

    Raises
    ------
    InputError
        Where responses or verdicts are missing or do not cover the suite.
    """
    with ResultsFolder(model.parent) as folder:
        folder.require([model.name], suite.annotator)
        row = reproduce(suite, folder, calibration, models=[model.name]).models[0]
    if row.n_total < suite.n_instructions:
        raise InputError(
            f"{model}: {row.n_total} of {suite.n_instructions} instructions have a verdict by {suite.annotator}; a "
            "submission needs all."
        )
    place = out / "results" / model.name
    files = {
        place / "model_outputs.json": _rows(model / "model_outputs.json", _OUTPUT),
        place / suite.annotator / "annotations.json": _rows(
            model / suite.annotator / "annotations.json", _ANNOTATION
        ),
        out / Path(suite.board.file).name: _csv(row).encode(),
    }
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)


def _rows(path: Path, fields: tuple[str, ...]) -> bytes:
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except (OSError, *UNREADABLE) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    kept = [{name: row[name] for name in fields if name in row} for row in rows]
    return msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"


def _csv(row: BoardRow) -> str:
    """The leaderboard's row, in upstream's columns."""
    values = {
        "": row.model,
        "win_rate": row.win_rate,
        "standard_error": row.standard_error,
        "n_wins": row.n_wins,
        "n_wins_base": row.n_wins_base,
        "n_draws": row.n_draws,
        "n_total": row.n_total,
        "discrete_win_rate": row.discrete_win_rate,
        "mode": _MODE,
        "avg_length": row.avg_length,
        "length_controlled_winrate": row.lc_win_rate_compat,
        "lc_standard_error": row.lc_spread,
    }
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(values)
    writer.writerow("" if value is None else value for value in values.values())
    return target.getvalue()
