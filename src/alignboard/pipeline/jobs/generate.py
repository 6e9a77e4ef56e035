"""Jobs that ask models: responses to an instruction set, and lm-eval's tasks. One load of a base serves its models."""

from __future__ import annotations

import gc
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.benchmarks.mirror import Mirror, served
from alignboard.benchmarks.run import generated_files, run_tasks
from alignboard.benchmarks.shards import Shards, SharedModel
from alignboard.benchmarks.task_files import rooms
from alignboard.data.instruction_sets import Instruction, InstructionSet
from alignboard.engines.rows import Decoding
from alignboard.errors import InputError
from alignboard.models.reasoning import split
from alignboard.models.spec import ModelSpec, unrendered
from alignboard.pipeline.answerers import LocalModels, ServedModel
from alignboard.pipeline.answering import OUTPUTS, ReadyModel, answer_set, decoding_of
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.executors.work import IncompleteError
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.benchmarks import LM_EVAL, SCORES, WARNINGS
from alignboard.pipeline.jobs.weights import adapter_path, base_spec
from alignboard.pipeline.plans.made import write_tasks
from alignboard.pipeline.plans.models import served_of
from alignboard.pipeline.plans.references import in_suite, unpinned_data
from alignboard.pipeline.plans.schema import PlanModel
from alignboard.pipeline.plans.sets import read_set, responses, select
from alignboard.pipeline.store import without_roots
from alignboard.records import Generation
from alignboard.results.conversations import CONVERSATIONS, Conversation, write_conversations
from alignboard.results.formats import read_rows, write_rows
from alignboard.suites import Benchmark, Instructions

_TASKS = "tasks"
_DECODING = ("max_new_tokens", "temperature", "top_p", "seed")


def generate(task: JobTask) -> dict[str, str]:
    """A model's responses to a set; only those that the journal does not know are asked for."""
    spec, asked = spec_of(task), set_of(task)
    decoding = decoding_of_job(task.job, spec)
    with _ready(task, spec) as model:
        found = answer_set(model, spec, asked, decoding, task.journal, task.folder, task.progress)
    report = found.to_report(task.folder)
    if not found.is_written:
        first = found.failures[0]
        raise IncompleteError(
            f"{spec.name} gave no response to {len(found.failures)} of {found.n_rows} instructions of {asked.name}; "
            f"the first: {first.reason} ({first.tries} tries). Run it again to ask for those.",
            report,
        )
    task.report |= report
    return exported(task.folder)


@contextmanager
def _ready(task: JobTask, spec: ModelSpec) -> Iterator[ReadyModel]:
    """The model of a job: loaded here, or behind its endpoint."""
    if "entry" in task.job.hints:
        entry = msgspec.convert(task.job.hints["entry"], PlanModel)
        base = task.job.hints.get("base_served_as")
        yield ServedModel(spec, replace(served_of(entry), base=base))
        return
    with models_of(task).open(spec) as model:
        yield model


def decoding_of_job(job: Job, spec: ModelSpec) -> Decoding:
    """How the responses of a job are decoded."""
    given = job.parameters["decoding"]
    return decoding_of(spec, **{name: given[name] for name in _DECODING})


def outputs(task: JobTask) -> dict[str, str]:
    """Released responses to a set, without reasoning, in its order and under the name that they have in the plan."""
    asked = set_of(task)
    if asked.n_turns > 1:
        write_conversations(task.folder / CONVERSATIONS, released_conversations(task.job, asked))
    else:
        write_rows(task.folder / OUTPUTS, released_rows(task.job, asked))
    return {}


def released_conversations(job: Job, asked: InstructionSet) -> list[Conversation]:
    """What `outputs` makes of a set of several turns."""
    found = responses(Path(job.hints["path"]), asked)
    return [msgspec.structs.replace(one, model_id=job.parameters["model"]) for one in found]


def released_rows(job: Job, asked: InstructionSet) -> list[Generation]:
    """What `outputs` makes of a set of one turn."""
    path = Path(job.hints["path"])
    rows = select(path, read_rows(path, Generation), asked)
    return [
        msgspec.structs.replace(
            row,
            output=split(row.output).response,
            generator=job.parameters["model"],
            dataset=own.subset or row.dataset,
        )
        for row, own in zip(rows, asked.rows, strict=True)
    ]


def set_of(task: JobTask) -> InstructionSet:
    """The instructions of a job; raises `InputError` where they have changed since the plan was read."""
    hints, wanted = task.job.hints, task.job.parameters["set"]
    if "rows" in hints:
        rows = msgspec.convert(hints["rows"], tuple[Instruction, ...])
        return InstructionSet(wanted["name"], wanted["name"], rows)
    declared = msgspec.convert(hints["instructions"], Instructions)
    asked = read_set(hints["set"], task.paths.workspace, declared)
    if asked.digest != wanted["digest"]:
        raise InputError(f"The set {wanted['name']} changed while the plan ran; run it again.")
    return asked


