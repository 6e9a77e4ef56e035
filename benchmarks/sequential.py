"""Sequential comparisons: false claims under continuous looking, and judgments saved.

Run ``python benchmarks/sequential.py --json benchmarks/sequential.json``; ``ALIGNBOARD_RELEASED_DATA`` adds the
released verdicts. The rule of the tournament was fixed before it was run: 20 models with standard normal log-strengths,
800 prompts, 200 repetitions; a pair is separable where the round robin separates it within the 800; counted are the
judgments until 80 % of these are separated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignboard.judges.tournament import ALPHA, POLICIES, Policy, Schedule
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import bradley_terry
from alignboard.stats.sequential import e_process
from alignboard.stats.student import student_quantile

Array = NDArray[np.float64]

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
MODELS, PROMPTS, REPETITIONS, LOOKS, SHARE = 20, 800, 200, 2_000, 0.8


def play(policy: Policy, outcome: Array, target: int | None) -> dict[str, Any]:
    """One tournament on given outcomes (pairs, prompts), until ``target`` pairs are separated or it is over."""
    schedule, spent = Schedule(outcome.shape[0], outcome.shape[1], policy), 0
    pairs: list[int] = []
    values: list[float] = []
    while tasks := schedule.tasks(10**9):
        pair, prompt = np.array(tasks).T
        found = outcome[pair, prompt]
        schedule.add(tasks, found.tolist())
        pairs += pair.tolist()
        values += found.tolist()
        spent += len(tasks)
        if target is not None and schedule.decided.sum() >= target:
            break
    return {
        "spent": spent,
        "decided": schedule.decided,
        "mean": schedule.processes.mean,
        "rows": (pairs, values),
    }


def tournaments(repetitions: int) -> dict[str, Any]:
    """Judgments of every policy until 80 % of the separable pairs are separated; wrong claims; error of the ratings."""
    i, j = np.triu_indices(MODELS, 1)
    spent: dict[str, list[int]] = {policy: [] for policy in POLICIES}
    rmse: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    wrong = dict.fromkeys(POLICIES, 0)
    for repetition in range(repetitions):
        rng = np.random.default_rng([11, repetition])
        theta = rng.standard_normal(MODELS)
        theta -= theta.mean()
        p = 1 / (1 + np.exp(theta[j] - theta[i]))
        outcome = np.where(rng.random((len(i), PROMPTS)) < p[:, None], 1.0, -1.0)
        whole = play("round-robin", outcome, None)
        target = math.ceil(SHARE * int(whole["decided"].sum()))
        for policy in POLICIES:
            found = play(policy, outcome, target)
            spent[policy].append(found["spent"])
            claims = found["decided"]
            wrong[policy] += bool((claims & ((found["mean"] > 0) != (theta[i] > theta[j]))).any())
            pair, value = (np.array(column) for column in found["rows"])
            battles = Battles(i[pair], j[pair], (value + 1) / 2, np.arange(len(pair)))
            fit = bradley_terry(battles, MODELS, prior_sd=3.0)
            rmse[policy].append(float(np.sqrt(((fit.log_strength - theta) ** 2).mean())))
    base = np.array(spent["round-robin"])
    return {
        policy: {
            "judgments": float(np.mean(spent[policy])),
            "times fewer": float(base.sum() / np.sum(spent[policy])),
            "error of times fewer": float(
                (base / np.array(spent[policy])).std(ddof=1) / math.sqrt(repetitions)
            ),
            "runs with a wrong claim": wrong[policy] / repetitions,
            "rmse of log-strengths when stopped": float(np.mean(rmse[policy])),
        }
        for policy in POLICIES
    }


def equal_models(repetitions: int) -> dict[str, Any]:
    """Runs with any claim among 20 equal models, 100 prompts."""
    false = dict.fromkeys(POLICIES, 0)
    n_pairs = MODELS * (MODELS - 1) // 2
    for policy, repetition in itertools.product(POLICIES, range(repetitions)):
        rng = np.random.default_rng([12, repetition])
        outcome = rng.choice([-1.0, 1.0], (n_pairs, 100))
        false[policy] += bool(play(policy, outcome, None)["decided"].any())
    return {policy: n / repetitions for policy, n in false.items()}


def released(root: Path, repetitions: int) -> dict[str, Any]:
    """On 23 released models: the share of judgments until a pair is decided, and false claims under sign flips."""
    from alignboard.results.folder import ResultsFolder

    with ResultsFolder(root / "results") as folder:
        models = [m for m in folder.annotated_models(JUDGE) if m != "gpt4_1106_preview"]
        tables = folder.tables(models, JUDGE)
    score = {
        m: dict(zip(t.instruction.tolist(), (t.preference - 1).tolist(), strict=True))
        for m, t in tables.items()
    }
    rng = np.random.default_rng(13)
    used = whole = 0
    for a, b in itertools.combinations(models, 2):
        both = np.array([x - score[b][k] for k, x in score[a].items() if k in score[b]])
        both = both[~np.isnan(both)]
        for _ in range(3):
            reached = np.flatnonzero(e_process(rng.permutation(both)) >= -math.log(ALPHA))
            used += int(reached[0]) + 1 if len(reached) else len(both)
            whole += len(both)
    order = sorted(models, key=lambda m: -float(np.nanmean(list(score[m].values()))))
    rates, by_t = [], []
    for a, b in itertools.pairwise(order):
        both = np.array([x - score[b][k] for k, x in score[a].items() if k in score[b]])
        both = both[~np.isnan(both)]
        n = np.arange(1, len(both) + 1)
        quantiles = np.array([student_quantile(0.975, max(1, int(m) - 1)) for m in n])
        claims = claims_t = 0
        for _ in range(repetitions):
            flipped = rng.permutation(both) * rng.choice([-1.0, 1.0], len(both))
            claims += bool(e_process(flipped).max() >= -math.log(ALPHA))
            mean = np.cumsum(flipped) / n
            spread = np.cumsum(flipped**2) / n - mean**2
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.abs(mean) / np.sqrt(spread / np.maximum(n - 1, 1))
            claims_t += bool((t[9:] > quantiles[9:]).any())
        rates.append(claims / repetitions)
        by_t.append(claims_t / repetitions)
    return {
        "share of judgments, 253 pairs": used / whole,
        "false claims, 22 adjacent pairs with flipped signs": {
            "mean": float(np.mean(rates)),
            "worst": max(rates),
        },
        "the same by a t test after every prompt from the 10th": {
            "mean": float(np.mean(by_t)),
            "worst": max(by_t),
        },
    }


def main() -> None:
    """Simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"repetitions": arguments.repetitions, "sign flips": LOOKS}
    data = os.environ.get("ALIGNBOARD_RELEASED_DATA")
    if data:
        found["released"] = released(Path(data), LOOKS)
        print(json.dumps(found["released"]), flush=True)
    found["20 equal models, runs with a claim"] = equal_models(arguments.repetitions)
    print(json.dumps(found), flush=True)
    found["20 models, until 80 % are separated"] = tournaments(arguments.repetitions)
    text = json.dumps(found, indent=1) + "\n"
    arguments.json.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
