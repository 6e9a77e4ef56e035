"""Tasks and groups as lm-eval loads them, each with its suite's number of examples.

Only the folders that the tasks need are indexed. The number of examples is set on every task before lm-eval sees it,
as its group `openllm` does it: `simple_evaluate` itself takes one number for all, and ignores it for some.

Importing this module loads neither torch nor lm-eval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignboard.benchmarks.task_data import dataset_settings
from alignboard.benchmarks.task_files import ROOM, lm_eval_folder, unknown_task
from alignboard.errors import InputError
from alignboard.suites import Benchmark

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager


def load_tasks(
    benchmarks: Sequence[Benchmark], folders: Sequence[Path]
) -> tuple[TaskManager, list[Task | Group]]:
    """The tasks that ``benchmarks`` name, with their documents, and who loaded them.

    A name that several ``folders`` declare is the last one's; one that none declares is lm-eval's. Raises `InputError`
    for a task that nobody declares, whose documents cannot be had, or that does not report the benchmark's metric.
    """
    manager = _task_manager([benchmark.task for benchmark in benchmarks], folders)
    found: dict[tuple[Any, ...], Task | Group] = {}
    for one in benchmarks:
        key = (one.task, one.num_fewshot, one.data, one.split, one.limit)
        if key not in found and any(known[0] == one.task for known in found):
            raise InputError(
                f"the task {one.task!r} stands in the suite twice with other examples or documents; make two suites."
            )
        if key not in found:
            found[key] = _loaded(manager, one)
    by_task = {key[0]: item for key, item in found.items()}
    for one in benchmarks:
        _require_metric(one, by_task[one.task])
    return manager, [by_task[one.task] for one in benchmarks]


def leaves(item: Task | Group) -> list[Any]:
    """A task itself, or all tasks of a group."""
    from lm_eval.api.group import Group

    return item.get_all_tasks() if isinstance(item, Group) else [item]


def _task_manager(names: Sequence[str], folders: Sequence[Path]) -> TaskManager:
    """An index of what ``names`` reach: of ``folders``, and of those of lm-eval's folders that are needed."""
    from lm_eval.tasks import TaskManager

    needed: set[Path] = set()
    while True:
        paths: list[str | Path] = [*sorted(needed), *folders]
        manager = TaskManager(include_defaults=False, include_path=paths)
        index: Mapping[str, Any] = manager.task_index
        _require_own_names(names, index, folders)
        missing = [name for name in dict.fromkeys(_reached(names, index)) if name not in index]
        found = {name: lm_eval_folder(name) for name in missing}
        for name, folder in found.items():
            if folder is None or folder in needed:
                raise unknown_task(name)
        needed.update(folder for folder in found.values() if folder is not None)
        if not missing:
            return manager


def _require_own_names(
    names: Sequence[str], index: Mapping[str, Any], folders: Sequence[Path]
) -> None:
    """A file here declares the task that it is called after: what others declare was not looked at beforehand."""
    for name in dict.fromkeys(_reached(names, index)):
        path = None if name not in index else index[name].yaml_path
        own = path is not None and any(path.is_relative_to(folder) for folder in folders)
        if own and path not in {folder / f"{name}.yaml" for folder in folders}:
            raise InputError(f"{path} declares {name!r}, which is to stand in {ROOM}/{name}.yaml.")


def _reached(names: Sequence[Any], index: Mapping[str, Any]) -> Iterator[str]:
    """``names`` and the members of groups; not those that a group writes out itself."""
    for item in names:
        name = item if isinstance(item, str) else item.get("group") or item["task"]
        if name in index:
            yield name
            members = (index[name].cfg or {}).get("task")
        else:
            members = None if isinstance(item, str) else item.get("task")
            if isinstance(item, str) or not ("dataset_path" in item or isinstance(members, list)):
                yield name
        yield from _reached(members if isinstance(members, list) else [], index)


