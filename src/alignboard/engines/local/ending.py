"""Where an answer ends: end tokens, and texts that are found as soon as they are there and cut from it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from alignboard.engines.local.batch import RunningSequence
from alignboard.engines.rows import Answer, Decoding
from alignboard.models.loading import LoadedModel
from alignboard.models.reasoning import is_mark
from alignboard.models.reasoning import split as divide


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` up to the first place where one of ``stops`` begins, and whether there is one.

    >>> cut("one. Instruct: two", ["Instruct:", "Output:"])
    ('one. ', True)
    """
    found = [index for index in map(text.find, stops) if index >= 0]
    return (text[: min(found)], True) if found else (text, False)


class StopTexts:
    """Watches answers for texts. Only the end of an answer is decoded at every step: what is before was watched."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, tuple(stops)
        # A token spells at least one byte, but for special ones; those in front let the first one decode as it would
        # inside the text (byte fragments, a leading space).
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + 8

    def ended(self, generated: Sequence[int]) -> bool:
        """Whether the last token completes a stop."""
        if not self._stops:
            return False
        seen = cut(self._decode(generated[-self._tail :]), self._stops)[1]
        # The end of a text may be decoded differently where it stands alone.
        return seen and cut(self._decode(generated), self._stops)[1]


def split(stops: Sequence[str], tokenizer: Any) -> tuple[tuple[str, ...], frozenset[int]]:
    """``stops`` as texts, and the ids of those that are one added token of the vocabulary (``<|im_end|>``).

    Decoding leaves special tokens out, so such a stop would never be seen in the text.
    """
    added: dict[str, int] = tokenizer.get_added_vocab()
    return (
        tuple(stop for stop in stops if stop not in added),
        frozenset(added[stop] for stop in stops if stop in added),
    )


class Ending:
    """When an answer ends, and what it then is.

    The model's own configuration adds texts to those of ``decoding``. ``end_tokens`` are those that end it besides the
    stops (None: the model's, and the entry's ``stop_tokens``).
    """

    def __init__(
        self, model: LoadedModel, decoding: Decoding, end_tokens: frozenset[int] | None = None
    ) -> None:
        self._tokenizer: Any = model.tokenizer
        self.stops, tokens = split((*decoding.stop, *model.own_decoding.stop), model.tokenizer)
        """texts that end it, besides those that are a token"""
        if end_tokens is None:
            end_tokens = model.end_tokens | set(decoding.stop_tokens)
        self.tokens = end_tokens | tokens
        """tokens that end it"""
        self._texts = StopTexts(self._text, self.stops)
        vocabulary: dict[str, int] = self._tokenizer.get_added_vocab()
        self._special = frozenset(self._tokenizer.all_special_ids)
        self._marks = self._special & {vocabulary[one] for one in vocabulary if is_mark(one)}

    def _text(self, generated: Sequence[int]) -> str:
        """The text of tokens, without special ones but for those that mark reasoning."""
        if self._marks.isdisjoint(generated):
            return str(self._tokenizer.decode(list(generated), skip_special_tokens=True))
        dropped = self._special - self._marks
        kept = [token for token in generated if token not in dropped]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def over(self, row: RunningSequence) -> bool:
        """Whether the last token ends the answer."""
        return (
            row.generated[-1] in self.tokens
            or len(row.generated) >= row.limit
            or self._texts.ended(row.generated)
        )

    def answer(self, row: RunningSequence) -> Answer:
        """What a row has said, as an answer."""
        text, stopped = cut(self._text(row.generated), self.stops)
        ended = stopped or row.generated[-1] in self.tokens
        parts = divide(text, opened=row.prompt.opens_reasoning)
        return Answer(
            row.prompt.key,
            row.prompt.instruction,
            parts.response.strip(),
            len(row.prompt.ids),
            len(row.generated),
            "stop" if ended else "length",
            reasoning=parts.reasoning,
        )
