"""The picture of a board: complete, legible, the same everywhere, and made of plain matplotlib functions."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from msgspec.structs import replace

from alignboard.boards import page
from alignboard.boards.columns import Row, Score
from alignboard.boards.drift import STEP
from alignboard.boards.of_alpaca_eval import published_board
from alignboard.boards.plots import (
    panels,
    plot_lengths,
    plot_ranking,
    plot_scores,
    plot_win_rates,
    to_png,
    to_svg,
)
from alignboard.boards.plots.curves import plot_curves
from alignboard.boards.plots.dots import ranking_rows
from alignboard.boards.plots.figure import compose
from alignboard.boards.plots.heat import Scale, heat_map
from alignboard.boards.plots.lengths import label_lengths
from alignboard.boards.plots.style import drawable, label_points, settle, short_name, style
from alignboard.suites import load_suite
from boards import METHODS, board_with_gaps, hostile_board, plan_board

SVG = "{http://www.w3.org/2000/svg}"
LONG = [f"an-organisation/a-model-with-a-long-name-{k}-7b-v0.1" for k in range(6)]
EIGHT = (*METHODS, "kto", "orpo", "simpo", "a method with a long name")
BOARDS = {
    "demo": plan_board(("tiny-phi", "tiny-mistral", "tiny-gemma", "tiny-llama")),
    "one": plan_board(("phi",), ("sft", "dpo"), ("rule",), ("arc acc",)),
    "one method": plan_board(("phi",), ("base",)),
    "large": plan_board(
        LONG, EIGHT, ("rule", "a judge", "x" * 90), [f"task_{k} acc_norm" for k in range(9)]
    ),
    "gaps": board_with_gaps(),
    "hostile": hostile_board(),
    "no judges": plan_board(judges=(), rated=False),
    "nothing": plan_board(rows=[]),
}


def test_every_panel_is_there_and_what_has_no_data_is_not():
    found = [panel.heading for panel in panels(BOARDS["demo"])]
    assert found == [
        "Win rates, 95 % intervals",
        "Win rate by rule against length",
        "Win rate by model judge against length",
        "Correct against length",
        "demo_choice acc, ±1.96 SE",
        "demo_exact exact_match, ±1.96 SE",
        "Ratings by rule, 95 % intervals",
    ]
    assert [p.heading for p in panels(plan_board(judges=(), benchmarks=(), rated=False))] == [
        "Correct against length"
    ]
    assert panels(BOARDS["nothing"]) == []


def texts(figure):
    """Every text that is drawn, with its extent in pixels; grid labels outside of the limits are not drawn."""
    figure.draw_without_rendering()
    found, unseen = [], set()
    for ax in figure.findobj(Axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= {
                id(t.label1) for t in axis.get_major_ticks() if not low <= t.get_loc() <= high
            }
    for art in figure.findobj(Text):
        if not art.get_visible() or not art.get_text().strip() or id(art) in unseen:
            continue
        box = art.get_window_extent()
        if box.width and figure.bbox.padded(-0.5).count_overlaps([box]):
            found.append((art.get_text(), box))
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [n for n in BOARDS if n not in {"hostile", "large", "nothing"}])
def test_no_text_leaves_the_picture_or_covers_another(name):
    with style():
        figure = compose(BOARDS[name])
        found = texts(figure)
    for text, box in found:
        inside = figure.bbox.padded(2)
        assert inside.x0 <= box.x0, text
        assert box.x1 <= inside.x1, text
    overlaps = [
        (one, other)
        for (one, a), (other, b) in combinations(found, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 3 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3
    ]
    assert overlaps == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [pytest.param("large", marks=pytest.mark.slow), "hostile"])
def test_unusual_boards_are_drawn(name):
    assert to_png(BOARDS[name]).startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_the_svg_holds_the_words_and_nothing_of_when(name):
    for panel in panels(BOARDS[name])[:3]:
        drawn = to_svg(panel)
        root = ET.fromstring(  # noqa: S314 - made here
            drawn.replace(
                "<svg ",
                '<svg xmlns="http://www.w3.org/2000/svg" '
                'xmlns:xlink="http://www.w3.org/1999/xlink" ',
                1,
            )
        )
        assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
            "svg",
            "g",
            "path",
            "use",
            "text",
            "defs",
            "clipPath",
            "rect",
            "tspan",
        }
        assert any(e.text for e in root.iter(f"{SVG}text"))
        assert "<!--" not in drawn
        assert "<style" not in drawn


def test_a_plot_is_a_function_that_takes_axes_and_returns_them():
    from matplotlib.figure import Figure

    board = BOARDS["demo"]
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_win_rates(board, ax) is ax
    assert ax.get_xlabel() == "win rate (%)"
    benchmark = board.of_kind("benchmark")[0]
    own = plot_scores(board, benchmark.key)
    assert own.get_xlabel() == "demo_choice acc (%)"
    assert plot_lengths(board, board.of_kind("win rate")[:1]).get_xscale() == "log"
    beside = Figure().subplots()
    assert plot_lengths(board, ax=beside) is beside
    assert beside.get_xscale() == "log"


@pytest.mark.parametrize(("methods", "start"), [(("base", "sft", "dpo"), 1), (("sft", "dpo"), 0)])
def test_lines_against_length_go_from_the_baseline_to_the_others(
    methods: tuple[str, ...], start: int
) -> None:
    """A base model is left out, unless it is what the others are compared with."""
    board = plan_board(("phi",), methods, ("rule",))
    if start == 0:
        board = replace(board, rows=[replace(board.rows[0], method="base"), board.rows[1]])
    for column, baseline in ((board.of_kind("win rate")[0], 50.0), (board.columns[0], None)):
        ax = plot_lengths(board, [column])
        first, other = (board.rows[start], board.rows[start + 1])
        y = [board.score(row, column).value or baseline for row in (first, other)]
        x = [board.score(row, "length").value for row in (first, other)]
        drawn = [np.asarray(line.get_data()).tolist() for line in ax.lines]
        assert drawn == [[x, y]]


def test_the_outermost_points_against_length_have_room_for_their_names():
    board = plan_board(("phi",), ("sft", "dpo", "ipo", "simpo"), ("rule",))
    column, length = board.of_kind("accuracy")[0], board.of_kind("length")[0]
    places = ((35, 27.8), (133, 60.3), (29, 57.9), (12.6, 56.6))  # of Gemma 3 270M, docs/methods.md
    rows = [
        replace(row, scores=row.scores | {length.key: Score(x), column.key: Score(y)})
        for row, (x, y) in zip(board.rows, places, strict=True)
    ]
    ax = Figure(figsize=(6, 3), layout="constrained").subplots()
    board = replace(board, rows=rows)
    plot_lengths(board, [column], ax)
    settle(ax)
    label_lengths(board, [column], ax)
    names = {text.get_text() for text in ax.texts} - {""}
    assert names == {"sft", "dpo", "ipo", "simpo"}


def test_curves_that_stop_at_the_same_steps_each_show_their_intervals():
    board = plan_board(("phi",), ("sft", "dpo"), ("rule",))
    rate = board.of_kind("win rate")[0]
    step = replace(board.of_kind("length")[0], key=STEP, name="step", unit="")
    rows = [
        Row(f"{name}@{at}", {STEP: Score(at), rate.key: Score(60.0, low=55.0, high=65.0)})
        for name in ("dpo-seed0", "dpo-seed1", "ipo-seed0")
        for at in (5, 10, 24)
    ]
    ax = plot_curves(replace(board, rows=rows, columns=[step, rate]), step, rate)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["dpo", "ipo"]
    bars = np.concatenate([bar[2][0].get_segments() for bar in ax.containers])
    assert bars[:, :, 1].tolist() == [[55.0, 65.0]] * 9
    places = np.sort(bars[:, 0, 0]).reshape(3, 3)
    assert (np.diff(places, axis=1) > 0.1).all()
    assert (abs(places - [[5], [10], [24]]) < 0.5).all()
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_the_ranking_draws_the_values_that_are_ranked():
    board = published_board(load_suite("alpaca-eval-2"))
    ax = plot_ranking(board)
    rows = ranking_rows(board)
    values = {board.score(row, "lc_win_rate").value for row in rows}
    drawn = {
        float(x)
        for art in ax.collections
        if hasattr(art, "get_offsets")
        for x, _ in np.asarray(art.get_offsets())
    }
    assert values <= drawn
    assert len(rows) == 15 + 13
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels[0].split() == ["NullModel", "1"]


def test_every_colour_of_the_plots_has_its_counterpart_on_a_dark_ground():
    css = (Path(page.__file__).parent / "page_parts" / "board.css").read_text()
    for panel in panels(BOARDS["demo"]):
        drawn = to_svg(panel)
        for color in {part[:6] for part in drawn.split("var(--")[1:]}:
            assert f"--{color}:" in css, color


def test_names_are_drawn_with_what_the_font_has():
    assert drawable("evil\u202egpj") == "evil\\u202egpj"
    assert drawable("模x") == "\\u6a21x"
    assert drawable("Ångström") == "Ångström"
    assert drawable("q\u0301") == "q\\u0301"
    assert len(short_name("W" * 300)) == 34
    assert short_name("$\\frac{$") == "$\\frac{$"


@pytest.mark.slow
def test_the_picture_does_not_depend_on_the_process_or_its_matplotlibrc(tmp_path):
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1])\n"
        "from boards import plan_board\n"
        "from alignboard.boards.plots import to_png\n"
        "content = to_png(plan_board(('phi',)))\n"
        "print(hashlib.sha256(content).hexdigest(), 'matplotlib.pyplot' in sys.modules)\n"
    )
    (tmp_path / "matplotlibrc").write_text(
        "axes.facecolor: red\ntext.usetex: True\npath.sketch: 1, 100, 2\n"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parents[1])],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder in (tmp_path, "/")
    }
    assert len(results) == 1
    assert results.pop().endswith("False\n")


def test_a_label_keeps_off_marks_and_has_a_line_where_it_is_not_beside_its_own():
    ax = Figure(figsize=(4, 4), dpi=100).subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    around = 0.5 + np.array([[0.035 * x, 0.02 * y] for x in range(-2, 3) for y in range(-1, 2)])
    ax.scatter(*around.T)
    ax.scatter([0.1], [0.1])
    assert label_points(ax, [(0.5, 0.5, "x", "k"), (0.1, 0.1, "alone", "k")]) == ["x", "alone"]
    names = [art for art in ax.texts if art.get_text()]
    (line,) = (art for art in ax.texts if not art.get_text())
    assert isinstance(line, Annotation)
    assert line.xy == (0.5, 0.5)
    marks = ax.transData.transform(around)
    for box in (art.get_window_extent().padded(3 * 100 / 72) for art in names):
        assert not ((marks > box.p0) & (marks < box.p1)).all(axis=1).any()


@pytest.mark.parametrize(("n", "angle"), [(4, 40), (24, 90)])
def test_names_of_many_columns_stand_upright(n, angle):
    ax = Figure().subplots()
    names = [f"a-rather-long-name-{i}" for i in range(n)]
    heat_map(ax, np.zeros((n, n)), names, names, Scale(0.0, 1.0, ""))
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {angle}
