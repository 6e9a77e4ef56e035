"""The reference of a preference training: the base where the adapter is fresh, a copy of the start elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from test_train import QuickBase, base, pair_rows, sft_rows, short

__all__ = ["base"]  # the fixture


@pytest.mark.parametrize("start", [False, True])
def test_a_fresh_adapter_has_the_base_as_its_reference(
    base: QuickBase, tmp_path: Path, start: bool
) -> None:
    from alignboard.training.arguments import make_trainer, prepared, trl_arguments
    from alignboard.training.checks.probe import first_batch
    from alignboard.training.start import load_base, trainable
    from alignboard.training.tokens import training_tokenizer
    from alignboard.training.trainer import train

    adapter = None
    if start:
        adapter = tmp_path / "sft" / "adapter"
        train(short("demo/sft", 2), base("llama"), sft_rows(16), adapter)
    recipe = short("demo/dpo", 2)
    loaded = load_base(recipe, base("llama"))
    tokenizer = training_tokenizer(loaded.tokenizer, None, adapter, loaded.path)
    model = trainable(loaded, recipe, adapter)
    arguments = trl_arguments(recipe, model, tmp_path / "work", 0)
    rows = prepared(pair_rows(8), recipe, tokenizer)
    trainer: Any = make_trainer(recipe, arguments, model, tokenizer, rows, [])
    assert ("ref" in trainer.model.peft_config) is start
    batch = first_batch(trainer)
    won, _ = trainer.compute_ref_log_probs(trainer.model, dict(batch))
    with trainer.model.disable_adapter():
        outputs = trainer.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        )
    of_base, _ = outputs.log_probs.sum(dim=1).chunk(2)
    assert (won.tolist() == of_base.tolist()) is not start
