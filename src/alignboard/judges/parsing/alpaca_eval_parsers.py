"""AlpacaEval's parsers, as it computes them from a raw completion (``completion_parsers.py`` of version 0.6.6).

The parsers below raise where upstream's raise; `parse_upstream` turns that, and what upstream turns into NaN, into an
unparsed verdict that says why. Two deviations: a score that is no number ("nan 5") is unparsed where upstream finds a
draw, and a literal of more than `values.MAX_LITERAL` characters or a regular expression that matches nothing is refused
where upstream runs out of memory or never ends.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.judges.parsing.raw_completions import raw_completion
from alignboard.judges.parsing.reply_forms import ReplyForm, not_at_its_verdict, register_forms
from alignboard.judges.parsing.responses import excerpt, is_last, likeliest, probability
from alignboard.judges.parsing.values import FAILURES, literal
from alignboard.judges.rows import Reply, Verdict
from alignboard.strict_json import parse_json

DRAW_OF_OLD_FILES: Final = 0
_MAX_MATCHES = 10_000
_MAX_REASON = 160


class UpstreamRule(ReplyForm, frozen=True, tag="alpaca_eval"):
    """A parser of AlpacaEval by its name, as that function reads (``completion_parsers.py``)."""

    parser: str
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    completion_key: str = "completions"

    @property
    def raw_key(self) -> str:
        """See `ReplyForm`."""
        return self.completion_key

    @property
    def reads_tokens(self) -> bool:
        """See `ReplyForm`."""
        return self.parser == "logprob_parser"

    @property
    def is_one_token(self) -> bool:
        """See `ReplyForm`."""
        return self.reads_tokens and self.kwargs.get("log_prob_index", "batch") == "batch"

    def check(self, path: Path) -> None:
        """See `ReplyForm`."""
        try:
            check_parser(self.parser, self.kwargs)
        except KeyError as error:
            name = str(error.args[0])
            raise InputError(
                f"{path}: verdict.parser {name!r} is none of AlpacaEval's{nearest(name, PARSERS)} "
                f"({', '.join(PARSERS)})."
            ) from error
        except TypeError as error:
            raise InputError(f"{path}: verdict.kwargs of {self.parser}: {error}.") from error

    def read(self, reply: Reply, n: int, *, cut_off: bool) -> tuple[Verdict, ...]:
        """AlpacaEval's reading; where expressions search a text that was cut off, its last line is the verdict."""
        verdicts = parse_upstream(self, reply, n)
        span = last_span(self, reply.text) if cut_off else None
        if span is None or is_last(reply.text, *span):
            return verdicts
        return (not_at_its_verdict(reply.text),) * n


def parse_upstream(rule: UpstreamRule, reply: Reply, n: int) -> tuple[Verdict, ...]:
    """The verdicts that AlpacaEval would store, with the reasons that it does not."""
    completion = raw_completion(reply, rule.completion_key)
    evidence = _evidence(rule, reply)
    try:
        found = list(upstream_values(rule, completion))
    except FAILURES as error:
        why = " ".join(str(error).split())[:_MAX_REASON] or "it cannot be read"
        return (Verdict("unparsed", evidence=f"{type(error).__name__}: {why}"),) * n
    if len(found) != n:
        why = f"{len(found)} verdicts for {n} questions in: {evidence}"
        return (Verdict("unparsed", evidence=why),) * n
    mass = _mass(rule, reply) if n == 1 else None
    return tuple(_verdict(value, mass, evidence) for value in found)


def upstream_values(rule: UpstreamRule, completion: Any) -> list[Any]:
    """What the rule's parser makes of a raw completion; raises one of `FAILURES` as upstream does."""
    return PARSERS[rule.parser](completion, **rule.kwargs)


def check_parser(name: str, kwargs: dict[str, Any]) -> None:
    """Raise KeyError for a parser that AlpacaEval does not have, TypeError for arguments that it does not take."""
    inspect.signature(PARSERS[name]).bind("", **kwargs)
    for inner, its in kwargs.get("parsers_to_kwargs", {}).items():
        check_parser(inner, its)


