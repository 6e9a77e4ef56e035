"""Training rows as tokens, before any weights are read: their lengths, and what of them is trained.

Rows are rendered as TRL does it; test_train_preview holds them to the rows that TRL makes. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.models.adapters import default_template
from alignboard.training.preflight import IGNORED, TokenRow
from alignboard.training.sections import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

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


def encoded(
    tokenizer: Any, row: Mapping[str, Any], *, whole: bool = False, template: str | None = None
) -> list[TokenRow]:
    """The sequences of a canonical row, not cut: one, or the two sides of a pair.

    ``whole`` trains every token of a demonstration, not its replies alone; ``template`` replaces the tokenizer's.
    """
    if "messages" in row:
        settings = {"return_assistant_tokens_mask": not whole, "chat_template": template}
        found = _render(tokenizer, row["messages"], **settings)
        marks = found["assistant_masks"] if not whole else [1] * len(found["input_ids"])
        return [TokenRow(found["input_ids"], [bool(one) for one in marks])]
    prompt = _render(tokenizer, row["prompt"], add_generation_prompt=True)["input_ids"]
    sides = [side for side in ("completion", "chosen", "rejected") if side in row]
    rendered = [_render(tokenizer, row["prompt"] + row[side])["input_ids"] for side in sides]
    start = min(_common(prompt, ids) for ids in rendered)
    names = ["reply" if side == "completion" else side for side in sides]
    return [
        TokenRow(ids, [whole or n >= start for n in range(len(ids))], side=name)
        for name, ids in zip(names, rendered, strict=True)
    ]


def training_tokenizer(
    base: Any, template: str | None, adapter: str | Path | None, source: str | Path
) -> Any:
    """The start adapter's tokenizer, else the base's, with the recipe's template and a pad token."""
    tokenizer = base
    if adapter is not None and (Path(adapter) / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.chat_template = template or default_template(tokenizer.chat_template)
    if not tokenizer.chat_template:
        raise RecipeError(f"{source} has no chat template; give one in the recipe's chat_template.")
    if tokenizer.pad_token is None:
        # TRL masks padding by length, not by token, so the end token stays trained.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_tokenized(rows: Dataset) -> bool:
    """Whether `tokenized` has made ``rows``."""
    return bool({"input_ids", "chosen_ids"} & set(rows.column_names))


def tokenized(rows: Dataset, tokenizer: Any, *, whole: bool = False) -> Dataset:
    """Demonstrations or pairs as the trainers read them, not cut; see `encoded`."""
    template = None
    if "messages" in rows.column_names and not whole:
        template = _marked(tokenizer)

    def demonstration(row: Mapping[str, Any]) -> dict[str, list[int]]:
        (one,) = encoded(tokenizer, row, whole=whole, template=template)
        labels = [
            i if trained else IGNORED for i, trained in zip(one.ids, one.trained, strict=True)
        ]
        return {"input_ids": list(one.ids), "labels": labels}

    def pair(row: Mapping[str, Any]) -> dict[str, list[int]]:
        chosen, rejected = encoded(tokenizer, row)
        start = list(chosen.trained).count(False)
        return {
            "prompt_ids": list(chosen.ids[:start]),
            "chosen_ids": list(chosen.ids[start:]),
            "rejected_ids": list(rejected.ids[start:]),
        }

    convert = pair if "chosen" in rows.column_names else demonstration
    return rows.map(convert, remove_columns=rows.column_names)


def prompt_length(row: Mapping[str, Any]) -> int:
    """Tokens of a row of `tokenized` before the first that is trained; 0 for rated replies, which are no tokens yet."""
    if "prompt_ids" in row:
        return len(row["prompt_ids"])
    labels = row.get("labels", ())
    return next((n for n, label in enumerate(labels) if label != IGNORED), len(labels))


def _marked(tokenizer: Any) -> str | None:
    """The template that marks replies, where the tokenizer's own does not and TRL knows it with its marks."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return None
    return get_training_chat_template(tokenizer)


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
