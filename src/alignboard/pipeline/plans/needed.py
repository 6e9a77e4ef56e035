"""What the jobs of a plan need of the machine: weights in memory, the network."""

from __future__ import annotations

from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.judges import Access, Judges
from alignboard.pipeline.plans.build import judge_trained_here
from alignboard.pipeline.plans.made import generated_tasks
from alignboard.pipeline.plans.plan import ResolvedPlan


def is_light(resolved: ResolvedPlan) -> bool:
    """Whether nothing larger than a tiny model is loaded here, so that every core can do a job of its own."""
    loads = any(
        entry.spec is not None and entry.served is None for entry in resolved.entries.values()
    )
    judges = [chosen.declared for chosen in resolved.judges.values()]
    return not loads and not any(_loads_weights(judge, resolved) for judge in judges)


def _loads_weights(judge: JudgeSpec, resolved: ResolvedPlan) -> bool:
    members = Judges(Access(), resolved.workspace).members(judge)
    return any(one.needs_weights and judge_trained_here(one) is None for one in members)


def is_local(resolved: ResolvedPlan) -> bool:
    """Whether the workers read nothing from the hub: no tokenizer of a served model, no dataset of a benchmark."""
    served = any(entry.served is not None for entry in resolved.entries.values())
    tasks = {task.task for suite in resolved.benchmarks for task in suite.benchmarks}
    return not served and tasks <= set(generated_tasks())
