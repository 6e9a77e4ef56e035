"""lm-eval's benchmarks on a model that is already loaded, with the adapter in use.

What this module promises
    The numbers are lm-eval's own: its tasks, its prompts, its metrics, its files. The model is handed over as it is in
    memory, so no base is loaded a second time, and what `lm_eval run` gives by hand on the same checkpoint, adapter and
    tasks is what stands on the board (a test compares them). Results are written in lm-eval's format, read back, and
    put in place only when they are complete, with digests of weights, adapter and task data beside them: lm-eval's own
    provenance has none for local models, and its tracker answers a failed save with a warning.
Differs from `lm_eval run`
    Only the task folders that are named are indexed (all 14,686 names take 15 seconds). `fewshot_as_multiturn` is
    always passed, since its default differs between lm-eval's own functions. What lm-eval finds out about the machine
    it finds out once per process. Embeddings are never resized: lm-eval does so where `peft=` is given and the
    tokenizer is smaller than the vocabulary (Phi-2's is), which makes a base and its adapter not like for like.

Importing this module loads neither torch nor lm-eval.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.data import world
from alignboard.errors import InputError
from alignboard.evaluate.generate import library_versions
from alignboard.models.loading import LoadedModel
from alignboard.results.files import write_atomically
from alignboard.workspace import declaration

DEMO_TASKS: Final = ("demo_choice", "demo_exact")
_STAMP: Final = "alignboard"
"""the key under which our provenance stands in ``results_*.json``"""


@dataclass(frozen=True)
class TaskScore:
    """One number of one task, as ``results_*.json`` has it."""

    task: str
    metric: str
    filter: str
    value: float
    standard_error: float
    """NaN where lm-eval gives none"""
    n_documents: int
    n_shot: int
    higher_is_better: bool


def write_task_data(
    folder: Path, seed: int = 0, n: int = 150, workspace: Path | None = None
) -> tuple[str, ...]:
    """Write the demo's two lm-eval tasks and their documents to ``folder``; returns the tasks' names.

    Questions are of the evaluation split. The same arguments give the same bytes; the task files name their data by an
    absolute path, because lm-eval reads it from wherever it was started.
    """
    tasks = [world.parse(instruction) for instruction in world.prompts("eval", n, seed)]
    questions = world.prompts("eval", n, seed)
    rng = random.Random(f"harness|{seed}")
    choice, exact = [], []
    for task, question in zip(tasks, questions, strict=True):
        answers = [task.answer, *world.distractors(task, 3, rng)]
        rng.shuffle(answers)
        choices = [world.concise(answer) for answer in answers]
        choice.append(
            {"question": question, "choices": choices, "label": answers.index(task.answer)}
        )
        exact.append({"question": question, "answer": task.answer})
    for name, rows in zip(DEMO_TASKS, (choice, exact), strict=True):
        data = folder.resolve() / f"{name}.jsonl"
        write_atomically(data, msgspec.json.Encoder().encode_lines(rows))
        template = declaration("evaluate/tasks", name, workspace).read_text(encoding="utf-8")
        text = template.replace(f"{{test: {data.name}}}", f"{{test: {json.dumps(str(data))}}}")
        write_atomically(folder / f"{name}.yaml", text.encode())
    return DEMO_TASKS


def run_tasks(
    model: LoadedModel,
    tasks: Sequence[str],
    task_folder: Path,
    out: Path,
    *,
    batch_size: int = 32,
    apply_chat_template: bool = True,
    system_instruction: str | None = None,
) -> list[TaskScore]:
    """Ask the adapter in use the tasks declared in ``task_folder``; ``out`` is ``results/<model>/lm_eval``.

    Afterwards ``out`` holds one ``results_*.json`` and one ``samples_*.jsonl`` per task; what an earlier run of ours
    left there is removed. Raises `InputError` for a task that the folder does not declare.
    """
    with _calm():
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False, include_path=str(task_folder))
        unknown = sorted(set(tasks) - set(manager.all_tasks))
        if unknown:
            raise InputError(
                f"{task_folder} declares no task {unknown[0]!r}; it has {manager.all_tasks}."
            )
        make: Any = HFLM  # its registration hides its parameters from type checkers
        lm = make(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=batch_size,
            max_length=model.context,
        )
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        try:
            # A file name makes the tracker write beside it instead of into a folder named after the model's path.
            tracker = EvaluationTracker(output_path=str(partial / "results.json"))
            found: Any = simple_evaluate(
                model=lm,
                model_args=_recorded_arguments(model),
                tasks=list(tasks),
                task_manager=manager,
                batch_size=batch_size,
                evaluation_tracker=tracker,
                apply_chat_template=apply_chat_template,
                fewshot_as_multiturn=apply_chat_template,
                system_instruction=system_instruction,
                log_samples=True,
            )
            results: dict[str, Any] = dict(found)
            samples = results.pop("samples")
            results[_STAMP] = provenance(model, task_folder)
            tracker.save_results_aggregated(results=results, samples=samples)
            for task in results["configs"]:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            return _put_in_place(partial, out, tasks)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def harness_key(model: LoadedModel, tasks: Sequence[str], task_folder: Path) -> str:
    """The name of a run's numbers: all that determines them."""
    content = {"scheme": "harness-1", "tasks": sorted(tasks), **provenance(model, task_folder)}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def provenance(model: LoadedModel, task_folder: Path) -> dict[str, Any]:
    """What lm-eval does not record of a local model: digests of weights, adapter, template and task files.

    Of a task file the place of its data is left out, of the data every byte is in.
    """
    embedding: Any = model.model.get_input_embeddings()
    files = {}
    for path in sorted([*task_folder.glob("*.yaml"), *task_folder.glob("*.jsonl")]):
        content = path.read_bytes().replace(str(task_folder.resolve()).encode(), b"")
        files[path.name] = hashlib.sha256(content).hexdigest()
    return {
        "weights_sha256": model.fingerprint,
        "adapter_sha256": model.adapter_fingerprint,
        "chat_template_sha256": model.template_hash,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "embedding_rows": int(embedding.weight.shape[0]),
        "task_files_sha256": files,
        "libraries": library_versions("lm_eval", "torch", "transformers", "peft"),
    }


