"""A board as text and as what the plots draw: pure functions of it, without the disk.

The same board gives the same text: keys and rows in a fixed order, no time stamp.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any
from urllib.parse import quote

from alignboard.leaderboards.board_model import Board, Source
from alignboard.leaderboards.plots_style import BoardPicture, Estimate, PlotRow
from alignboard.published.reproduce import BoardRow
from alignboard.text import count, csv_cell, json_value, markdown_text

_SHARED = (
    "Models answer the same prompts: whether two of them differ is for a paired test to say, not for the overlap "
    "of their intervals."
)
_SOURCES: Mapping[Source, str] = {
    "published": "figures as published",
    "recomputed": "recomputed from the annotations",
}


def to_json(board: Board) -> str:
    """The board as JSON: keys sorted, null for what is not known, and no time stamp."""
    facts = {
        f.name: getattr(board, f.name) for f in fields(board) if f.name not in {"rows", "families"}
    }
    content = {**facts, "n_models": len(board.rows), "families": board.families}
    content["models"] = records(board)
    return json.dumps(json_value(content), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def records(board: Board) -> list[dict[str, Any]]:
    """The rows as plain data, each with its rank."""
    rows = [
        {"rank": rank, **asdict(row)} for rank, row in zip(board.ranks(), board.rows, strict=True)
    ]
    if board.source == "published":
        for row in rows:
            row["n_unparsed"] = None  # a published board counts only what was parsed
    return rows


def to_csv(board: Board) -> str:
    """The board as CSV: rank, the fields of `BoardRow`, then what the scores are scores of.

    Lists are joined by ``; ``. A text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    columns = ["rank", *(f.name for f in fields(BoardRow))]
    facts = {
        "judge": board.judge,
        "baseline": board.baseline,
        "mode": board.mode,
        "source": board.source,
    }
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([*columns, *facts])
    for record in records(board):
        cells = [record[column] for column in columns] + list(facts.values())
        writer.writerow([csv_cell(cell) for cell in cells])
    return target.getvalue()


def to_markdown(board: Board) -> str:
    """The board as a page: caption, picture and a table with the columns that hold anything."""
    columns = [(name, cells) for name, cells in _columns(board) if any(cells)]
    caption = (
        f"Win rates in percent against {markdown_text(board.baseline)}, judged by {markdown_text(board.judge)}: "
        f"{count(len(board.rows), 'model')}, {_SOURCES[board.source]}. {_ranking(board)}"
    )
    lines = [
        f"# {markdown_text(board.title)}",
        "",
        caption,
        "",
        f"{markdown_text(board.conditions)} {_SHARED}",
        "",
        f"![{markdown_text(board.title)}]({quote(board.name, safe='')}.png)",
        "",
        _table_line([name for name, _ in columns]),
        _table_line([":--" if name in {"model", "flags"} else "--:" for name, _ in columns]),
    ]
    table = zip(*(cells for _, cells in columns), strict=True)
    return "\n".join(lines + [_table_line(row) for row in table]) + "\n"


def picture(board: Board) -> BoardPicture:
    """What the plots draw of ``board``."""
    kind = "length-controlled win rate" if board.has_lc else "win rate"
    return BoardPicture(
        title=f"{board.title}: {kind} against {board.baseline}",
        subtitle=f"Judged by {board.judge}. {count(len(board.rows), 'model')}, {_SOURCES[board.source]}.",
        main_label="LC win rate" if board.has_lc else "win rate",
        second_label="raw win rate" if board.has_lc else None,
        rows=[
            _plot_row(board, row, rank) for row, rank in zip(board.rows, board.ranks(), strict=True)
        ],
        families=board.families,
        notes=[board.conditions, _SHARED, *_lookup_note(board)],
    )


def _ranking(board: Board) -> str:
    if not board.has_lc:
        return "Ranked by win rate."
    how = {
        "compat": "difficulty by row, as upstream",
        "aligned": "difficulty by instruction",
        "joint": "difficulties fitted to these models, not AlpacaEval's",
    }
    ranked = f"Ranked by length-controlled (LC) win rate ({how.get(board.mode, board.mode)})"
    if all(board.score(row) is not None for row in board.rows):
        return ranked + "."
    return ranked + "; models without one are not ranked."


def _columns(board: Board) -> list[tuple[str, list[str]]]:
    rows, recomputed = board.rows, board.source == "recomputed"
    columns = [
        ("rank", ["" if rank is None else str(rank) for rank in board.ranks()]),
        ("model", [markdown_text(row.model) for row in rows]),
        *_lc_columns(board),
        ("95 % interval of it", [_limits(row.lc_ci_low, row.lc_ci_high) for row in rows]),
        ("win rate", [_points(row.win_rate) for row in rows]),
        ("95 % interval", [_limits(row.ci_low, row.ci_high) for row in rows]),
    ]
    if recomputed:
        columns += [
            ("published LC", [_points(row.published_lc_win_rate) for row in rows]),
            ("published win rate", [_points(row.published_win_rate) for row in rows]),
        ]
    columns += [
        ("n", [str(row.n_total) for row in rows]),
        ("length", ["" if row.avg_length is None else str(row.avg_length) for row in rows]),
        ("flags", [markdown_text("; ".join([*row.flags, *row.disagreements])) for row in rows]),
    ]
    if recomputed:
        columns.insert(-2, ("unparsed", [str(row.n_unparsed) for row in rows]))
    return columns


def _lc_columns(board: Board) -> list[tuple[str, list[str]]]:
    """The estimators of length control, each in a column of its own."""
    if board.mode == "joint":
        return [("LC, joint fit", [_points(row.lc_win_rate_joint) for row in board.rows])]
    compat = "LC, by row" if board.source == "recomputed" else "LC"
    return [
        (compat, [_points(row.lc_win_rate_compat) for row in board.rows]),
        ("LC, by instruction", [_points(row.lc_win_rate_aligned) for row in board.rows]),
    ]


def _points(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _limits(low: float | None, high: float | None) -> str:
    return f"{low:.2f} to {high:.2f}" if low is not None and high is not None else ""


def _table_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _lookup_note(board: Board) -> list[str]:
    """The interval belongs to the look-up by instruction, which is therefore what is drawn."""
    if board.source == "published" or board.mode != "compat" or not board.has_lc:
        return []
    drawn = "LC win rates are drawn with difficulties looked up by instruction"
    return [f"{drawn}; ranks follow the look-up by row, as upstream's do."]


def _plot_row(board: Board, row: BoardRow, rank: int | None) -> PlotRow:
    raw = _estimate(row.win_rate, row.ci_low, row.ci_high)
    own = row.lc_win_rate_joint if board.mode == "joint" else row.lc_win_rate_aligned
    lc = _estimate(own, row.lc_ci_low, row.lc_ci_high)
    if lc is None:
        lc = _estimate(row.lc_win_rate_compat, None, None)
    published = row.published_lc_win_rate if board.has_lc else row.published_win_rate
    flags = " ".join(row.flags)
    return PlotRow(
        model=row.model,
        rank=rank,
        main=lc if board.has_lc else raw,
        second=raw if board.has_lc else None,
        published=published if board.source == "recomputed" else None,
        length=row.avg_length,
        flagged="constant" in flags or "adversarial" in flags,
    )


def _estimate(value: float | None, low: float | None, high: float | None) -> Estimate | None:
    return None if value is None or not math.isfinite(value) else Estimate(value, low, high)
