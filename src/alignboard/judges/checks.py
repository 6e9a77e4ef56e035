"""What a judge's file may say and cannot mean: one sentence that names the file, the key and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alignboard.errors import InputError, require_within
from alignboard.judges.prompting.hardened import binds
from alignboard.judges.prompting.prompts import IDENTIFIERS, slots, turns
from alignboard.judges.spec import JudgeSpec, PromptedSpec

MAX_TOP_LOGPROBS: Final = 20
"""what OpenAI and vLLM give at most"""


def check(path: Path, spec: JudgeSpec) -> None:
    """Raise `InputError` for what the schema allows and no judge can mean."""
    spec.reply_form.check(path)
    _check_rating(path, spec)
    spec.check(path)
    if (prompted := spec.prompted) is not None:
        _check_prompt(path, prompted)
        _check_names(path, prompted)
        _check_sampling(path, prompted)
        if (fault := prompted.endpoint.fault()) is not None:
            raise InputError(f"{path}: {fault}.")


def _check_prompt(path: Path, spec: PromptedSpec) -> None:
    prompt = spec.prompt
    given = [name for name in ("messages", "text", "file") if getattr(prompt, name)]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InputError(f"{path}: prompt needs one of messages, text and file; it has {found}.")
    if prompt.chatml and prompt.messages:
        raise InputError(f"{path}: prompt.chatml is for text and file; messages are turns already.")
    require_within(path, {"prompt.batch": (prompt.batch, 1, float("inf"))})
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


def _check_rating(path: Path, spec: JudgeSpec) -> None:
    """Whether outputs are rated has to be what the verdict is on; numbers may be either."""
    require_within(path, {"tie_within": (getattr(spec, "tie_within", 0.0), 0, float("inf"))})
    of_one = spec.reply_form.is_rating
    if of_one is None:
        if spec.prompted is not None:
            raise InputError(
                f"{path}: verdict.by is 'numbers', which is what reward models and pair rankers return; "
                "a prompted judge writes text."
            )
        return
    if of_one != spec.is_rating:
        raise InputError(
            f"{path}: the verdict is {'a rating of one output' if of_one else 'on a pair'}, "
            f"but rates is {str(spec.is_rating).lower()}; say rates: {str(of_one).lower()}."
        )


def _check_sampling(path: Path, spec: PromptedSpec) -> None:
    sampling = spec.sampling
    limits: dict[str, tuple[float, float, float]] = {
        "sampling.max_new_tokens": (sampling.max_new_tokens, 1, float("inf")),
        "sampling.temperature": (sampling.temperature, 0, float("inf")),
        "sampling.top_p": (sampling.top_p, 0, 1),
        "sampling.top_logprobs": (sampling.top_logprobs, 0, MAX_TOP_LOGPROBS),
        "sampling.samples": (sampling.samples, 1, float("inf")),
    }
    require_within(path, limits)
    # A local model is always asked for the probabilities of the verdict tokens themselves.
    asks_none = spec.engine == "openai" and not sampling.top_logprobs
    if spec.verdict.reads_tokens and asks_none and sampling.samples == 1:
        raise InputError(
            f"{path}: the verdict is a probability; say how many likeliest tokens are asked for "
            "(sampling.top_logprobs: 5), or take the mean of several replies (sampling.samples)."
        )
    if spec.tool is not None and not isinstance(spec.tool.get("function", {}).get("name"), str):
        raise InputError(
            f"{path}: tool is a function in OpenAI's format: {{type: function, function: {{name: ...}}}}."
        )
