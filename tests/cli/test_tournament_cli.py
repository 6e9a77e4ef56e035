"""`alignboard tournament`: a real program as judge, kept replies, what is decided, policies and their costs."""

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.judges.pairs import Judged
from alignboard.judges.tournament import Schedule, play
from alignboard.pipeline.jobs.tournament import people_asked
from alignboard.records import Generation
from alignboard.reports.rank import rank

PROGRAM = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    open({log!r}, "a").write(asked["key"] + "\\n")
    longer = len(asked["first"]) > len(asked["second"])
    print(json.dumps({{"key": asked["key"], "scores": [0.9, 0.1] if longer else [0.1, 0.9]}}), flush=True)
"""


def _nobody(pairs):
    return pairs[:0]


def responses(length, model, n=80):
    return [Generation(f"question {k}", "x" * (length + 7 * (k % 3)), model) for k in range(n)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text(PROGRAM.format(log=str(tmp_path / "calls")))
    (tmp_path / "longest.yaml").write_text(
        "kind: program\nname: longest\ntitle: x\nversion: '1'\norder: both\n"
        f"command: [{sys.executable}, {tmp_path / 'judge.py'}]\n"
    )
    for length, model in ((60, "long"), (40, "middle"), (20, "short")):
        folder = tmp_path / "results" / model
        folder.mkdir(parents=True)
        rows = [vars_of(row) for row in responses(length, model)]
        (folder / "model_outputs.json").write_text(json.dumps(rows))
    return tmp_path


def vars_of(row):
    return {"instruction": row.instruction, "output": row.output, "generator": row.generator}


def run(*arguments, catch_exceptions=False):
    return CliRunner().invoke(
        cli,
        ["tournament", *arguments, "--judge", "longest.yaml"],
        catch_exceptions=catch_exceptions,
    )


def test_three_models_are_separated_before_the_budget_is_spent(workspace):
    models = ("long", "middle", "short")
    result = run(*models, "--budget", "200", "--json", "out.json", "--people", "10")
    assert result.exit_code == 0, result.output
    found = json.loads(Path("out.json").read_text())
    assert found["stopped"] == "all separated"
    assert found["n_judged"] < 100
    assert [one["model"] for one in found["ranks"]] == list(models)
    assert [(one["best"], one["worst"]) for one in found["ranks"]] == [(1, 1), (2, 2), (3, 3)]
    assert "3 of 3 pairs separated" in result.output
    assert json.loads(Path("leaderboards/tournament/standings.json").read_text()) == found
    ranked = rank("leaderboards/tournament/battles.jsonl", prior_sd=2)
    assert [one.model for one in ranked.models] == list(models)
    people = Path("leaderboards/tournament/people.jsonl").read_text().splitlines()
    assert 2 <= len(people) <= 25
    assert all(0 < json.loads(line)["probability"] <= 1 for line in people)
    # started again: nobody is asked, and everything is as it was
    calls = Path("calls").read_text()
    assert run(*models, "--budget", "200", "--json", "again.json").exit_code == 0
    assert Path("calls").read_text() == calls
    assert json.loads(Path("again.json").read_text()) == found


def test_a_small_budget_is_kept_and_goes_on_with_a_larger_one(workspace):
    result = run("long", "middle", "--budget", "3", "--json", "out.json")
    found = json.loads(Path("out.json").read_text())
    assert (found["n_judged"], found["stopped"]) == (3, "budget")
    assert "100 further judgments are expected to separate" in result.output
    calls = Path("calls").read_text().splitlines()
    run("long", "middle", "--budget", "60", "--json", "out.json")
    assert Path("calls").read_text().splitlines()[: len(calls)] == calls
    assert json.loads(Path("out.json").read_text())["stopped"] == "all separated"


def test_models_that_cannot_play_are_refused(workspace):
    elsewhere = workspace / "elsewhere.json"
    elsewhere.write_text(json.dumps([{"instruction": "other", "output": "x", "generator": "e"}]))
    for models, message in (
        (("long", "nobody"), "no outputs of a baseline 'nobody'"),
        (("long", "gone.json"), "gone.json cannot be read"),
        (("long",), "two models or more"),
        (("long", "results/long/model_outputs.json"), "Two of the models are 'long'"),
        (("long", "elsewhere.json"), "no instruction in common"),
    ):
        result = run(*models, "--budget", "9", catch_exceptions=True)
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
        assert "start" not in result.output, "said before any job starts"
    with pytest.raises(InputError, match="two models or more"):
        play({"a": responses(3, "a")}, _nobody, 10)
    with pytest.raises(InputError, match="no instruction in common"):
        play({"a": responses(3, "a"), "b": [Generation("other", "x", "b")]}, _nobody, 10)


def test_unscored_verdicts_are_paid_and_counted_and_claim_nothing():
    outputs = {name: responses(3, name) for name in "abc"}
    found = play(outputs, lambda pairs: [Judged(pair, "unparsed", None) for pair in pairs], 40)
    assert (found.n_judged, found.n_unscored, found.n_separated) == (40, 40, 0)
    assert all((one.best, one.worst) == (1, 3) for one in found.ranks)
    assert found.separable_by_100 < 1
    assert people_asked([], 5, 0) == []


def test_a_part_of_a_pair_that_would_be_separated_is_a_number_of_json():
    def slightly(pairs):
        return [Judged(p, "scored", 1.49 if p.generator_1 == "a" else 1.51) for p in pairs]

    found = play({name: responses(40, name) for name in "ab"}, slightly, 40)
    assert 0 < found.separable_by_100 < 1
    assert json.loads(msgspec.json.encode(found))["separable_by_100"] == found.separable_by_100


def simulated(policy, strength, seed, budget=None, n_prompts=600):
    """Judgments until everything that is separable is separated, and false claims."""
    rng = np.random.default_rng(seed)
    k = len(strength)
    i, j = np.triu_indices(k, 1)
    p = 1 / (1 + np.exp(strength[j] - strength[i]))
    schedule, spent, claimed = Schedule(len(i), n_prompts, policy), 0, 0
    while tasks := schedule.tasks((budget or 10**9) - spent):
        pair = np.array([one for one, _ in tasks])
        schedule.add(tasks, np.where(rng.random(len(pair)) < p[pair], 1.0, -1.0).tolist())
        spent += len(tasks)
        if schedule.decided.all():
            break
    mean = schedule.processes.mean
    wrong = schedule.decided & (
        (strength[i] == strength[j]) | ((mean > 0) != (strength[i] > strength[j]))
    )
    claimed = int(schedule.decided.sum())
    return spent, claimed, int(wrong.sum())


def test_equal_models_are_separated_in_at_most_five_percent_of_tournaments():
    false = sum(
        simulated("open-pairs", np.zeros(5), seed, n_prompts=60)[2] > 0 for seed in range(60)
    )
    assert false <= 6


def test_open_pairs_are_cheaper_than_a_round_robin():
    strength = np.linspace(1.5, -1.5, 6)
    whole = [simulated("round-robin", strength, seed) for seed in range(3)]
    open_pairs = [simulated("open-pairs", strength, seed) for seed in range(3)]
    assert all(one[2] == 0 for one in [*whole, *open_pairs])
    assert sum(one[0] for one in whole) > 1.2 * sum(one[0] for one in open_pairs)
    assert [one[1] for one in open_pairs] == [15, 15, 15]


def test_a_budget_is_never_exceeded_and_no_prompt_is_judged_twice():
    for policy in ("round-robin", "open-pairs", "information"):
        schedule, seen = Schedule(6, 20, policy), set()
        left = 47
        while tasks := schedule.tasks(left):
            assert not seen & set(tasks)
            seen |= set(tasks)
            left -= len(tasks)
            schedule.add(tasks, [0.0] * len(tasks))
        assert left == 0
