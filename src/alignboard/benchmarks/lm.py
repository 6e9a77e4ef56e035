"""lm-eval's model class of what is in memory: each context read once, each result committed as it comes.

Tokens are lm-eval's own: how a text is encoded, where context and continuation part, what is cut off on the left. Only
the passes are ours (`alignboard.benchmarks.sharing`); lm-eval's are used where a model does not take ours, or where the
two differ on the first requests. Heavy: imports torch, transformers and lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.models import huggingface
from lm_eval.models.utils import normalize_gen_kwargs

from alignboard.benchmarks.request_rows import OpenRequests, RequestRows
from alignboard.benchmarks.scoring import Scorer, can_share
from alignboard.benchmarks.sharing import ScoredText
from alignboard.engines.local.engine import masked_attention
from alignboard.models.loading import LoadedModel

_BUDGET: Final = {"cuda": 4096}
"""tokens of a pass, by type of device"""
_BUDGET_ELSEWHERE: Final = 512
_TRIED: Final = 4
"""requests on which our passes are held against lm-eval's, and an adapter against its base"""
_TRIED_TOKENS: Final = 64
"""of each, the last ones"""

Tokens = tuple[tuple[str, str] | None, list[int], list[int]]
"""a request as lm-eval has it: its texts, the context's tokens, the continuation's"""


_HFLM: Any = huggingface.HFLM  # its registration hides its attributes from type checkers


class ContextOnce(_HFLM):
    """A loaded model, with the adapter in use."""

    def __init__(self, model: LoadedModel, batch_size: int, rows: RequestRows) -> None:
        super().__init__(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=batch_size,
            max_length=model.context,
        )
        self._loaded, self._rows = model, rows
        self._open: OpenRequests | None = None
        self._budget = _BUDGET.get(model.model.device.type, _BUDGET_ELSEWHERE)
        self.own_passes: str | None = None if can_share(model.model) else "the model's architecture"
        """why lm-eval's own passes are used; None where they are not"""
        self._tried = self.own_passes is not None
        self.adapter_moved: float | None = None
        """how far the adapter in use moves a log-probability at most, on the first requests; None where unknown"""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """See lm-eval's."""
        ask = super().loglikelihood
        return self._answered("loglikelihood", requests, lambda some: ask(some, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """See lm-eval's, which tells the results of a call when all are there: so each request is a call."""
        ask = super().loglikelihood_rolling
        return self._answered(
            "loglikelihood_rolling",
            requests,
            lambda some: [ask([one], disable_tqdm=True) for one in some],
        )

    def generate_until(self, requests: list[Any]) -> list[str]:
        """See lm-eval's."""
        ask = super().generate_until
        return self._answered(
            "generate_until",
            requests,
            lambda some: ask(self._counted(some), disable_tqdm=True),
        )

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
        """Halve what runs at a time; raises ``error`` where that is not the matter, or cannot be done."""
        if not should_reduce_batch_size(error) or (
            self.batch_size_per_gpu == 1 and self._budget <= 1
        ):
            raise error
        self.batch_size_per_gpu = max(1, int(self.batch_size_per_gpu) // 2)
        self._budget = max(1, self._budget // 2)
        clear_device_cache(garbage_collection=True)

    def _counted(self, requests: list[Any]) -> list[Any]:
        """The requests, once it is known which of them lm-eval will cut."""
        assert self._open is not None  # noqa: S101 - set by `_answered`
        for one in requests:
            context, kwargs = one.args
            room = self.max_length - normalize_gen_kwargs(kwargs, self.max_gen_toks).get(
                "max_gen_toks", 0
            )
            self._open.note_cut(one.args, len(self.tok_encode(context)) - room)
        self._try_adapter([(None, self.tok_encode(one.args[0]), []) for one in requests[:_TRIED]])
        return requests

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokens], **how: Any
    ) -> list[tuple[float, bool]]:
        """See lm-eval's."""
        whole = [context + continuation for _, context, continuation in requests]
        if self._open is not None:
            for (texts, _, _), ids in zip(requests, whole, strict=True):
                if texts is not None:
                    self._open.note_cut(texts, len(ids) - self.max_length - 1)
        self._try_passes(requests)
        self._try_adapter(requests)
        if self.own_passes is not None:
            return super()._loglikelihood_tokens(requests, **how)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for index, logprob, is_greedy in self._scores(requests):
            found[index] = (logprob, is_greedy)
            texts = requests[index][0]
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, found[index])
        return found

    def _scores(self, requests: Sequence[Tokens]) -> Iterator[tuple[int, float, bool]]:
        texts = []
        for _, context, continuation in requests:
            read = (context + continuation)[-(self.max_length + 1) :][:-1]
            texts.append(ScoredText(tuple(read), tuple(continuation)))
        with masked_attention(self._loaded):
            yield from Scorer(self._loaded.model, self._budget).scores(texts)

    def _try_passes(self, requests: Sequence[Tokens]) -> None:
        """Hold our passes against lm-eval's on a few short texts, once: a model may not heed our masks."""
        if self._tried:
            return
        self._tried = True
        some = _short(requests)
        ours = {index: logprob for index, logprob, _ in self._scores(some)}
        theirs = super()._loglikelihood_tokens(some, disable_tqdm=True)
        exact = self._loaded.dtype == "float32" and self._loaded.quantization is None
        for index, (logprob, _) in enumerate(theirs):
            allowed = (1e-4 if exact else 0.1) * (1 + abs(logprob))
            if not abs(ours[index] - logprob) <= allowed:
                self.own_passes = f"log-probabilities of {ours[index]:.5g} and {logprob:.5g}"

    def _try_adapter(self, requests: Sequence[Tokens]) -> None:
        """Measure how far the adapter in use moves the log-probabilities of a few requests, once."""
        model = self._loaded
        if model.active is None or model.sole is not None or self.adapter_moved is not None:
            return
        some = _short([(None, one[:1], one[1:]) for one in (a + b for _, a, b in requests)])
        ask = super()._loglikelihood_tokens
        with_adapter = ask(some, disable_tqdm=True)
        with model.using(None):
            without = ask(some, disable_tqdm=True)
        moved = (abs(a[0] - b[0]) for a, b in zip(with_adapter, without, strict=True))
        self.adapter_moved = max(moved, default=None)


def _short(requests: Sequence[Tokens]) -> list[Tokens]:
    """The ends of a few requests that read different texts, without names; choices of several tokens come first."""
    order = sorted(requests, key=lambda one: (len(one[2]) < 2, len(one[1]) + len(one[2])))
    found: dict[tuple[int, ...], Tokens] = {}
    for _, context, continuation in order:
        end = (context + continuation)[-_TRIED_TOKENS:]
        n = min(len(continuation), len(end) - 1)
        if n > 0 and len(found) < _TRIED:
            found.setdefault(tuple(end[:-1]), (None, end[:-n], end[-n:]))
    return list(found.values())
