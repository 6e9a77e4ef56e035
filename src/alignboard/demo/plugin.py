"""What the demo adds to the house, by the registrations that any package may make (`alignboard.registry`)."""

from __future__ import annotations

from typing import Final

from alignboard.pipeline.kinds import JobKind
from alignboard.pipeline.plans.made import JudgeModel
from alignboard.registry import register

_DEMO: Final = "alignboard.demo"
_TORCH: Final = ("torch", "transformers")

KINDS: Final[dict[str, JobKind]] = {
    "judge-model": JobKind(1, f"{_DEMO}.jobs:judge_model", _TORCH, _TORCH, 30.0),
}
for _name, _kind in KINDS.items():
    register("job", _name, _kind)
for _name in ("phi", "mistral", "gemma", "llama"):
    register("tiny checkpoint", _name, f"{_DEMO}.jobs:build_checkpoint")
for _name in ("demo_choice", "demo_exact"):
    register("generated task", _name, f"{_DEMO}.tasks:write_task_data")
register("generated set", "demo-world", f"{_DEMO}.jobs:WORLD")
register("generated set", "short-answers", f"{_DEMO}.short_answers:SHORT_ANSWERS")
register("judge", "simulated", f"{_DEMO}.simulated:SimulatedSpec")
register("judge model", "demo-judge", JudgeModel("judge-model", "phi"))
