"""A board: rows of models with what they are conditional on, and the files it is written as.

Building is pure; `write_board` alone touches the disk. The same board gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.leaderboards.board_files import picture, to_csv, to_json, to_markdown
from alignboard.leaderboards.board_model import Board, Source, ranking_lc
from alignboard.leaderboards.plots import draw
from alignboard.published.reproduce import BoardRow, Reproduction
from alignboard.published.wheel_boards import PublishedRow, read_published_board
from alignboard.results.files import write_atomically
from alignboard.stats.intervals import rate_interval
from alignboard.suites import PublishedBoard, Suite
from alignboard.workspace import model_name

__all__ = ["DECLARED_ADVERSARIAL", "Board", "board_of", "published_reproduction", "write_board"]

DECLARED_ADVERSARIAL = "declared adversarial"
"""flag of a model whose published name says that it was made to cheat the judge"""

_PUBLISHED_CONDITIONS = (
    "95 % intervals of the win rate follow from the published standard errors and are for new prompts with the judge "
    "held fixed"
)
_NO_LC_INTERVAL = (
    "LC win rates have none, because upstream's lc_standard_error is the spread of the instructions' difficulties "
    "and not a sampling error"
)
_RECOMPUTED_CONDITIONS = (
    "95 % intervals are for new prompts drawn like these, each model by itself, with the judge, the baseline's "
    "answers and {calibration} held fixed."
)


def published_reproduction(suite: Suite, published: PublishedBoard | None = None) -> Board:
    """A published board in the installed ``alpaca-eval`` wheel: that of the suite's own annotator, or ``published``.

    Nothing is recomputed: the rows hold the published figures, and an interval where a standard error was published.
    """
    source = published or suite.board
    adversarial = _declared_adversarial(source.file)
    rows = [
        _published_row(row, suite, source.file, declared=name in adversarial)
        for name, row in read_published_board(source.file).items()
    ]
    has_lc = any(row.lc_win_rate_compat is not None for row in rows)
    conditions = [_PUBLISHED_CONDITIONS] + ([_NO_LC_INTERVAL] if has_lc else [])
    own = source.annotator == suite.annotator
    return _board(
        name=suite.name if own else f"{suite.name}-{source.annotator}",
        suite=suite,
        judge=source.annotator,
        source="published",
        conditions="; ".join(conditions) + ".",
        rows=rows,
        mode="compat",
    )


def board_of(reproduction: Reproduction, suite: Suite) -> Board:
    """A recomputed board of ``suite``."""
    joint = reproduction.length_control == "joint"
    adversarial = _declared_adversarial(suite.board.file)
    calibration = "the difficulties fitted to these models" if joint else "the calibration"
    return _board(
        name=suite.name,
        suite=suite,
        judge=reproduction.annotator,
        source="recomputed",
        conditions=_RECOMPUTED_CONDITIONS.format(calibration=calibration),
        rows=[
            replace(row, flags=[*row.flags, DECLARED_ADVERSARIAL])
            if row.model in adversarial
            else row
            for row in reproduction.models
        ],
        mode="joint" if joint else reproduction.mode,
    )


def write_board(board: Board, folder: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.json`` and ``.png`` into ``folder``, each of them whole or not at all."""
    name = model_name(board.name)
    contents = {
        "csv": to_csv(board).encode(),
        "md": to_markdown(board).encode(),
        "json": to_json(board).encode(),
        "png": draw(picture(board)),
    }
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_atomically(path, content)
        paths.append(path)
    return paths


def _board(
    *,
    name: str,
    suite: Suite,
    judge: str,
    source: Source,
    conditions: str,
    rows: Sequence[BoardRow],
    mode: str,
) -> Board:
    has_lc = any(ranking_lc(row, mode) is not None for row in rows)

    def order(row: BoardRow) -> tuple[float, float, str]:
        lc = ranking_lc(row, mode) if has_lc else None
        rate = row.win_rate
        return (
            math.inf if lc is None else -lc,
            math.inf if rate is None else -rate,
            row.model,
        )

    return Board(
        name=name,
        title=suite.title,
        judge=judge,
        baseline=suite.baseline,
        source=source,
        conditions=conditions,
        rows=sorted(rows, key=order),
        mode=mode,
        families=suite.families,
    )


def _published_row(row: PublishedRow, suite: Suite, file: str, *, declared: bool) -> BoardRow:
    n_total, wins, losses, draws = (
        _count(row, name, file) for name in ("n_total", "n_wins", "n_wins_base", "n_draws")
    )
    rate, error = row.win_rate, row.standard_error
    limits = None
    if rate is not None and error is not None:
        limits = rate_interval(rate / 100, error / 100, n_total)
    missing = suite.n_instructions - n_total
    flags = [f"{missing} rows missing or unparsed"] if missing > 0 else []
    return BoardRow(
        model=row.model,
        n_total=n_total,
        n_unparsed=0,
        win_rate=rate,
        standard_error=error,
        ci_low=_percent(limits.low) if limits else None,
        ci_high=_percent(limits.high) if limits else None,
        discrete_win_rate=row.discrete_win_rate,
        n_wins=wins,
        n_wins_base=losses,
        n_draws=draws,
        avg_length=row.avg_length,
        lc_win_rate_compat=row.length_controlled_winrate,
        lc_spread=row.lc_standard_error,
        published_win_rate=rate,
        published_lc_win_rate=row.length_controlled_winrate,
        flags=flags + ([DECLARED_ADVERSARIAL] if declared else []),
    )


def _count(row: PublishedRow, name: str, file: str) -> int:
    value = getattr(row, name)
    if value is None:
        raise InputError(
            f"{file}, model {row.model!r}: {name} is missing, a whole number was expected."
        )
    return value


def _declared_adversarial(file: str) -> set[str]:
    """The models whose names in the wheel's model configurations say that they are adversarial."""
    folder = package_file(file).parents[2] / "models_configs"
    return {
        path.parent.name
        for path in folder.glob("*/configs.yaml")
        if b"adversarial)" in path.read_bytes().lower()
    }


def _percent(rate: float) -> float | None:
    return rate * 100 if math.isfinite(rate) else None
