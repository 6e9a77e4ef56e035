"""The panels of a plan's board that are lines with marks: win rates, benchmarks and ratings."""

from __future__ import annotations

from collections.abc import Sequence

from alignboard.leaderboards.plan_board import JudgeScore, PlanBoard, PlanRow, Rate
from alignboard.leaderboards.plan_marks import (
    FAMILY_ROOM,
    KEY_LINE,
    NEUTRAL,
    UNKNOWN,
    Entry,
    Line,
    Mark,
    Panel,
    draw_marks,
    key_lines,
    limits_of,
    line_axes,
    looks,
    names_room,
    stacked,
    write_key,
    write_names,
)
from alignboard.leaderboards.plots_canvas import (
    SMALL,
    Box,
    Canvas,
    drawable,
    drawn_name,
    fitted,
    text_width,
)
from alignboard.leaderboards.plots_style import FAINT, FOOT_ROOM, MUTED, Look

_LC = Look(MUTED, "d")
# Inches between the lines of two judges, and what a model takes besides.
_JUDGE_PITCH, _MODEL_ROOM = 0.145, 0.06
_PITCH = 0.19
_MAX_BENCHMARKS = 7
# Inches that a column of a benchmark needs; names of families give way to it.
_COLUMN = 0.63
_ERRORS = 1.96


