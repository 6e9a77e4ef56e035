"""lm-eval's model class with a journal: each result is committed as it comes, and what is known is not computed again.

Tokens are lm-eval's own: how a text is encoded, where context and continuation part, what is cut off on the left.
Heavy: imports torch, transformers and lm-eval.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from lm_eval.models import huggingface
from lm_eval.models.utils import normalize_gen_kwargs

from alignboard.benchmarks.request_rows import ANSWERS, OpenRequests, RequestRows
from alignboard.engines.local.ending import cut
from alignboard.errors import InputError
from alignboard.models.reasoning import has_marks, is_mark, opens, split

TRIED: Final = 4
"""requests on which an adapter is held against its base"""
_TRIED_TOKENS: Final = 64
"""of each, the last ones"""

Tokens = tuple[tuple[str, str] | None, list[int], list[int]]
"""a request as lm-eval has it: its texts, the context's tokens, the continuation's"""


HFLM: Any = huggingface.HFLM  # its registration hides its attributes from type checkers


class JournaledLM(HFLM):
    """lm-eval's own class, whose requests are rows; a subclass says how they are computed."""

    _rolling_at_once = 1
    """documents of a perplexity task in one call of lm-eval's, which tells their results when all are there"""
    _rows: RequestRows
    _open: OpenRequests | None = None
    adapter_moved: float | None = None
    """how far the adapter in use moves a log-probability at most, on the first requests; None where unknown"""
    _adapter_tried = False
    is_chat = False

    def stamp(self) -> dict[str, Any]:
        """What the record of a run says of how its requests were computed."""
        return {"adapter_moved_logprobs": self.adapter_moved}

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """See lm-eval's."""
        ask = super().loglikelihood
        return self._answered("loglikelihood", requests, lambda some: ask(some, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """See lm-eval's."""
        ask, step = super().loglikelihood_rolling, self._rolling_at_once

        def in_parts(some: list[Any]) -> None:
            for start in range(0, len(some), step):
                ask(some[start : start + step], disable_tqdm=True)

        return self._answered("loglikelihood_rolling", requests, in_parts)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """See lm-eval's; replies that may begin with reasoning are kept, and scored, without it."""
        found: dict[int, str] = {}
        for kind, thinks in (("generate_until", False), (ANSWERS, True)):
            some = [k for k, one in enumerate(requests) if self._thinks(one.args[0]) is thinks]
            if some:
                own = [requests[k] for k in some]
                ask = self._generate_answers if thinks else self._generate
                found |= zip(some, self._answered(kind, own, ask), strict=True)
        return [found[k] for k in range(len(requests))]

    def _generate(self, requests: list[Any]) -> None:
        """Compute generations; each is handed to `cache_hook`."""
        self._continue(self._counted(requests))

    def _generate_answers(self, requests: list[Any]) -> None:
        """Compute generations whose reasoning is removed before a stop text counts."""
        self.set_cache_hook(_AnswersOnly(self.cache_hook, [one.args for one in requests]))
        self._continue([_without_stops(one) for one in self._counted(requests)])

    def _continue(self, requests: list[Any]) -> None:
        """Compute generations as lm-eval does it."""
        super().generate_until(requests, disable_tqdm=True)

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 - lm-eval's signature
    ) -> str:
        """See lm-eval's."""
        self.is_chat = True
        return super().apply_chat_template(chat_history, add_generation_prompt)

    def _thinks(self, context: str) -> bool:
        """Whether a reply may begin with reasoning, in which no stop text counts: by the prompt, or by its template."""
        template = getattr(self.tokenizer, "chat_template", None) or ""
        return opens(context) or (self.is_chat and has_marks(template))

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:  # noqa: FBT001, FBT002 - as above
        """See lm-eval's; marks of reasoning stay, whatever the tokenizer calls them."""
        if skip_special_tokens and not self._marks.isdisjoint(tokens):
            dropped = set(self.tokenizer.all_special_ids) - self._marks
            kept = [token for token in tokens if token not in dropped]
            return self.tokenizer.decode(kept, skip_special_tokens=False)
        return super().tok_decode(tokens, skip_special_tokens)

    @cached_property
    def _marks(self) -> frozenset[int]:
        """The marks of reasoning that the tokenizer calls special."""
        added: dict[str, int] = self.tokenizer.get_added_vocab()
        marks = (added[one] for one in added if is_mark(one))
        return frozenset(marks).intersection(self.tokenizer.all_special_ids)

    def _answered(
        self, kind: str, requests: list[Any], ask: Callable[[list[Any]], Any]
    ) -> list[Any]:
        """The results of all requests; ``ask`` computes those that are not known."""
        opened = self._open = self._rows.open(kind, requests)
        opened.show()
        self.set_cache_hook(opened)
        try:
            self._share(kind, requests, ask)
            self._compute(requests, ask, range(len(requests)))
            opened.show()
        finally:
            self._rows.flush()
        return list(opened.values())

    def _share(self, kind: str, requests: list[Any], ask: Callable[[list[Any]], Any]) -> None:
        """Compute a part of the requests while other processes compute theirs, where there are others."""
        sharing, opened = self._rows.sharing, self._open
        if sharing is None or opened is None:
            return
        missing = opened.missing
        some = [requests[number] for number in missing]
        own = {missing[k] for k in sharing.give(kind, some, is_chat=self.is_chat)}
        self._compute(requests, ask, own)
        sharing.wait(opened.look)

    def _compute(
        self, requests: list[Any], ask: Callable[[list[Any]], Any], numbers: Collection[int]
    ) -> None:
        """Compute what is missing among ``numbers``."""
        assert self._open is not None  # noqa: S101 - set by `_answered`
        while some := [requests[number] for number in self._open.missing if number in numbers]:
            try:
                ask(some)
            except RuntimeError as error:
                self._shrink(error)

    def _shrink(self, error: RuntimeError) -> None:
        """Make room where memory ran out; raises ``error`` where that is not the matter, or cannot be done."""
        raise error

    def _counted(self, requests: list[Any]) -> list[Any]:
        """The requests, once it is known which of them lm-eval will cut; raises `InputError` where nothing is left."""
        assert self._open is not None  # noqa: S101 - set by `_answered`
        for one in requests:
            context, kwargs = one.args
            limit = normalize_gen_kwargs(kwargs, self.max_gen_toks).get("max_gen_toks", 0)
            room = self.max_length - limit
            if room < 1:
                raise InputError(
                    f"the task {one.task_name!r} generates up to {limit} tokens, and the model takes {self.max_length} "
                    "with the prompt; leave the task out, or make one of it (include:) with a smaller max_gen_toks."
                )
            self._open.note_cut(one.args, len(self.tok_encode(context)) - room)
        self._try_adapter([(None, self.tok_encode(one.args[0]), []) for one in requests[:TRIED]])
        return requests

    def _note_cuts(self, requests: Sequence[Tokens]) -> None:
        """Count what does not fit in the context."""
        if self._open is not None:
            for texts, context, continuation in requests:
                if texts is not None:
                    n = len(context) + len(continuation)
                    self._open.note_cut(texts, n - self.max_length - 1)

    def _try_adapter(self, requests: Sequence[Tokens]) -> None:
        """Measure how far the adapter in use moves the log-probabilities of a few requests, once."""
        if self._adapter_tried:
            return
        self._adapter_tried = True
        some = short([(None, one[:1], one[1:]) for one in (a + b for _, a, b in requests)])
        self.adapter_moved = self._moved(some)

    def _moved(self, some: Sequence[Tokens]) -> float | None:
        """The largest difference that the adapter makes; None where there is none, or nothing to hold it against."""
        raise NotImplementedError

    def _read(self, request: Tokens) -> tuple[list[int], list[int]]:
        """The tokens that a pass reads, cut on the left as lm-eval does it, and those that are scored."""
        _, context, continuation = request
        return (context + continuation)[-(self.max_length + 1) :], continuation


class _AnswersOnly:
    """A cache hook that takes whole replies, and hands on what is left without reasoning and stops."""

    def __init__(self, inner: Any, arguments: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self.inner = inner
        self._waiting: defaultdict[str, list[Any]] = defaultdict(list)
        for context, given in arguments:
            self._waiting[_endless(context, given)].append((context, given))

    def add_partial(self, kind: str, arguments: Sequence[Any], value: str) -> None:
        """Take a reply."""
        context, given = self._waiting[_endless(*arguments)].pop(0)
        self.inner.add_partial(kind, (context, given), answer_of(value, context, given))


def _without_stops(request: Any) -> Any:
    context, given = request.args
    found = copy.copy(request)
    found.arguments = (context, {**given, "until": []})
    return found


def _endless(context: str, given: Mapping[str, Any]) -> str:
    """The name of a request whatever its stop texts."""
    return json.dumps([context, {**given, "until": []}], sort_keys=True)


def answer_of(reply: str, context: str, given: dict[str, Any]) -> str:
    """A reply without reasoning, up to the first stop text."""
    return cut(split(reply, opened=opens(context)).response, stops_of(given))[0]


def stops_of(given: dict[str, Any]) -> tuple[str, ...]:
    """The stop texts of lm-eval's generation arguments."""
    until = given.get("until") or []
    return tuple(one for one in ([until] if isinstance(until, str) else until) if one)


def short(requests: Sequence[Tokens]) -> list[Tokens]:
    """The ends of a few requests that read different texts, without names; choices of several tokens come first."""
    order = sorted(requests, key=lambda one: (len(one[2]) < 2, len(one[1]) + len(one[2])))
    found: dict[tuple[int, ...], Tokens] = {}
    for _, context, continuation in order:
        end = (context + continuation)[-_TRIED_TOKENS:]
        n = min(len(continuation), len(end) - 1)
        if n > 0 and len(found) < TRIED:
            found.setdefault(tuple(end[:-1]), (None, end[:-n], end[-n:]))
    return list(found.values())
