"""A plan with all that its names stand for: what the graph of jobs is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.errors import InputError, nearest
from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.models import ModelEntry
from alignboard.pipeline.plans.schema import BASE_METHOD, Plan, PlanJudge
from alignboard.pipeline.plans.sets import PlanSet
from alignboard.suites import EvaluationSuite

if TYPE_CHECKING:
    from alignboard.training.recipe import Recipe


@dataclass(frozen=True)
class ChosenJudge:
    """A judge of a plan, and how it is asked."""

    declared: JudgeSpec
    access: PlanJudge


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan with everything that it names, read and checked."""

    plan: Plan
    path: Path
    workspace: Path
    entries: Mapping[str, ModelEntry]
    recipes: Mapping[str, Recipe]
    judges: Mapping[str, ChosenJudge]
    """by the name of their columns"""
    suites: tuple[EvaluationSuite, ...]
    sets: tuple[PlanSet, ...]
    """that are answered and judged"""
    outputs: Mapping[tuple[str, str], Path]
    """by (model, set): responses that are there already"""
    benchmarks: tuple[EvaluationSuite, ...]
    task_files: Mapping[str, Mapping[str, str]]
    """by suite: sha256 of the files that its tasks are made of, where they are declared here with their data"""
    models: tuple[TrainedModel, ...]
    """base by base, the base model first"""
    consent: Consent
    makes_board: bool = True
    """False for the one step of a command"""

    @property
    def n_prompts(self) -> int:
        """How many instructions the first set has; 0 where no suite has any."""
        return len(self.sets[0].asked) if self.sets else 0

    @property
    def pairwise_set(self) -> PlanSet | None:
        """The set of the round robin."""
        pairwise = self.plan.pairwise
        if pairwise is None:
            return None
        wanted = self.sets[0].suite.name if pairwise.set is None else pairwise.set
        return next(
            one for one in self.sets if wanted in {one.suite.name, one.name, one.declared.set}
        )

    @property
    def pairwise_judge(self) -> str | None:
        """The column's name of the judge of the round robin, which a plan may also call as its file does."""
        wanted = None if self.plan.pairwise is None else self.plan.pairwise.judge
        for name, chosen in self.judges.items():
            if wanted in {name, chosen.access.judge}:
                return name
        return None

    @property
    def baseline_method(self) -> str | None:
        """The method, or the model of the plan, that models are compared with; None where no set needs one."""
        own = [model for model in self.models if model.baseline is not None]
        if not own:
            return None
        given = self.plan.baseline
        return given if isinstance(given, str) else BASE_METHOD

    def baseline(self, model: TrainedModel, asked: PlanSet) -> str | None:
        """Whose responses to ``asked`` the model's are compared with."""
        return model.baseline if asked.reference is None else asked.reference.model

    def compared(
        self, models: Sequence[str], judge: str | None, *, by_suite: bool
    ) -> tuple[tuple[str, ...], str | None]:
        """The models to compare (those named, or all) and the judge, None ``by_suite``.

        A baseline, which has no verdicts, is left out. Raises `InputError` for models that are not the plan's, and
        where it has several judges and none is named.
        """
        judged = [one.made for one in self.models if by_suite or self._is_judged(one.made)]
        judged = list(dict.fromkeys(judged))
        for model in models:
            if model not in judged:
                close = nearest(model, judged) or f"; it compares {', '.join(judged)}."
                raise InputError(f"{self.path} has no verdicts on a model {model!r}{close}")
        if judge is None and not by_suite:
            if len(self.judges) != 1:
                known = ", ".join(self.judges) or "none"
                raise InputError(f"{self.path}: name one of its judges with --judge: {known}.")
            (judge,) = self.judges
        return tuple(models or judged), judge

    def _is_judged(self, made: str) -> bool:
        """Whether some set's responses of the model are compared with those of another."""
        runs = [model for model in self.models if model.made == made]
        return any(self.baseline(run, one) not in {None, made} for run in runs for one in self.sets)
