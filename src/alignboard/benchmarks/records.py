"""What the benchmarks of a suite are made of, by content: task files, documents, data sets, pinned revisions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from alignboard.benchmarks.declared import declared_tasks, require_modules
from alignboard.benchmarks.mirror import Mirror, require_splits
from alignboard.benchmarks.task_data import data_digests
from alignboard.benchmarks.task_files import digests
from alignboard.suites import EvaluationSuite


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
    for one in own:
        tasks = declared_tasks(one, workspace)
        require_modules(tasks)
        if one.data is not None:
            continue
        if mirror is not None:
            require_splits(mirror, tasks, one.num_fewshot)
            found |= mirror.digests(tasks)
            continue
        for task in tasks:
            dataset = None if task.dataset is None else task.dataset[0]
            if dataset in suite.revisions:
                found[f"hub {dataset}"] = suite.revisions[dataset]
    return found
