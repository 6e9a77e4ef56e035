"""What a board's numbers are made of, prompt by prompt: responses, preferences, and what the judges said.

The page shows them (`alignboard.boards.page`). Preferences stand together, because every comparison needs all of
them; texts lie in chunks of `CHUNK` prompts, each read when one of its prompts is looked at.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.records import Generation, Judgment
from alignboard.results.files import UNREADABLE
from alignboard.results.formats import preference_value, read_rows
from alignboard.text import storable

CHUNK = 50
"""prompts whose texts are stored together"""
NONE = -1
"""the place of a text that does not exist"""
EXAMPLES = "examples.json.gz"
"""suffix of the file beside the board's"""


class JudgedPair(Judgment, gc=False, omit_defaults=True):
    """A row of ``annotations.json`` with what a reader wants to see of it."""

    raw_completion: Any = None
    """of one call as AlpacaEval stores it; of several calls a list of that"""
    switched: tuple[bool, ...] = ()
    """for each verdict, whether output_2 was shown first"""
    order_preferences: tuple[float | None, ...] = ()
    """the preference of each verdict, turned to (output_1, output_2)"""
    reason: str = ""
    """why there is no verdict"""


class Preferences(msgspec.Struct, frozen=True):
    """One judge's preferences on one model against one baseline."""

    column: str
    """key of the board's win-rate column"""
    model: str
    baseline: str
    preference: list[float | None]
    """(prompts,) between 1 (baseline) and 2 (model); None without a scored verdict"""
    orders: list[list[float | None] | None]
    """(prompts,) the preference in each order that was asked, where two were"""


class Chunk(msgspec.Struct):
    """The texts of up to `CHUNK` prompts; numbers are places in ``texts``, -1 for none."""

    texts: list[str] = []
    prompts: list[int] = []
    responses: dict[str, list[int]] = {}
    """by model"""
    said: list[list[int]] = []
    """what the judge replied, by `Examples.preferences` and prompt"""

    def only(self, models: Collection[str], preferences: Sequence[int]) -> Chunk:
        """The texts that belong to ``models`` and to the ``preferences`` at these places."""
        pool: dict[int, int] = {NONE: NONE}

        def moved(places: Sequence[int]) -> list[int]:
            return [pool.setdefault(k, len(pool) - 1) for k in places]

        made = Chunk(
            prompts=moved(self.prompts),
            responses={m: moved(own) for m, own in self.responses.items() if m in models},
            said=[moved(self.said[k]) for k in preferences],
        )
        made.texts = [self.texts[k] for k in pool if k != NONE]
        return made


class Examples(msgspec.Struct):
    """Prompts with responses and verdicts."""

    sets: list[str]
    """(prompts,) the instruction set of each prompt"""
    lengths: dict[str, list[int]]
    """by model: (prompts,) characters of the response, -1 where there is none"""
    preferences: list[Preferences]
    chunks: list[Chunk]

    def __len__(self) -> int:
        return len(self.sets)

    def only(self, models: Collection[str]) -> Examples:
        """The examples of ``models`` and of the baselines that they are compared with."""
        kept = [k for k, one in enumerate(self.preferences) if one.model in models]
        needed = {*models, *(self.preferences[k].baseline for k in kept)}
        return Examples(
            self.sets,
            {model: own for model, own in self.lengths.items() if model in needed},
            [self.preferences[k] for k in kept],
            [chunk.only(needed, kept) for chunk in self.chunks],
        )


def packed(content: object) -> bytes:
    """``content`` as compressed JSON; the same content gives the same bytes."""
    return gzip.compress(msgspec.json.encode(content), 9, mtime=0)


def read_examples(path: str | Path) -> Examples | None:
    """What `packed` wrote to ``path``; None where there is no such file."""
    try:
        return msgspec.json.decode(gzip.decompress(Path(path).read_bytes()), type=Examples)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, zlib.error, *UNREADABLE) as error:
        raise InputError(
            f"{path} does not hold the examples of a board: {error}; remove it."
        ) from error


