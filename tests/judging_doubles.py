"""Judges for tests: askers that answer as told and remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignboard.judges.pairs import Pair
from alignboard.judges.parsing.marked_forms import BracketRule
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.rows import Call, FailedCall, Reply
from alignboard.judges.spec import JudgePrompt, PromptedSpec, Sampling

PROMPT = "{instruction}\nA: {first}\nB: {second}"


def pairs(n: int, **changes: Any) -> list[Pair]:
    return [
        Pair(f"question {i}", f"base {i}", "base", f"{'long ' * (i % 3)}model {i}", "model")
        for i in range(n)
    ]


def spec(**changes: Any) -> PromptedSpec:
    """A judge that says [[A]] or [[B]]."""
    settings: dict[str, Any] = {
        "name": "judge",
        "title": "",
        "model": "m",
        "prompt": JudgePrompt(text=PROMPT),
        "verdict": BracketRule(),
        "order": "both",
        "api_key_env": None,
    }
    return PromptedSpec(**settings | changes)


def weighted(**changes: Any) -> PromptedSpec:
    """A judge of which the probability of a token is read."""
    settings = {
        "verdict": LogprobRule(["A"], ["B"]),
        "sampling": Sampling(max_new_tokens=1, top_logprobs=5),
    }
    return spec(**settings | changes)


class Recorder:
    """Says what ``reply`` says of a call; ``None`` is no reply."""

    def __init__(self, reply: Callable[[Call], Reply | None], name: str = "recorder") -> None:
        self._reply, self.asked = reply, []
        self.identity = {"name": name}

    def ask(self, calls):
        for call in calls:
            self.asked.append(call)
            found = self._reply(call)
            yield call, FailedCall(call.key, "told to fail") if found is None else found


def longest(call: Call) -> Reply:
    """The longer of the two is better; of equal length the first."""
    (question,) = call.questions
    assert question.second is not None
    return Reply("[[A]]" if len(question.first) >= len(question.second) else "[[B]]")
