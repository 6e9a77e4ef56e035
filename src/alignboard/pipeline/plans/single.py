"""Plans of one step, in place of a plan's file: what the options of `alignboard generate` and `judge` declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.fetch.sources import DownloadProgress
from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.graph import Graph, digest
from alignboard.pipeline.judged_outputs import Answers, PairedOutputs
from alignboard.pipeline.plans.builders.judging import judged_by
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.plan import resolve
from alignboard.pipeline.plans.repeats import Repeats
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.plans.schema import Plan, PlanJudge, PlanModel
from alignboard.pipeline.plans.sets import PlanSet, read_set, set_source
from alignboard.suites import EvaluationSuite, Instructions


def generation_plan(  # noqa: PLR0913 - what the options of the command say
    command: str,
    models: Mapping[str, PlanModel],
    declared: Instructions,
    workspace: Path,
    asked: InstructionSet | None = None,
    *,
    consent: Consent | None = None,
    progress: DownloadProgress | None = None,
    repeats: int = 1,
) -> ResolvedPlan:
    """A plan that generates the responses of ``models``, ``repeats`` times each, and makes no board.

    ``asked`` is a set that the command made; without it ``declared`` names the set. ``command`` is what errors call
    the plan.
    """
    drawn = Repeats(responses=repeats)
    plan = Plan(name="generate", models=dict(models), suites=[], repeats=drawn)
    resolved = resolve(plan, Path(command), workspace, consent)
    source = None
    if asked is None:
        source = set_source(declared, workspace)
        asked = read_set(source, workspace, declared, progress)
    suite = EvaluationSuite(name=asked.name, title=asked.title, instructions=declared)
    sets = (PlanSet(suite, declared, source, asked, None),)
    return replace(resolved, suites=(suite,), sets=sets, makes_board=False)


def tournament_graph(
    declared: JudgeSpec, models: Sequence[str], access: PlanJudge, **settings: Any
) -> Graph:
    """The job of a tournament; ``settings`` are those of `alignboard.pipeline.jobs.tournament.hold`."""
    graph = Graph()
    hints = {"models": list(models), "access": msgspec.to_builtins(access), **settings}
    parameters = {"declared": msgspec.to_builtins(declared)}
    graph.add("tournament", "tournament", "judge", parameters, hints=hints | {"kept": False})
    return graph


def judging_graph(
    declared: JudgeSpec,
    judged: Sequence[PairedOutputs | Answers],
    access: PlanJudge,
    workspace: Path,
    *,
    ask: bool,
    replace: bool,
) -> Graph:
    """A job for each model's outputs; without ``ask`` known replies are read again, and the job is not kept.

    ``replace`` as in `alignboard.pipeline.replacing.require_no_loss`.
    """
    graph = Graph()
    judge, models = judged_by(declared, access.urls, workspace)
    for number, one in enumerate(judged, start=1):
        kind, given = ("judge", "pairs") if isinstance(one, PairedOutputs) else ("rate", "outputs")
        content = msgspec.to_builtins(one, enc_hook=str)
        parameters = {**judge, "judged": digest(content), "place": str(one.place)}
        name = f"{kind} {declared.name} {one.model}"
        graph.add(
            f"{name} ({number})" if name in graph.jobs else name,
            kind,
            "judge",
            parameters,
            hints={
                given: content,
                "access": msgspec.to_builtins(access),
                "judge_models": models,
                "ask": ask,
                "replace": replace,
                "kept": ask,
            },
        )
    return graph
