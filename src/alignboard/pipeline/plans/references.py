"""What a plan refers to: files of tasks, what a suite's benchmarks are made of, recipes with the plan's settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.benchmarks.declared import declared_tasks, require_modules
from alignboard.benchmarks.mirror import Mirror, require_splits
from alignboard.benchmarks.task_data import data_digests
from alignboard.benchmarks.task_files import digests
from alignboard.errors import InputError
from alignboard.pipeline.plans.consent import Consent
from alignboard.pipeline.plans.made import generated_tasks
from alignboard.pipeline.plans.schema import Plan
from alignboard.pipeline.plans.sweeps import RecipeRun
from alignboard.suites import Benchmark, EvaluationSuite, read_yaml
from alignboard.workspace import declaration, find

if TYPE_CHECKING:
    from alignboard.training.recipe import Recipe


UNPINNED: Final = "revision not pinned"
"""in place of the commit of a data set of the hub"""


def task_files(suite: EvaluationSuite, root: Path, consent: Consent) -> dict[str, str]:
    """sha256 of the files that a suite's benchmarks are made of, as far as they are known here."""
    try:
        return suite_files(suite, root, trusted=consent.tasks, generated=generated_tasks())
    except InputError as error:
        raise InputError(f"{in_suite(suite.name, root)}{error}") from error


def in_suite(name: str, root: Path) -> str:
    """How a sentence on a suite begins: its file; nothing where tasks were named without one."""
    return f"evaluate/suites/{name}.yaml: " if find("evaluate/suites", name, root) else ""


def planned_recipe(run: RecipeRun, plan: Plan, root: Path) -> Recipe:
    """A recipe with what the plan, and the run of a sweep, set in place of its fields."""
    from alignboard.training.recipe import parse_recipe

    path = declaration("train", run.recipe, root)
    content = read_yaml(path)
    for changes in (plan.overrides.recipes.get(run.recipe, {}), run.changes):
        content = merged(_without_replaced(content, changes), changes)
    if run.seed is not None:
        content["seed"] = content.get("seed", 0) + run.seed
    return parse_recipe(content, str(path))


_INSTEAD: Final[Mapping[str, frozenset[str]]] = {
    "duration": frozenset({"epochs", "steps"}),
    "optimizer": frozenset({"warmup_ratio", "warmup_steps"}),
    "held_out": frozenset({"data", "share", "rows"}),
}
"""fields of a recipe's sections of which one stands in place of the others"""


def _without_replaced(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` without what ``changes`` say in another way."""
    kept = dict(content)
    if "name" in (changes.get("data") or {}):
        kept.pop("data", None)  # the rest of the section is about the data that it named
    for section, fields in _INSTEAD.items():
        old, new = kept.get(section), changes.get(section)
        if isinstance(old, dict) and isinstance(new, dict) and fields & new.keys():
            kept[section] = {key: value for key, value in old.items() if key not in fields}
    return kept


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with ``changes`` in place, mappings key by key.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = dict(content)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = (
            merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
        )
    return result


def unpinned_data(
    benchmarks: Iterable[Benchmark], revisions: Collection[str], workspace: Path
) -> dict[str, str]:
    """`UNPINNED` for every data set of the hub whose documents may be others tomorrow."""
    names = hub_data(benchmarks, workspace)
    return {f"hub {name}": UNPINNED for name in names if name not in revisions}


def hub_data(benchmarks: Iterable[Benchmark], workspace: Path) -> list[str]:
    """The data sets of the hub that tasks name."""
    own = [one for one in benchmarks if one.data is None and one.task not in generated_tasks()]
    tasks = [task for one in own for task in declared_tasks(one, workspace)]
    return sorted({task.dataset[0] for task in tasks if task.dataset is not None})


def suite_files(
    suite: EvaluationSuite, workspace: Path, *, trusted: bool, generated: Collection[str] = ()
) -> dict[str, str]:
    """sha256 of every file that a suite's benchmarks are made of here, and the commits of data sets of the hub.

    ``generated`` tasks, whose files are written later, are left out. Raises `InputError`, before anything is loaded,
    for a task that nobody declares, for code that is not ``trusted``, for libraries that a task needs and for data,
    or splits of them, that are not there.
    """
    own = [one for one in suite.benchmarks if one.task not in generated]
    found = digests([one.task for one in own], workspace, trusted=trusted)
    found |= data_digests(suite.benchmarks, workspace)
    mirror = None if suite.data_root is None else Mirror(suite.data_root, workspace)
    declared = [(one, declared_tasks(one, workspace)) for one in own]
    require_modules(task for _, tasks in declared for task in tasks)
    for one, tasks in declared:
        if one.data is not None:
            continue
        require_splits(mirror, tasks, one.num_fewshot)
        if mirror is not None:
            found |= mirror.digests(tasks)
            continue
        for task in tasks:
            dataset = None if task.dataset is None else task.dataset[0]
            if dataset in suite.revisions:
                found[f"hub {dataset}"] = suite.revisions[dataset]
    return found