def win_panel(board: PlanBoard) -> Panel | None:
    """Win rates with their intervals, family by family; None where no judge scored anything."""
    rows = [row for row in board.rows if row.judges]
    if not rows:
        return None
    lines, height = stacked(rows, looks(board), _JUDGE_PITCH * len(board.judges) + _MODEL_ROOM)
    entries: list[Entry] = [(NEUTRAL, k, judge) for k, judge in enumerate(board.judges)]
    if any(score.lc_win_rate for row in rows for score in row.judges.values()):
        entries.append((_LC, 0, "length-controlled"))
    key = key_lines(entries)
    head = KEY_LINE * len(key) + 0.22
    marks = [
        mark
        for line in lines
        for k, judge in enumerate(board.judges)
        if (score := line.row.judges.get(judge))
        for mark in _win_marks(line, score, k, len(board.judges))
    ]

    def draw(canvas: Canvas, box: Box) -> None:
        write_key(canvas, box, key)
        left = names_room(lines)
        inner = Box(box.left + left, box.top - head - height, box.width - left - 0.1, height)
        low, high = limits_of(marks, 50)
        axes = line_axes(canvas, inner, lines, (low, high), "win rate (%)")
        axes.axvline(50, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        x = inner.left + inner.width * (50 - low) / (high - low)
        text = f"{drawn_name(board.baseline, 1.0, SMALL)} = 50"
        canvas.write(x, inner.top + 0.04, text, size=SMALL, color=MUTED, align=0.5)
        write_names(canvas, inner, lines)
        for line in lines:
            for k, judge in enumerate(board.judges):
                score = line.row.judges.get(judge)
                if score is None or score.win_rate.value is None:
                    _write_unknown(canvas, inner, _judge_y(line, k, len(board.judges)))
        draw_marks(axes, [mark for mark in marks if mark.look != _LC])
        draw_marks(axes, [mark for mark in marks if mark.look == _LC], 4.0)

    return Panel(
        heading=f"Win rate against {board.baseline}, 95 % intervals",
        description=f"Win rates of {len(rows)} models with 95 % intervals, by family, method and judge.",
        height=head + height + FOOT_ROOM,
        draw=draw,
    )


def _win_marks(line: Line, score: JudgeScore, judge: int, n_judges: int) -> list[Mark]:
    """The win rate, and the length-controlled one without its interval on the same line."""
    y = _judge_y(line, judge, n_judges)
    marks = _percent(y, score.win_rate, line.look, judge)
    if score.lc_win_rate and score.lc_win_rate.value is not None:
        marks += [Mark(y, 100 * score.lc_win_rate.value, None, None, _LC, judge)]
    return marks


def _judge_y(line: Line, judge: int, n_judges: int) -> float:
    return line.y + _JUDGE_PITCH * (judge - (n_judges - 1) / 2)


def _write_unknown(canvas: Canvas, inner: Box, y: float) -> None:
    canvas.write(inner.left + 0.03, inner.top - y - 0.037, UNKNOWN, size=SMALL, color=FAINT)


def _percent(y: float, rate: Rate, look: Look, fill: int = 0) -> list[Mark]:
    if rate.value is None:
        return []
    low, high = (None if end is None else 100 * end for end in (rate.low, rate.high))
    return [Mark(y, 100 * rate.value, low, high, look, fill)]


def benchmark_panel(board: PlanBoard) -> Panel | None:
    """lm-eval's scores, a column for each benchmark; None where there are none."""
    rows = [row for row in board.rows if any(_known_score(row, name) for name in board.benchmarks)]
    if not rows:
        return None
    drawn = board.benchmarks[:_MAX_BENCHMARKS]
    lines, height = stacked(rows, looks(board), _PITCH)
    head = 0.36

    def draw(canvas: Canvas, box: Box) -> None:
        room = min(FAMILY_ROOM, max(0.5, box.width - names_room(lines, 0) - _COLUMN * len(drawn)))
        left = names_room(lines, room)
        width = (box.width - left) / len(drawn)
        for k, name in enumerate(drawn):
            inner = Box(box.left + left + k * width, box.top - head - height, width - 0.16, height)
            _draw_benchmark(canvas, inner, lines, name)
            if k == 0:
                write_names(canvas, inner, lines, room)

    some = (
        "" if len(drawn) == len(board.benchmarks) else f", {len(drawn)} of {len(board.benchmarks)}"
    )
    return Panel(
        heading=f"Benchmarks (lm-eval), ±1.96 SE{some}",
        description=f"Scores of {len(rows)} models on {len(drawn)} benchmarks, with bars of 1.96 standard errors.",
        height=head + height + FOOT_ROOM,
        draw=draw,
    )


def _known_score(row: PlanRow, benchmark: str) -> Rate | None:
    """The model's score on a benchmark, if there is a value."""
    rate = row.benchmarks.get(benchmark)
    return rate if rate and rate.value is not None else None


def _draw_benchmark(canvas: Canvas, inner: Box, lines: Sequence[Line], name: str) -> None:
    marks = []
    for line in lines:
        rate = _known_score(line.row, name)
        if rate is None:
            _write_unknown(canvas, inner, line.y)
        else:
            marks += _percent(line.y, _with_errors(rate), line.look)
    axes = line_axes(canvas, inner, lines, limits_of(marks) if marks else (0, 100), "%")
    draw_marks(axes, marks)
    task, _, metric = drawable(name).rpartition(" ")
    for k, text in enumerate((task, metric)):
        short = fitted(text, inner.width, SMALL)
        canvas.write(inner.left, inner.top + 0.19 - 0.13 * k, short, size=SMALL, color=MUTED)


def _with_errors(rate: Rate) -> Rate:
    """lm-eval gives standard errors and no intervals."""
    if rate.value is None or rate.standard_error is None:
        return rate
    margin = _ERRORS * rate.standard_error
    return Rate(rate.value, rate.value - margin, rate.value + margin, rate.standard_error)


def rating_panel(board: PlanBoard) -> Panel | None:
    """Ratings from the best, with their intervals in figures; None where nobody is rated."""
    rated = [
        (row, row.rating.value, row.rating.low, row.rating.high)
        for row in board.rows
        if row.rating and row.rating.value is not None
    ]
    if not rated:
        return None
    rated.sort(key=lambda entry: (-entry[1], entry[0].model))
    known = looks(board)
    height = _PITCH * len(rated) + 0.2
    lines = [
        Line(_PITCH * (k + 0.5) + 0.1, row, known[row.family], first=False)
        for k, (row, *_) in enumerate(rated)
    ]
    marks = [
        Mark(line.y, value, low, high, line.look)
        for line, (_, value, low, high) in zip(lines, rated, strict=True)
    ]

    def draw(canvas: Canvas, box: Box) -> None:
        names = [drawn_name(line.row.model, 2.0, SMALL) for line in lines]
        figures = [_figures(mark) for mark in marks]
        left = max(text_width(name, SMALL) for name in names) + 0.1
        right = max(text_width(text, SMALL) for text in figures) + 0.12
        inner = Box(box.left + left, box.top - height, box.width - left - right, height)
        axes = line_axes(canvas, inner, lines, _rating_limits(marks), "rating (Elo scale)")
        draw_marks(axes, marks)
        for line, name, text in zip(lines, names, figures, strict=True):
            y = inner.top - line.y - 0.037
            canvas.write(inner.left - 0.08, y, name, size=SMALL, align=1.0)
            canvas.write(box.right, y, text, size=SMALL, color=MUTED, align=1.0)

    by = f" by {board.rating_judge}" if board.rating_judge else ""
    some = "" if len(rated) == len(board.rows) else f", {len(rated)} of {len(board.rows)} models"
    return Panel(
        heading=f"Ratings{by}, 95 % intervals{some}",
        description=f"Ratings of {len(rated)} models with 95 % intervals, from the best.",
        height=height + FOOT_ROOM,
        draw=draw,
    )


def _rating_limits(marks: Sequence[Mark]) -> tuple[float, float]:
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    margin = max(0.04 * (max(ends) - min(ends)), 5.0)
    return min(ends) - margin, max(ends) + margin


def _figures(mark: Mark) -> str:
    if mark.low is None or mark.high is None:
        return f"{mark.value:.0f}"
    return f"{mark.value:.0f}  [{mark.low:.0f}, {mark.high:.0f}]"