def last_span(rule: UpstreamRule, text: str) -> tuple[int, int] | None:
    """Where the last verdict stands in a text that is searched; None for parsers that read the text as a whole."""
    inner = {rule.parser: rule.kwargs} | rule.kwargs.get("parsers_to_kwargs", {})
    if "regex_parser" not in inner:
        return None
    patterns = map(_compiled, inner["regex_parser"]["outputs_to_match"].values())
    spans = [match.span() for pattern in patterns for match in pattern.finditer(text)]
    return max(spans, default=None)


def _verdict(value: Any, mass: float | None, evidence: str) -> Verdict:
    """Upstream's value; False is no preference, although it equals the 0 that meant a draw in old files."""
    number = value if isinstance(value, int | float) and value is not False else math.nan
    if number == DRAW_OF_OLD_FILES:
        number = 1.5
    if not 1 <= number <= 2:
        nothing = isinstance(value, float) and math.isnan(value)
        why = "no verdict in" if nothing else f"{value!r}"[:_MAX_REASON] + " is no preference"
        return Verdict("unparsed", mass=mass, evidence=f"{why}: {evidence}")
    return Verdict("scored", preference=float(number), mass=mass, evidence=evidence)


def _evidence(rule: UpstreamRule, reply: Reply) -> str:
    if rule.parser == "logprob_parser" and reply.tokens:
        return likeliest(
            reply.tokens[_token_index(rule) if abs(_token_index(rule)) <= len(reply.tokens) else 0]
        )
    return excerpt(reply.text)


def _token_index(rule: UpstreamRule) -> int:
    index = rule.kwargs.get("log_prob_index", "batch")
    return index if isinstance(index, int) else 0


def _mass(rule: UpstreamRule, reply: Reply) -> float | None:
    if rule.parser != "logprob_parser" or not reply.tokens:
        return None
    names = {*rule.kwargs["denominator_tokens"], rule.kwargs["numerator_token"]}
    token = reply.tokens[_token_index(rule)]
    return min(1.0, sum(probability(lp) for name, lp in dict(token.top).items() if name in names))


# The parsers.


def regex_parser(completion: str, outputs_to_match: dict[Any, str]) -> list[Any]:
    """The keys of the expressions in the order in which they match; what was matched is cut off before the next one."""
    _require(completion)
    patterns = {_key(key): _compiled(pattern) for key, pattern in outputs_to_match.items()}
    responses: list[Any] = []
    while True:
        matches = [
            (m.start(), key, m) for key, p in patterns.items() if (m := p.search(completion))
        ]
        if not matches:
            return responses
        # Of two that begin together the first that was declared wins.
        _, key, match = min(matches, key=lambda one: one[0])
        responses.append(key)
        if not match.end() or len(responses) > _MAX_MATCHES:
            raise ValueError("an expression matches nothing, or too often")
        completion = completion[match.end() :]


def lmsys_parser(completion: str) -> list[Any]:
    """Which of two numbers on the first line is larger; 0 where neither is."""
    _require(completion)
    scores = completion.partition("\n")[0].replace(",", " ").split(" ")
    if len(scores) != 2:
        return [math.nan]
    try:
        first, second = float(scores[0]), float(scores[1])
    except ValueError:
        return [math.nan]
    if math.isnan(first) or math.isnan(second):
        return [math.nan]
    return [1 if first > second else 2 if first < second else 0]


def ranking_parser(completion: Any, model_1_name: str = "model_1") -> list[Any]:
    """The rank of the first model in a list of {'model': name, 'rank': 1 or 2}."""
    _require(completion)
    try:
        ordered = literal(completion) if isinstance(completion, str) else completion
        rank = next(iter([one for one in ordered if one["model"] == model_1_name]))["rank"]
        known = rank in {1, 2}
    except (*FAILURES, StopIteration):
        return [math.nan]
    return [rank if known else math.nan]


