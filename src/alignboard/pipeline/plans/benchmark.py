"""Benchmarks on models: what is asked, and the plan of one step that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from alignboard.errors import InputError
from alignboard.models.registry import load_model
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.plan import resolve
from alignboard.pipeline.plans.references import task_files
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.plans.schema import Plan, PlanModel
from alignboard.suites import Benchmark, EvaluationSuite, load_evaluation
from alignboard.workspace import CARD

_ADAPTER = "adapter_config.json"
_CHECKPOINT = "checkpoint-"
_LONGEST = 60
"""characters of the name of tasks that are no suite"""


@dataclass(frozen=True)
class BenchmarkRequest:
    """The models that are asked, and what."""

    models: Sequence[str]
    """names of `alignboard models list`, folders, adapters, ids on the hub, ``package:NAME``"""
    tasks: Sequence[str] = ()
    """of lm-eval or of ``evaluate/tasks``; every metric that they report is shown"""
    suite: str | None = None
    """in place of ``tasks``: a suite of ``evaluate/suites``"""
    names: Sequence[str] = ()
    """of the models, in their order; none: their own"""
    limit: int | None = None
    """only so many documents of each task, the first ones"""
    data_root: str | None = None
    """a mirror of the hub's data sets, in place of the suite's"""
    chat_template: bool | None = None
    """whether models are asked in their chat templates; None: as the suite says, and not for single tasks"""
    checkpoints: Path | None = None
    """a training's output folder, whose checkpoints are asked, too"""
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    """where all of them are served: fields of `PlanModel` such as ``engine`` and ``served_as``; none: here"""


def benchmark_plan(
    asked: BenchmarkRequest, workspace: Path, consent: Consent | None = None
) -> ResolvedPlan:
    """A plan that asks ``asked.models`` the benchmarks and shows them on a board.

    Raises `InputError` for a model, a task or data that are not there.
    """
    consent = consent or Consent()
    suite = _suite(asked, workspace)
    models = _models(asked, workspace)
    if not models:
        raise InputError("There is no model to ask; name one, or a folder with --checkpoints DIR.")
    plan = Plan(
        name=f"benchmark-{suite.name}",
        title=suite.title,
        models=models,
        suites=[],
        judges=[],
    )
    resolved = resolve(plan, Path("benchmark"), workspace, consent)
    return replace(
        resolved,
        suites=(suite,),
        benchmarks=(suite,),
        task_files={suite.name: task_files(suite, workspace, consent)},
    )


def checkpoints_of(folder: Path) -> dict[int, Path]:
    """The checkpoints of a training by step, in the order of their steps; raises `InputError` where there is none."""
    found = {
        int(step): path
        for path in folder.glob(f"{_CHECKPOINT}*")
        if path.is_dir()
        and (step := path.name.removeprefix(_CHECKPOINT)).isdigit()
        and any((path / name).is_file() for name in (_ADAPTER, "config.json"))
    }
    if not found:
        raise InputError(
            f"--checkpoints {folder}: there is no {_CHECKPOINT}<step> with an adapter or a model in it."
        )
    return dict(sorted(found.items()))


def _suite(asked: BenchmarkRequest, workspace: Path) -> EvaluationSuite:
    if (asked.suite is None) == (not asked.tasks):
        raise InputError("Name the tasks by --tasks T,T, or a suite by --suite NAME.")
    if asked.suite is None:
        name = "-".join(asked.tasks)
        if len(name) > _LONGEST:
            name = f"{name[:_LONGEST]}-and-more"
        suite = EvaluationSuite(
            name=name,
            title=", ".join(asked.tasks),
            benchmarks=[Benchmark(task) for task in asked.tasks],
            apply_chat_template=False,
        )
    else:
        suite = load_evaluation(asked.suite, workspace)
        if not suite.benchmarks:
            raise InputError(
                f"The suite {asked.suite!r} has no benchmarks; a plan asks its instructions."
            )
    changes = {}
    if asked.limit is not None:
        changes["name"] = f"{suite.name}-first-{asked.limit}"
        changes["title"] = f"{suite.title}, the first {asked.limit} documents of each task"
        changes["benchmarks"] = [
            msgspec.structs.replace(one, limit=min(asked.limit, one.limit or asked.limit))
            for one in suite.benchmarks
        ]
    if asked.data_root is not None:
        changes["data_root"] = asked.data_root
    if asked.chat_template is not None:
        changes["apply_chat_template"] = asked.chat_template
    return msgspec.structs.replace(suite, instructions=None, **changes)


def _models(asked: BenchmarkRequest, workspace: Path) -> dict[str, PlanModel]:
    if asked.names and len(asked.names) != len(asked.models):
        raise InputError(
            f"--name has {len(asked.names)} of the {len(asked.models)} models' names; give one per MODEL, separated "
            "by commas."
        )
    found: dict[str, PlanModel] = {}
    for number, source in enumerate(asked.models):
        there = (workspace / source).exists()
        spec = load_model(str(workspace / source) if there else source, workspace)
        name = asked.names[number] if asked.names else spec.name
        _add(found, name, PlanModel(source=source, **asked.endpoint))
    if asked.checkpoints is not None:
        run = (workspace / asked.checkpoints).resolve()
        for step, path in checkpoints_of(run).items():
            entry = PlanModel(source=str(path), method=f"step {step}")
            _add(found, f"{_run_name(run)}@{step}", entry)
    return found


def _add(found: dict[str, PlanModel], name: str, entry: PlanModel) -> None:
    if name in found:
        raise InputError(
            f"Two models are called {name!r}, and would write to one folder of results: {found[name].source} and "
            f"{entry.source}; name them apart by --name A,B."
        )
    found[name] = entry


def _run_name(folder: Path) -> str:
    """What a training is called: its folder; of an adapter beside a card, the model's."""
    beside = folder.name == "adapter" and (folder / CARD).is_file()
    return folder.parent.name if beside else folder.name
