"""The logits behind prompts: one forward pass each, of the last place only, and nothing read twice.

What this module promises
    The logits of a prompt depend on the prompt and the model alone, to the last bit. The rounding of a matrix product
    depends on its shape, so every shape here follows from one prompt: where it is cut into parts, which parts it can
    share, how long its row is, how many rows a batch of that length has (those that are missing are filled up). What
    else is asked decides only what has been read before. One exception: where the memory of a GPU runs out, batches
    are halved, and a last digit may change.

Two ways to read
    `Singly`: prompts in the order of their ids, one at a time. A part that the prompt before had too is still there,
    and the last layer is computed for the last token only. On a CPU with a model above some millions of parameters
    this is the fastest: padding is pure loss there.
    `Batches`: rows of one length, padded on the right, behind what a causal pass reads, so that no mask is needed. For
    a GPU, and for tiny models, whose passes cost more than their arithmetic. The part that all prompts of a judge
    begin with is read once.

Measured by `benchmarks/judging.py --small` (Llama of 42M, float32, one thread of a shared CPU, prompts as long as
AlpacaEval 2's, both orders), in CPU time: a plain loop 1; last logits only 1.0 to 1.3 times as fast; `Singly` 1.42
times (fastest of five; of two 1.32 to 1.49), and 1.85 times where four models are compared with one baseline. `Batches`
has been measured on no GPU yet.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from alignboard.engines.local.batch import out_of_memory, release_memory
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel

if TYPE_CHECKING:
    import torch

    from alignboard.judges.backends.prefix import PrefixCache

MOST_CUTS: Final = 3
_TINY: Final = 5_000_000
"""parameters; up to so many a CPU reads prompts in batches"""


@dataclass(frozen=True)
class Text:
    """A prompt as it is read."""

    ids: tuple[int, ...]
    cuts: tuple[int, ...] = ()
    """where it is cut, before its last token: in front of each, a part that other prompts may have, too"""


class Reader(Protocol):
    """A way to read prompts."""

    @property
    def scheme(self) -> str:
        """What of it is part of the arithmetic."""
        ...

    @property
    def n_cuts(self) -> int:
        """How many cuts of a text it makes use of, from the first on."""
        ...

    def read(self, texts: Sequence[Text]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Places in ``texts`` and the last logits of each, (places, vocabulary), as they are computed."""
        ...