def _loaded(manager: TaskManager, benchmark: Benchmark) -> Task | Group:
    from jinja2.exceptions import SecurityError, TemplateError

    name = benchmark.task
    try:
        found = manager.load(_changed(benchmark))
    except SecurityError:  # is told by the sandbox
        raise
    except (ImportError, LookupError, OSError, TypeError, ValueError, TemplateError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, KeyError):
            reason = f"its data have no {reason}"
        elif isinstance(error, TemplateError):
            reason = f"a template of it cannot be filled in: {reason}"
        raise InputError(f"the task {name!r} cannot be loaded: {reason}") from error
    item = found.get("groups", {}).get(name) or found["tasks"].get(name)
    if item is None:
        raise InputError(
            f"{name!r} is a tag of lm-eval, which reports no number of its own; name one of its tasks: "
            f"{', '.join(found['tasks'])}."
        )
    for task in leaves(item):
        _require_target(task)
        if benchmark.num_fewshot is not None:
            task.set_config(key="num_fewshot", value=benchmark.num_fewshot)
    return item


def _require_target(task: Any) -> None:
    """Raise `InputError` where the first right choice is none of the choices, which lm-eval counts as wrong."""
    documents = getattr(task, "task_docs", None)  # a class of a task's own may have none
    if task.OUTPUT_TYPE != "multiple_choice" or task.config.process_results or not documents:
        return
    first = documents[0]
    choices = task.doc_to_choice(first)
    target = (task.doc_to_text if task.multiple_input else task.doc_to_target)(first)
    for one in target if isinstance(target, list) else [target]:
        is_outside = isinstance(one, int) and one >= len(choices)
        if is_outside or (isinstance(one, str) and one not in choices):
            raise InputError(
                f"the task {task.config.task!r}: the target of its first document, {one!r}, is none of its "
                f"{len(choices)} choices; see doc_to_target and doc_to_choice in its file."
            )


def _require_metric(benchmark: Benchmark, item: Task | Group) -> None:
    reported = reported_metrics(item)
    if benchmark.metric is not None and benchmark.metric not in reported:
        raise InputError(
            f"the task {benchmark.task!r} reports no metric {benchmark.metric!r}; it has: "
            f"{'; '.join(reported) or 'none'}."
        )


def _changed(benchmark: Benchmark) -> str | dict[str, Any]:
    """The task; on other documents, as lm-eval takes it, a member of a group, whose settings replace its own."""
    if benchmark.data is not None:
        settings = dataset_settings(benchmark)
    elif benchmark.split is not None:
        settings = {"test_split": benchmark.split}
    else:
        return benchmark.task
    member = {"task": benchmark.task, **settings}
    return {"group": f"{benchmark.task} on {benchmark.data or benchmark.split}", "task": [member]}


def chosen_documents(
    benchmarks: Sequence[Benchmark], tasks: Sequence[Task | Group]
) -> dict[str, Any]:
    """Which documents are asked, as lm-eval's evaluator takes it: one ``limit`` for all, or ``samples`` by task.

    For ``samples`` lm-eval decodes every document of a task twice, whichever are asked.
    """
    limits = {one.limit for one in benchmarks}
    if len(limits) == 1:
        return {"limit": limits.pop()}
    samples = {
        leaf.config.task: list(range(min(one.limit, len(leaf.eval_docs))))
        for one, item in zip(benchmarks, tasks, strict=True)
        if one.limit is not None
        for leaf in leaves(item)
    }
    return {"samples": samples}


def chance(
    tasks: Sequence[Task | Group], samples: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, float]:
    """By multiple-choice task of lm-eval's own scoring: the accuracy of guessing on the documents asked."""
    return {
        name: sum(1 / len(row["arguments"]) for row in samples[name]) / len(samples[name])
        for item in tasks
        for leaf in leaves(item)
        if leaf.OUTPUT_TYPE == "multiple_choice"
        and leaf.config.process_results is None
        and samples.get(name := leaf.config.task)
    }


def reported_metrics(item: Task | Group) -> list[str]:
    """The metrics of a task or group, as ``results_*.json`` names them: ``acc,none``."""
    from lm_eval.api.group import Group

    if not isinstance(item, Group):
        filters = [one.name for one in getattr(item, "_filters", [])]
        return [f"{metric},{one}" for metric in item.aggregation() or {} for one in filters]
    members = [metric for task in leaves(item) for metric in reported_metrics(task)]
    return [
        metric
        for metric in dict.fromkeys(members)
        for aggregated in item.aggregate_metric_list or []
        if metric.rpartition(",")[0] == aggregated.metric
        and metric.rpartition(",")[2] in (aggregated.filter_list or [metric.rpartition(",")[2]])
    ]
