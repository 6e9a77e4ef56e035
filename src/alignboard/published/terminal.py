"""Boards and findings as text for a terminal or a pipe."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alignboard.published.board_rows import BoardRow
from alignboard.published.reproduce import Reproduction
from alignboard.text import count, printable, table

if TYPE_CHECKING:
    from alignboard.published.audit.finding import Finding

_SAME = 1e-9
"""points: released preferences carry ten decimals"""


def reproduction_table(board: Reproduction) -> str:
    """The recomputed board as a table, one line per model, the flags last."""
    joint = board.length_control == "joint"
    header = (
        "model",
        "win rate",
        "SE",
        "95 % interval",
        "discrete",
        *(("LC joint",) if joint else ("LC", "LC aligned")),
        "LC interval",
        "n",
        "length",
        "published",
        "diff",
        "published LC",
        *(() if joint else ("LC diff",)),
        "flags",
    )
    rows = [_cells(row, joint=joint) for row in board.models]
    return table(header, rows, left=(0, len(header) - 1))


def summary(board: Reproduction) -> str:
    """What the comparison came to, in two sentences."""
    n_lc = sum(row.lc_difference is not None for row in board.models)
    largest = max((abs(row.win_rate_difference or 0) for row in board.models), default=0.0)
    lines = [
        (
            f"{board.suite}, judge {board.annotator}, against {board.baseline}: {count(len(board.models), 'model')}, "
            f"{board.n_compared} of them on the published board of {board.n_published}."
        ),
        f"Largest difference of a win rate: {largest:.1e} points.",
    ]
    if n_lc:
        gaps = sorted(
            abs(row.lc_difference) for row in board.models if row.lc_difference is not None
        )
        lines.append(
            f"LC ({board.mode}) against {n_lc} published: median {gaps[len(gaps) // 2]:.4f}, "
            f"largest {gaps[-1]:.4f} points."
        )
    lines.append(
        "Intervals are 95 %, for new prompts, given this judge"
        + (" and its calibration rows." if board.length_control == "calibrated" else ".")
    )
    if board.length_control == "joint":
        lines.append(
            "LC joint: difficulties were fitted to these models, not taken from AlpacaEval's files; it is another "
            "estimator than the published LC."
        )
    return "\n".join(lines)


def _cells(row: BoardRow, *, joint: bool) -> list[str]:
    lc = [row.lc_win_rate_joint] if joint else [row.lc_win_rate_compat, row.lc_win_rate_aligned]
    return [
        printable(row.model),
        _number(row.win_rate),
        _number(row.standard_error),
        _interval(row.ci_low, row.ci_high),
        _number(row.discrete_win_rate),
        *map(_number, lc),
        _interval(row.lc_ci_low, row.lc_ci_high),
        str(row.n_total),
        "" if row.avg_length is None else str(row.avg_length),
        _number(row.published_win_rate),
        _difference(row.win_rate_difference),
        _number(row.published_lc_win_rate),
        *([] if joint else [_difference(row.lc_difference)]),
        printable("; ".join([*row.disagreements, *row.flags])),
    ]


def _difference(value: float | None) -> str:
    if value is None:
        return ""
    return "=" if abs(value) < _SAME else f"{value:+.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.1f}-{high:.1f}"


def findings_text(findings: Sequence[Finding]) -> str:
    """Findings, the gravest first: what kind and where on one line, the evidence under it."""
    from alignboard.published.audit.finding import SEVERITIES

    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    parts = []
    for one in sorted(findings, key=lambda one: SEVERITIES.index(one.severity)):
        where = (
            one.model
            if one.model and one.model == one.place
            else " in ".join(filter(None, (one.model, one.place)))
        )
        message = textwrap.fill(
            printable(one.message), width, initial_indent="    ", subsequent_indent="    "
        )
        parts.append(f"{one.severity:7s}  {one.kind}: {printable(where)}\n{message}")
    counts = [(name, sum(one.severity == name for one in findings)) for name in SEVERITIES]
    total = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts)
    return "\n".join([*parts, "", f"{total}."])


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr, where that is a terminal; call what it yields with the name of each step done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda name: bar.update(
            task, advance=1, description=f"{title} {escape(printable(name))}"
        )
