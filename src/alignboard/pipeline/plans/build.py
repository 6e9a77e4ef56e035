"""From a plan to its graph of jobs.

A base model's jobs are one group: checkpoint, SFT, preference pairs, the preference methods, responses, lm-eval. A
judge that is loaded or paid for is a group of its own, so that its model is loaded once and its limits hold for all
that it judges; the judge that is trained here is another; so are the comparisons between all models, up to the board.
"""

from __future__ import annotations

from dataclasses import replace

from alignboard.pipeline.graph import Graph
from alignboard.pipeline.plans.builders.base import Builder
from alignboard.pipeline.plans.builders.board import board
from alignboard.pipeline.plans.builders.contamination import contamination
from alignboard.pipeline.plans.builders.curves import add_curves, drifts
from alignboard.pipeline.plans.builders.judging import judge, pairwise
from alignboard.pipeline.plans.builders.models import judge_models, train
from alignboard.pipeline.plans.builders.responses import released, respond
from alignboard.pipeline.plans.resolved import ResolvedPlan


def build_graph(resolved: ResolvedPlan) -> Graph:
    """The jobs of a plan, in an order in which they can be done."""
    build = Builder(resolved)
    trained_judges = judge_models(build)
    models = resolved.models
    trained: dict[str, str] = {}  # model -> job
    responses: dict[tuple[str, str], str] = {}  # (model, set) -> job
    needs: dict[str, str] = {}  # of the board
    for asked in resolved.sets:
        if asked.reference is not None:
            responses[asked.reference.model, asked.name] = released(
                build, asked.reference.model, asked, asked.reference.path
            )
    for base in resolved.plan.models:
        own = [model for model in models if model.base == base]
        for model in own:
            if model.recipe is not None and model.made not in trained:
                trained[model.made] = train(build, replace(model, name=model.made), trained)
        for model in own:
            responses |= respond(build, model, trained, needs)
    for model in models:
        for asked in resolved.sets:
            judge(build, model, asked, responses, trained_judges, needs)
    contamination(build, trained, needs)
    needs |= drifts(build, trained, responses)
    if needs and resolved.makes_board:
        pairwise(build, responses, trained_judges, needs)
        board(build, needs)
        add_curves(build, trained, responses, trained_judges, needs)
    return build.graph
