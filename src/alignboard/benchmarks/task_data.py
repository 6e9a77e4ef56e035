"""Documents of lm-eval tasks from a file: a benchmark of a suite that names ``data`` runs without the hub.

The task keeps its prompts, its answers and its metrics; only where its documents lie is replaced.

Importing this module loads neither torch nor lm-eval.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from alignboard.data.preferences.sources import LOADERS
from alignboard.errors import InputError
from alignboard.fetch.packages import is_packaged, packaged_digest, packaged_path
from alignboard.results.files import file_sha256
from alignboard.suites import Benchmark

_DOCUMENTS: Final = "documents"
"""what the one split of the file is called"""
_LOADERS: Final = {**LOADERS, ".arrow": "arrow"}


def data_digests(benchmarks: Iterable[Benchmark], workspace: Path) -> dict[str, str]:
    """sha256 of every file that benchmarks name as ``data``; raises `InputError` for what cannot be used."""
    found = {}
    for one in benchmarks:
        if one.limit is not None and one.limit < 1:
            raise InputError(f"the benchmark {one.task}: limit is {one.limit}; 1 is the least.")
        if one.data is None:
            continue
        if one.num_fewshot:
            raise InputError(
                f"the benchmark {one.task}: num_fewshot is {one.num_fewshot}, and data holds no examples beside the "
                "documents; leave it out."
            )
        found[one.data] = _digest(one.data, workspace)
    return found


def dataset_settings(benchmark: Benchmark) -> dict[str, Any]:
    """The settings of a task that make ``benchmark.data`` its documents, the workspace being the current folder."""
    path = (
        packaged_path(str(benchmark.data))
        if is_packaged(benchmark.data)
        else Path(str(benchmark.data))
    )
    chosen = _DOCUMENTS if benchmark.limit is None else f"{_DOCUMENTS}[:{benchmark.limit}]"
    return {
        "dataset_path": _LOADERS[path.suffix],
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {_DOCUMENTS: glob.escape(str(path))},
            "split": {_DOCUMENTS: chosen},
        },
        "training_split": None,
        "validation_split": None,
        "fewshot_split": None,
        "test_split": _DOCUMENTS,
        "num_fewshot": 0,
    }


def _digest(name: str, workspace: Path) -> str:
    if Path(name).suffix not in _LOADERS:
        raise InputError(
            f"data {name!r} has none of the formats that are read: {', '.join(_LOADERS)}."
        )
    if is_packaged(name):
        return packaged_digest(name, workspace)
    path = workspace / name
    if not path.is_file():
        raise InputError(
            f"data names {name!r}, which is not there; paths are relative to the workspace {workspace}."
        )
    return file_sha256(path)
