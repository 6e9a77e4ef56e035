"""Learning curves: adapters kept on the way, generated with and judged, their drift, and what is said of them."""

import json
import math

import pytest
import yaml

from alignboard.boards.board import Board, read_board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.drift import KL, STEP
from alignboard.boards.plots.registry import panels
from alignboard.demo import world
from alignboard.errors import InputError
from alignboard.pipeline.jobs.curves import ACCURACY, words
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.store import WorkspacePaths
from alignboard.training.recipe import load_recipe, parse_recipe
from alignboard.workspace import declaration
from commands import run_plan
from test_run import small_workspace

RATE = Column(key="r", name="win rate", kind="win rate", unit="%", judge="rule")


@pytest.fixture
def workspace(tmp_path):
    small_workspace(tmp_path)
    path = tmp_path / "evaluate" / "plans" / "small.yaml"
    plan = yaml.safe_load(path.read_text())
    del plan["pairwise"]
    plan["judges"] = ["rule"]
    prompts = world.prompts("preference", 40, 0)
    pairs = [
        {"prompt": prompt, "chosen": f"{world.parse(prompt).answer}.", "rejected": "that is easy."}
        for prompt in prompts
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    batch, data = {"global": 4, "per_device": 4}, {"name": "pairs.jsonl"}
    plan["overrides"]["recipes"]["demo/dpo"] |= {
        "checkpoints": 3, "held_out": {"rows": 4}, "duration": {"steps": 6},
        "batch": batch, "data": data, "pairs": None,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(plan))
    return tmp_path


def test_a_checkpoint_is_generated_with_and_judged_as_a_model_is(workspace):
    jobs = build_graph(load_plan("small", workspace)).jobs
    one = jobs["generate demo-world-first-60 tiny-phi-dpo@1"]
    whole = jobs["generate demo-world-first-60 tiny-phi-dpo"]
    assert one.needs == whole.needs
    own = {"model": "tiny-phi-dpo@1", "checkpoint": 1}
    assert dict(one.parameters) == {**whole.parameters, **own}
    judged = jobs["judge rule demo-world-first-60 tiny-phi-dpo@2"]
    assert judged.needs["baseline"] == "generate demo-world-first-60 tiny-phi-sft"
    assert jobs["drift tiny-phi-dpo"].needs["start"] == "train tiny-phi-sft"
    board = jobs["board small"].needs.values()
    assert not any("@" in name for name in board), "the board of models has no checkpoints"


def test_checkpoints_move_no_key_where_there_are_none(workspace):
    recipe = load_recipe(declaration("train", "demo/dpo", workspace))
    assert "checkpoints" not in recipe.identity()
    content = {**recipe.identity(), "batch": {"global": 32, "per_device": 32}}
    with pytest.raises(InputError, match="checkpoints keeps adapters"):
        parse_recipe({**content, "checkpoints": 3, "lora": "none"}, "x")


def rows(*values):
    """Checkpoints by (win rate, accuracy, length)."""
    return [
        Row(
            f"m@{n}",
            {"r": Score(rate), ACCURACY: Score(accuracy), "length": Score(length), STEP: Score(n)},
        )
        for n, (rate, accuracy, length) in enumerate(values, start=1)
    ]


def test_accuracy_that_rises_while_replies_lose_is_said():
    (told,) = words("m", rows((45.0, 60.0, 20.0), (31.0, 80.0, 20.0)), [RATE], 15.0)
    assert "rises from 60.0 to 80.0 %" in told
    assert "the win rate by rule is 31.0 %" in told
    assert words("m", rows((45.0, 60.0, 20.0), (55.0, 80.0, 20.0)), [RATE], 15.0) == []
    assert words("m", rows((45.0, 80.0, 20.0), (31.0, 70.0, 20.0)), [RATE], 15.0) == []


def test_length_that_runs_away_is_said():
    (told,) = words("m", rows((55.0, 60.0, 20.0), (60.0, 61.0, 31.0)), [RATE], 15.0)
    assert "the length runs away, 31 characters on average against 15" in told


def test_a_board_of_curves_is_drawn_against_steps_and_kl():
    columns = [Column(key=key, name=key, kind="diagnostic") for key in (STEP, KL)]
    own = [
        Row(row.model, row.scores | {KL: Score(0.5 * n)})
        for n, row in enumerate(rows((50.0, 1.0, 1.0), (60.0, 1.0, 1.0)))
    ]
    board = Board(name="c", title="c", columns=[*columns, RATE], rows=own)
    headings = [panel.heading for panel in panels(board) if "against" in panel.heading]
    assert headings == ["Win rate by rule against step", "Win rate by rule against kl"]
    plain = Board(name="c", title="c", columns=[RATE], rows=own)
    assert not any("against step" in panel.heading for panel in panels(plain))


@pytest.mark.slow
def test_a_run_makes_the_board_of_curves(workspace):
    result = run_plan("small", workspace)
    board = read_board(workspace / "leaderboards" / "small-curves.json")
    assert [row.model for row in board.rows] == [f"tiny-phi-dpo@{step}" for step in (2, 4, 6)]
    columns = {column.key: column for column in board.columns}
    for row in board.rows:
        kl = board.score(row, columns[KL])
        assert kl.n == 60
        assert kl.value is not None
        assert math.isfinite(kl.value)
        assert board.score(row, board.of_kind("win rate")[0]).value is not None
        assert board.score(row, columns[ACCURACY]).value is not None
    kls = [board.score(row, columns[KL]).value or 0.0 for row in board.rows]
    # Of greedy replies no estimate of the divergence: a loss that lowers both sides makes it negative.
    assert len(set(kls)) == 3
    assert all(0 < abs(kl) < 5 for kl in kls)
    # The kept adapters are those of a run that stops there: the last is the result.
    (job,) = [job for job in result.jobs if job.name == "train tiny-phi-dpo"]
    folder = WorkspacePaths(workspace).folder(job)
    assert json.loads((folder / "checkpoints/steps.json").read_text()) == {"1": 2, "2": 4, "3": 6}
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        *("1", "2", "steps.json")
    ]
    assert run_plan("small", workspace).timings == []
