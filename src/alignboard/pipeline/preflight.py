"""Checks before the first job or request: what settings and small files tell of models, judges and folders.

Nothing is loaded and nobody is asked. Of several models and judges all are checked before the first is asked; of a plan
only what is still to be done is.

Also what the jobs of a plan need of the machine: libraries, weights in memory, the network.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from alignboard.data.instruction_sets import InstructionSet
from alignboard.errors import InputError
from alignboard.judges.calls import Prompter, first_questions, views
from alignboard.judges.opening import Access
from alignboard.judges.pairs import Pair
from alignboard.judges.spec import JudgeSpec
from alignboard.models.asked import require_agreed
from alignboard.models.checks.report import check_model
from alignboard.models.checks.rules import context_of
from alignboard.models.hub import locate_adapter
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.answerers import Served, ServedModel, rendered, too_long
from alignboard.pipeline.answering import outputs_path
from alignboard.pipeline.evaluation import require_second_turns
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.generate import decoding_of_job, stated_spec
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.plans.made import generated_tasks, judge_trained_here
from alignboard.pipeline.plans.plan import access_of
from alignboard.pipeline.plans.resolved import ChosenJudge, ResolvedPlan
from alignboard.pipeline.plans.sets import PlanSet
from alignboard.pipeline.replacing import n_rows, require_no_loss
from alignboard.pipeline.store import WorkspacePaths, is_kept
from alignboard.results.files import require_writable
from alignboard.results.outputs_paths import set_place


def require_model(
    spec: ModelSpec,
    sets: Sequence[InstructionSet],
    served: Served | None = None,
    *,
    remote_code: bool = False,
) -> None:
    """Raise `InputError` where ``spec`` could not be loaded, or a first turn of ``sets`` could not be asked."""
    if served is not None:
        opened, context = ServedModel(spec, served).opened, spec.context
    else:
        require_agreed(spec, remote_code=remote_code)
        opened = check_model(spec).require_loadable()
        known = (spec.context, context_of(opened.checkpoint.config))
        context = min((one for one in known if one is not None), default=None)
    if opened is None:  # the server renders
        return
    for asked in sets:
        for number, row in enumerate(asked.rows, start=1):
            n_tokens = len(rendered(opened, row.turns[0]))
            if context is not None and n_tokens >= context and spec.too_long != "skip":
                raise InputError(too_long(spec, number, n_tokens, context))


def require_plan(resolved: ResolvedPlan, jobs: Iterable[Job]) -> None:
    """Raise `InputError` for the first thing that ``jobs``, which are to be done, would meet."""
    todo, paths = list(jobs), WorkspacePaths(resolved.workspace)
    require_writable(paths.results)
    if resolved.makes_board:
        require_writable(paths.leaderboards)
    for job in todo:
        if "start" in job.hints:  # an adapter that is not there is noticed before rows are fetched
            locate_adapter(job.hints["start"])
    with contextlib.chdir(resolved.workspace):  # declarations name files relative to it
        for name, own in _judges(todo).items():
            sets = [one for one in resolved.sets if one.name in own]
            _require_judge(resolved.judges[name], sets, paths)
        for spec, served, asked in _models(resolved, todo):
            try:
                if served is not None:
                    served.require_key()
                require_model(spec, asked, served, remote_code=True)  # agreed to in the plan
            except InputError as error:
                raise InputError(f"{resolved.path}: models.{spec.name}: {error}") from error
        if not resolved.consent.replace:
            _require_places(resolved, todo, paths)


def _require_places(resolved: ResolvedPlan, jobs: Iterable[Job], paths: WorkspacePaths) -> None:
    """Raise `InputError` where responses would take the place of more that no job's folder holds."""
    sets = {one.name: one.asked for one in resolved.sets}
    for job in jobs:
        if job.kind == "generate":
            asked = sets[job.parameters["set"]["name"]]
            model, spec = job.parameters["model"], msgspec.convert(job.hints["spec"], ModelSpec)
            path = outputs_path(paths.workspace, model, asked, decoding_of_job(job, spec))
            inner = set_place(model, asked.name) / path.name
            if not is_kept(path, inner.as_posix(), paths):
                require_no_loss(path, len(asked.rows), n_rows)


def _judges(jobs: Iterable[Job]) -> dict[str, set[str]]:
    """The sets that each judge judges, by its name."""
    found: dict[str, set[str]] = {}
    for job in jobs:
        if "judge" in job.parameters:
            found.setdefault(job.parameters["judge"], set()).add(job.parameters["set"])
    return found


def _models(
    resolved: ResolvedPlan, jobs: Iterable[Job]
) -> list[tuple[ModelSpec, Served | None, list[InstructionSet]]]:
    """The models of ``jobs`` that are there already, each with the sets that it is still asked.

    Tiny checkpoints are made here; an adapter that a job trains is left out, its base is checked.
    """
    sets = {one.name: one.asked for one in resolved.sets}
    served = {entry.group: entry.served for entry in resolved.entries.values()}
    found: dict[bytes, tuple[ModelSpec, Served | None, list[InstructionSet]]] = {}
    for job in jobs:
        if job.kind not in {"generate", "lm-eval"}:
            continue
        spec = stated_spec(job)
        if not spec.base:
            continue
        key = msgspec.json.encode(msgspec.structs.replace(spec, name=""))
        _, _, own = found.setdefault(key, (spec, served[job.group], []))
        asked = sets[job.parameters["set"]["name"]] if job.kind == "generate" else None
        if asked is not None and asked not in own:
            own.append(asked)
    return list(found.values())


def _require_judge(chosen: ChosenJudge, sets: Sequence[PlanSet], paths: WorkspacePaths) -> None:
    """Whether a judge of a plan can be asked today, and its prompt can be filled for ``sets``."""
    declared = chosen.declared
    judges = Judges(access_of(chosen.access, paths.journal), paths.workspace)
    judges.require_supported(declared, dt.datetime.now(dt.UTC).date())
    for spec in judges.members(declared):
        if judge_trained_here(spec) is None:  # whose model is trained here
            judges.require_ready(spec)
        for one in sets:
            _require_shown(spec, one.asked)


def _require_shown(spec: JudgeSpec, asked: InstructionSet) -> None:
    """Whether a judge's prompt has a place for every turn, and asks for nothing that a plan does not have."""
    if asked.n_turns > 1:
        require_second_turns(spec)
        return
    pair = Pair(asked.rows[0].turns[0], "first", "one", "second", "other")
    views(Prompter(spec, {}), first_questions(spec, [pair]))


def required_modules(resolved: ResolvedPlan, jobs: Iterable[Job]) -> list[str]:
    """The libraries outside the base install that ``jobs`` import, by the names that Python knows them by."""
    found: dict[str, None] = {}
    for job in jobs:
        imports = job_kind(job.kind).imported(job.needs, job.hints)
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