def read_scores(path: Path) -> list[TaskScore]:
    """The numbers of a ``results_*.json``, ours or anybody's."""
    try:
        content = json.loads(path.read_bytes())
        results: dict[str, dict[str, Any]] = content["results"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a results file of lm-eval: {error}.") from error
    found = []
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = numbers.get(f"{metric}_stderr,{filter_name}")
            found.append(
                TaskScore(
                    task=task,
                    metric=metric,
                    filter=filter_name,
                    value=float(value),
                    standard_error=float(error) if isinstance(error, int | float) else math.nan,
                    n_documents=int(content.get("n-samples", {}).get(task, {}).get("effective", 0)),
                    n_shot=int(content.get("n-shot", {}).get(task, 0)),
                    higher_is_better=bool(
                        content.get("higher_is_better", {}).get(task, {}).get(metric, True)
                    ),
                )
            )
    return found


def _recorded_arguments(model: LoadedModel) -> dict[str, Any]:
    """What `lm_eval run --model_args` would have been: ignored for a loaded model, but recorded with the results."""
    arguments = {"pretrained": str(model.path), "dtype": model.dtype}
    if model.active is not None:
        arguments["peft"] = str(model.adapters[model.active].path)
    return arguments


def _put_in_place(partial: Path, out: Path, tasks: Sequence[str]) -> list[TaskScore]:
    """Check what the tracker wrote, then move it, the results last; raises where anything is missing."""
    results = list(partial.glob("results_*.json"))
    samples = {task: list(partial.glob(f"samples_{task}_*.jsonl")) for task in tasks}
    if len(results) != 1 or any(len(found) != 1 for found in samples.values()):
        raise RuntimeError(
            f"lm-eval did not save its results: {sorted(p.name for p in partial.iterdir())}"
        )
    scores = read_scores(results[0])
    absent = set(tasks) - {score.task for score in scores}
    if absent:
        raise RuntimeError(f"lm-eval gave no number for {sorted(absent)}")
    for path in out.glob("results_*.json"):
        if _STAMP in json.loads(path.read_bytes()):
            stale = path.stem.removeprefix("results_")
            for old in (*out.glob(f"samples_*_{stale}.jsonl"), path):
                old.unlink()
    for path in (*(found[0] for found in samples.values()), *results):
        path.replace(out / path.name)
    return scores


# Quiet, and quick where lm-eval asks the machine the same question for every model.


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """No progress bars or warnings of lm-eval, no network, and its inventory of the machine taken once."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.ExitStack() as stack:
        from lm_eval import evaluator
        from torch.utils import collect_env

        _replace(stack, collect_env, "get_pretty_env_info", _once)
        _replace(stack, evaluator, "get_git_commit_hash", lambda _: lambda: None)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _replace(
    stack: contextlib.ExitStack, module: Any, name: str, change: Callable[[Any], Any]
) -> None:
    original = getattr(module, name)
    setattr(module, name, change(original))
    stack.callback(setattr, module, name, original)


@functools.lru_cache(maxsize=4)
def _once(function: Callable[[], str]) -> Callable[[], str]:
    """``function``, called at most once per process."""
    return functools.lru_cache(maxsize=1)(function)
