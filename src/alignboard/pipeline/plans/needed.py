"""What the jobs of a plan need of the machine: libraries, weights in memory, the network."""

from __future__ import annotations

from collections.abc import Iterable

from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.graph import Job
from alignboard.pipeline.judges import Access, Judges
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.plans.made import generated_tasks, judge_trained_here
from alignboard.pipeline.plans.plan import ResolvedPlan


def required_modules(resolved: ResolvedPlan, jobs: Iterable[Job]) -> list[str]:
    """The libraries outside the base install that ``jobs`` import, by the names that Python knows them by."""
    found: dict[str, None] = {}
    for job in jobs:
        imports = job_kind(job.kind).imported(job.needs)
        chosen = resolved.judges.get(job.parameters.get("judge", ""))
        if chosen is not None and _loads_weights(chosen.declared, resolved):
            imports = (*imports, "torch", "transformers")
        found |= dict.fromkeys(name.partition(".")[0] for name in imports)
    return [name for name in found if name != "alignboard"]


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
