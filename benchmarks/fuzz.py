"""Readers under mutated inputs: no exception but the project's own, no hang, nothing written outside the folder.

Run:  python benchmarks/fuzz.py [--mutations 20000] [--seed 0] [--only NAME] [--json FILE]

Every reader gets files made from a few valid ones: bytes flipped, parts cut out, doubled or exchanged with those of
another file, and values of JSON and YAML replaced by odd ones (lists where texts belong, NaN, 10^30, deep nesting, half
a surrogate pair, control characters). The n-th mutation of a seed is always the same, so a finding is repeated by its
number: `--seed 0 --only set.json --from 412 --mutations 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from alignboard.engines.openai.format import UnreadableError
from alignboard.errors import AlignboardError, InputError

ROOT = Path(__file__).parents[1]
LONGEST = 2.0
"""seconds that reading one small file may take"""
ODD: tuple[Any, ...] = (
    *(None, True, [], {}, [[]], [1, 2], {"a": 1}, "", " ", 0, -1, 1e308, 10**30, -(10**18), 0.5),
    *(
        "\ud83d",
        "\u0000",
        "\x1b[31mred",
        "../../x",
        "a" * 10_000,
        "NaN",
        float("nan"),
        float("inf"),
    ),
    *("{{ 7 * 7 }}", "{% for x in range(10**9) %}{% endfor %}", "!!python/object:os.system x"),
)
TEXTS = (
    b"!!timestamp x",
    b"!!bool x",
    b"!!int x",
    b"9" * 5000,
    b"[" * 200,
    b"&a [*a]",
    b"\xff\xfe",
    b"\x00",
    b"\t",
)


_EVENTS = frozenset(
    [
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "subprocess.Popen",
        "os.system",
        "socket.connect",
    ]
)


class TooLongError(BaseException):
    """One file took more than `LONGEST`."""


@dataclass(frozen=True)
class Reader:
    """A way into the project: how it is called, and valid content that it reads."""

    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]


@dataclass
class Findings:
    """What came of one reader."""

    reader: str
    mutations: int = 0
    read: int = 0
    """files that were read in spite of the mutation"""
    refused: int = 0
    """by the project's own errors, in one line"""
    faults: list[str] = field(default_factory=list)
    """number of the mutation, and what it brought out"""
    slowest: float = 0.0


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

    def lines(rows: list[dict[str, Any]]) -> bytes:
        return b"\n".join(json.dumps(row).encode() for row in rows)

    def table(rows: list[dict[str, Any]]) -> bytes:
        return "\n".join(
            [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        ).encode()

    def reads(kind: type) -> Callable[[Path], object]:
        return read_outputs if kind is Generation else read_annotations

    found: dict[str, Reader] = {}
    for name, rows, kind in (("outputs", outputs, Generation), ("annotations", verdicts, Judgment)):
        for suffix, content in (
            (".json", json.dumps(rows).encode()),
            (".jsonl", lines(rows)),
            (".csv", table(rows)),
        ):
            found[f"{name}{suffix}"] = Reader(suffix, (content,), reads(kind))
            if kind is Generation:
                found[f"set{suffix}"] = Reader(suffix, (content,), load_set)
    found |= {
        "conversations": Reader(".jsonl", (lines(answers), lines(arena)), read_conversations),
        "lm-eval results": Reader(".json", (json.dumps(scores).encode(),), read_scores),
        "reply": Reader(".json", (json.dumps(reply).encode(),), lambda path: read_reply(path.read_bytes(), "chat")),
        "judge's reply": Reader(".json", (json.dumps(reply).encode(),), lambda p: read_judge_reply(p.read_bytes())),
        "recipe": Reader(".yaml", declared("train"), load_recipe),
        "plan": Reader(".yaml", declared("evaluate/plans"), plan),
        "judge": Reader(".yaml", declared("evaluate/judges"), read_judge),
        "model": Reader(".yaml", _renamed(declared("evaluate/models")), read_spec),
        "set": Reader(".yaml", declared("evaluate/sets"), lambda p: convert(p, read_yaml(p), SetSpec, "a set")),
        "suite": Reader(".yaml", declared("evaluate/suites"), lambda p: convert(p, read_yaml(p), Suite, "a suite")),
        "package": Reader(
            ".yaml", declared("evaluate/packages"), lambda p: convert(p, read_yaml(p), PackageSource, "a package")
        ),
        "gguf": Reader(".gguf", (_gguf(),), read_header),
        "sentencepiece": Reader(".model", (_sentencepiece(),), _read_pieces),
        "adapter": Reader(".json", (json.dumps(adapter).encode(),), lambda p: _local(_adapter(p))),
    }  # fmt: skip
    return (
        found
        | _readers_of_results(outputs, verdicts, reply)
        | _readers_of_comparisons(verdicts)
        | _readers_of_workspaces()
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
        "board": Reader(".json", (_board(),), read_board),
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
        "record": Reader(".json", (_record(),), record),
        "examples": Reader(".json", (_examples(),), compressed),
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


def _board() -> bytes:
    """A board of three models, as it is written."""
    from alignboard.boards.of_results import results_board

    with tempfile.TemporaryDirectory() as folder:  # whose name is another one each time
        results = Path(folder) / "results"
        shutil.copytree(ROOT / "tests/published/synthetic_release/results", results)
        return results_board(results).to_json().encode()


def _record() -> bytes:
    """The first model of that board, as Every Eval Ever has it."""
    from alignboard.boards.board import Board
    from alignboard.boards.exports.every_eval_ever import Source, write_folder

    board = msgspec.json.decode(_board(), type=Board)
    with tempfile.TemporaryDirectory() as folder:
        return write_folder(board, Path(folder), Source("x"))[0].read_bytes()


def _examples() -> bytes:
    """The examples of a board of one prompt, before they are compressed."""
    from alignboard.boards.examples import Examples

    return msgspec.json.encode(Examples(["x"], {"m": [3], "b": [-1]}, [], []))


def _renamed(entries: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Entries of the registry under the name that a mutated file has."""
    return tuple(re.sub(rb"(?m)^name: .*$", b"name: case", one) for one in entries)


def _gguf() -> bytes:
    """A header of two keys and no tensor."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(8, "little") + value.encode()

    keys = text("general.architecture") + (8).to_bytes(4, "little") + text("llama")
    keys += text("llama.context_length") + (4).to_bytes(4, "little") + (64).to_bytes(4, "little")
    return (
        b"GGUF"
        + (3).to_bytes(4, "little")
        + (0).to_bytes(8, "little")
        + (2).to_bytes(8, "little")
        + keys
    )


def _sentencepiece() -> bytes:
    """A vocabulary of byte pairs with its bytes."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["What is the capital of France?", "Name two colours."] * 20),
        model_writer=written,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


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


def mutated(rng: random.Random, reader: Reader) -> bytes:
    """A valid file with something wrong with it."""
    content = rng.choice(reader.seeds)
    if reader.suffix in {".json", ".jsonl", ".yaml"} and rng.random() < 0.6:
        with contextlib.suppress(ValueError, yaml.YAMLError, RecursionError, TypeError):
            return _odd_value(rng, content, reader.suffix)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        match rng.randrange(5):
            case 0:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + content[to:]
            case 2:
                content = content[:to] + content[at:to] * rng.choice((1, 3)) + content[to:]
            case 3:
                other = rng.choice(reader.seeds)
                content = content[:at] + other[rng.randrange(len(other) + 1) :]
            case _:
                content = content[:at] + rng.choice(TEXTS) + content[at:]
    return content


@functools.cache
def _decoded(content: bytes, suffix: str) -> bytes:
    """The value of a seed, packed: decoding YAML again for every mutation took half of the time."""
    return pickle.dumps(json.loads(content) if suffix == ".json" else yaml.safe_load(content))


def _odd_value(rng: random.Random, content: bytes, suffix: str) -> bytes:
    if suffix == ".jsonl":
        parts = content.split(b"\n")
        place = rng.randrange(len(parts))
        parts[place] = _odd_value(rng, parts[place], ".json")
        return b"\n".join(parts)
    value = pickle.loads(_decoded(content, suffix))  # noqa: S301 - made here
    holder = value
    while isinstance(holder, dict | list) and holder:
        keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
            holder = inner
            continue
        odd = rng.choice(ODD)
        for _ in range(rng.choice((0, 0, 0, 400))):
            odd = [odd]
        holder[key] = odd
        break
    if suffix == ".json":
        return json.dumps(value).encode("utf-8", "surrogatepass")
    try:  # libyaml is ten times as fast, and cannot write half a surrogate pair
        return yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True, encoding="utf-8")
    except UnicodeEncodeError:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def _watched(findings: Findings, inside: str) -> Iterator[None]:
    """Note what is written outside ``inside``, which processes are started, and who is connected to."""
    active = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(one in str(mode) for one in "wax+") if mode else bool(flags & 3)
            if not writes or not isinstance(path, str) or path == os.devnull:
                return
        elif event not in _EVENTS:
            return
        if not str(arguments[0]).startswith(inside) and "__pycache__" not in str(arguments[0]):
            findings.faults.append(f"{findings.mutations}: {event} {arguments[0]}")

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active = False


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def end(_number: int, _frame: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(
        signal.ITIMER_REAL, 20 * seconds
    )  # a hang; what is slow is told by the processor's time
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(name: str, reader: Reader, mutations: int, seed: int, first: int = 0) -> Findings:
    """Read ``mutations`` files, the first of which has the number ``first``."""
    findings = Findings(name)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary) / "inner"
        folder.mkdir()
        path = folder / f"case{reader.suffix}"
        with _watched(findings, temporary):
            for number in range(first, first + mutations):
                path.write_bytes(mutated(random.Random(f"{seed} {name} {number}"), reader))
                findings.mutations += 1
                _read_one(reader, path, number, findings)
        strange = [one.name for one in Path(temporary).iterdir() if one != folder]
        strange += [one.name for one in folder.iterdir() if one not in {path, folder / "adapter"}]
        findings.faults += [f"wrote {one}" for one in strange]
    return findings


def _read_one(reader: Reader, path: Path, number: int, findings: Findings) -> None:
    began = time.process_time()
    try:
        with _limited(LONGEST):
            reader.read(path)
        findings.read += 1
    except (AlignboardError, UnreadableError):
        findings.refused += 1
    except TooLongError:
        findings.faults.append(f"{number}: hangs")
    except Exception as error:  # noqa: BLE001 - what the benchmark looks for
        findings.faults.append(f"{number}: {type(error).__name__}: {str(error)[:200]!r}")
    seconds = time.process_time() - began
    findings.slowest = max(findings.slowest, seconds)
    if seconds > LONGEST:
        findings.faults.append(f"{number}: {seconds:.1f} s")


def main() -> None:
    """Run every reader, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    for name, reader in readers().items():
        if given.only in {None, name}:
            one = run(name, reader, given.mutations, given.seed, given.first)
            found.append(one)
            print(
                f"{name}: {one.mutations} files, {one.read} read, {one.refused} refused, slowest {one.slowest:.2f} s"
            )
            for fault in one.faults[:10]:
                print(f"  {fault}")
    if given.json is not None:
        given.json.write_text(
            json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8"
        )
    sys.exit(any(one.faults for one in found))


if __name__ == "__main__":
    main()