def json_parser(completion: str, annotation_key: str | None) -> list[Any]:
    """The value of a key of a JSON object, or of every object of a list."""
    _require(completion)
    if "```json" in completion:
        fenced = re.search(r"```json(.*?)```", completion, re.DOTALL)
        if fenced is None:
            raise ValueError("the JSON block does not end")
        completion = fenced[1]
    loaded = parse_json(completion)
    if isinstance(loaded, dict):
        loaded = [loaded]
    return [one[annotation_key] if annotation_key is not None else one for one in loaded]


def eval_parser(completion: str) -> list[Any]:
    """A Python literal."""
    _require(completion)
    value = literal(completion)
    return value if isinstance(value, list) else [value]


def replace_parser(
    completion: Any, replacer: dict[Any, Any], default_replacer: Any = "auto"
) -> list[Any]:
    """The completion's replacement."""
    _require(completion)
    default = completion if default_replacer == "auto" else default_replacer
    return [replacer.get(completion, default)]


def logprob_parser(
    completion: Any,
    numerator_token: str,
    denominator_tokens: list[str],
    is_binarize: bool = True,  # noqa: FBT001, FBT002 - upstream's name, given by name
    log_prob_index: str | int = "batch",
) -> list[float]:
    """2 - P(numerator) / P(all denominators), from the likeliest tokens at a place."""
    _require(completion)
    content = completion["logprobs"]["content"]
    if not content:
        raise ValueError("the reply has no log-probabilities")
    chosen = content if log_prob_index == "batch" else [content[int(log_prob_index)]]
    return [
        _ratio(one["top_logprobs"], numerator_token, denominator_tokens, is_binarize=is_binarize)
        for one in chosen
    ]


def _ratio(
    top: list[dict[str, Any]], numerator: str, denominators: list[str], *, is_binarize: bool
) -> float:
    known = {
        one["token"]: float(one["logprob"])
        for one in top
        if one["token"] in denominators or one["token"] == numerator
    }
    if not known:
        return math.nan
    best = known.get(numerator, -math.inf)
    if is_binarize:
        others = [known.get(token, -math.inf) for token in denominators if token != numerator]
        return 1 if all(best > other for other in others) else 2
    return 2 - math.exp(best - _logsumexp(known.get(token, -math.inf) for token in denominators))


def _logsumexp(values: Iterable[float]) -> float:
    held = list(values)
    most = max(held)
    return most + math.log(sum(math.exp(value - most) for value in held))


def pipeline_meta_parser(
    completion: Any,
    parsers_to_kwargs: dict[str, dict[str, Any]],
    is_squeeze: bool = True,  # noqa: FBT001, FBT002 - upstream's name, given by name
    _depth: int = 0,
) -> list[Any]:
    """Parsers one after the other, each on every result of the one before."""
    _require(completion)
    (name, kwargs), *rest = parsers_to_kwargs.items()
    out = PARSERS[name](completion, **kwargs)
    if rest:
        out = [pipeline_meta_parser(one, dict(rest), is_squeeze, _depth + 1) for one in out]
    return out[0] if is_squeeze and len(out) == 1 and _depth else out


PARSERS: Final[dict[str, Callable[..., list[Any]]]] = {
    parser.__name__: parser
    for parser in (
        regex_parser,
        lmsys_parser,
        ranking_parser,
        json_parser,
        eval_parser,
        replace_parser,
        logprob_parser,
        pipeline_meta_parser,
    )
}


def _require(completion: Any) -> None:
    if isinstance(completion, str) and not completion:
        raise ValueError("the completion is empty")


def _key(key: Any) -> Any:
    """A key of a mapping that has been through JSON, as the number that it was."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # Self-taught's [[A]] is a set of characters that holds a bracket: as upstream reads it, with a warning.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern)


register_forms(UpstreamRule)
