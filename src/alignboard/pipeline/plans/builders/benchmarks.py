"""Jobs that run lm-eval's tasks, and those that write the documents of generated tasks."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from alignboard.benchmarks.declared import declared_tasks
from alignboard.benchmarks.task_files import generated_contents
from alignboard.errors import InputError
from alignboard.models.sources import asked_as, pinned
from alignboard.pipeline.plans.baselines import TrainedModel
from alignboard.pipeline.plans.builders.base import Builder
from alignboard.pipeline.plans.builders.models import spec_of
from alignboard.pipeline.plans.made import generated_tasks
from alignboard.pipeline.plans.models import ModelEntry
from alignboard.suites import EvaluationSuite


def benchmark(
    build: Builder,
    model: TrainedModel,
    entry: ModelEntry,
    suite: EvaluationSuite,
    needs: Mapping[str, str | None],
    board: dict[str, str],
) -> None:
    """A suite's lm-eval tasks on one model."""
    spec = spec_of(build, model, entry)
    parameters = {
        "model": model.name,
        "asked_as": asked_as(spec),
        "suite": suite.name,
        "tasks": [task.parameters() for task in suite.benchmarks],
        "apply_chat_template": suite.apply_chat_template,
        "files": build.resolved.task_files[suite.name],
    }
    name = f"lm-eval {suite.name} {model.name}"
    needs = {**needs, "tasks": _task_data(build, suite)}
    hints = {
        "spec": msgspec.to_builtins(pinned(spec)),
        "trust_tasks": build.resolved.consent.tasks,
        "data_root": suite.data_root,
        "revisions": suite.revisions,
    }
    if entry.served is not None:
        lacks = _what_chat_lacks(build, entry, suite)
        if lacks is not None and not build.resolved.sets:  # nothing else is asked of the model
            raise InputError(lacks)
        if lacks is not None:
            build.graph.remarks.append(f"{lacks} It is left out of {suite.name}.")
            return
        parameters["served"] = entry.served.identity(spec)
        hints["entry"] = msgspec.to_builtins(entry.declared)
        hints["base_served_as"] = _base_of(build, entry)
    lacking = f"{suite.name}: {suite.lacks}"
    if suite.lacks is not None and lacking not in build.graph.remarks:
        build.graph.remarks.append(lacking)
    board[name] = build.add(name, "lm-eval", entry.group, parameters, needs, hints)


def _what_chat_lacks(build: Builder, entry: ModelEntry, suite: EvaluationSuite) -> str | None:
    """What of a suite a chat endpoint cannot give, log-likelihoods or prompts of plain text, and what to do."""
    if entry.declared.api != "chat":
        return None
    where = f"{build.resolved.path}: models.{entry.name}: api: chat"
    if not suite.apply_chat_template:
        return (
            f"{where} takes turns, and {suite.name} is run in plain text; say api: completions, or run it in the chat "
            "template."
        )
    for one in suite.benchmarks:
        for task in declared_tasks(one, build.resolved.workspace):
            kind = task.config.get("output_type", "generate_until")
            if kind != "generate_until":
                return (
                    f"{where} gives no log-likelihoods, which the task {task.name!r} ({kind}) of {suite.name} needs; "
                    "say api: completions, or leave the task out."
                )
    return None


def _base_of(build: Builder, entry: ModelEntry) -> str | None:
    """What the endpoint calls the base of an entry's adapter: as the plan's entry of it, or as its id."""
    if entry.spec is None or entry.spec.adapter is None:
        return None
    for other in build.resolved.entries.values():
        own, served = other.spec, other.served
        if own is None or served is None or other.group != entry.group:
            continue
        if own.adapter is None and own.base == entry.spec.base:
            return served.called(own)
    return entry.spec.base


def _task_data(build: Builder, suite: EvaluationSuite) -> str | None:
    """The job that writes the documents of a suite's tasks; None where they are all declared with their data."""
    generated = generated_tasks()
    tasks = dict.fromkeys(one.task for one in suite.benchmarks if one.task in generated)
    if not tasks:
        return None
    root, trusted = build.resolved.workspace, build.resolved.consent.tasks
    templates = {name: generated_contents(name, root, trusted=trusted) for name in tasks}
    name = f"tasks of {suite.name}"
    return build.add(
        name, "task-data", name, {"seed": 0, "n": suite.n_documents, "templates": templates}
    )
