"""Tournaments in a workspace: responses of models, verdicts through the journal, standings and battles as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from alignboard.judges.pairs import Judged, Pair
from alignboard.judges.spec import JudgeSpec
from alignboard.judges.tournament import Policy, Standings, play
from alignboard.pipeline.evaluation import Evaluation
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.judge import declared_of, judges_of
from alignboard.pipeline.judged_outputs import read_models
from alignboard.records import Generation
from alignboard.results.files import write_atomically, write_json
from alignboard.stats.sequential import query_probabilities

STANDINGS, BATTLES, PEOPLE = "standings.json", "battles.jsonl", "people.jsonl"


def tournament(task: JobTask) -> dict[str, str]:
    """A tournament of a command; its files go to the folder that the command names."""
    declared, hints = declared_of(task), task.job.hints
    budget: int = hints["budget"]
    found = hold(
        Evaluation(judges_of(task, declared), task.journal),
        declared,
        read_models(hints["models"], task.paths.workspace),
        Path(hints["folder"]),
        budget,
        policy=hints["policy"],
        seed=hints["seed"],
        n_people=hints["n_people"],
        on_round=lambda spent, _separated: task.progress(spent, budget),
    )
    task.report |= msgspec.to_builtins(found)
    return {}


def hold(  # noqa: PLR0913 - what the command's options are
    evaluation: Evaluation,
    declared: JudgeSpec,
    outputs: dict[str, list[Generation]],
    folder: Path,
    budget: int,
    *,
    policy: Policy,
    seed: int,
    n_people: int | None,
    on_round: Callable[[int, int], None],
) -> Standings:
    """Play, and write the standings and what they were made of into ``folder``."""
    judged: list[Judged] = []

    def judge(pairs: Sequence[Pair]) -> Sequence[Judged]:
        found = evaluation.judge_pairs(declared, pairs)
        judged.extend(found)
        return found

    standings = play(outputs, judge, budget, policy=policy, seed=seed, on_round=on_round)
    rows = [_battle(one, declared.name) for one in judged]
    write_atomically(folder / BATTLES, _lines(rows))
    if n_people is not None:
        write_atomically(folder / PEOPLE, _lines(people_asked(judged, n_people, seed)))
    write_json(folder / STANDINGS, standings)
    return standings


def people_asked(judged: Sequence[Judged], wanted: int, seed: int) -> list[dict[str, object]]:
    """About ``wanted`` scored pairs for people, drawn independently, with the probability of each.

    The probabilities make estimates from their verdicts unbiased (`stats.calibrated`).
    """
    scored = [one for one in judged if one.preference is not None and not one.pair.identical]
    if not scored:
        return []
    preference = np.array([(one.preference or 0.0) - 1 for one in scored])
    probability = query_probabilities(preference, min(wanted, len(scored)))
    drawn = np.random.default_rng(seed).random(len(scored)) < probability
    return [
        {
            "instruction": one.pair.instruction,
            "output_1": one.pair.output_1,
            "generator_1": one.pair.generator_1,
            "output_2": one.pair.output_2,
            "generator_2": one.pair.generator_2,
            "probability": float(p),
        }
        for one, p, chosen in zip(scored, probability, drawn, strict=True)
        if chosen
    ]


def _battle(one: Judged, judge: str) -> dict[str, object]:
    """A row as `alignboard rank` reads it; ``position`` where the judge saw one order."""
    row: dict[str, object] = {
        "model_a": one.pair.generator_1,
        "model_b": one.pair.generator_2,
        "winner": None if one.preference is None else 2 - one.preference,
        "prompt_id": one.pair.instruction,
        "judge": judge,
        "length_a": len(one.pair.output_1),
        "length_b": len(one.pair.output_2),
    }
    shown = set(one.switched)
    position = None if len(shown) != 1 else "model_b" if shown.pop() else "model_a"
    return row | {"position": position}


def _lines(rows: Sequence[dict[str, object]]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
