"""What is checked of a training before its first step and after its last.

Heavy: imports torch, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignboard.training import launch
from alignboard.training.checks import preflight, probe
from alignboard.training.checks.preflight import TokenRow
from alignboard.training.recipe import Recipe


def checked_rows(trainer: Any, recipe: Recipe, tokenizer: Any) -> TokenRow:
    """Check the rows as they are trained on; the first one."""
    token_rows = preflight.token_rows(trainer.train_dataset, recipe.max_length, limit=256)
    preflight.check_rows(token_rows, preflight.token_facts(tokenizer))
    return token_rows[0]


def checked_start(trainer: Any, recipe: Recipe) -> dict[str, Any]:
    """Check loss and reference of one batch before the first step; that batch.

    At once, or, where the processes hold a model in parts, when their engine has it: before, it computes nothing.
    """
    batch = probe.first_batch(trainer)
    check = partial(_check_start, trainer, recipe, batch)
    if launch.is_sharded():
        trainer.add_callback(_InEngine(check))
    else:
        check()
    return batch


def _check_start(trainer: Any, recipe: Recipe, batch: Mapping[str, Any]) -> None:
    expected = None
    if recipe.loss is not None and recipe.loss_spec.at_start is not None:
        expected = recipe.loss_spec.at_start(recipe.loss)
    preflight.check_loss_at_start(probe.loss_of(trainer, batch), expected)
    preflight.check_reference(probe.reference_of(trainer, batch))


class _InEngine(TrainerCallback):
    """Runs a check once the engine has the model."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Check; a run that goes on was checked when it began."""
        if state.global_step == 0:
            self._check()


def save_checked(trainer: Any, folder: Path, batch: Mapping[str, Any]) -> None:
    """Write what was trained, and check that it computes the same; each process has to ask."""
    folder = Path(launch.of_main(str(folder)))
    with probe.whole_weights(trainer) as weights:
        if launch.is_main():
            probe.save(trainer.model, folder, weights)
    launch.meet()
    if launch.is_main() or launch.is_sharded():
        preflight.check_saved(*probe.logits_of_saved(trainer, folder, batch))
    launch.meet()
