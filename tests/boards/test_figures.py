"""Figures that are drawn when they are asked for: their numbers, their files, and what is said where there are none."""

import re

import msgspec
import numpy as np
import pytest
from matplotlib.text import Text
from msgspec.structs import replace

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.drift import KL, KL_COLUMN, STEP
from alignboard.boards.examples import Chunk, Examples, Preferences
from alignboard.boards.files import write_board
from alignboard.boards.plots.curves import plot_settings
from alignboard.boards.plots.figure import draw_panel, save_panel
from alignboard.boards.plots.figures import figure_panels, kinds
from alignboard.boards.plots.heat import (
    plot_agreement,
    plot_pairs,
    plot_tax,
    plot_tests,
    preferences_of,
)
from alignboard.boards.plots.points import frontier, plot_difficulty
from alignboard.boards.plots.radar import plot_radar
from alignboard.boards.plots.registry import Panel
from alignboard.boards.plots.style import MARKERS, Font, style
from alignboard.boards.scoring import judged_columns
from alignboard.errors import InputError
from alignboard.registry import register
from alignboard.stats.paired import paired_difference
from boards import plan_board
from commands import alignboard

BY_A, BY_B = (judged_columns(judge, "base", None)[0] for judge in ("a", "b"))
N = None


def examples():
    """Two judges on three models, one of which was judged against another baseline."""
    found = [
        (BY_A, "x", "base", [2.0, 2.0, 1.0, N]),
        (BY_A, "y", "base", [1.0, 2.0, 1.5, 1.0]),
        (BY_A, "z", "other", [2.0, 2.0, 2.0, 2.0]),
        (BY_B, "x", "base", [2.0, 1.0, 1.0, 2.0]),
        (BY_B, "y", "base", [1.0, 2.0, 1.5, 1.5]),
    ]
    return Examples(
        ["set"] * 4,
        {model: [1, 2, 3, 4] for model in "xyz"},
        [Preferences(c.key, model, base, values, [N] * 4) for c, model, base, values in found],
        [Chunk(["p"], [0] * 4, {}, [[-1] * 4] * len(found))],
    )


def board():
    scores = {BY_A.key: Score(60.0, 50.0, 70.0), BY_B.key: Score(50.0, 40.0, 60.0)}
    rows = [Row(model, scores) for model in "xyz"]
    return Board(name="small", title="Small", columns=[BY_A, BY_B], rows=rows)


