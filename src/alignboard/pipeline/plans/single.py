"""Plans of one step, in place of a plan's file: what the options of `alignboard generate` declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from alignboard.data.instruction_sets import InstructionSet
from alignboard.fetch.sources import DownloadProgress
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.plan import ResolvedPlan, resolve
from alignboard.pipeline.plans.schema import Plan, PlanModel
from alignboard.pipeline.plans.sets import PlanSet, read_set, set_source
from alignboard.suites import EvaluationSuite, Instructions


def generation_plan(
    command: str,
    models: Mapping[str, PlanModel],
    declared: Instructions,
    workspace: Path,
    asked: InstructionSet | None = None,
    *,
    consent: Consent | None = None,
    progress: DownloadProgress | None = None,
) -> ResolvedPlan:
    """A plan that generates the responses of ``models`` and makes no board.

    ``asked`` is a set that the command made; without it ``declared`` names the set. ``command`` is what errors call
    the plan.
    """
    plan = Plan(name="generate", models=dict(models), suites=[])
    resolved = resolve(plan, Path(command), workspace, consent)
    source = None
    if asked is None:
        source = set_source(declared, workspace)
        asked = read_set(source, workspace, declared, progress)
    suite = EvaluationSuite(name=asked.name, title=asked.title, instructions=declared)
    sets = (PlanSet(suite, declared, source, asked, None),)
    return replace(resolved, suites=(suite,), sets=sets, makes_board=False)
