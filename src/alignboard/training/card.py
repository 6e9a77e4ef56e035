"""Model cards of adapters and of merged checkpoints: base, data, recipe, and scores of boards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from huggingface_hub import EvalResult, ModelCardData

from alignboard.training.preference import CHOSEN, REJECTED

if TYPE_CHECKING:
    from datasets import Dataset

_FACTS: Final = (
    "method", "seed", "steps", "global_batch", "n_rows", "rows_digest", "base", "base_fingerprint",
    "parent_fingerprint", "template_digest", "first_loss", "last_loss", "device", "memory_mib", "seconds",
)  # fmt: skip
"""of `training.json`, in the order in which they are read"""


def card_text(
    name: str,
    training: Mapping[str, Any],
    *,
    base: str,
    library: str,
    lines: Sequence[str] = (),
    results: Sequence[EvalResult] = (),
) -> str:
    """The README of a model.

    Parameters
    ----------
    name
        what the model is called.
    training
        the content of its run card; empty where there is none.
    base
        the base model.
    library
        that loads it: peft, or transformers.
    lines
        below the heading.
    results
        scores of boards, which become the ``model-index``.
    """
    head = ModelCardData(
        base_model=base,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["alignboard"],
        model_name=name if results else None,
        eval_results=list(results) or None,
    )
    body = [f"# {name}", "", *lines]
    known = [fact for fact in _FACTS if training.get(fact) is not None]
    body += ["", *(f"- {fact.replace('_', ' ')}: {training[fact]}" for fact in known)]
    if "versions" in training:
        versions = ", ".join(f"{what} {number}" for what, number in training["versions"].items())
        body.append(f"- versions: {versions}")
    for title in ("recipe", "data"):
        if training.get(title):
            body += ["", f"{title.capitalize()}:", "", "```json"]
            body += [json.dumps(training[title], indent=1), "```"]
    return "\n".join(["---", head.to_yaml(), "---", "", *body]) + "\n"


def rows_digest(rows: Dataset) -> str:
    """A digest of the content of rows, in their order; log-probabilities of a reference are no part of it."""
    found = hashlib.sha256()
    own = [name for name in rows.column_names if name not in {CHOSEN, REJECTED}]
    for batch in rows.select_columns(own).with_format(None).iter(batch_size=256):
        found.update(json.dumps(batch, sort_keys=True).encode())
    return found.hexdigest()
