"""lm-eval's model class with a journal: each result is committed as it comes, and what is known is not computed again.

Tokens are lm-eval's own: how a text is encoded, where context and continuation part, what is cut off on the left.
Heavy: imports torch, transformers and lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from lm_eval.models import huggingface
from lm_eval.models.utils import normalize_gen_kwargs

from alignboard.benchmarks.request_rows import OpenRequests, RequestRows

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
        """See lm-eval's."""
        return self._answered("generate_until", requests, self._generate)

    def _generate(self, requests: list[Any]) -> None:
        """Compute generations; each is handed to `cache_hook`."""
        super().generate_until(self._counted(requests), disable_tqdm=True)

    def _answered(
        self, kind: str, requests: list[Any], ask: Callable[[list[Any]], Any]
    ) -> list[Any]:
        """The results of all requests; ``ask`` computes those that are not known."""
        opened = self._open = self._rows.open(kind, requests)
        opened.show()
        self.set_cache_hook(opened)
        try:
            while missing := [requests[number] for number in opened.missing]:
                try:
                    ask(missing)
                except RuntimeError as error:
                    self._shrink(error)
            opened.show()
        finally:
            self._rows.flush()
        return list(opened.values())

    def _shrink(self, error: RuntimeError) -> None:
        """Make room where memory ran out; raises ``error`` where that is not the matter, or cannot be done."""
        raise error

    def _counted(self, requests: list[Any]) -> list[Any]:
        """The requests, once it is known which of them lm-eval will cut."""
        assert self._open is not None  # noqa: S101 - set by `_answered`
        for one in requests:
            context, kwargs = one.args
            room = self.max_length - normalize_gen_kwargs(kwargs, self.max_gen_toks).get(
                "max_gen_toks", 0
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
