"""Judges by name: ``evaluate/judges/<name>.yaml`` of the workspace or the library, else an evaluator of AlpacaEval.

Whatever a file may get wrong is one sentence that names the file, the key and the nearest valid key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from alignboard.errors import InputError, nearest, require_within
from alignboard.judges.alpaca_eval.configs import Pool, evaluator_names, read_evaluator
from alignboard.judges.prompting.hardened import binds
from alignboard.judges.prompting.prompts import IDENTIFIERS, slots, turns
from alignboard.judges.spec import JudgeSpec, ProgramSpec, PromptedSpec
from alignboard.registry import lookup
from alignboard.registry import names as kind_names
from alignboard.suites import convert, read_yaml
from alignboard.workspace import find, library, names

Tagged = TypeVar("Tagged", bound=msgspec.Struct)

ROOM: Final = "evaluate/judges"
_REMARKS: Final = {"title", "source", "retired", "unsupported", "api_key_env"}

_WITHOUT_VERDICT: Final[dict[type, Any]] = {
    schema: msgspec.defstruct(f"{schema.__name__}File", [("verdict", Any, None)], bases=(schema,))
    for schema in (PromptedSpec, ProgramSpec)
}


def load_judge(name: str, workspace: Path | None = None) -> JudgeSpec:
    """The judge called ``name``, or given as a YAML file; raises `InputError` that says what is wrong, and where.

    An evaluator of AlpacaEval is a `Pool` where it has several annotators.
    """
    given = Path(name)
    is_file = given.suffix in {".yaml", ".yml"} and given.is_file()
    path = given if is_file else find(ROOM, name, workspace)
    if path is not None:
        declared = read_judge(path)
        if declared.program is not None:
            _require_no_known_name(path, {path.stem, declared.name})
        return declared
    upstream = evaluator_names()
    if name in upstream:
        return _evaluator(name)
    known = judge_names(workspace)
    raise InputError(
        f"There is no judge {name!r}: neither {ROOM}/{name}.yaml nor an evaluator of AlpacaEval"
        f"{nearest(name, [*known, *upstream])} (known: {', '.join(known) or 'none'}, and AlpacaEval's "
        f"{len(upstream)} evaluators)."
    )


def require_own_name(declared: JudgeSpec, given: str) -> None:
    """Raises `InputError` for a judge under the name of one of AlpacaEval's evaluators that is not that evaluator."""
    name = declared.name
    if name not in evaluator_names():
        return
    official = [_evaluator(name)]
    official += [
        one for path in (library() / ROOM).glob("*.yaml") if (one := read_judge(path)).name == name
    ]
    if _identity(declared) not in [_identity(one) for one in official]:
        raise InputError(
            f"Judge {given} is named {name!r}, as AlpacaEval's evaluator is, and differs from it; give it a name of "
            "its own."
        )


def _require_no_known_name(path: Path, given: set[str]) -> None:
    """Raises `InputError` for a program that is run where a judge of the library or of AlpacaEval is named."""
    for name in sorted(given & {*names(ROOM, library()), *evaluator_names()}):
        raise InputError(
            f"{path}: the judge {name} is a known one, and this file runs a program in its place; give the file and "
            "its judge another name."
        )


def _evaluator(name: str) -> JudgeSpec:
    """An evaluator of AlpacaEval: its only member, or the pool."""
    pool = read_evaluator(name)
    return pool.members[0] if len(pool.members) == 1 else pool


def _identity(spec: JudgeSpec) -> dict[str, Any]:
    """What a judge declares, without what changes no verdict."""
    return {
        key: value
        for key, value in msgspec.to_builtins(spec, str_keys=True).items()
        if key not in _REMARKS
    }


def judge_names(workspace: Path | None = None) -> list[str]:
    """The judges that have a file, in the workspace or in the library."""
    roots = (workspace or Path.cwd(), library())
    return sorted({name for root in roots for name in names(ROOM, root)})


def read_judge(path: Path) -> JudgeSpec:
    """The judge that a file declares."""
    content = read_yaml(path)
    kinds = {name: lookup("judge", name) for name in kind_names("judge")}
    schema = _tagged(path, content, "kind", kinds, "a judge")
    rest = {key: value for key, value in content.items() if key != "kind"}
    what = f"a {content['kind']} judge"
    spec = (
        _with_verdict(path, rest, schema, what)
        if schema in _WITHOUT_VERDICT
        else convert(path, rest, schema, what)
    )
    check(path, spec)
    return spec


def decode_judge(declared: dict[str, Any]) -> JudgeSpec:
    """The judge whose declaration `msgspec.to_builtins` has written."""
    if "members" in declared:
        decoded = (decode_judge(one).prompted for one in declared["members"])
        members = tuple(one for one in decoded if one is not None)
        return Pool(declared["name"], declared["title"], members)
    schema, verdict = lookup("judge", declared["kind"]), declared.get("verdict")
    if verdict is None or schema not in _WITHOUT_VERDICT:
        return msgspec.convert(declared, schema)
    fields = msgspec.structs.asdict(msgspec.convert(declared, _WITHOUT_VERDICT[schema]))
    return schema(
        **fields | {"verdict": msgspec.convert(verdict, lookup("reply form", verdict["by"]))}
    )


def _with_verdict(path: Path, content: dict[str, Any], schema: type[Tagged], what: str) -> Tagged:
    """The verdict is one of many schemas, so it is read by itself, by the one that it names."""
    verdict = content.pop("verdict", None)
    fields = msgspec.structs.asdict(convert(path, content, _WITHOUT_VERDICT[schema], what))
    del fields["verdict"]
    if verdict is None and schema is ProgramSpec:
        return schema(**fields)
    if not isinstance(verdict, dict):
        raise InputError(f"{path}: verdict is a mapping such as {{by: bracket}}.")
    forms = {name: lookup("reply form", name) for name in kind_names("reply form")}
    by = _tagged(path, verdict, "by", forms, "a verdict")
    rest = {key: value for key, value in verdict.items() if key != "by"}
    return schema(**fields, verdict=convert(path, rest, by, f"a verdict by {verdict['by']}"))


def _tagged(
    path: Path, content: dict[str, Any], field: str, known: Mapping[str, type[Tagged]], what: str
) -> type[Tagged]:
    """The schema that ``content`` names in ``field``."""
    named = content.get(field)
    if not isinstance(named, str) or named not in known:
        hint = nearest(str(named), known)
        raise InputError(
            f"{path}: {field} is {named!r}{hint or '.'} {what.capitalize()} is one of: {', '.join(known)}."
        )
    return known[named]


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
