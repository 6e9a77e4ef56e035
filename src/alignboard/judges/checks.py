"""What a judge's file may say and cannot mean: one sentence that names the file, the key and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError, nearest
from alignboard.judges.parsing.alpaca_eval_parsers import PARSERS, check_parser
from alignboard.judges.parsing.verdicts import (
    FiveWayRule,
    JsonRule,
    LogprobRule,
    NumbersRule,
    PhraseRule,
    RatingRule,
    RegexRule,
    ResultRule,
    ScorePairRule,
    UpstreamRule,
    VerdictRule,
)
from alignboard.judges.prompting.hardened import binds
from alignboard.judges.prompting.prompts import IDENTIFIERS, slots, turns
from alignboard.judges.spec import (
    JudgeSpec,
    JurySpec,
    PairRankerSpec,
    ProgramSpec,
    PromptedSpec,
    RewardSpec,
)

MAX_TOP_LOGPROBS: Final = 20
"""what OpenAI and vLLM give at most"""


def check(path: Path, spec: JudgeSpec) -> None:
    """Raise `InputError` for what the schema allows and no judge can mean."""
    own = _CHECKS.get(type(spec))
    if own is None:
        spec.check(path)
    else:
        own(path, spec)


def _check_prompted(path: Path, spec: PromptedSpec) -> None:
    _check_rule(path, spec.verdict)
    _check_rating(path, spec)
    _check_prompt(path, spec)
    _check_names(path, spec)
    _check_sampling(path, spec)
    if (fault := spec.endpoint.fault()) is not None:
        raise InputError(f"{path}: {fault}.")


def _check_reward(path: Path, spec: RewardSpec) -> None:
    within(path, {"tie_within": (spec.tie_within, 0, float("inf"))})


def _check_ranker(path: Path, spec: PairRankerSpec) -> None:
    limits = {
        "source_tokens": (spec.source_tokens, 1.0, float("inf")),
        "candidate_tokens": (spec.candidate_tokens, 1.0, float("inf")),
    }
    within(path, limits)


def within(path: Path, limits: Mapping[str, tuple[float, float, float]]) -> None:
    """Raise `InputError` for a field whose (value, least, most) is out of range."""
    for field, (value, least, most) in limits.items():
        if not least <= value <= most:
            end = f" to {most:g}" if most != float("inf") else " or more"
            raise InputError(f"{path}: {field} is {value:g}; expected {least:g}{end}.")


def _check_prompt(path: Path, spec: PromptedSpec) -> None:
    prompt = spec.prompt
    given = [name for name in ("messages", "text", "file") if getattr(prompt, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InputError(f"{path}: prompt needs one of messages, text and file; it has {found}.")
    if prompt.chatml and prompt.messages:
        raise InputError(f"{path}: prompt.chatml is for text and file; messages are turns already.")
    within(path, {"prompt.batch": (prompt.batch, 1, float("inf"))})
    try:
        found_slots = slots(prompt)
        turns(prompt)
    except InputError as error:
        raise InputError(f"{path}: prompt: {error}") from error
    needed = ["instruction", "first"] if spec.rates else ["instruction", "first", "second"]
    missing = [f"{{{name}}}" for name in needed if name not in found_slots]
    if missing:
        raise InputError(f"{path}: prompt lacks {' and '.join(missing)}.")
    if spec.rates and "second" in found_slots:
        raise InputError(
            f"{path}: prompt has {{second}}, but rates: true shows one output at a time."
        )
    if prompt.batch > 1 and not prompt.jinja:
        wrong = [name for name in found_slots if found_slots[name] != prompt.batch]
        if wrong:
            raise InputError(
                f"{path}: prompt has {{{wrong[0]}}} {found_slots[wrong[0]]} times, "
                f"but batch is {prompt.batch}; every slot is there once for each question."
            )


def _check_names(path: Path, spec: PromptedSpec) -> None:
    """Names that are drawn for every call are in the prompt and in the verdict, or in neither."""
    found = [name for name in IDENTIFIERS if name in slots(spec.prompt)]
    if found and not spec.hardened:
        raise InputError(
            f"{path}: prompt has {{{found[0]}}}, which is drawn for hardened judges only; say hardened: true."
        )
    if bool(found) != binds(spec.verdict) or len(found) == 1:
        slots_of = " and ".join(f"{{{name}}}" for name in IDENTIFIERS)
        raise InputError(
            f"{path}: names that are drawn for every call are in both or in neither: {slots_of} in the prompt, "
            "and as the spellings of a verdict by logprob, json, phrase or ranking."
        )
    if spec.hardened and spec.prompt.batch > 1:
        raise InputError(
            f"{path}: hardened prompts show one question; prompt.batch is {spec.prompt.batch}."
        )


def _check_rule(path: Path, rule: VerdictRule) -> None:
    if isinstance(rule, LogprobRule | JsonRule | PhraseRule):
        _check_spellings(path, rule)
    if isinstance(rule, LogprobRule):
        within(path, {"verdict.min_mass": (rule.min_mass, 0, 1)})
    if isinstance(rule, PhraseRule) and not rule.phrase.strip():
        raise InputError(f"{path}: verdict.phrase is empty.")
    if isinstance(rule, FiveWayRule):
        limits = {
            "verdict.slight": (rule.slight, 0.5, 1.0),
            "verdict.strong_weight": (rule.strong_weight, 1.0, float("inf")),
        }
        within(path, limits)
    if isinstance(rule, ScorePairRule):
        within(path, {"verdict.tie_within": (rule.tie_within, 0, float("inf"))})
    if isinstance(rule, ResultRule | RatingRule) and not rule.lowest < rule.highest:
        raise InputError(
            f"{path}: verdict.lowest is {rule.lowest:g}, which is not below verdict.highest, {rule.highest:g}."
        )
    if isinstance(rule, RegexRule):
        _check_patterns(path, rule)
    if isinstance(rule, UpstreamRule):
        _check_upstream(path, rule)


def _check_spellings(path: Path, rule: LogprobRule | JsonRule | PhraseRule) -> None:
    lists: dict[str, Sequence[str]] = {"first": rule.first, "second": rule.second, "tie": rule.tie}
    for name in ("first", "second"):
        if not any(spelling.strip() for spelling in lists[name]):
            raise InputError(f"{path}: verdict.{name} needs at least one spelling.")
    meanings: dict[str, str] = {}
    for name, spellings in lists.items():
        for spelling in map(str.strip, spellings):
            if meanings.setdefault(spelling, name) != name:
                raise InputError(
                    f"{path}: verdict.{name} and verdict.{meanings[spelling]} both have {spelling!r}."
                )


def _check_patterns(path: Path, rule: RegexRule) -> None:
    for name in ("first", "second", "tie"):
        pattern = getattr(rule, name)
        if pattern is None:
            continue
        try:
            empty = re.compile(pattern).match("") is not None
        except re.error as error:
            raise InputError(
                f"{path}: verdict.{name} is no regular expression ({error}): {pattern!r}."
            ) from error
        if empty:
            raise InputError(f"{path}: verdict.{name} matches nothing at all: {pattern!r}.")


def _check_upstream(path: Path, rule: UpstreamRule) -> None:
    try:
        check_parser(rule.parser, rule.kwargs)
    except KeyError as error:
        name = str(error.args[0])
        raise InputError(
            f"{path}: verdict.parser {name!r} is none of AlpacaEval's{nearest(name, PARSERS)} "
            f"({', '.join(PARSERS)})."
        ) from error
    except TypeError as error:
        raise InputError(f"{path}: verdict.kwargs of {rule.parser}: {error}.") from error


def _check_rating(path: Path, spec: PromptedSpec | ProgramSpec) -> None:
    """Whether outputs are rated has to be what the verdict is on; numbers may be either."""
    rule = spec.verdict
    within(path, {"tie_within": (spec.tie_within, 0, float("inf"))})
    if isinstance(rule, NumbersRule):
        if spec.prompted is not None:
            raise InputError(
                f"{path}: verdict.by is 'numbers', which is what reward models and pair rankers return; "
                "a prompted judge writes text."
            )
        return
    of_one = isinstance(rule, RatingRule) or (isinstance(rule, ResultRule) and rule.rates)
    if of_one != spec.rates:
        raise InputError(
            f"{path}: the verdict is {'a rating of one output' if of_one else 'on a pair'}, "
            f"but rates is {str(spec.rates).lower()}; say rates: {str(of_one).lower()}."
        )


def _check_sampling(path: Path, spec: PromptedSpec) -> None:
    rule, sampling = spec.verdict, spec.sampling
    limits: dict[str, tuple[float, float, float]] = {
        "sampling.max_new_tokens": (sampling.max_new_tokens, 1, float("inf")),
        "sampling.temperature": (sampling.temperature, 0, float("inf")),
        "sampling.top_p": (sampling.top_p, 0, 1),
        "sampling.top_logprobs": (sampling.top_logprobs, 0, MAX_TOP_LOGPROBS),
        "sampling.samples": (sampling.samples, 1, float("inf")),
    }
    within(path, limits)
    reads_tokens = isinstance(rule, LogprobRule) or (
        isinstance(rule, UpstreamRule) and rule.parser == "logprob_parser"
    )
    # A local model is always asked for the probabilities of the verdict tokens themselves.
    asks_none = spec.engine == "openai" and not sampling.top_logprobs
    if reads_tokens and asks_none and sampling.samples == 1:
        raise InputError(
            f"{path}: the verdict is a probability; say how many likeliest tokens are asked for "
            "(sampling.top_logprobs: 5), or take the mean of several replies (sampling.samples)."
        )
    if spec.tool is not None and not isinstance(spec.tool.get("function", {}).get("name"), str):
        raise InputError(
            f"{path}: tool is a function in OpenAI's format: {{type: function, function: {{name: ...}}}}."
        )


def _check_program(path: Path, spec: ProgramSpec) -> None:
    _check_rule(path, spec.verdict)
    _check_rating(path, spec)
    for field in ("command", "version"):
        if not getattr(spec, field):
            raise InputError(f"{path}: {field} is empty.")


def _check_jury(path: Path, spec: JurySpec) -> None:
    if len(set(spec.judges)) != len(spec.judges) or len(spec.judges) < 2:
        raise InputError(f"{path}: judges needs two different names or more.")
    if spec.name in spec.judges:
        raise InputError(f"{path}: judges has {spec.name!r}, the jury itself.")


_CHECKS: Final[dict[type[JudgeSpec], Callable[[Path, Any], None]]] = {
    JurySpec: _check_jury,
    PairRankerSpec: _check_ranker,
    ProgramSpec: _check_program,
    PromptedSpec: _check_prompted,
    RewardSpec: _check_reward,
}
