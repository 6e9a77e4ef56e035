"""Jobs that ask models: answers to instructions, and lm-eval's tasks. One base load serves all models of a base."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from alignboard.benchmarks.run import generated_files, run_tasks, write_task_data
from alignboard.benchmarks.task_files import rooms
from alignboard.data import world
from alignboard.engines.generate import Answer, Decoding, prompts
from alignboard.engines.generate import generate as answer
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.pipeline.executors.worker import Task
from alignboard.pipeline.jobs.board import OUTPUTS, SCORES
from alignboard.pipeline.jobs.train import adapter_path, model_path
from alignboard.results.formats import write_rows
from alignboard.results.journal import Row
from alignboard.suites import Benchmark
from alignboard.workspace import model_name

GENERATION = "generation"
_TASKS = "tasks"
_LM_EVAL = "lm_eval"
_COMMIT_ROWS = 64
_COMMIT_SECONDS = 0.5


def generate(task: Task) -> dict[str, str]:
    """A model's answers; only those that the journal does not know are asked for."""
    parameters = task.job.parameters
    asked = parameters["instructions"]
    instructions = world.prompts(asked["split"], asked["n"], asked["seed"])
    decoding = Decoding(max_new_tokens=asked["max_new_tokens"])
    model, adapter = loaded(task)
    with model.using(adapter):
        keys = {
            prompt.instruction: bytes.fromhex(prompt.key)
            for prompt in prompts(model, instructions, decoding)
        }
        known = task.journal.get(list(keys.values()))
        missing = [instruction for instruction in instructions if keys[instruction] not in known]
        commit = Commits(task, len(known), len(instructions))
        if missing:
            answer(model, missing, decoding, on_done=lambda one: commit.add(_row(one)))
        commit.flush()
    known = task.journal.get(list(keys.values()))
    found = [msgspec.convert(known[keys[instruction]], Answer) for instruction in instructions]
    name = parameters["model"]
    write_rows(task.folder / OUTPUTS, [one.row(name, parameters["dataset"]) for one in found])
    return {f"results/{name}/{model_name(parameters['dataset'])}/{OUTPUTS}": OUTPUTS}


def task_data(task: Task) -> dict[str, str]:
    """The documents of lm-eval tasks that are generated here, and the tasks' declarations."""
    places, parameters = task.places, task.job.parameters
    # Workers are started in the workspace, which may be moved: no absolute path is kept.
    found_at = places.folder(task.job).relative_to(places.workspace) / _TASKS
    write_task_data(
        task.folder / _TASKS, parameters["seed"], parameters["n"], places.workspace, found_at
    )
    return {}


def lm_eval(task: Task) -> dict[str, str]:
    """lm-eval's numbers on one model, and its files."""
    parameters = task.job.parameters
    suite, files = parameters["suite"], parameters["files"]
    folders = rooms(task.places.workspace)
    if "tasks" in task.inputs:
        _require_no_pattern(task.places.workspace)
        folders.append(task.inputs["tasks"] / _TASKS)
        files = files | generated_files(folders[-1])
    model, adapter = loaded(task)
    with model.using(adapter):
        try:
            scores = run_tasks(
                model,
                msgspec.convert(parameters["tasks"], list[Benchmark]),
                folders,
                task.folder / _LM_EVAL,
                apply_chat_template=parameters["apply_chat_template"],
                task_files=files,
                on_progress=task.progress,
            )
        except InputError as error:
            raise InputError(f"evaluate/suites/{suite}.yaml: {error}") from error
    table: dict[str, dict[str, Any]] = {}
    for score in scores:
        error = None if math.isnan(score.standard_error) else score.standard_error
        table.setdefault(score.task, {})[f"{score.metric},{score.filter}"] = {
            "value": score.value,
            "standard_error": error,
        }
    (task.folder / SCORES).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return {
        f"results/{parameters['model']}/{_LM_EVAL}/{inner.name}": f"{_LM_EVAL}/{inner.name}"
        for inner in _named_after(suite, task.folder / _LM_EVAL)
    }


def _require_no_pattern(workspace: Path) -> None:
    """Datasets are looked for by patterns, and a folder's name cannot be escaped in one."""
    if any(mark in str(workspace) for mark in "*?["):
        raise InputError(
            f"lm-eval cannot read data in {workspace}, whose path holds one of * ? [; move the workspace."
        )


def _named_after(suite: str, folder: Path) -> list[Path]:
    """lm-eval's files with the suite in their names where lm-eval has the time: the next run replaces them."""
    (results,) = folder.glob("results_*.json")
    time_of_run = results.stem.removeprefix("results_")
    return [
        path.rename(path.with_name(path.name.replace(time_of_run, suite)))
        for path in sorted(folder.iterdir())
    ]


def _row(one: Answer) -> Row:
    return Row(bytes.fromhex(one.key), GENERATION, msgspec.to_builtins(one))


class Commits:
    """Commits rows as they come, some at a time: a flush to the disk for each would cost more than computing it."""

    def __init__(self, task: Task, n_known: int, n_total: int) -> None:
        self._add: Callable[[list[Row]], Any] = task.journal.add
        self._progress = task.progress
        self._waiting: list[Row] = []
        self._n_known, self._n_total = n_known, n_total
        self._last = time.monotonic()

    def add(self, row: Row) -> None:
        """Take a row."""
        self._waiting.append(row)
        if len(self._waiting) >= _COMMIT_ROWS or time.monotonic() - self._last > _COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what is waiting."""
        if self._waiting:
            self._add(self._waiting)
        self._n_known += len(self._waiting)
        self._waiting = []
        self._last = time.monotonic()
        self._progress(self._n_known, self._n_total)


def loaded(task: Task) -> tuple[LoadedModel, str | None]:
    """The base model of a job, loaded once per process, and the name of the job's adapter on it."""
    if "base" not in task.held:
        gc.collect()  # a trainer that went before holds its base until its cycles are collected
        template = task.job.parameters["chat_template"]
        task.held["base"] = LoadedModel.load(model_path(task.inputs), chat_template=template)
    model: LoadedModel = task.held["base"]
    path = adapter_path(task.inputs)
    if path is None:
        return model, None
    name = task.job.needs["adapter"].replace(" ", "-").replace(".", "_")
    return model, model.add_adapter(name, path).name
