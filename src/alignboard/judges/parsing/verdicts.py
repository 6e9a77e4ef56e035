"""What a judge declares about its replies: which part is the verdict (`VerdictRule`).

A form of another package is a struct with ``tag_field="by"``, a tag, and a method ``find(text)`` that gives
`text_rules.Found` in the order of the text; ``register("reply form", "mine", "my_package.form:MyForm")`` makes it
known.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from alignboard.registry import register


class LogprobRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="logprob"
):
    """The probability of the verdict tokens: P(first) = first / (first + second + tie/2 to each)."""

    first: list[str]
    """the spellings that mean that the first is better; white space around a token does not count"""
    second: list[str]
    tie: list[str] = []
    position: Literal["first", "last"] = "first"
    """which token of the reply: the first, or the last that is a verdict (after a chain of thought)"""
    weighted: bool = True
    """whether the preference is the probability, or only which of the two is likelier"""
    min_mass: float = 0.0
    """the least probability of all verdict tokens together that counts as a verdict"""


class RankingRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="ranking"
):
    """A list of {'model': name, 'rank': 1 or 2}, in Python's or JSON's notation, or under a key of an object."""

    first: str = "model_1"
    second: str = "model_2"
    key: str | None = None


class JsonRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="json"):
    """The value of a key of a JSON object (or of a tool's arguments)."""

    key: str
    first: list[str]
    second: list[str]
    tie: list[str] = []


class RegexRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="regex"
):
    """Expressions that mean the first, the second, a draw; in a prompt of several pairs one match for each."""

    first: str
    second: str
    tie: str | None = None


class ScorePairRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="score-pair"
):
    """Two numbers on the first line, as LMSYS and JudgeLM write them: ``8 7``."""

    tie_within: float = 0.0


class BracketRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="bracket"
):
    """MT-bench's ``[[A]]``, ``[[B]]``, ``[[C]]``."""


class FiveWayRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="five-way"
):
    """Arena-Hard's ``[[A>>B]]``, ``[[A>B]]``, ``[[A=B]]``, ``[[B>A]]``, ``[[B>>A]]``."""

    slight: float = 0.75
    """P(first) of ``A>B``; ``A>>B`` is 1"""
    strong_weight: float = 1.0
    """how often ``A>>B`` and ``B>>A`` count; 3 in Arena-Hard, which counts ``A>B`` as a whole win (``slight: 1``)"""


class ResultRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="result"
):
    """Prometheus 2's ``[RESULT] A``, or ``[RESULT] 4`` for one output."""

    rates: bool = False
    """whether a number is asked for, of one output"""
    lowest: float = 1
    highest: float = 5


class RatingRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="rating"
):
    """MT-bench's ``[[7]]`` for one output."""

    lowest: float = 1
    highest: float = 10


class ChoiceRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="choice"
):
    """PandaLM's first line: ``1``, ``2`` or ``Tie``."""


class PhraseRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="phrase"
):
    """A verdict after a phrase, as Auto-J's ``final decision is Response 1``."""

    phrase: str
    first: list[str]
    second: list[str]
    tie: list[str] = []


class NumbersRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="numbers"
):
    """The numbers that the judge itself returns: probabilities of a pair, or a scalar for one output."""


class UpstreamRule(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="by", tag="alpaca_eval"
):
    """A parser of AlpacaEval by its name, as that function reads (``completion_parsers.py``)."""

    parser: str
    kwargs: dict[str, Any] = {}
    completion_key: str = "completions"


VerdictRule = (
    LogprobRule
    | RankingRule
    | JsonRule
    | RegexRule
    | ScorePairRule
    | BracketRule
    | FiveWayRule
    | ResultRule
    | RatingRule
    | ChoiceRule
    | PhraseRule
    | NumbersRule
    | UpstreamRule
)

for _form in get_args(VerdictRule):
    register("reply form", str(_form.__struct_config__.tag), _form)
