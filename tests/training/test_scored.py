"""The output layer of a training on the CPU: labelled tokens alone go through it, and nothing that it gives changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch

from test_train import QuickBase, base, content, pair_rows, sft_rows

__all__ = ["base"]  # the fixture

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
FIELDS = ("loss", "log_probs", "entropy", "mean_logits", "is_top1", "label_mask")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the output layer scored."""
    import trl.trainer.utils

    utils: Any = trl.trainer.utils
    function, counts = utils._ChunkedLogProbFunction, list[int]()

    class Counting:
        @staticmethod
        def apply(hidden: Any, *rest: Any) -> Any:
            counts.append(len(hidden))
            return function.apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)
    return counts


def model_with_head(kind: str) -> Any:
    """Random weights with TRL's fused head; the same at every call."""
    import transformers
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    add_fused_lm_head(model, outputs=FIELDS[1:5])
    return model


def batch() -> dict[str, Any]:
    """Three rows of unequal length, padded; labels on 3, 1 and 4 tokens, the first of a row among them."""
    ids = torch.randint(3, 97, (3, 7), generator=torch.Generator().manual_seed(1))
    labels, mask = torch.full_like(ids, -100), torch.ones_like(ids)
    for row, (start, end) in enumerate([(4, 7), (2, 3), (0, 5)]):
        labels[row, start:end] = ids[row, start:end]
        mask[row, end:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model: Any, loss: Any) -> Any:
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["Llama", "Gemma2", "Qwen2", "GPTNeoX"])
def test_values_and_gradients_are_those_of_trls_head(kind: str, scored: list[int]) -> None:
    """Gemma 2 has its logits capped; GPT-NeoX has other names for its body and its head."""
    from alignboard.training.scored import score_labelled

    whole, own = model_with_head(kind), model_with_head(kind)
    score_labelled(own)
    theirs, ours = (model(**batch(), fused_lm_head=True) for model in (whole, own))
    assert scored == [3 * 6, 3 + 1 + 4]
    for name in FIELDS:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    assert ours.log_probs.count_nonzero() == 8
    weights = torch.arange(18.0).reshape(3, 6)
    one, other = (
        gradients(model, (weights * found.log_probs).sum())
        for model, found in ((whole, theirs), (own, ours))
    )
    assert other.norm() > 0
    assert (one - other).norm() <= 1e-5 * one.norm()


def test_a_batch_without_labels_has_a_gradient_of_zero() -> None:
    from alignboard.training.scored import score_labelled

    model = model_with_head("Llama")
    score_labelled(model)
    empty = {**batch(), "labels": torch.full((3, 7), -100)}
    found = model(**empty, fused_lm_head=True)
    assert found.log_probs.shape == (3, 6)
    assert not gradients(model, found.log_probs.sum()).any()


def test_logits_and_generation_are_the_models_own() -> None:
    from alignboard.training.scored import score_labelled

    whole, own = model_with_head("Llama"), model_with_head("Llama")
    score_labelled(own)
    given = batch()
    theirs, ours = (model(**given) for model in (whole, own))
    assert ours.logits.shape == (3, 7, 97)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.loss, theirs.loss)
    del given["labels"]
    replies = [model.generate(**given, max_new_tokens=3, do_sample=False) for model in (whole, own)]
    assert torch.equal(*replies)
    with pytest.raises(ValueError, match="not_an_argument"):
        own.generate(**given, not_an_argument=1)


@pytest.mark.parametrize("method", ["dpo", "sft", "kto"])
def test_every_trainer_scores_its_replies_alone(
    base: QuickBase, tmp_path: Path, scored: list[int], method: str
) -> None:
    from alignboard.training.arguments import make_trainer, prepared, trl_arguments
    from alignboard.training.checks.probe import first_batch, loss_of
    from alignboard.training.recipe import parse_recipe
    from alignboard.training.start import load_base, trainable
    from alignboard.training.tokens import training_tokenizer

    given = {
        **content("demo/sft" if method == "sft" else "demo/dpo"),
        "start_from": None,
        "method": method,
        "pairs": None,
        "data": {"name": "x.jsonl"},
        "batch": {"global": 4, "per_device": 4},
    }
    recipe = parse_recipe(given, "x")
    rows: list[Any] = sft_rows(8) if method == "sft" else pair_rows(8)
    if method == "kto":
        rows = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in rows
            for side in ("chosen", "rejected")
        ]
    loaded = load_base(recipe, base("llama"))
    tokenizer = training_tokenizer(loaded.tokenizer, None, None, loaded.path)
    model = trainable(loaded, recipe, None)
    arguments = trl_arguments(recipe, model, tmp_path / "work", 0)
    trainer = make_trainer(
        recipe, arguments, model, tokenizer, prepared(rows, recipe, tokenizer), []
    )
    given = first_batch(trainer)
    scored.clear()
    loss_of(trainer, given)
    assert scored
    assert max(scored) < 0.7 * given["input_ids"][:, 1:].numel()
    if "completion_mask" in given:
        assert set(scored) == {int(given["completion_mask"][:, 1:].sum())}
