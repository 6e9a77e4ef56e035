"""What a run would cost: the calls that are missing, their tokens, and what those are sold for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from alignboard.engines.openai.format import Usage
from alignboard.engines.openai.prices import Rate
from alignboard.judges.calls import PairQuestion, Prompter, views
from alignboard.judges.rows import Call
from alignboard.judges.runner import Replies
from alignboard.stats.second_order_design import SecondOrderDesign

BYTES_PER_TOKEN: Final = 4.73
"""of the prompts of 10,439 released AlpacaEval 2 judgments (UTF-8 bytes over OpenAI's count); single models 4.56 to
4.78"""
_PER_TURN: Final = 4
"""what OpenAI's chat format adds to each turn, and 3 to the whole"""


@dataclass(frozen=True)
class Cost:
    """Of one judge on one model's outputs."""

    judge: str
    n_known: int | None
    """calls whose reply is there; None where only the judge's weights could tell"""
    n_calls: int
    """to be made; where second orders are drawn, as many as are expected"""
    n_prompt: int
    """tokens"""
    n_answer: int
    """tokens, at most"""
    counted: bool
    """whether prompts were counted by the model's own tokenizer; else estimated from their bytes"""
    price: float | None
    """US dollars, at most; None where nobody says"""
    hosted: bool = False
    """whether it is asked at an endpoint"""


def cost_of(
    prompter: Prompter, asked: Sequence[PairQuestion], replies: Replies | None, rate: Rate | None
) -> Cost:
    """What is missing of a run that begins with ``asked``, without asking anybody.

    All of it where ``replies`` is None.
    """
    calls = {call.key: call for view in views(prompter, asked) for call, _ in view.calls}
    known = {} if replies is None else replies.known(list(calls))
    n_known = None if replies is None else len(known)
    missing = [call for key, call in calls.items() if key not in known]
    spec = prompter.spec
    expected = 1 + SecondOrderDesign().share if spec.shown_order == "adaptive" else 1.0
    prompted = spec.prompted
    if prompted is None:
        return Cost(
            spec.name, n_known, round(len(missing) * expected), 0, 0, counted=True, price=None
        )
    counter = tokens_of(prompted.model)
    count = counter or _estimated
    n_prompt = round(expected * sum(count(call) for call in missing))
    n_answer = round(expected * len(missing) * prompted.sampling.max_new_tokens)
    price = None if rate is None else rate.of(Usage(n_prompt, n_answer))
    n_calls = round(len(missing) * expected)
    return Cost(
        *(spec.name, n_known, n_calls, n_prompt, n_answer, counter is not None, price),
        hosted=spec.hosted,
    )


@lru_cache(maxsize=8)
def tokens_of(model: str) -> Callable[[Call], int] | None:
    """OpenAI's own count of a call's tokens; None for other models, and where its vocabulary is not at hand."""
    try:
        import tiktoken

        encoding = tiktoken.encoding_for_model(model)
    except (ImportError, KeyError, OSError):  # requests' errors are OSErrors
        return None

    def count(call: Call) -> int:
        texts = [one.content for one in call.messages]
        return 3 + sum(_PER_TURN + len(encoding.encode_ordinary(text)) for text in texts)

    return count


def _estimated(call: Call) -> int:
    n_bytes = sum(len(one.content.encode("utf-8", "replace")) for one in call.messages)
    return round(n_bytes / BYTES_PER_TOKEN)
