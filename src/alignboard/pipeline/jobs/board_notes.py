"""The sentences of a plan's board: what was compared, and what its numbers are conditional on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignboard.boards.columns import RatingTable
from alignboard.boards.scoring import RESOLVED
from alignboard.text import count

_AGAINST_METHOD = "the {baseline} model of the same family"
_JUDGED = """\
Win rates are against {baseline}; 95 % intervals are for new prompts drawn like \
these, with the models and the judge held fixed.
Every column of a judge is named after it; judges are not averaged.
LC: length-controlled, with the difficulties of the prompts fitted jointly to the models of one base.
Models answer the same prompts: whether two of one baseline differ is decided by a paired test (the ranks), not by the \
overlap of their intervals. {resolved}"""
_RATED = """\
Ratings are from a round robin of all models on {n_prompts} of the prompts, judged by {judge} (comparisons without a \
verdict: {n_without}); their intervals are for new prompts as well."""
_PLAIN = "{suite} is asked in plain text, without the models' chat templates."
_QUANTISED = """\
Trained on the base model in {bits} bits, and evaluated on it unquantised, in its own precision: {models}."""
_KEYED = "Correct: the share of answers that a program found right."


def conditions(parameters: Mapping[str, Any], rated: RatingTable | None) -> list[str]:
    """What holds of all columns of the board, and the plan's own sentences."""
    notes = (
        _JUDGED.format(baseline=_against(parameters), resolved=RESOLVED).splitlines()
        if parameters["judges"]
        else []
    )
    if rated is not None:
        notes.append(
            _RATED.format(
                n_prompts=rated.n_prompts,
                judge=parameters["rating_judge"],
                n_without=rated.n_without_verdict,
            )
        )
        notes += [rated.note] if rated.note else []
    notes += [
        _PLAIN.format(suite=s["name"]) for s in parameters["suites"] if not s["apply_chat_template"]
    ]
    by_bits: dict[int, list[str]] = {}
    for entry in parameters["models"]:
        if entry["trained_in_bits"] is not None:
            by_bits.setdefault(entry["trained_in_bits"], []).append(entry["model"])
    notes += [
        _QUANTISED.format(bits=bits, models=", ".join(models)) for bits, models in by_bits.items()
    ]
    keyed = any(one["answer_key"] for one in parameters["sets"][:1])
    return [*notes, *([_KEYED] if keyed else []), *parameters.get("notes", ())]


def inside(parameters: Mapping[str, Any]) -> str:
    """What models are compared with where the set brings no baseline."""
    own, names = parameters["baseline"], {entry["model"] for entry in parameters["models"]}
    return own if own in names else _AGAINST_METHOD.format(baseline=own)


def _against(parameters: Mapping[str, Any]) -> str:
    """What models are compared with, set by set where that differs."""
    parts = [
        (one["reference"] or inside(parameters))
        + (f" on {one['name']}" if len(parameters["sets"]) > 1 else "")
        for one in parameters["sets"]
    ]
    return " and ".join(parts)


def summary(parameters: Mapping[str, Any], n_responses: Mapping[str, int]) -> str:
    """What was compared, in a sentence; ``n_responses`` are those to the first set, by model."""
    models = parameters["models"]
    n_prompts = sorted({n_responses.get(entry["model"], 0) for entry in models}) or [0]
    prompts = " to ".join(str(n) for n in dict.fromkeys((n_prompts[0], n_prompts[-1])))
    n_families = len({entry["family"] for entry in models})
    families = "1 family" if n_families == 1 else f"{n_families} families"
    text = f"{count(len(models), 'model')} of {families}"
    if n_prompts[-1]:
        text += f" on {prompts} prompts"
    judges = parameters["judges"]
    if judges:
        text += f", compared with {_against(parameters)} by {' and by '.join(judges)}"
    return f"{text}; seed {parameters['seed']}."