@dataclass
class _Verdicts:
    column: str
    model: str
    baseline: str
    rows: dict[int, tuple[float | None, list[float | None] | None, str]] = field(
        default_factory=dict
    )


class Collector:
    """Puts `Examples` together from files of responses and of annotations."""

    def __init__(self) -> None:
        self._prompts: dict[tuple[str, str], int] = {}
        self._responses: dict[str, dict[int, str]] = {}
        self._verdicts: list[_Verdicts] = []

    def add_responses(self, path: Path, model: str, set_name: str) -> None:
        """The responses of ``path``; those that were judged (`add_verdicts`) are kept where both have one."""
        own = self._responses.setdefault(model, {})
        for row in read_rows(path, Generation):
            own.setdefault(self._prompt(set_name, row.instruction), storable(row.output))

    def add_verdicts(
        self, path: Path, column: str, model: str, baseline: str, set_name: str
    ) -> None:
        """The verdicts of ``path`` on ``model``, with the responses that were compared."""
        found = _Verdicts(column, model, baseline)
        own, other = (self._responses.setdefault(name, {}) for name in (model, baseline))
        for number, row in enumerate(read_rows(path, JudgedPair), start=1):
            prompt = self._prompt(set_name, row.instruction)
            other.setdefault(prompt, storable(row.output_1))
            own.setdefault(prompt, storable(row.output_2))
            value = preference_value(path, number, row.preference)
            orders = list(row.order_preferences) if len(row.order_preferences) > 1 else None
            found.rows[prompt] = (None if math.isnan(value) else value, orders, _said(row))
        self._verdicts.append(found)

    def examples(self) -> Examples:
        """All that was added, prompts in the order in which they came."""
        n = len(self._prompts)
        return Examples(
            sets=[set_name for set_name, _ in self._prompts],
            lengths={
                model: [len(own[k]) if k in own else NONE for k in range(n)]
                for model, own in self._responses.items()
            },
            preferences=[
                Preferences(
                    one.column,
                    one.model,
                    one.baseline,
                    [one.rows[k][0] if k in one.rows else None for k in range(n)],
                    [one.rows[k][1] if k in one.rows else None for k in range(n)],
                )
                for one in self._verdicts
            ],
            chunks=[self._chunk(range(k, min(k + CHUNK, n))) for k in range(0, n, CHUNK)],
        )

    def _prompt(self, set_name: str, instruction: str) -> int:
        return self._prompts.setdefault((set_name, storable(instruction)), len(self._prompts))

    def _chunk(self, places: Sequence[int]) -> Chunk:
        instructions = [instruction for _, instruction in self._prompts]
        pool: dict[str, int] = {}

        def put(texts: Iterable[str | None]) -> list[int]:
            return [NONE if t is None else pool.setdefault(t, len(pool)) for t in texts]

        made = Chunk(
            prompts=put(instructions[k] for k in places),
            responses={m: put(own.get(k) for k in places) for m, own in self._responses.items()},
            said=[
                put((one.rows[k][2] or None) if k in one.rows else None for k in places)
                for one in self._verdicts
            ],
        )
        made.texts = list(pool)
        return made


def _said(row: JudgedPair) -> str:
    """What the judge said, of several calls one after the other, and why there is no verdict where there is none."""
    from alignboard.judges.parsing.raw_completions import reply_of_raw

    raw = row.raw_completion if isinstance(row.raw_completion, list) else [row.raw_completion]
    parts = []
    for k, one in enumerate(raw):
        if one is None:
            continue
        try:
            text = reply_of_raw(one).text
        except (TypeError, ValueError):
            text = str(one)
        if len(raw) > 1:
            second = k < len(row.switched) and row.switched[k]
            order = "the model's response" if second else "the baseline's response"
            text = f"[{order} first]\n{text}"
        parts.append(text)
    return storable("\n\n".join([*parts, *([row.reason] if row.reason else [])]))
