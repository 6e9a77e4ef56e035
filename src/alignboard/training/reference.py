"""Log-probabilities of pairs under the reference, computed once for all methods, settings and seeds on one base.

Heavy: imports torch, transformers, peft and trl.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import set_seed

from alignboard.training.arguments import make_trainer, quiet_data, trl_arguments
from alignboard.training.preference import CHOSEN, REJECTED
from alignboard.training.recipe import Recipe
from alignboard.training.start import load_base, trainable
from alignboard.training.threads import few_threads
from alignboard.training.tokens import training_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset


def reference_columns(
    recipe: Recipe,
    model_path: str | Path,
    tokens: Mapping[str, Dataset],
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    gguf_file: str | None = None,
) -> dict[str, Dataset]:
    """The tokens of each split with the columns of the reference: the model that training starts from."""
    with quiet_data(), tempfile.TemporaryDirectory() as work:
        loaded = load_base(recipe, model_path, revision=revision, gguf_file=gguf_file)
        tokenizer = training_tokenizer(loaded.tokenizer, recipe.chat_template, adapter, loaded.path)
        with few_threads(loaded.model):
            set_seed(recipe.seed)
            model = trainable(loaded, recipe, adapter)
            arguments = trl_arguments(recipe, model, Path(work), recipe.seed)
            found, first = {}, next(iter(tokens.values()))
            # One for all: a second one would give the model a second copy of the adapter that it starts from.
            trainer = make_trainer(recipe, arguments, model, tokenizer, first, [])
            for name, rows in tokens.items():
                chosen, rejected = trainer.reference(rows, recipe.batch.per_device)
                found[name] = rows.add_column(CHOSEN, chosen).add_column(REJECTED, rejected)
    return found
