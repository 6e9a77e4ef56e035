"""alignboard: evaluation and benchmarking of preference-tuned language models.

The public functions and classes, each imported when its name is first used; ``import alignboard`` loads neither torch
nor pandas. docs/api.md shows them in use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignboard.boards.board import Board, read_board
    from alignboard.boards.examples import Examples, read_examples
    from alignboard.boards.of_alpaca_eval import published_board, recomputed_board
    from alignboard.boards.of_results import results_board
    from alignboard.boards.plots import (
        plot_families,
        plot_lengths,
        plot_ranking,
        plot_ratings,
        plot_scores,
        plot_win_rates,
    )
    from alignboard.boards.presets import apply_preset, load_preset
    from alignboard.data.instruction_sets import InstructionSet, load_set
    from alignboard.engines.generate import generate
    from alignboard.engines.rows import Decoding
    from alignboard.errors import AlignboardError, InputError
    from alignboard.judges.backends.opened import open_judge
    from alignboard.judges.calls import Judge
    from alignboard.judges.load import load_judge
    from alignboard.judges.opening import Opening
    from alignboard.judges.pairs import Pair
    from alignboard.judges.runner import judge_pairs as judge
    from alignboard.judges.runner import rate_outputs
    from alignboard.models.asked import load_spec
    from alignboard.models.loading import LoadedModel
    from alignboard.models.registry import load_model
    from alignboard.pipeline.plans.benchmark import BenchmarkRequest
    from alignboard.pipeline.plans.plan import load_plan
    from alignboard.pipeline.runner import RunResult
    from alignboard.pipeline.runner import benchmark_models as benchmark
    from alignboard.pipeline.runner import run_plan as run
    from alignboard.pipeline.training import TrainingRequest
    from alignboard.pipeline.training import train_recipe as train
    from alignboard.published.calibration import read_calibration
    from alignboard.published.reproduce import reproduce
    from alignboard.records import Generation
    from alignboard.registry import register
    from alignboard.reports.compare import compare
    from alignboard.reports.rank import rank
    from alignboard.results.folder import ResultsFolder
    from alignboard.results.formats import read_annotations
    from alignboard.stats.rating.battles import Battles
    from alignboard.stats.rating.bradley_terry import bradley_terry
    from alignboard.stats.win_rate import WinRate, win_rate
    from alignboard.suites import load_suite

__version__ = "0.1.0"

# Public names by module.
_PUBLIC = {
    "boards.board": ("Board", "read_board"),
    "boards.examples": ("Examples", "read_examples"),
    "boards.of_alpaca_eval": ("published_board", "recomputed_board"),
    "boards.of_results": ("results_board",),
    "boards.plots": (
        "plot_families",
        "plot_lengths",
        "plot_ranking",
        "plot_ratings",
        "plot_scores",
        "plot_win_rates",
    ),
    "boards.presets": ("apply_preset", "load_preset"),
    "data.instruction_sets": ("InstructionSet", "load_set"),
    "engines.generate": ("generate",),
    "engines.rows": ("Decoding",),
    "errors": ("AlignboardError", "InputError"),
    "judges.backends.opened": ("open_judge",),
    "judges.calls": ("Judge",),
    "judges.load": ("load_judge",),
    "judges.opening": ("Opening",),
    "judges.pairs": ("Pair",),
    "judges.runner": ("judge", "rate_outputs"),
    "models.asked": ("load_spec",),
    "models.loading": ("LoadedModel",),
    "models.registry": ("load_model",),
    "pipeline.plans.benchmark": ("BenchmarkRequest",),
    "pipeline.plans.plan": ("load_plan",),
    "pipeline.runner": ("RunResult", "benchmark", "run"),
    "pipeline.training": ("TrainingRequest", "train"),
    "published.calibration": ("read_calibration",),
    "published.reproduce": ("reproduce",),
    "records": ("Generation",),
    "registry": ("register",),
    "reports.compare": ("compare",),
    "reports.rank": ("rank",),
    "results.folder": ("ResultsFolder",),
    "results.formats": ("read_annotations",),
    "stats.rating.battles": ("Battles",),
    "stats.rating.bradley_terry": ("bradley_terry",),
    "stats.win_rate": ("WinRate", "win_rate"),
    "suites": ("load_suite",),
}
# What a function of one word is called in its own module, where that word is also an argument or a job.
_FUNCTIONS = {
    "benchmark": "benchmark_models",
    "judge": "judge_pairs",
    "run": "run_plan",
    "train": "train_recipe",
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "AlignboardError", "Battles", "BenchmarkRequest", "Board", "Decoding", "Examples", "Generation", "InputError",
    "InstructionSet", "Judge", "LoadedModel", "Opening", "Pair", "ResultsFolder", "RunResult", "TrainingRequest",
    "WinRate", "__version__", "apply_preset", "benchmark", "bradley_terry", "compare", "generate", "judge",
    "load_judge", "load_model", "load_plan", "load_preset", "load_set", "load_spec", "load_suite", "open_judge",
    "plot_families", "plot_lengths", "plot_ranking", "plot_ratings", "plot_scores", "plot_win_rates",
    "published_board", "rank", "rate_outputs", "read_annotations", "read_board", "read_calibration",
    "read_examples", "recomputed_board", "register", "reproduce", "results_board", "run", "train", "win_rate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'alignboard' has no attribute {name!r}")
    return getattr(import_module(f"alignboard.{_MODULES[name]}"), _FUNCTIONS.get(name, name))


def __dir__() -> list[str]:
    return __all__
