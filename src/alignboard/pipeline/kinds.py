"""The kinds of jobs: for each its version, its function, its libraries and its usual cost.

A job's key holds its kind's `version`, a number that a person raises when the kind's results change; the golden test
of every kind (`test_job_goldens`) fails when numbers move and the version did not. Sources and versions of
libraries are no part of a key: a comment, a moved file or an upgrade redoes nothing. A package adds a kind by one
registration: ``register("job", "name", JobKind(...))``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alignboard.registry import lookup, register


@dataclass(frozen=True)
class JobKind:
    """What all jobs of a kind share."""

    version: int
    """raised when the results of the same parameters and inputs change"""
    run: str
    """``"module:function"``: does a job (`alignboard.pipeline.executors.doing.Implementation`)"""
    libraries: tuple[str, ...] = ()
    """distributions that may change numbers; their versions are recorded with every result, and shown"""
    imports: tuple[str, ...] = ()
    """modules that are slow to load, imported before a job's time is measured"""
    seconds: float = 1.0
    """of one core for tiny models, on a machine that nothing was measured on yet"""
    imports_with: str | None = None
    """the role of the job that only those need which load `imports`: a served model has no ``base`` here"""
    imports_for_adapter: tuple[str, ...] = ()
    """modules that only a job whose model has an adapter imports besides `imports`"""

    def imported(self, roles: Collection[str], hints: Mapping[str, Any]) -> tuple[str, ...]:
        """What a job that needs ``roles`` imports."""
        if self.imports_with not in {None, *roles}:
            return ()
        adapted = "adapter" in roles or hints.get("spec", {}).get("adapter") is not None
        return (*self.imports, *(self.imports_for_adapter if adapted else ()))


_JOBS: Final = "alignboard.pipeline.jobs"
_TORCH: Final = ("torch", "transformers")
_ADAPTED: Final = (*_TORCH, "peft")
_PEFT: Final = ("peft",)
_HARNESS: Final = ("lm_eval.evaluator", "lm_eval.models.huggingface")

KINDS: Final[dict[str, JobKind]] = {
    "checkpoint": JobKind(1, f"{_JOBS}.train:checkpoint", _TORCH, _TORCH, 25.0),
    "data": JobKind(1, f"{_JOBS}.training_data:data", ("datasets",), ("datasets",), 1.0),
    "pairs": JobKind(3, f"{_JOBS}.training_data:pairs", _ADAPTED, _ADAPTED, 4.0),
    "tokens": JobKind(
        1,
        f"{_JOBS}.training_data:tokens",
        ("datasets", "transformers", "trl"),
        ("datasets", "transformers"),
        1.0,
    ),
    "reference": JobKind(
        1,
        f"{_JOBS}.training_data:reference",
        (*_ADAPTED, "accelerate", "trl"),
        (*_ADAPTED, "accelerate", "trl", "alignboard.training.trainer"),
        2.0,
    ),
    "train": JobKind(
        2,
        f"{_JOBS}.train:train",
        (*_ADAPTED, "accelerate", "trl"),
        (*_ADAPTED, "accelerate", "trl", "alignboard.training.trainer"),
        8.0,
    ),
    "outputs": JobKind(3, f"{_JOBS}.generate:outputs", seconds=0.1),
    "generate": JobKind(4, f"{_JOBS}.generate:generate", _ADAPTED, _TORCH, 2.0, "base", _PEFT),
    "task-data": JobKind(1, f"{_JOBS}.generate:task_data", seconds=0.5),
    "lm-eval": JobKind(
        2,
        f"{_JOBS}.generate:lm_eval",
        (*_ADAPTED, "lm-eval"),
        (*_TORCH, *_HARNESS),
        4.0,
        imports_for_adapter=_PEFT,
    ),
    "judge": JobKind(5, f"{_JOBS}.judge:judge", _TORCH, seconds=2.0),
    "rate": JobKind(4, f"{_JOBS}.judge:rate", _TORCH, seconds=2.0),
    "tournament": JobKind(4, f"{_JOBS}.tournament:tournament", _TORCH, seconds=5.0),
    "pairwise": JobKind(7, f"{_JOBS}.judge:pairwise", (*_TORCH, "numpy"), seconds=5.0),
    "drift": JobKind(1, f"{_JOBS}.curves:drift", _ADAPTED, _ADAPTED, 2.0),
    "curves": JobKind(2, f"{_JOBS}.curves:curves", ("numpy", "matplotlib", "jinja2"), seconds=1.0),
    "contamination": JobKind(
        1, f"{_JOBS}.contamination:contamination", ("numpy", "datasets"), ("datasets",), 1.0
    ),
    "board": JobKind(11, f"{_JOBS}.board:board", ("numpy", "matplotlib", "jinja2"), seconds=1.0),
}
for _name, _kind in KINDS.items():
    register("job", _name, _kind)


def job_kind(name: str) -> JobKind:
    """The kind of jobs called ``name``; raises `RegistryError` with the nearest known ones."""
    found = lookup("job", name)
    if not isinstance(found, JobKind):
        raise TypeError(f"the job kind {name!r} is registered as {found!r}, which is no JobKind")
    return found
