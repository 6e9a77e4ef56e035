"""The picture of a plan's board: complete, legible at every size, and the same everywhere."""

import re
import struct
import time
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest

from alignboard.leaderboards import plan_page
from alignboard.leaderboards.plan_lengths import length_panel
from alignboard.leaderboards.plan_marks import WIDTH
from alignboard.leaderboards.plan_panels import benchmark_panel, rating_panel, win_panel
from alignboard.leaderboards.plan_plots import columns, draw_plan_board, panel_svg
from alignboard.leaderboards.plots_canvas import Box, Canvas, text_width
from alignboard.text import shown
from plan_boards import METHODS, board_with_gaps, hostile_board, plan_board

SVG = "{http://www.w3.org/2000/svg}"
LONG = [f"an-organisation/a-model-with-a-long-name-{k}-7b-v0.1" for k in range(8)]
EIGHT = (*METHODS, "kto", "orpo", "simpo", "a method with a long name")
BOARDS = {
    "demo": plan_board(("tiny-phi", "tiny-mistral", "tiny-gemma", "tiny-llama")),
    "one": plan_board(("phi",), ("sft", "dpo"), ("rule",), ("arc",)),
    "one method": plan_board(("phi",), ("base",)),
    "large": plan_board(
        LONG, EIGHT, ("rule", "a judge", "x" * 90), [f"task_{k} acc_norm" for k in range(9)]
    ),
    "gaps": board_with_gaps(),
    "hostile": hostile_board(),
    "no judges": plan_board(judges=(), rated=False),
}


def panels(board):
    return [panel for column in columns(board) for panel in column]


def drawn(panel):
    canvas = Canvas(WIDTH, panel.height, 150)
    panel.draw(canvas, Box(0, 0, WIDTH, panel.height))
    return canvas


def extent(writing):
    width = text_width(writing.text, writing.size, bold=writing.bold)
    height = writing.size / 72
    return writing.x, writing.y, writing.x + width, writing.y + 0.7 * height


def test_every_panel_is_there_and_what_has_no_data_is_not():
    firsts = sorted(panel.heading.split()[0] for panel in panels(BOARDS["demo"]))
    assert firsts == ["Benchmarks", "Ratings", "Win", "Win"]
    bare = plan_board(judges=(), benchmarks=(), rated=False)
    assert [make(bare) for make in (win_panel, benchmark_panel, rating_panel)] == [None] * 3
    found = length_panel(bare)
    assert found is not None
    assert found.heading == "Correctness against length of the answers"
    assert length_panel(plan_board(("phi",), ("base",))) is None
    assert columns(plan_board(rows=[])) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BOARDS)
def test_no_text_leaves_its_panel_or_covers_another(name):
    for panel in panels(BOARDS[name]):
        texts = [writing for writing in drawn(panel).writings if writing.text.strip()]
        boxes = [extent(writing) for writing in texts]
        for text, (left, bottom, right, top) in zip(texts, boxes, strict=True):
            inside = left >= -0.01 and bottom >= 0 and right <= WIDTH + 0.08 and top <= panel.height
            assert inside, text
        for (one, a), (other, b) in combinations(zip(texts, boxes, strict=True), 2):
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (panel.heading, one, other)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["demo", "gaps", "hostile", "no judges"])
def test_the_svg_says_what_is_drawn_and_nothing_of_when(name):
    for panel in panels(BOARDS[name]):
        svg = panel_svg(panel)
        assert svg == panel_svg(panel)
        # Inside a page the names of the elements need no declaration; here they do.
        space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        root = ET.fromstring(svg.replace("<svg ", f"<svg {space} ", 1))  # noqa: S314 (our own)
        said = [text.text for text in root.iter(f"{SVG}text")]
        assert said == [writing.text for writing in drawn(panel).writings if writing.text]
        assert not list(root.iter(f"{SVG}style"))
        assert "metadata" not in svg
        assert not re.search(r"\d{4}-\d\d-\d\d", svg)


def test_methods_families_and_judges_are_named():
    board = BOARDS["demo"]
    panel = win_panel(board)
    assert panel is not None
    said = [writing.text for writing in drawn(panel).writings]
    assert said.count("dpo") == 4
    assert "sft" not in said, "the baseline is the line at 50"
    assert {"sft = 50", "tiny-mistral", "rule", "model judge", "length-controlled"} <= set(said)
    ratings = rating_panel(board)
    assert ratings is not None
    figures = [w.text for w in drawn(ratings).writings if "[" in w.text]
    values = [int(text.split()[0]) for text in figures]
    assert len(values) == len(board.rows)
    assert values == sorted(values, reverse=True)


def test_unknown_scores_are_said_to_be_unknown():
    board = BOARDS["gaps"]
    win, scores, ratings = win_panel(board), benchmark_panel(board), rating_panel(board)
    assert win is not None
    assert scores is not None
    assert ratings is not None
    # Row 2 has a verdict of one judge only, without a value; row 6 lacks the second judge.
    assert [w.text for w in drawn(win).writings].count("n/a") == 3
    assert [w.text for w in drawn(scores).writings].count("n/a") == 1
    assert "6 of 8 models" in ratings.heading


def test_every_colour_of_the_plots_has_its_counterpart_on_a_dark_ground():
    used = {
        color
        for panel in panels(plan_board(LONG, ("base", "sft", "dpo")))
        for color in re.findall(r"var\(--([0-9a-f]{6}),", panel_svg(panel))
    }
    css = (Path(plan_page.__file__).parent / "page" / "plan.css").read_text()
    assert len(used) > 8
    assert used - set(re.findall(r"--([0-9a-f]{6}):", css)) == {"e69f00"}, "bright on both"


def test_the_png_holds_the_picture_and_its_resolution_alone():
    content = draw_plan_board(BOARDS["demo"])
    at, kinds = 8, []
    while at < len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        kinds.append(kind)
        at += 12 + length
    assert set(kinds) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1950
    assert 1500 < height < 2500


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["one", "one method", "gaps", "hostile", "no judges"])
def test_unusual_boards_are_drawn(name):
    assert draw_plan_board(BOARDS[name]).startswith(b"\x89PNG")


def test_drawing_takes_little_time():
    draw_plan_board(BOARDS["one"])  # loads fonts
    started = time.process_time()
    draw_plan_board(BOARDS["demo"])
    assert time.process_time() - started < 2.5


def test_names_are_shown_with_their_escapes():
    board = BOARDS["hostile"]
    said = {w.text for panel in panels(board) for w in drawn(panel).writings}
    assert all(shown(text) == text for text in said)
