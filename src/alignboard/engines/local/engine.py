"""The engine of a model in memory: continuous batching over transformers' own forward pass.

What this module promises
    A row that has ended hands its place to the next prompt at once. Answers are those of one prompt at a time: greedy
    ones token for token in float32 (in bfloat16 a batch may change a rounding), sampled ones because every token draws
    a number of its own (`rows.uniform`). Memory is bounded by ``slots`` rows; where it runs out the number is halved
    and every row goes on with what it has said.
What it never does
    Truncate a prompt; decode an answer's end token; leave a stop text in an answer.

Why the loop is ours: measured by `benchmarks/generation.py` (Llama of 42M, float32, one thread of a shared CPU, 200
prompts of 11,684 tokens, answers of 11,568, the same tokens from all), tokens per CPU second: `generate` one at a time
38; lm-eval's HFLM in batches of 16 63; transformers' own continuous batching 147 with 32 rows and 119 with 64; this
loop 197 with 64.
transformers' attends over the packed keys of all rows under one mask, so its cost grows with the square of the rows
where flash attention is missing; it draws samples from one generator for all rows, fails requests where memory runs
out, and while it is open an ordinary forward pass of the same model fails (transformers #48735). On a GPU with flash
attention it may be the faster one: the benchmark asks both there, and nothing has been measured on one yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alignboard.engines.local.batch import (
    Batch,
    OneRow,
    RunningSequence,
    affordable,
    batch_of,
    out_of_memory,
    release_memory,
)
from alignboard.engines.local.ending import Ending
from alignboard.engines.local.shaping import shape_by
from alignboard.engines.rows import Answer, Decoding, Prompt
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel


class LocalEngine:
    """Answers of the adapter that is in use while they are asked for.

    ``slots`` is how many rows run at a time (None: 64 on a CPU and 256 on a GPU, fewer where the longest answers would
    not fit in four fifths of the free memory); it is halved where memory runs out after all. ``prefill_tokens`` is how
    many tokens of new prompts are read at a time.
    """

    def __init__(
        self, model: LoadedModel, *, slots: int | None = None, prefill_tokens: int | None = None
    ) -> None:
        if slots is not None and slots < 1:
            raise InputError(f"An engine with {slots} slots answers nothing; at least 1 is needed.")
        self._model = model
        self._cuda = model.model.device.type == "cuda"
        self._prefill_tokens = prefill_tokens or (8192 if self._cuda else 512)
        self.slots = slots
        """how many rows run at a time; known once something was asked"""

    def answers(self, asked: Sequence[Prompt], decoding: Decoding) -> Iterator[Answer]:
        """See `Engine`; there are no failures. Raises `InputError` where not even one row fits in memory."""
        ending = Ending(self._model, decoding)
        for row in self.ended(asked, decoding, ending):
            yield ending.answer(row)

    def ended(
        self, asked: Sequence[Prompt], decoding: Decoding, ending: Ending
    ) -> Iterator[RunningSequence]:
        """Every prompt with the tokens generated for it, as soon as it has ended; raises as `answers` does."""
        unique = {prompt.key: prompt for prompt in asked}.values()
        context = self._model.context
        rows = [
            RunningSequence(
                one, min(one.limit(decoding), context - len(one.ids)), draw=one.draw(decoding.seed)
            )
            for one in unique
        ]
        if not rows:
            return
        if (short := min(rows, key=lambda row: row.limit)).limit < 1:
            raise InputError(
                f"A prompt has {short.length} tokens, but {self._model.path} takes {context} in all: "
                f"{short.prompt.instruction[:60]!r}."
            )
        shape_by(self._model, rows, ending.tokens)
        with masked_attention(self._model):
            yield from self._ended(rows, ending, decoding)

    def _ended(
        self, rows: list[RunningSequence], ending: Ending, decoding: Decoding
    ) -> Iterator[RunningSequence]:
        # The longest prompts first: memory is needed at the start, and the short ones fill the end.
        waiting = deque(sorted(rows, key=lambda row: len(row.prompt.ids), reverse=True))
        batch_type = batch_of(self._model)
        if batch_type is OneRow:
            self.slots = 1
        elif self.slots is None:
            longest = max(len(row.prompt.ids) + row.limit for row in rows)
            self.slots = affordable(self._model, longest, 256 if self._cuda else 64)
        while waiting:
            batch = batch_type(self._model, waiting, self.slots, decoding)
            try:
                yield from self._run(batch, self.slots, ending)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if self.slots == 1:
                    raise InputError(
                        f"{self._model.path} has not enough memory for one prompt of {batch.living[0].length} tokens; "
                        "use a smaller type or quantization."
                    ) from error
            # What was said is kept: rows go on where they were, their texts read anew.
            waiting.extendleft(reversed(batch.living))
            del batch
            if waiting:
                self.slots //= 2
                release_memory(self._model)

    def _run(self, batch: Batch, slots: int, ending: Ending) -> Iterator[RunningSequence]:
        # A pass of a GPU over one prompt costs as much as a step of all rows, so there a few places are filled at once.
        refill = max(1, slots // 16) if self._cuda else 1
        while batch.living or batch.waiting:
            free = slots - len(batch.living)
            if batch.waiting and free >= min(refill, len(batch.waiting)):
                batch.read_prompts(free, self._prefill_tokens)
            else:
                batch.step()
            yield from batch.leave(ending.over)


@contextmanager
def masked_attention(model: LoadedModel) -> Iterator[None]:
    """With an attention that takes a mask for every row: flash attention does not, and is put back afterwards."""
    base: Any = model.model
    if model.adapters:
        base = base.get_base_model()
    before = base.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    if before in {"sdpa", "eager"}:
        yield
        return
    base.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        base.set_attn_implementation(before)
