"""The readers of `fuzz.py`: how each is called, and valid content that it reads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import fuzz_seeds as seeds
from alignboard.errors import InputError
from fuzz_folders import folder_readers, preference_readers
from fuzz_seeds import ROOT, Reader


def readers() -> dict[str, Reader]:
    """Every reader of files that people bring, by name."""
    from alignboard.benchmarks.scores import read_scores
    from alignboard.data.instruction_sets import SetSpec, load_set
    from alignboard.engines.openai.format import read_reply
    from alignboard.fetch.packages import PackageSource
    from alignboard.judges.backends.chat_format import read_judge_reply
    from alignboard.judges.load import read_judge
    from alignboard.models.gguf.file import read_header
    from alignboard.models.registry import _local
    from alignboard.models.spec import read_spec
    from alignboard.pipeline.plans.schema import Plan, check
    from alignboard.records import Generation, Judgment
    from alignboard.results.conversations import read_conversations
    from alignboard.results.formats import read_annotations, read_outputs
    from alignboard.suites import Suite, convert, read_yaml
    from alignboard.training.recipe import load_recipe

    outputs = [
        {"instruction": f"Q{n}", "input": "", "output": "x", "generator": "m"} for n in range(3)
    ]
    verdicts = [
        {"instruction": f"Q{n}", "output_1": "a", "generator_1": "b", "output_2": "c"}
        | {"generator_2": "m", "preference": 1.5}
        for n in range(3)
    ]
    answers = [
        {"question_id": n, "model_id": "m", "choices": [{"turns": ["x", "y"]}]} for n in range(3)
    ]
    arena = [
        {"uid": "q", "model": "m", "messages": [{"role": "assistant", "content": {"answer": "x"}}]}
    ]
    reply = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3},
    }
    scores = {
        "results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1}},
        "n-samples": {"t": {"effective": 5}},
    }

    adapter = {"base_model_name_or_path": "a/b", "peft_type": "LORA", "r": 8, "lora_alpha": 16.0}
    adapter |= {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "bias": "none"}

    def declared(room: str) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in sorted((ROOT / room).rglob("*.yaml"))[:8])

    def plan(path: Path) -> object:
        found = convert(path, read_yaml(path), Plan, "a plan")
        check(path, found)
        return found

    def reads(kind: type) -> Callable[[Path], object]:
        return read_outputs if kind is Generation else read_annotations

    found: dict[str, Reader] = {}
    for name, rows, kind in (("outputs", outputs, Generation), ("annotations", verdicts, Judgment)):
        for suffix, content in (
            (".json", json.dumps(rows).encode()),
            (".jsonl", seeds.lines(rows)),
            (".csv", seeds.table(rows)),
        ):
            found[f"{name}{suffix}"] = Reader(suffix, (content,), reads(kind))
            if kind is Generation:
                found[f"set{suffix}"] = Reader(suffix, (content,), load_set)
    found |= {
        "conversations": Reader(".jsonl", (seeds.lines(answers), seeds.lines(arena)), read_conversations),
        "lm-eval results": Reader(".json", (json.dumps(scores).encode(),), read_scores),
        "reply": Reader(".json", (json.dumps(reply).encode(),), lambda path: read_reply(path.read_bytes(), "chat")),
        "judge's reply": Reader(".json", (json.dumps(reply).encode(),), lambda p: read_judge_reply(p.read_bytes())),
        "recipe": Reader(".yaml", declared("train"), load_recipe),
        "plan": Reader(".yaml", declared("evaluate/plans"), plan),
        "judge": Reader(".yaml", declared("evaluate/judges"), read_judge),
        "model": Reader(".yaml", seeds.renamed(declared("evaluate/models")), read_spec),
        "set": Reader(".yaml", declared("evaluate/sets"), lambda p: convert(p, read_yaml(p), SetSpec, "a set")),
        "suite": Reader(".yaml", declared("evaluate/suites"), lambda p: convert(p, read_yaml(p), Suite, "a suite")),
        "package": Reader(
            ".yaml", declared("evaluate/packages"), lambda p: convert(p, read_yaml(p), PackageSource, "a package")
        ),
        "gguf": Reader(".gguf", (seeds.gguf(),), read_header),
        "sentencepiece": Reader(".model", (seeds.sentencepiece(),), _read_pieces),
        "adapter": Reader(".json", (json.dumps(adapter).encode(),), lambda p: _local(_adapter(p))),
    }  # fmt: skip
    return (
        found
        | _readers_of_results(outputs, verdicts, reply)
        | _readers_of_comparisons(verdicts)
        | _readers_of_battles()
        | _readers_of_upstream()
        | _readers_of_workspaces()
        | folder_readers()
        | preference_readers()
    )


def _readers_of_results(
    outputs: list[dict[str, Any]], verdicts: list[dict[str, Any]], reply: dict[str, Any]
) -> dict[str, Reader]:
    """Of verdicts, replies, boards and what stands beside instructions."""
    from alignboard.boards.board import read_board
    from alignboard.data.instruction_sets import read_references
    from alignboard.engines.openai.format import read_reply
    from alignboard.judges.backends.chat_format import read_judge_reply
    from alignboard.judges.parsing.raw_completions import reply_of_raw
    from alignboard.pipeline.judged_outputs import read_fields
    from alignboard.reports.judges.rows import read_judgments

    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.4}]
    tokens = {"content": [{"token": "m", "logprob": -0.1, "top_logprobs": top}]}
    choice = reply["choices"][0] | {"text": "m", "logprobs": tokens}
    counted = json.dumps(reply | {"choices": [choice]}).encode()
    beside = {"instruction": "Q", "reference": "R", "rubric": "S"}

    def raw(path: Path) -> object:
        try:
            return reply_of_raw(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:  # as it says
            raise InputError(str(error)) from error

    return {
        "judgments": Reader(".json", (json.dumps(verdicts).encode(),), lambda p: read_judgments([p])),
        "references": Reader(".json", (json.dumps(outputs).encode(),), read_references),
        "fields": Reader(".jsonl", (json.dumps(beside).encode(),), read_fields),
        "board": Reader(".json", (seeds.board(),), read_board),
        "completion": Reader(".json", (counted,), lambda p: read_reply(p.read_bytes(), "completions")),
        "log-probabilities": Reader(".json", (counted,), lambda p: read_judge_reply(p.read_bytes())),
        "raw completion": Reader(".json", (json.dumps(choice).encode(),), raw),
    }  # fmt: skip


def _readers_of_comparisons(verdicts: list[dict[str, Any]]) -> dict[str, Reader]:
    """Of labels by people, lm-eval's samples, recipes of other tools, presets, and boards of other formats."""
    from alignboard.boards.examples import read_examples
    from alignboard.boards.exports.every_eval_ever import read_folder
    from alignboard.boards.presets import Preset
    from alignboard.reports.judges.humans import read_human
    from alignboard.reports.samples import read_samples
    from alignboard.suites import convert, read_yaml
    from alignboard.training.imports.read import import_recipe

    labels = [row | {"annotator_index": n} for n, row in enumerate(verdicts)]
    sample = {"doc_id": 0, "doc": {"q": "a"}, "doc_hash": "1", "prompt_hash": "2", "filter": "none"}
    sample |= {"metrics": ["acc"], "acc": 1.0}
    samples = b"\n".join(json.dumps(sample | {"doc_id": n}).encode() for n in range(3))
    configurations = tuple(
        yaml.safe_dump(one).encode()
        for one in (
            {
                "model_name_or_path": "a/b",
                "dataset_name": "c/d",
                "learning_rate": 5e-7,
                "use_peft": True,
            },
            {"base_model": "a/b", "rl": "dpo", "adapter": "lora", "learning_rate": 1e-4}
            | {"datasets": [{"path": "c/d", "type": "chatml.intel"}], "lora_r": 8},
            {"model_name_or_path": "a/b", "stage": "dpo", "finetuning_type": "lora", "dataset": "c"}
            | {"lora_target": "all", "learning_rate": 1e-4, "pref_beta": 0.1},
        )
    )
    presets = tuple(path.read_bytes() for path in sorted((ROOT / "leaderboards").glob("*.yaml")))

    def record(path: Path) -> object:
        folder = path.parent / "adapter" / "records"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "one.json").write_bytes(path.read_bytes())
        return read_folder(folder)

    def compressed(path: Path) -> object:
        target = path.parent / "adapter" / "examples.json.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(gzip.compress(path.read_bytes(), 1))
        return read_examples(target)

    return {
        "labels": Reader(".json", (json.dumps(labels).encode(),), read_human),
        "samples": Reader(".jsonl", (samples,), read_samples),
        "imported recipe": Reader(".yaml", configurations, lambda p: import_recipe(p, "dpo")),
        "preset": Reader(".yaml", presets, lambda p: convert(p, read_yaml(p), Preset, "a preset")),
        "record": Reader(".json", (seeds.record(),), record),
        "examples": Reader(".json", (seeds.examples(),), compressed),
    }  # fmt: skip


