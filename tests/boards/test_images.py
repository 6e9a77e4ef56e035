"""Pictures as they were when somebody looked at them last; ``ALIGNBOARD_GOLDENS=write`` draws them anew."""

import os
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from alignboard.boards.columns import Score
from alignboard.boards.of_alpaca_eval import published_board
from alignboard.boards.plots.figure import save_panel
from alignboard.boards.plots.figures import figure_panels
from alignboard.suites import load_suite
from boards import plan_board

IMAGES = Path(__file__).with_name("images")
FAMILIES = ("tiny-phi", "tiny-mistral", "tiny-gemma", "tiny-llama")
MOST = 0.01
"""share of the pixels that may differ: another version of a font's renderer moves edges"""
SIZE = (6.0, 3.5)


def demo():
    return plan_board(FAMILIES)


def alpaca(n):
    board = published_board(load_suite("alpaca-eval-2"))
    return board.only([row.model for row in board.rows[:n]])


PICTURES = {
    "win-rates-12": ("win rates", demo),
    "ratings-12": ("ratings", demo),
    "benchmarks-12": ("benchmarks", demo),
    "lengths-12": ("lengths", demo),
    "ranking-5": ("ranking", lambda: alpaca(5)),
    "ranking-50": ("ranking", lambda: alpaca(50)),
    "lengths-230": ("lengths", lambda: alpaca(None)),
}


def drawn(kind, board, path):
    """A third of the picture's size, in 32 colours: what a person would see move, and a small file."""
    save_panel(figure_panels(kind, board, None)[0], path, SIZE)
    small = Image.open(path).convert("RGB").reduce(3).quantize(32, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    return path


def different(one, other):
    """The share of the pixels that differ by more than a fifth."""
    a, b = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in (one, other))
    return 1.0 if a.shape != b.shape else float((np.abs(a - b).max(axis=2) > 51).mean())


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_as_it_was(name, tmp_path):
    kind, board = PICTURES[name]
    path = drawn(kind, board(), tmp_path / f"{name}.png")
    golden = IMAGES / path.name
    if os.environ.get("ALIGNBOARD_GOLDENS") == "write":
        IMAGES.mkdir(exist_ok=True)
        golden.write_bytes(path.read_bytes())
    assert different(path, golden) <= MOST, f"look at {path} beside {golden}"


def test_a_value_that_moved_is_seen(tmp_path):
    """The planted fault: every win rate of one judge is 10 points higher."""
    board = demo()
    column = board.of_kind("win rate")[0]

    def moved(row):
        score = board.score(row, column)
        if score.value is None:
            return row
        higher = Score(score.value + 10, (score.low or 0) + 10, (score.high or 0) + 10, n=score.n)
        return replace(row, scores=row.scores | {column.key: higher})

    path = drawn(
        "win rates", replace(board, rows=[moved(row) for row in board.rows]), tmp_path / "w.png"
    )
    assert different(path, IMAGES / "win-rates-12.png") > MOST