def image(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def test_pairs_are_compared_on_shared_prompts_against_one_baseline():
    shown = image(plot_pairs(examples(), BY_A.key, ["x", "y", "z"]))
    # x against y on prompts 0, 1 and 2: higher, equal, lower.
    assert shown[0, 1] == pytest.approx(50.0)
    assert shown[1, 0] == pytest.approx(50.0)
    assert np.isnan(shown[2]).all()
    assert np.isnan(np.diag(shown)).all()


def test_differences_are_tested_on_shared_prompts_and_marked_after_holm():
    rng = np.random.default_rng(0)
    easy = rng.random(60)
    rates = {"x": easy, "y": easy - 0.4, "z": np.roll(easy, 1)}
    given = [
        Preferences(BY_A.key, model, "base", (1 + np.clip(rate, 0, 1)).tolist(), [N] * 60)
        for model, rate in rates.items()
    ]
    made = Examples(
        ["set"] * 60,
        {model: list(range(60)) for model in rates},
        given,
        [Chunk(["p"], [0] * 60, {}, [[-1] * 60] * 3)],
    )
    ax = plot_tests(made, BY_A.key, ["x", "y", "z"])
    shown = image(ax)
    found = paired_difference(*(np.array(one.preference) - 1 for one in given[:2]))
    assert shown[0, 1] == pytest.approx(100 * found.estimate) == -shown[1, 0]
    texts = [text.get_text() for text in ax.texts]
    assert texts[1] == f"{shown[0, 1]:+.0f}*"
    assert texts[3] == f"{shown[1, 0]:+.0f}*"
    assert not texts[2].endswith("*"), "x and z have the same scores in another order"
    assert texts[0] == texts[4] == texts[8] == ""


def test_judges_agree_where_they_prefer_the_same_side():
    ax = plot_agreement(examples(), {BY_A.key: "a", BY_B.key: "b"})
    # Of seven pairs that both scored: x 1, 0, 1 and y 1, 1, 1, 0.
    assert image(ax)[0, 1] == pytest.approx(100 * 5 / 7)
    assert {text.get_text() for text in ax.texts} == {"", "71", "n 7"}


def test_prompts_by_difficulty_are_means_over_the_models():
    line = plot_difficulty(examples(), [(BY_A.key, "a")]).lines[0]
    assert list(np.asarray(line.get_ydata())) == pytest.approx(sorted([200 / 3, 100.0, 50.0, 50.0]))
    assert set(preferences_of(examples(), BY_B.key)) == {("x", "base"), ("y", "base")}


def test_the_tax_is_the_distance_from_the_familys_base_model():
    made = plan_board()
    shown = image(plot_tax(made))
    tuned = [row for row in made.rows if row.method != "base"]
    bases = {row.family: row for row in made.rows if row.method == "base"}
    for line, row in zip(shown, tuned, strict=True):
        for value, column in zip(line, made.of_kind("benchmark"), strict=True):
            own, base = (made.score(one, column).value for one in (row, bases[row.family]))
            assert own is not None
            assert base is not None
            assert value == pytest.approx(own - base)


def test_the_frontier_holds_what_nothing_beats():
    assert frontier({"a": (1, 1), "twin": (1, 1), "under": (0, 1)}) == ["a", "twin"]


def ranked():
    return msgspec.structs.replace(board(), ranked_by=BY_A.key, families={"xy": ["x", "y"]})


def checkpoints():
    """A training of three checkpoints."""
    step = Column(key=STEP, name="step", kind="diagnostic", unit="steps", better="none")
    rate, _ = judged_columns("rule", "sft", None)
    rows = [
        Row(f"dpo@{n}", {step.key: Score(float(n)), rate.key: Score(50.0 + n, 45.0 + n, 55.0 + n)})
        for n in (2, 4, 6)
    ]
    return Board(name="c", title="C", columns=[step, rate], rows=rows)


def sweep():
    methods = ("dpo-beta0.1", "dpo-beta1.0", "hinge-beta0.1", "hinge-beta1.0", "apo-zero")
    rows = [
        Row(
            f"{family}-{method}",
            {KL: Score(n), BY_A.key: Score(50.0 + n, 45.0 + n, 55.0 + n)},
            family,
            method,
        )
        for family in ("phi", "llama")
        for n, method in enumerate(methods)
    ]
    return Board(name="b", title="b", columns=[BY_A, KL_COLUMN], rows=rows)


SOURCES = {
    "plan": (
        lambda: (plan_board(), None),
        "win rates, lengths, benchmarks, ratings, alignment tax, frontier, length control",
    ),
    "examples": (lambda: (board(), examples()), "pairs, tests, agreement, difficulty"),
    "ranked": (lambda: (ranked(), None), "ranking, families"),
    "checkpoints": (lambda: (checkpoints(), None), "curves"),
    "sweep": (lambda: (sweep(), None), "settings"),
    "benchmarks": (lambda: (plan_board(benchmarks=["a acc", "b acc", "c acc"]), None), "radar"),
}


@pytest.mark.parametrize(
    ("source", "kind"),
    [(name, kind) for name, (_, of) in SOURCES.items() for kind in of.split(", ")],
)
def test_every_kind_is_drawn_into_every_format_with_the_same_bytes(source, kind, tmp_path):
    panels = figure_panels(kind, *SOURCES[source][0]())
    for suffix in ("svg", "pdf", "png"):
        one, other = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
        save_panel(panels[0], one, (4.0, 3.0))
        save_panel(panels[0], other, (4.0, 3.0))
        assert one.read_bytes() == other.read_bytes()
        assert len(one.read_bytes()) > 1000


def test_the_kinds_above_are_all():
    own = {name for name in kinds() if name != "figure of a test"}
    assert own == {kind for _, of in SOURCES.values() for kind in of.split(", ")}


def test_a_figure_of_another_package_is_one_registration(tmp_path):
    def mine(made, own):
        assert own is not None
        return [Panel(made.title, 2.0, lambda ax: ax.plot([1, 2]))]

    register("figure", "figure of a test", mine)
    (panel,) = figure_panels("figure of a test", board(), examples())
    assert panel.heading == "Small"


def run(folder, *arguments):
    return alignboard(folder, "plot", *arguments)


def test_the_command_reads_a_board_with_its_examples(tmp_path):
    write_board(board(), tmp_path / "leaderboards", examples())
    finished = run(tmp_path, "pairs", "small", "-o", "pairs.pdf", "--models", "x,y")
    assert finished.stdout.split() == ["pairs-1.pdf", "pairs-2.pdf"], finished.stderr
    assert (tmp_path / "pairs-1.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["pears", "small", "-o", "x.pdf"], "did you mean 'pairs'"),
        (["pairs", "large", "-o", "x.pdf"], "no board leaderboards/large.json"),
        (["pairs", "small", "-o", "x.gif"], ".svg, .pdf, .png"),
        (["pairs", "small", "-o", "x.svg", "--size", "3"], "--size 3: expected width x height"),
        (["pairs", "small", "-o", "x.svg", "--font", "DejaVu Serf"], "did you mean 'DejaVu Serif'"),
        (["alignment tax", "small", "-o", "x.svg"], "nothing that a plot 'alignment tax' draws"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, wanted):
    write_board(board(), tmp_path / "leaderboards")
    finished = run(tmp_path, *arguments)
    assert finished.returncode == 2
    assert wanted in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_figure_has_the_font_and_the_size_that_were_asked_for(tmp_path):
    write_board(board(), tmp_path / "leaderboards")
    options = ("--size", "3.3x4", "--font", "DejaVu Serif", "--font-size", "10")
    assert run(tmp_path, "win rates", "small", "-o", "x.svg", *options).returncode == 0
    drawn = (tmp_path / "x.svg").read_text()
    assert 'width="237.6pt" height="288pt"' in drawn
    drawn_sizes = re.findall(r"([\d.]+)px[^\"]*'DejaVu Serif'", drawn)
    assert sorted({float(size) for size in drawn_sizes}) == [10, pytest.approx(40 / 3)]


@pytest.mark.parametrize("font", [Font(), Font("DejaVu Serif", 10), Font(size=5)])
@pytest.mark.parametrize("size", [(6.4, 4.0), (3.3, 4.0), (3.3, 6.0)])
def test_headings_and_legends_stay_inside_figures_of_any_width(size, font):
    shown = plan_board(("tiny-phi", "tiny-gemma"))
    for panel in figure_panels("win rates", shown, None) + figure_panels("ratings", shown, None):
        with style(font=font):
            figure = draw_panel(panel, size)
            heading, *legends = _head_and_legend(figure)
            if legends:
                assert legends[0].y1 - heading.y0 <= 3


def _head_and_legend(figure):
    """The places of both, which lie inside the figure."""
    figure.draw_without_rendering()
    ax = figure.axes[0]
    title = next(t for t in ax.findobj(Text) if t.get_fontweight() == "bold")
    boxes = [one.get_window_extent() for one in (title, ax.get_legend()) if one is not None]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    return boxes


@pytest.mark.parametrize(
    ("source", "kind"),
    [("checkpoints", "curves"), ("sweep", "settings"), ("examples", "difficulty")],
)
def test_a_legend_among_the_marks_stays_there(source, kind):
    figure = draw_panel(figure_panels(kind, *SOURCES[source][0]())[0], (6.4, 4.0))
    _, legend = _head_and_legend(figure)
    frame = figure.axes[0].get_window_extent()
    assert frame.x0 <= legend.x0
    assert frame.y0 <= legend.y0
    assert legend.x1 <= frame.x1
    assert legend.y1 <= frame.y1


def test_a_radar_holds_every_benchmark_of_the_models_that_have_all():
    names = ["arc acc", "hellaswag acc", "mmlu acc", "gsm8k exact_match"]
    board = plan_board(("tiny-phi", "tiny-gemma"), benchmarks=names)
    gone = board.of_kind("benchmark")[0].key
    rows = [
        replace(row, scores={k: v for k, v in row.scores.items() if k != gone}) if k == 0 else row
        for k, row in enumerate(board.rows)
    ]
    ax = plot_radar(replace(board, rows=rows))
    polygons = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    assert len(polygons) == len(rows) - 1
    for line, row in zip(polygons, rows[1:], strict=True):
        radii = np.hypot(*line.get_data())[:-1]
        assert radii == pytest.approx(
            [board.score(row, c).value for c in board.of_kind("benchmark")]
        )
    with pytest.raises(InputError, match="radar"):
        figure_panels("radar", plan_board(benchmarks=names[:2]), None)


def test_the_settings_of_a_method_are_a_line_against_kl_in_each_family():
    made = sweep()
    rows = made.rows
    first, second = figure_panels("settings", made, None)
    assert (first.heading[:4], second.heading[:6]) == ("phi:", "llama:")
    ax = plot_settings(made, rows[:5], KL_COLUMN, BY_A)
    assert ax.get_legend_handles_labels()[1] == ["dpo", "hinge", "beta 0.1", "beta 1.0"]
    # dpo, hinge and what stands alone.
    assert [line.get_marker() for line in _points(ax)] == ["o", "s", "o", "s", "x"]
    (named,) = (t for t in draw_panel(first, (6.4, 4.0)).findobj(Text) if "apo" in t.get_text())
    assert named.get_text() == "apo-zero"
    with pytest.raises(InputError, match="nothing that a plot 'settings' draws"):
        figure_panels("settings", replace(made, rows=rows[4:5]), None)


def test_settings_beyond_the_number_of_shapes_are_written_beside_their_points():
    rows = [
        Row(f"dpo-beta{n}", {KL: Score(float(n)), BY_A.key: Score(50.0 + n)}, "phi", f"dpo-beta{n}")
        for n in range(len(MARKERS) + 1)
    ]
    (panel,) = figure_panels("settings", replace(sweep(), rows=rows), None)
    texts = {text.get_text() for text in draw_panel(panel, (6.4, 4.0)).findobj(Text)}
    # Those at the edges may find no room.
    assert {f"beta {n}" for n in range(1, len(MARKERS))} <= texts
    points = _points(plot_settings(sweep(), rows, KL_COLUMN, BY_A))
    assert [line.get_marker() for line in points] == ["o"] * len(rows)


def _points(ax):
    """The lines of one point, as drawn."""
    return [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 1]
