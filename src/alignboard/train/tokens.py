"""Training rows as tokens, before any weights are read: their lengths, and what of them is trained.

Rows are rendered and cut as TRL does it; test_train_preview holds them to the rows that TRL makes. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alignboard.train.preflight import TokenRow

ROWS: Final = 2000
"""how many rows are counted at most, evenly spaced"""


@dataclass(frozen=True)
class TokenLengths:
    """How long the sequences of one side are, in tokens."""

    side: str
    n: int
    median: int
    longest_5_percent: int
    """the 95th percentile"""
    longest: int
    cut: int
    """sequences over max_length: the end of their reply is not trained"""
    filled: int
    """sequences whose prompt alone fills max_length; they are left out"""

    def __str__(self) -> str:
        shares = f"{self.cut} cut at max_length, {self.filled} left out (the prompt fills it)"
        return (
            f"{self.side:<9} {self.n} rows; tokens: median {self.median}, 95 % up to {self.longest_5_percent}, "
            f"longest {self.longest}; {shares}"
        )


def encoded(tokenizer: Any, row: Mapping[str, Any]) -> list[TokenRow]:
    """The sequences of a canonical row, whole: one, or the two sides of a pair."""
    if "messages" in row:
        found = _render(tokenizer, row["messages"], return_assistant_tokens_mask=True)
        trained = [bool(one) for one in found["assistant_masks"]]
        return [TokenRow(found["input_ids"], trained)]
    prompt = _render(tokenizer, row["prompt"], add_generation_prompt=True)["input_ids"]
    sides = [side for side in ("completion", "chosen", "rejected") if side in row]
    whole = [_render(tokenizer, row["prompt"] + row[side])["input_ids"] for side in sides]
    start = min(_common(prompt, ids) for ids in whole)
    names = ["reply" if side == "completion" else side for side in sides]
    return [
        TokenRow(ids, [n >= start for n in range(len(ids))], side=name)
        for name, ids in zip(names, whole, strict=True)
    ]


def _render(tokenizer: Any, messages: Any, **settings: Any) -> Any:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **settings)


def _common(one: list[int], other: list[int]) -> int:
    n = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        n += 1
    return n


def token_lengths(rows: Iterable[list[TokenRow]], max_length: int) -> list[TokenLengths]:
    """The lengths of each side against ``max_length``."""
    by_side: dict[str, list[tuple[int, int]]] = {}
    for sequences in rows:
        for one in sequences:
            prompt = next((n for n, trained in enumerate(one.trained) if trained), len(one.ids))
            by_side.setdefault(one.side, []).append((len(one.ids), prompt))
    found = []
    for side, sizes in by_side.items():
        lengths = sorted(length for length, _ in sizes)
        filled = sum(prompt >= max_length for _, prompt in sizes)
        found.append(
            TokenLengths(
                side=side,
                n=len(sizes),
                median=lengths[len(lengths) // 2],
                longest_5_percent=lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
                longest=lengths[-1],
                cut=sum(length > max_length for length in lengths) - filled,
                filled=filled,
            )
        )
    return found


def spread(dataset: Any, limit: int = ROWS) -> list[Mapping[str, Any]]:
    """At most ``limit`` rows, evenly spaced."""
    n = len(dataset)
    count = min(n, limit)
    return [dataset[i * n // count] for i in range(count)]
