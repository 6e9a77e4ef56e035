"""Sweeps: the runs of a plan, what they share, the rows of their seeds, and the setting that is chosen."""

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from alignboard.boards.board import Board, read_board
from alignboard.boards.columns import Column, Row, Score
from alignboard.errors import AlignboardError
from alignboard.pipeline.jobs.differences import with_differences
from alignboard.pipeline.jobs.repeats import with_repeats
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.plans.plan import load_plan
from alignboard.pipeline.training import SweepRequest, parse_values, sweep_plan
from alignboard.stats.repeats import repeated_mean
from commands import run_plan
from test_run import small_workspace

SWEEP = {"recipes": ["demo/dpo"], "over": {"loss.beta": [0.1, 1.0]}, "seeds": 2}
RATE = Column(key="rule/win_rate", name="win rate", kind="win rate", unit="%", judge="rule")


@pytest.fixture
def workspace(tmp_path):
    return small_workspace(tmp_path)


def change(workspace, **changes):
    path = workspace / "evaluate" / "plans" / "small.yaml"
    plan = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        plan.pop(name, None)
        if value is not None:
            plan[name] = value
    path.write_text(yaml.safe_dump(plan))
    return plan


def test_settings_and_seeds_are_runs_that_share_all_but_the_training(workspace):
    change(workspace, sweep=SWEEP, pairwise=None)
    resolved = load_plan("small", workspace)
    base = next(iter(resolved.entries))
    own = [m for m in resolved.models if m.base == base and "dpo" in m.name]
    assert [(m.name.removeprefix(base), m.row.removeprefix(base), m.method) for m in own] == [
        ("-dpo-beta0.1-seed0", "-dpo-beta0.1", "dpo-beta0.1"),
        ("-dpo-beta0.1-seed1", "-dpo-beta0.1", "dpo-beta0.1"),
        ("-dpo-beta1.0-seed0", "-dpo-beta1.0", "dpo-beta1.0"),
        ("-dpo-beta1.0-seed1", "-dpo-beta1.0", "dpo-beta1.0"),
    ]
    recipes = [resolved.recipes[str(m.recipe)] for m in own]
    assert [(r.loss["beta"], r.seed) for r in recipes if r.loss] == [
        *((0.1, 0), (0.1, 1)),
        *((1.0, 0), (1.0, 1)),
    ]
    jobs = build_graph(resolved).jobs
    trained = [jobs[f"train {m.name}"] for m in own]
    assert len({json.dumps(job.needs) for job in trained}) == 1
    assert len({job.key for job in trained}) == 4


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({"recipes": ["demo/dop"]}, "sweep.recipes has 'demo/dop', .* did you mean 'demo/dpo'"),
        ({"over": {"los.beta": [1]}}, "a recipe has no field 'los', did you mean 'loss'"),
        ({"over": {"loss.gamma": [1]}}, "method dpo has no parameter 'gamma'"),
        ({"over": {"loss.beta": [-1]}}, "loss.beta: a number > 0"),
        ({"over": {"loss.beta": []}}, "a value at least for each field"),
        ({"seeds": 0}, "1 seed at least"),
        ({"select_on": "smal"}, "select_on is 'smal', .* did you mean 'small'"),
        ({"recipes": ["demo/sft"], "over": {}}, "and be no part of a sweep"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence(workspace, sweep, told):
    change(workspace, sweep=SWEEP | sweep, pairwise=None)
    with pytest.raises(AlignboardError, match=told):
        load_plan("small", workspace)


def test_a_swept_method_stands_in_the_name_in_place_of_the_recipe(workspace):
    sweep = {"over": {"method": ["ipo", "kto"], "loss.beta": [0.2], "checkpoints": [3]}}
    plan = change(workspace, sweep=SWEEP | sweep, pairwise=None)
    small = plan["overrides"]["recipes"]["demo/dpo"] | {"batch": {"global": 4, "per_device": 4}}
    change(workspace, overrides=plan["overrides"] | {"recipes": {"demo/dpo": small}})
    resolved = load_plan("small", workspace)
    made = [m for m in resolved.models if m.run is not None and m.run.seed is not None]
    suffixes = ("ipo-seed0", "ipo-seed1", "kto-seed0", "kto-seed1")
    assert [m.name for m in made] == [f"tiny-phi-{suffix}" for suffix in suffixes]
    recipes = [resolved.recipes[str(m.recipe)] for m in made]
    assert [(r.method, r.checkpoints) for r in recipes[1:3]] == [("ipo", 3), ("kto", 3)]
    assert all(r.loss and r.loss["beta"] == 0.2 for r in recipes)
    jobs = build_graph(resolved).jobs
    kto, ipo = (jobs[f"train tiny-phi-{method}-seed0"].needs for method in ("kto", "ipo"))
    assert kto["data"] != ipo["data"]
    pairs = [jobs[needs["data"]].needs["pairs"] for needs in (kto, ipo)]
    assert pairs[0] == pairs[1], "rated replies are of the same samples"


def test_the_command_makes_a_plan(tmp_path):
    asked = SweepRequest(
        ["demo/dpo", "demo/ipo"], parse_values(["loss.beta=0.1,0.5"]), 3, "tiny-phi",
        judge="demo-simulated",
    )  # fmt: skip
    resolved = sweep_plan(asked, tmp_path)
    assert resolved.plan.recipes == ["demo/sft", "demo/dpo", "demo/ipo"]
    assert resolved.baseline_method == "sft"
    assert len(resolved.models) == 2 + 2 * 2 * 3
    with pytest.raises(AlignboardError, match="names no judge; say one with --judge"):
        sweep_plan(SweepRequest(["demo/dpo"], {}, 1, "tiny-phi"), tmp_path)


# Rows


def board_of(runs):
    entries = [
        {"model": name, "row": row, "family": "phi", "chosen_among": "dpo", "select_on": None}
        for name, (row, _) in runs.items()
    ]
    scores = {
        name: {RATE.key: Score(100 * float(np.mean(list(values))), standard_error=5.0)}
        for name, (_, values) in runs.items()
    }
    board = Board(
        name="b", title="b", columns=[RATE], rows=[Row(name, own) for name, own in scores.items()]
    )
    table = {
        name: {n: 100.0 * value for n, value in enumerate(values)}
        for name, (_, values) in runs.items()
    }
    parameters = {"models": entries, "sets": [{"name": "s", "suite": "s"}]}
    return with_repeats(board, parameters, {RATE.key: table}), board, parameters


def test_a_flag_of_one_seed_names_the_seed():
    _, board, parameters = board_of({"a-seed0": ("a", [1, 0]), "a-seed1": ("a", [1, 1])})
    flagged = board.with_flags({"a-seed0": ["cut off", "odd"], "a-seed1": ["cut off"]})
    (row,) = with_repeats(flagged, parameters, {}).rows
    assert row.flags[:2] == ["cut off", "seed0: odd"]


def test_seeds_of_a_setting_are_one_row_over_prompts_and_seeds():
    one, two = [1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0]
    made, board, parameters = board_of(
        {"a-0": ("a", one), "a-1": ("a", two), "b-0": ("b", [1] * 6)}
    )
    assert [row.model for row in made.rows] == ["a", "b"]
    score = made.rows[0].scores[RATE.key]
    expected = repeated_mean(100.0 * np.array([one, two]).T[:, :, None, None])
    assert (score.value, score.standard_error) == (expected.value, expected.standard_error)
    assert score.note == f"2 seeds, SD {expected.spread:.1f}"
    assert made.rows[1].flags == ["chosen among 2 settings of dpo on the prompts that are reported"]
    assert "new prompts and new seeds" in made.notes[-1]
    # Of numbers per run the errors of the runs are not divided by their number.
    coarse = with_repeats(board, parameters, {}).rows[0].scores[RATE.key]
    assert coarse.standard_error is not None
    assert coarse.standard_error > 5.0


def test_correctness_and_length_stand_beside_their_difference_to_the_baseline():
    correct = Column(key="correct", name="correct", kind="accuracy", unit="%")
    values = {
        "sft": [100, 0, 100, 0, 100, 0],
        "a-0": [100, 0, 0, 0, 100, 0],
        "a-1": [100, 0, 100, 0, 0, 0],
        "b": [100, 100, 100, 0, 100, 0],
    }
    rate = {"sft": Score(reason="baseline"), "b": Score(80.0, 60.0, 95.0)}
    rate |= {"a-0": Score(40.0), "a-1": Score(42.0)}
    rows = [
        Row(name, {"correct": Score(float(np.mean(own))), RATE.key: rate[name]})
        for name, own in values.items()
    ]
    board = Board(name="b", title="b", columns=[RATE, correct], rows=rows)
    entries = [{"model": name, "baseline": "sft", "family": "phi"} for name in values]
    swept = {"row": "a", "chosen_among": None, "select_on": None}
    entries = [e | (swept if "-" in e["model"] else {}) for e in entries]
    tables = {"correct": {name: dict(enumerate(map(float, own))) for name, own in values.items()}}
    lost = {n: 100.0 * won for n, won in enumerate([0, 0, 1, 0, 0, 0])}
    tables[RATE.key] = {"a-0": lost, "a-1": lost}
    parameters = {"models": entries, "sets": [{"name": "s", "suite": "s"}]}
    made = with_differences(with_repeats(board, parameters, tables), parameters, tables)
    assert [column.name for column in made.columns] == ["win rate", "correct", "correct - baseline"]
    assert made.columns[2].unit == "points"
    found = {row.model: row.scores.get("correct/difference", Score()) for row in made.rows}
    assert found["sft"].value is None
    both = np.array([values["a-0"], values["a-1"]], dtype=float) - np.array(values["sft"])
    expected = repeated_mean(both.T.reshape(6, 2, 1, 1))
    assert found["a"].value == pytest.approx(-100 / 6)
    assert (found["a"].low, found["a"].high) == (expected.low, expected.high)
    assert found["b"].value == pytest.approx(100 / 6)
    flags = {row.model: row.flags for row in made.rows}
    assert flags == {"sft": [], "a": ["not shown to beat its baseline"], "b": []}


def test_a_setting_chosen_elsewhere_is_marked_so():
    _, board, parameters = board_of({"a-0": ("a", [1, 0]), "b-0": ("b", [1, 1])})
    other = msgspec.structs.replace(RATE, key="rule/t/win_rate", set="t")
    column = msgspec.structs.replace(RATE, set="s")
    rows = [
        msgspec.structs.replace(row, scores=row.scores | {other.key: Score(value)})
        for row, value in zip(board.rows, (90.0, 10.0), strict=True)
    ]
    board = msgspec.structs.replace(board, columns=[column, other], rows=rows)
    entries = [entry | {"select_on": "T"} for entry in parameters["models"]]
    sets = [{"name": "s", "suite": "S"}, {"name": "t", "suite": "T"}]
    made = with_repeats(board, {"models": entries, "sets": sets}, {})
    assert made.rows[0].flags == ["chosen among 2 settings of dpo on t alone"]
    assert made.rows[1].flags == []


# Statistics


@pytest.mark.parametrize(
    ("n_prompts", "n_seeds", "sizes"),
    [(100, 3, (0.3, 0.05, 0.3)), (100, 2, (0.3, 0.05, 0.3)), (60, 5, (0.3, 0.0, 0.3))],
)
def test_the_interval_covers_new_prompts_and_new_seeds(n_prompts, n_seeds, sizes):
    rng = np.random.default_rng(0)
    prompt, seed, rest = sizes
    hits = 0
    for _ in range(1000):
        values = (
            rng.normal(0, prompt, (n_prompts, 1))
            + rng.normal(0, seed, (1, n_seeds))
            + rng.normal(0, rest, (n_prompts, n_seeds))
        )
        found = repeated_mean(values[:, :, None, None])
        hits += found.low <= 0 <= found.high
    assert 0.935 <= hits / 1000 <= 0.99


def test_with_one_seed_the_interval_is_for_prompts_alone():
    values = np.array([[0.0], [1.0], [1.0], [0.0]])
    found = repeated_mean(values[:, :, None, None])
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert math.isnan(found.spread)


# The whole


@pytest.mark.slow
def test_a_sweep_makes_a_board_of_settings(workspace):
    plan = change(workspace, sweep=SWEEP, pairwise=None)
    result = run_plan("small", workspace)
    kinds = [job.kind for job in result.jobs]
    n_bases = len(plan["models"])
    assert kinds.count("reference") == n_bases, "all runs of a base share one reference"
    assert result.board is not None
    board = read_board(Path(result.board))
    swept = [row for row in board.rows if row.method and "beta" in row.method]
    assert len(swept) == 2 * n_bases
    rate = board.of_kind("win rate")[0]
    for row in swept:
        assert (board.score(row, rate).note or "").startswith("2 seeds, SD ")
    assert sum("chosen among 2" in flag for row in swept for flag in row.flags) == n_bases
    assert run_plan("small", workspace).timings == []
