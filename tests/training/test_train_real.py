"""Three steps of the experiment with SmolLM2-135M-Instruct (the plan `short-answers`)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from alignboard.demo.short_answers import SHORT_ANSWERS
from alignboard.training.recipe import parse_recipe

LIBRARY = Path(__file__).parents[2] / "train"


@pytest.mark.slow
def test_three_steps_of_dpo_on_a_real_model(tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    content = yaml.safe_load((LIBRARY / "smollm2" / "short-dpo.yaml").read_text())
    recipe = parse_recipe(content | {"duration": {"steps": 3}}, "short-dpo")
    long = "I am not sure, but it could well be something else, which I would have to look up."
    rows = [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": [{"role": "assistant", "content": long}],
        }
        for row in SHORT_ANSWERS.demonstrations(24, 0)
    ]
    made = train(recipe, str(recipe.model), rows, tmp_path / "adapter")
    assert made.steps == 3
    assert made.losses[0] == pytest.approx(math.log(2), rel=1e-3)
    assert made.losses[2] < 0.9 * made.losses[0]
