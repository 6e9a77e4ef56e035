"""What a plan has to compare: its models, and the judge of its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignboard.errors import InputError, nearest
from alignboard.pipeline.plans.plan import ResolvedPlan, load_plan


def compared(
    name: str, models: Sequence[str], judge: str | None, suite: str | None, workspace: Path
) -> tuple[Path, tuple[str, ...], str | None]:
    """The results of the plan ``name``, its models (or those named) and, without ``suite``, its judge.

    A baseline, which has no verdicts, is left out. Raises `InputError` for models that are not the plan's, and where
    it has several judges and none is named.
    """
    plan = load_plan(name, workspace)
    judged = list(
        dict.fromkeys(model.made for model in plan.models if suite or _is_judged(plan, model.made))
    )
    for model in models:
        if model not in judged:
            close = nearest(model, judged) or f"; it compares {', '.join(judged)}."
            raise InputError(f"{plan.path} has no verdicts on a model {model!r}{close}")
    if judge is None and suite is None:
        if len(plan.judges) != 1:
            known = ", ".join(plan.judges) or "none"
            raise InputError(f"{plan.path}: name one of its judges with --judge: {known}.")
        (judge,) = plan.judges
    return workspace / "results", tuple(models or judged), judge


def _is_judged(plan: ResolvedPlan, made: str) -> bool:
    """Whether some set's responses of the model are compared with those of another."""
    runs = [model for model in plan.models if model.made == made]
    return any(plan.baseline(model, one) not in {None, made} for model in runs for one in plan.sets)
