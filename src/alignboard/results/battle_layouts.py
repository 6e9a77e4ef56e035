"""Layouts of pairwise verdicts of other programs, as flat rows: AlpacaEval, FastChat, Arena-Hard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Flat = dict[str, Any]

_BASELINE: Final = "gpt-4-0314"
"""Arena-Hard 0.1 compares with it, and its files do not name it"""
_DRAW_OF_OLD_FILES: Final = 0
# Arena-Hard's show_result.py writes a decided verdict three times.
_ARENA_HARD: Final = {
    "A>>B": (1.0, 3), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, 3)
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How one program writes verdicts."""

    name: str
    fields: frozenset[str]
    """what every row has"""
    rows: Callable[[Mapping[str, Any]], Iterator[Flat]]

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether ``row`` is of this layout."""
        return self.fields <= row.keys()


def _alpaca_eval(row: Mapping[str, Any]) -> Iterator[Flat]:
    preference = row["preference"]
    if preference == _DRAW_OF_OLD_FILES and preference is not None:
        preference = 1.5
    flat: Flat = {
        "model_a": row["generator_1"],
        "model_b": row["generator_2"],
        "winner": None if preference is None else 2 - float(preference),
        "prompt_id": row["instruction"],
        "judge": row.get("annotator"),
    }
    if "output_1" in row and "output_2" in row:
        flat |= {"length_a": len(row["output_1"]), "length_b": len(row["output_2"])}
    yield flat


def _fast_chat(row: Mapping[str, Any]) -> Iterator[Flat]:
    """MT-bench's pairs: a game with the first shown first, and one with the second shown first."""
    winners = {"model_1": "model_a", "model_2": "model_b", "tie": "tie", "error": "error"}
    for game, shown in (("g1_winner", "model_a"), ("g2_winner", "model_b")):
        yield {
            "model_a": row["model_1"],
            "model_b": row["model_2"],
            "winner": winners[row[game]],
            "prompt_id": row["question_id"],
            "judge": str(row.get("judge")),
            "position": shown,
        }


def _arena_hard(row: Mapping[str, Any]) -> Iterator[Flat]:
    """A game with the baseline shown first, and one with the model shown first."""
    baseline = row.get("baseline", _BASELINE)
    for number, game in enumerate(row["games"][:2]):
        given = None if game is None else game.get("score")
        score, weight = (None, 1) if given is None else _ARENA_HARD[given]
        if number and score is not None:
            score = 1 - score
        yield {
            "model_a": baseline,
            "model_b": row["model"],
            "winner": score,
            "prompt_id": row.get("question_id", row.get("uid")),
            "judge": row.get("judge"),
            "weight": weight,
            "position": ("model_a", "model_b")[number],
        }


LAYOUTS: Final = (
    Layout(
        "AlpacaEval",
        frozenset({"generator_1", "generator_2", "preference", "instruction"}),
        _alpaca_eval,
    ),
    Layout(
        "FastChat",
        frozenset({"model_1", "model_2", "g1_winner", "g2_winner", "question_id"}),
        _fast_chat,
    ),
    Layout("Arena-Hard", frozenset({"model", "games"}), _arena_hard),
)
