"""Rows under way in one batch: read prompts, take a step, let rows leave. What `local.LocalEngine` is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignboard.engines.rows import Decoding, Prompt, uniform
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel

if TYPE_CHECKING:
    import torch


@dataclass
class RunningSequence:
    """An answer under way."""

    prompt: Prompt
    limit: int
    """the most tokens it may have"""
    generated: list[int] = field(default_factory=list)
    draw: str = ""
    """`Prompt.draw`, where it is sampled"""
    processors: Any = None
    """transformers' processors of its logits, where the model's own configuration asks for any"""

    @property
    def ids(self) -> list[int]:
        """The prompt and what was said."""
        return [*self.prompt.ids, *self.generated]

    @property
    def length(self) -> int:
        """How many tokens that is."""
        return len(self.prompt.ids) + len(self.generated)


class Batch:
    """Rows under way and their cache."""

    def __init__(
        self, model: LoadedModel, waiting: deque[RunningSequence], slots: int, decoding: Decoding
    ) -> None:
        from alignboard.engines.local.slots import SlotCache

        self._model, self._decoding = model.model, decoding
        self._config = model.model.config.get_text_config()
        longest = max(len(row.prompt.ids) + row.limit for row in waiting)
        self._cache = SlotCache(self._config.num_hidden_layers, slots, longest)
        self.waiting = waiting
        self.living: list[RunningSequence] = []

    def read_prompts(self, n: int, tokens: int) -> None:
        """Let up to ``n`` waiting rows, padded to at most ``tokens`` together, join and say their first token."""
        import torch

        device = self._model.device
        first, longest = len(self.living), 0
        fresh: list[RunningSequence] = []
        while self.waiting and len(fresh) < n:
            padded = max(longest, self.waiting[0].length)
            if fresh and padded * (len(fresh) + 1) > tokens:
                break
            longest = padded
            fresh.append(self.waiting.popleft())
        self.living += fresh
        # Padded on the right: behind what a causal pass reads, so no mask is needed.
        ids = torch.tensor([row.ids + [0] * (longest - row.length) for row in fresh], device=device)
        ends = sorted({row.length - 1 for row in fresh})
        self._cache.read_prompts(first, longest)
        logits = self._forward(
            ids,
            torch.arange(longest, device=device)[None].expand(len(fresh), -1),
            None,
            torch.tensor(ends, device=device),
        )
        picked = torch.tensor([ends.index(row.length - 1) for row in fresh], device=device)
        self._append(fresh, logits[torch.arange(len(fresh), device=device), picked])

    def step(self) -> None:
        """Every living row says one more token."""
        import torch

        from alignboard.engines.local.slots import masks

        device = self._model.device
        positions = torch.tensor([row.length - 1 for row in self.living], device=device)
        self._cache.step(positions, max(row.length for row in self.living))
        mask = masks(self._config, positions, self._cache.cursor.length, self._model.dtype)
        ids = torch.tensor([[row.generated[-1]] for row in self.living], device=device)
        logits = self._forward(ids, positions[:, None], mask, 1)
        self._append(self.living, logits[:, -1])

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, keep: int | torch.Tensor
    ) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep,
            ).logits

    def _append(self, rows: Sequence[RunningSequence], logits: torch.Tensor) -> None:
        if rows[0].processors is not None:
            logits = shaped(logits, rows)
        for row, token in zip(rows, choose(logits, rows, self._decoding), strict=True):
            row.generated.append(token)

    def leave(self, over: Callable[[RunningSequence], bool]) -> list[RunningSequence]:
        """Take out the rows that are over; the last ones take their places."""
        ended = [index for index, row in enumerate(self.living) if over(row)]
        left = [self.living[index] for index in ended]
        for index in reversed(ended):
            last = self.living.pop()
            if index < len(self.living):
                self._cache.move(len(self.living), index, last.length)
                self.living[index] = last
        return left


class OneRow(Batch):
    """One row at a time with the cache that the model makes itself: for models that `slots.fits` does not know."""

    def __init__(
        self, model: LoadedModel, waiting: deque[RunningSequence], slots: int, decoding: Decoding
    ) -> None:
        assert slots == 1  # noqa: S101 - whoever makes it says so
        self._model, self._decoding = model.model, decoding
        self.waiting = waiting
        self.living: list[RunningSequence] = []
        self._past: Any = None

    def read_prompts(self, n: int, tokens: int) -> None:  # noqa: ARG002 - as the base
        """Let the next row say its first token."""
        row, self._past = self.waiting.popleft(), None
        self.living = [row]
        self._pass(row.ids)

    def step(self) -> None:
        """The row says one more token."""
        self._pass(self.living[0].generated[-1:])

    def _pass(self, ids: Sequence[int]) -> None:
        import torch

        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([list(ids)], device=self._model.device),
                past_key_values=self._past,
                use_cache=True,
            )
        self._past = output.past_key_values
        self._append(self.living, output.logits[:, -1])


def batch_of(model: LoadedModel) -> type[Batch]:
    """The kind of batch that a model can run in."""
    from alignboard.engines.local.slots import fits

    return Batch if fits(model.model) else OneRow


def shaped(logits: torch.Tensor, rows: Sequence[RunningSequence]) -> torch.Tensor:
    """``logits`` (rows, vocabulary) after the processors of each row."""
    import torch

    return torch.cat(
        [
            row.processors(torch.tensor([row.ids], device=logits.device), own[None])
            for row, own in zip(rows, logits, strict=True)
        ]
    )


def choose(logits: torch.Tensor, rows: Sequence[RunningSequence], decoding: Decoding) -> list[int]:
    """The next token of every row, from ``logits`` (rows, vocabulary)."""
    import torch

    best = logits.argmax(dim=1)
    if not torch.isfinite(
        logits.gather(1, best[:, None])
    ).all():  # the largest of what holds a NaN is that
        raise InputError(
            "the model's logits are no finite numbers: its weights are damaged, or overflow in their type; copy them "
            "again, or say dtype: float32 in its entry."
        )
    if decoding.temperature <= 0:
        return best.tolist()
    probabilities = torch.softmax(logits.float() / decoding.temperature, dim=1)
    if decoding.top_p < 1:
        ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
        before = ordered.double().cumsum(dim=1) - ordered
        ordered[before >= decoding.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    cumulative = probabilities.double().cumsum(dim=1)
    drawn = [uniform(row.draw, len(row.generated)) for row in rows]
    targets = torch.tensor(drawn, dtype=torch.float64, device=logits.device)[:, None]
    found = torch.searchsorted(cumulative, targets * cumulative[:, -1:], right=True)
    return found[:, 0].clamp(max=logits.shape[1] - 1).tolist()


def affordable(model: LoadedModel, longest: int, most: int) -> int:
    """How many rows of ``longest`` tokens fit in four fifths of the free memory: from 1 to ``most``."""
    import torch

    config = model.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_a_token = 2 * config.num_hidden_layers * heads * size * model.model.dtype.itemsize
    if model.model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.model.device)[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    return max(1, min(most, int(0.8 * free / (of_a_token * longest))))


def out_of_memory(error: BaseException) -> bool:
    """Whether CUDA or the allocator of the CPU (which raises a plain RuntimeError) ran out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def release_memory(model: LoadedModel) -> None:
    """Give cached blocks back, which may be too small each for what is needed next."""
    if model.model.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