class Singly:
    """One prompt at a time; see the module."""

    def __init__(self, model: LoadedModel, *, reuse: bool = True) -> None:
        self._model, self._reuse = model, reuse and can_share(model)
        self.n_cuts = MOST_CUTS if self._reuse else 0
        self.scheme = f"singly {self.n_cuts}"

    def read(self, texts: Sequence[Text]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """See `Reader`."""
        for index, logits in self._whole(texts) if not self._reuse else self._cut(texts):
            yield [index], logits[:, -1]

    def _whole(self, texts: Sequence[Text]) -> Iterator[tuple[int, torch.Tensor]]:
        for index, text in enumerate(texts):
            yield index, whole_logits(self._model, text.ids, 1)

    def _cut(self, texts: Sequence[Text]) -> Iterator[tuple[int, torch.Tensor]]:
        from alignboard.judges.backends.prefix import PrefixCache

        cache, before = PrefixCache(self._model.model), Text(())
        for index in sorted(range(len(texts)), key=lambda one: texts[one].ids):
            text = texts[index]
            shared, last = _shared(before, text), len(text.ids) - 1
            bounds = [shared, *(cut for cut in text.cuts if shared < cut < last), last]
            with _memory_for(self._model, len(text.ids)):
                for start, stop in pairwise(bounds):
                    ids = _tensor(self._model, [text.ids[start:stop]])
                    cache.write(self._model.model, ids, start)
                ids = _tensor(self._model, [text.ids[last:]])
                logits = cache.read(self._model.model, ids, last, 1)
            before = text
            yield index, logits


def _shared(before: Text, text: Text) -> int:
    """Up to which cut both are alike, and were read in the same parts."""
    found = 0
    for one, other in zip(before.cuts, text.cuts, strict=False):
        if one != other or before.ids[found:one] != text.ids[found:one]:
            break
        found = one
    return found


class Batches:
    """Batches of one shape for every length; see the module."""

    def __init__(
        self, model: LoadedModel, *, tokens: int, rows: int, stride: int, reuse: bool = True
    ) -> None:
        """At most ``tokens`` and ``rows`` in a batch; lengths are multiples of ``stride``."""
        self._model, self._tokens, self._rows, self._stride = model, tokens, rows, stride
        self._reuse = reuse and can_share(model)
        self._halvings = 0
        self.n_cuts = int(self._reuse)
        self.scheme = f"batches {tokens} {rows} {stride} {self.n_cuts}"

    def read(self, texts: Sequence[Text]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """See `Reader`."""
        buckets: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        for index, text in enumerate(texts):
            head = text.ids[: text.cuts[0]] if self._reuse and text.cuts else ()
            rest = len(text.ids) - len(head)
            buckets[head, -(-rest // self._stride) * self._stride].append(index)
        read: tuple[tuple[int, ...], PrefixCache | None] = ((), None)
        for head, length in sorted(buckets):
            if head != read[0]:
                read = head, self._read_head(head)
            waiting = deque(buckets[head, length])
            while waiting:
                size = self._size(len(head) + length)
                indices = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                rows = [texts[index].ids[len(head) :] for index in indices]
                try:
                    logits = self._pass(rows, size, length, read)
                except (MemoryError, RuntimeError) as error:
                    if not out_of_memory(error):
                        raise
                    if size == 1:
                        raise _no_memory(self._model, len(head) + length) from error
                    logits = None
                if logits is not None:
                    yield indices, logits
                    continue
                # Outside of the handler, whose traceback holds what the pass had in memory.
                waiting.extendleft(reversed(indices))
                self._halvings += 1
                release_memory(self._model)

    def _size(self, tokens: int) -> int:
        """How many rows of so many tokens are in a batch."""
        nominal = min(self._rows, self._tokens // tokens)
        return max(1, nominal >> self._halvings)

    def _read_head(self, head: tuple[int, ...]) -> PrefixCache | None:
        from alignboard.judges.backends.prefix import PrefixCache

        if not head:
            return None
        cache = PrefixCache(self._model.model)
        cache.write(self._model.model, _tensor(self._model, [head]), 0)
        return cache

    def _pass(
        self,
        rows: Sequence[Sequence[int]],
        size: int,
        length: int,
        read: tuple[tuple[int, ...], PrefixCache | None],
    ) -> torch.Tensor:
        """(rows, vocabulary), from a batch of ``size`` rows of ``length`` tokens behind what was ``read``."""
        import torch

        head, cache = read
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        ids = _tensor(self._model, [[*row, *[0] * (length - len(row))] for row in filled])
        # As many places as follow from the shape, so that the product with the vocabulary has one shape, too: a place
        # for every row, or all places where a row of this length can end.
        ends = [len(row) - 1 for row in filled]
        if size <= self._stride:
            kept, picked = ends, list(range(len(rows)))
        else:
            kept = list(range(length - self._stride, length))
            picked = [end - kept[0] for end in ends[: len(rows)]]
        keep = torch.tensor(kept, device=ids.device)
        if cache is not None:
            spread = cache.spread(self._model.model, size, len(head))
            logits = spread.read(self._model.model, ids, len(head), keep)
        else:
            with torch.inference_mode():
                logits = self._model.model(
                    input_ids=ids, use_cache=False, logits_to_keep=keep
                ).logits
        own = torch.arange(len(rows), device=ids.device)
        return logits[own, torch.tensor(picked, device=ids.device)]


def reader_for(model: LoadedModel, rows: int | None = None, *, reuse: bool = True) -> Reader:
    """The way that suits model and device; ``rows`` is the most of a batch, 1 for none."""
    cuda = model.model.device.type == "cuda"
    if rows == 1 or (rows is None and not cuda and n_parameters(model) > _TINY):
        return Singly(model, reuse=reuse)
    if cuda:
        return Batches(model, tokens=8192, rows=rows or 256, stride=64, reuse=reuse)
    # A tiny model's prompts are short: what they share costs less than a pass of its own.
    return Batches(model, tokens=4096, rows=rows or 32, stride=8, reuse=False)


def whole_logits(model: LoadedModel, ids: Sequence[int], keep: int) -> torch.Tensor:
    """(1, keep, vocabulary): the logits at the last ``keep`` places of a prompt that is read at once."""
    import torch

    with _memory_for(model, len(ids)), torch.inference_mode():
        return model.model(
            input_ids=_tensor(model, [ids]), use_cache=False, logits_to_keep=keep
        ).logits


def n_parameters(model: LoadedModel) -> int:
    """How many numbers a base has, without its adapters'."""
    whole = sum(one.numel() for one in model.model.parameters())
    added = sum(one.numel() for name, one in model.model.named_parameters() if "lora_" in name)
    return whole - added


def can_share(model: LoadedModel) -> bool:
    """Whether parts of a prompt can be read one after the other."""
    from alignboard.engines.local.slots import fits

    return fits(model.model)


def _tensor(model: LoadedModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    import torch

    return torch.tensor([list(row) for row in rows], device=model.model.device)


@contextmanager
def _memory_for(model: LoadedModel, tokens: int) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise _no_memory(model, tokens) from error


def _no_memory(model: LoadedModel, tokens: int) -> InputError:
    return InputError(
        f"{model.path} has not enough memory for one prompt of {tokens} tokens; use a smaller type or quantization."
    )
