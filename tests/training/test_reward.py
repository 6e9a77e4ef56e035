"""Reward models: trained by TRL's reward trainer, used as judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignboard.errors import InputError
from alignboard.pipeline.plans.plan import load_plan
from test_train import QuickBase, base, content, pair_rows, short

__all__ = ["base"]  # the fixture

REWARD = {"method": "reward", "loss": {}, "start_from": None, "pairs": None}
DATA = {"data": {"name": "pairs.jsonl"}}


@pytest.mark.parametrize("more", [{"lora": "none"}, {"checkpoints": 3}])
def test_a_reward_model_is_an_adapter_with_a_head(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="an adapter with a head"):
        short("demo/dpo", **REWARD, **DATA, **more)


def test_a_plan_does_not_ask_a_reward_model(tmp_path: Path) -> None:
    import yaml

    for name, made in {
        "train/demo/reward.yaml": content() | REWARD | DATA,
        "evaluate/plans/mine.yaml": {
            "name": "mine",
            "title": "Mine",
            "models": {"tiny-phi": {"pretrain": "phi"}},
            "recipes": ["demo/reward"],
            "suites": ["demo"],
        },
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match="trains a reward model, which answers no suite"):
        load_plan("mine", tmp_path)


@pytest.mark.slow
def test_a_trained_reward_model_is_a_judge(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.judges.backends.reward import open_reward
    from alignboard.judges.rows import Question
    from alignboard.judges.spec import RewardSpec
    from alignboard.models.spec import ModelSpec
    from alignboard.training.trainer import train

    rows = pair_rows(64)
    recipe = short("demo/dpo", 40, **REWARD, **DATA)
    made = train(recipe, base("llama"), rows, tmp_path / "adapter")
    assert made.first_loss == pytest.approx(0.6931, abs=0.1)
    assert made.last_loss < 0.2
    entry = ModelSpec(name="mine", base=str(base("llama")), adapter=str(tmp_path / "adapter"))
    judge = open_reward(RewardSpec(name="mine", title="Mine", model="mine"), entry, device="cpu")

    def score(row: dict[str, list[dict[str, str]]], side: str) -> float:
        question = Question(row["prompt"][0]["content"], row[side][0]["content"], None)
        return float(judge._found.logits(judge.ids(question))[0])

    right = [score(row, "chosen") > score(row, "rejected") for row in rows]
    assert sum(right) >= 60
