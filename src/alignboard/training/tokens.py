"""Data sets as tokens, before any weights are read, and how long their sequences are. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.models.adapters import adapter_tokenizer, default_template
from alignboard.training.checks.preflight import IGNORED, TokenRow
from alignboard.training.encoding import encoded
from alignboard.training.sections import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

    from alignboard.training.recipe import Recipe

ROWS: Final = 2000
"""how many rows are counted at most, evenly spaced"""
_BATCH: Final = 256
"""rows that are tokenised at a time"""


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


def training_tokenizer(
    base: Any, template: str | None, adapter: str | Path | None, source: str | Path
) -> Any:
    """The start adapter's tokenizer, else the base's, with the recipe's template and a pad token."""
    tokenizer = base
    if adapter is not None and (Path(adapter) / "tokenizer.json").exists():
        tokenizer = adapter_tokenizer(Path(adapter))
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

    def demonstrations(batch: Mapping[str, list[Any]]) -> dict[str, list[list[int]]]:
        found = [one for (one,) in encoded(tokenizer, _rows(batch), whole=whole)]
        labels = [
            [i if trained else IGNORED for i, trained in zip(one.ids, one.trained, strict=True)]
            for one in found
        ]
        return {"input_ids": [list(one.ids) for one in found], "labels": labels}

    def pairs(batch: Mapping[str, list[Any]]) -> dict[str, list[list[int]]]:
        found = encoded(tokenizer, _rows(batch))
        starts = [list(chosen.trained).count(False) for chosen, _ in found]
        return {
            "prompt_ids": [list(one.ids[:n]) for (one, _), n in zip(found, starts, strict=True)],
            "chosen_ids": [list(one.ids[n:]) for (one, _), n in zip(found, starts, strict=True)],
            "rejected_ids": [list(one.ids[n:]) for (_, one), n in zip(found, starts, strict=True)],
        }

    convert = pairs if "chosen" in rows.column_names else demonstrations
    return rows.map(convert, batched=True, batch_size=_BATCH, remove_columns=rows.column_names)


def _rows(batch: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def prompt_length(row: Mapping[str, Any]) -> int:
    """Tokens of a row of `tokenized` before the first that is trained; 0 for rated replies, which are no tokens yet."""
    if "prompt_ids" in row:
        return len(row["prompt_ids"])
    labels = row.get("labels", ())
    return next((n for n, label in enumerate(labels) if label != IGNORED), len(labels))


def before_reply(row: TokenRow) -> int:
    """Tokens of a row before the first that is trained."""
    return next((n for n, trained in enumerate(row.trained) if trained), len(row.ids))


def filled_prompts(recipe: Recipe, left: int, prompts: Sequence[int]) -> RecipeError:
    """The error of rows of which ``left`` have room for a reply behind prompts of so many tokens."""
    lengths = sorted(prompts)
    middle, high = lengths[len(lengths) // 2], lengths[int(0.95 * (len(lengths) - 1))]
    return RecipeError(
        f"{recipe.source}: {left} of {len(lengths)} rows are left to train on, fewer than the {recipe.batch.global_} "
        f"of one step: the prompts of the others fill max_length {recipe.max_length} (tokens: median {middle}, "
        f"95 % up to {high}, longest {lengths[-1]}); raise max_length."
    )


def token_lengths(rows: Iterable[list[TokenRow]], max_length: int) -> list[TokenLengths]:
    """The lengths of each side against ``max_length``."""
    by_side: dict[str, list[tuple[int, int]]] = {}
    for sequences in rows:
        for one in sequences:
            by_side.setdefault(one.side, []).append((len(one.ids), before_reply(one)))
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