def spec_of(task: JobTask) -> ModelSpec:
    """How the model of a job is asked, with the weights that earlier jobs made."""
    spec = stated_spec(task.job)
    if "base" in task.inputs:
        spec = msgspec.structs.replace(spec, **base_spec(task.inputs))
    adapter = adapter_path(task.inputs, checkpoint=task.job.parameters.get("checkpoint"))
    return spec if adapter is None else msgspec.structs.replace(spec, adapter=str(adapter))


def stated_spec(job: Job) -> ModelSpec:
    """How the model of a job is asked, as the plan says; benchmarks in plain text need no chat template."""
    spec = msgspec.convert(job.hints["spec"], ModelSpec)
    is_plain = job.kind == "lm-eval" and not job.parameters["apply_chat_template"]
    return unrendered(spec) if is_plain else spec


def models_of(task: JobTask) -> LocalModels:
    """The models of this process; an entry that runs its own Python was agreed to in the plan."""
    if "models" not in task.held:
        if "trl" in sys.modules:
            gc.collect()  # a trainer that went before holds its base until its cycles are collected
        task.held["models"] = LocalModels(remote_code=True)
    return task.held["models"]


def exported(folder: Path) -> dict[str, str]:
    """What lies below ``results/`` in a job's folder, each to its place in the workspace."""
    files = (path for path in sorted((folder / "results").rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return dict(zip(names, names, strict=True))


def task_data(task: JobTask) -> dict[str, str]:
    """The documents of lm-eval tasks that are generated here, and the tasks' declarations."""
    paths, parameters = task.paths, task.job.parameters
    # Workers are started in the workspace, which may be moved: no absolute path is kept.
    found_at = paths.folder(task.job).relative_to(paths.workspace) / _TASKS
    write_tasks(
        task.folder / _TASKS,
        sorted(parameters["templates"]),
        seed=parameters["seed"],
        n=parameters["n"],
        workspace=paths.workspace,
        found_at=found_at,
    )
    return {}


def _sharing(task: JobTask) -> SharedModel | None:
    """The processes that share an lm-eval job's requests, where there are any; an endpoint has requests in parallel."""
    if not task.helpers or "entry" in task.job.hints:
        return None
    if "shards" not in task.held:
        task.held["shards"] = Shards(task.paths.journal, task.paths.logs, task.helpers)
    chat = task.job.parameters["apply_chat_template"]
    return task.held["shards"].of(spec_of(task), apply_chat_template=chat)


def lm_eval(task: JobTask) -> dict[str, str]:
    """lm-eval's numbers on one model, and its files."""
    parameters = task.job.parameters
    suite, files = parameters["suite"], parameters["files"]
    folders = rooms(task.paths.workspace)
    if "tasks" in task.inputs:
        folders.append(task.inputs["tasks"] / _TASKS)
        files = files | generated_files(folders[-1])
    hints = task.job.hints
    root = hints["data_root"]
    mirror = None if root is None else Mirror(root, task.paths.workspace)
    benchmarks = msgspec.convert(parameters["tasks"], list[Benchmark])
    if mirror is None:
        files = files | unpinned_data(benchmarks, hints["revisions"], task.paths.workspace)
    with (
        _ready(task, spec_of(task)) as model,
        served(mirror, hints["revisions"]),
    ):
        try:
            scores = run_tasks(
                model.subject(),
                benchmarks,
                folders,
                task.folder / LM_EVAL,
                apply_chat_template=parameters["apply_chat_template"],
                task_files=files,
                trusted=hints["trust_tasks"],
                journal=task.journal,
                on_progress=task.progress,
                sharing=_sharing(task),
            )
        except InputError as error:
            raise InputError(f"{in_suite(suite, task.paths.workspace)}{error}") from error
    without_roots((task.folder / LM_EVAL).glob("results_*.json"), task.paths.workspace)
    table: dict[str, dict[str, Any]] = {}
    for score in scores:
        error = None if math.isnan(score.standard_error) else score.standard_error
        table.setdefault(score.task, {})[f"{score.metric},{score.filter}"] = {
            "value": score.value,
            "standard_error": error,
            "chance": score.chance,
        }
    warned = parameters["apply_chat_template"] and parameters.get("served", {}).get("api") != "chat"
    said = _warnings(spec_of(task)) if warned else []
    if said:
        content = {"model": parameters["model"], "warnings": said}
        (task.folder / WARNINGS).write_text(json.dumps(content) + "\n", encoding="utf-8")
    (task.folder / SCORES).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return {
        f"results/{parameters['model']}/{LM_EVAL}/{inner.name}": f"{LM_EVAL}/{inner.name}"
        for inner in _named_after(suite, task.folder / LM_EVAL)
    }


def _warnings(spec: ModelSpec) -> list[str]:
    from alignboard.models.checks.opened import open_small

    if open_small(spec).own_template is not None:
        return []
    return ["benchmarks in a chat template that its checkpoint does not bring, as of a base model"]


def _named_after(suite: str, folder: Path) -> list[Path]:
    """lm-eval's files with the suite in their names where lm-eval has the time: the next run replaces them."""
    (results,) = folder.glob("results_*.json")
    time_of_run = results.stem.removeprefix("results_")
    return [
        path.rename(path.with_name(path.name.replace(time_of_run, suite)))
        for path in sorted(folder.iterdir())
    ]