def _readers_of_battles() -> dict[str, Reader]:
    """Of comparisons in four formats, ratings of single responses, and boards of judges and of people as csv."""
    from alignboard.published.bridge.own_board import read_own_board
    from alignboard.published.bridge.people import read_ratings as read_people
    from alignboard.results.battles import read_battles
    from alignboard.results.ratings import read_ratings

    rows = [
        {"model_a": a, "model_b": b, "winner": winner, "prompt_id": n, "judge": "j", "weight": 1.5}
        | {"position": "model_a", "length_a": 3 + n, "length_b": 7}
        for n, (a, b, winner) in enumerate(
            [
                ("m", "n", "model_a"),
                ("n", "o", "tie"),
                ("o", "m", "model_b"),
                ("m", "n", "both_bad"),
            ]
        )
    ]
    verdict = {"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "model_1"}
    verdict |= {"g2_winner": "tie", "judge": ["j", "pair-v2"], "turn": 1}
    rated = [
        {"instruction": f"Q{n}", "generator": "m", "annotator": "j", "rating": 7.0, "turn": 1}
        for n in range(3)
    ]
    board = b"name,win_rate,standard_error,avg_length\na,50.0,1.5,300\nb,20.5,1.2,900\n"
    people = b"Model,Arena Elo,LC\na,1100,50\nb,1000.5,\n"
    found = {
        f"battles{suffix}": Reader(suffix, contents, lambda path: read_battles([path]))
        for suffix, contents in (
            (".json", (json.dumps(rows).encode(),)),
            (".jsonl", (seeds.lines(rows), seeds.lines([verdict]))),
            (".csv", (seeds.table(rows),)),
            (".parquet", (seeds.parquet(rows),)),
        )
    }
    return found | {
        "ratings": Reader(".json", (json.dumps(rated).encode(),), read_ratings),
        "own board": Reader(".csv", (board,), lambda path: read_own_board(path, 805)),
        "people": Reader(".csv", (people,), lambda path: read_people(path, None)),
    }


def _readers_of_upstream() -> dict[str, Reader]:
    """Of AlpacaEval's evaluators and its length control, and of Inspect's logs."""
    from alignboard.boards.exports.inspect_logs import read_logs
    from alignboard.judges.alpaca_eval.configs import read_evaluator
    from alignboard.published.calibration import read_calibration

    gamed = (
        b"index,model,instruction_difficulty,preference,std_delta_len,not_gamed_baseline\n"
        b"0,a,0.5,0.3,1.0,False\n1,a,0.2,0.9,-0.5,False\n0,b,0.5,0.1,0.1,False\n"
    )
    evaluator = {
        "prompt_template": "e/prompt.txt",
        "fn_completions": "openai_completions",
        "completions_kwargs": {"model_name": "m", "max_tokens": 9, "temperature": 0},
        "fn_completion_parser": "regex_parser",
        "completion_parser_kwargs": {"outputs_to_match": {1: "(?:^|\\n) ?m", 2: "(?:^|\\n) ?M"}},
        "batch_size": 1,
    }
    metrics = {
        "accuracy": {"name": "accuracy", "value": 0.5},
        "stderr": {"name": "stderr", "value": 0.1},
    }
    log = {
        "status": "success",
        "eval": {"eval_id": "x", "created": "2026-01-01T00:00:00", "task": "t", "model": "m"},
        "results": {"scores": [{"name": "s", "metrics": metrics}]},
    }

    def beside(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
        def in_folder(path: Path) -> object:
            folder = path.parent / "adapter" / "e"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "prompt.txt").write_text("{instruction} {output_1} {output_2}")
            (folder / name).write_bytes(path.read_bytes())
            return read(folder)

        return in_folder

    return {
        "calibration": Reader(".csv", (gamed,), beside("df_gamed.csv", read_calibration)),
        "evaluator": Reader(
            ".yaml", (yaml.safe_dump({"e": evaluator}).encode(),),
            beside("configs.yaml", lambda folder: read_evaluator("e", folder.parent)),
        ),
        "inspect": Reader(".json", (json.dumps(log).encode(),), beside("log.json", read_logs)),
    }  # fmt: skip


def _readers_of_workspaces() -> dict[str, Reader]:
    """Of files with a place: tasks, prices, questions; and of a listing of a repository."""
    from alignboard.benchmarks.task_files import digests
    from alignboard.data.instruction_sets import load_set
    from alignboard.engines.openai.prices import load_prices
    from alignboard.fetch.sources import _parse_listing

    question = {"question_id": 1, "category": "w", "turns": ["a", "b"], "reference": ["r", "s"]}
    entry = {"path": "a/b.json", "type": "blob", "mode": "100644", "sha": "0" * 40, "size": 3}
    listing = json.dumps({"tree": [entry, entry | {"path": "c"}], "truncated": False}).encode()
    task = {"task": "case", "dataset_path": "json", "metric_list": [{"metric": "acc"}]}
    task |= {"doc_to_text": "{{ q }}", "output_type": "multiple_choice", "dataset_kwargs": {}}
    both = b"\n".join(json.dumps(question | {"turns": [one]}).encode() for one in "ab")
    prices = yaml.safe_load((ROOT / "evaluate" / "prices.yaml").read_bytes())
    prices["models"] = dict(list(prices["models"].items())[:6])

    def in_room(path: Path, room: str, read: Callable[[Path], object]) -> object:
        target = path.parent / "adapter" / "evaluate" / room / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        return read(path.parent / "adapter")

    def price(path: Path) -> object:
        target = path.parent / "adapter" / "evaluate" / "prices.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        return load_prices(path.parent / "adapter")

    return {
        "questions": Reader(".jsonl", (both,), lambda p: load_set(str(p))),
        "listing": Reader(".json", (listing,), lambda p: _parse_listing("http://x", p.read_bytes())),
        "prices": Reader(".yaml", (yaml.safe_dump(prices).encode(),), price),
        "task": Reader(
            ".yaml", (yaml.safe_dump(task).encode(),),
            lambda p: in_room(p, "tasks", lambda root: digests(["case"], root)),
        ),
    }  # fmt: skip


def _read_pieces(path: Path) -> None:
    """As a folder is read that has no other file of a tokenizer."""
    from alignboard.models.sentencepiece import backend_of, require_read_alike

    folder = path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(path.read_bytes())
    backend = backend_of(folder)
    if backend is not None:
        require_read_alike(backend, folder)


def _adapter(path: Path) -> Path:
    """The folder of an adapter whose configuration is ``path``."""
    folder = path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_bytes(path.read_bytes())
    return folder
