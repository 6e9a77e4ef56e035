"""Tokens and references that trainings share: the same training as without them, and one of another base is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignboard.training.checks.preflight import PreflightError
from test_train import QuickBase, adapter_weights, base, pair_rows, sft_rows, short

__all__ = ["base"]  # the fixture


def shared(recipe: Any, model: Path, adapter: Path | None) -> Any:
    """The pairs as tokens with their reference, as the jobs make them."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from alignboard.training.reference import reference_columns
    from alignboard.training.tokens import tokenized

    rows = tokenized(Dataset.from_list(pair_rows()), AutoTokenizer.from_pretrained(model))
    splits = {"train": rows, "held_out": rows.select(range(4))}
    found = reference_columns(recipe, model, splits, adapter=adapter)
    assert found["held_out"].to_list() == found["train"].select(range(4)).to_list()
    return found["train"]


def test_a_reference_computed_before_is_the_one_on_the_way(base: QuickBase, tmp_path: Path) -> None:
    import torch

    from alignboard.training.trainer import train

    train(short("demo/sft"), base("llama"), sft_rows(), tmp_path / "sft")
    recipe = short("demo/dpo", 6, loss={"beta": 0.5})
    start = tmp_path / "sft"
    rows = shared(recipe, base("llama"), start)
    one = train(recipe, base("llama"), pair_rows(), tmp_path / "one", adapter=start)
    two = train(recipe, base("llama"), rows, tmp_path / "two", adapter=start)
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    assert two.losses[-1] < two.losses[0]
    first, second = adapter_weights(tmp_path / "one"), adapter_weights(tmp_path / "two")
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_every_weight_is_trained_without_a_copy_of_the_base(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignboard.training import arguments
    from alignboard.training.trainer import train

    recipe = short("demo/dpo", 3, lora="none", start_from=None)
    rows = shared(recipe, base("llama"), None)
    one = train(recipe, base("llama"), pair_rows(), tmp_path / "one")
    no_copy = SimpleNamespace(deepcopy=lambda _: pytest.fail("a copy was made"))
    monkeypatch.setattr(arguments, "copy", no_copy)
    two = train(recipe, base("llama"), rows, tmp_path / "two")
    assert two.losses == pytest.approx(one.losses, abs=1e-5)


@pytest.mark.parametrize("other", ["base", "parent"])
def test_a_reference_of_another_model_is_refused(
    base: QuickBase, tmp_path: Path, other: str
) -> None:
    from alignboard.training.trainer import train

    # At this beta a loss of 0.69 hides a reference that is two nats away.
    recipe = short("demo/dpo", loss={"beta": 0.001})
    train(short("demo/sft", 12), base("llama"), sft_rows(), tmp_path / "sft")
    of = base("mistral") if other == "base" else base("llama")
    rows = shared(recipe, of, None)
    start = tmp_path / "sft" if other == "parent" else None
    with pytest.raises(PreflightError, match="made with another base, parent or template"):
        train(recipe, base("llama"), rows, tmp_path / "dpo", adapter=start)
    assert not (tmp_path / "dpo").exists()


def test_the_log_probability_of_a_reply_is_that_of_its_tokens(base: QuickBase) -> None:
    import torch

    from alignboard.models.loading import LoadedModel
    from alignboard.training.checks.probe import reply_logps

    model = LoadedModel.load(base("llama")).model
    prompts, replies = [[1, 5, 9], [1, 7], [1, 3, 4, 8]], [[6, 2], [4, 4, 4, 2], [2]]
    expected = []
    for prompt, reply in zip(prompts, replies, strict=True):
        with torch.no_grad():
            logps = model(torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
        expected.append(sum(float(logps[at, i]) for at, i in zip(places, reply, strict=True)))
    assert reply_logps(model, prompts, replies) == pytest.approx(expected, abs=1e-4)
