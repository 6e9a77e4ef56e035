"""Jobs that run lm-eval's tasks, and those that write the documents of generated tasks."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from alignboard.benchmarks.task_files import generated_contents
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
    board[name] = build.add(name, "lm-eval", entry.group, parameters, needs, hints)


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
