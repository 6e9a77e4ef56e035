"""Mutated files and replies for every reader: foreign exceptions, hangs, and writes outside.

Run:  python benchmarks/fuzz.py [--inputs 20000] [--seed 0] [--only set.jsonl,reply] [--json FILE]

Every reader gets the same number of inputs, made from a good one by up to three mutations: bytes are flipped, cut out,
doubled and cut off; a value somewhere in the JSON becomes a hostile one, a key goes or is renamed; a token is replaced.
A reader either returns or raises `AlignboardError` (of replies: `UnreadableError`, of stored completions: `ValueError`,
`TypeError`). Everything else is foreign. An input that takes more than two seconds is a hang. While inputs are read, an
audit hook notes writes outside the folder of the input, processes that are started, and connections.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from alignboard.errors import AlignboardError

ROOT: Final = Path(__file__).parents[1]
HANG: Final = 2.0
HOSTILE: Final = (
    *(None, True, False, 0, -1, 1.5, 10**400, -(10**30), float("nan"), float("inf"), 1e308, 2**63),
    *("", " ", "x" * 5000, "\ud800", "\x1b[2J", "a\nb", "../x", "/etc/passwd", "{{", "=1+1", "\0"),
    *([], {}, [[]], [None], {"": None}, [[[[[]]]]], {"a": {"b": []}}, "9" * 5000, "1e999", "NaN"),
)
TOKENS: Final = (
    *(b"null", b"true", b"-1", b"1e999", b"9" * 400, b".nan", b'""', b"[]", b"{}", b"&a [*a]"),
    *(b"!!int x", b"!!python/object:os.system x", b"2001-99-99", b"[" * 500, b'{"a":' * 500),
    *(b"\xff", b"\x00", b"\n", b": ", b"- ", b"\t", b'"', b"\\ud800", b"<<: *a"),
)


@dataclass(frozen=True)
class Reader:
    """One thing that reads what others wrote."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    """from a file with the input"""
    file: str = "input.json"
    allowed: tuple[type[BaseException], ...] = (AlignboardError,)


@dataclass
class Counts:
    """What became of a reader's inputs."""

    name: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    foreign: dict[str, int] = field(default_factory=collections.Counter)
    """exception and place -> how often"""
    hangs: int = 0
    slowest: float = 0.0
    outside: dict[str, int] = field(default_factory=collections.Counter)
    """what was written, started or connected to -> how often"""
    seconds: float = 0.0


# Mutations.


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """``seed`` after one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        seed = rng.choice(_MUTATIONS)(seed, rng)
    return seed


def _flip(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 4)) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    kind = rng.randrange(3)
    if kind == 0:
        return content[:end]
    if kind == 1:
        return content[:start] + content[end:]
    return content[:end] + content[start:end] + content[end:]


def _replace_token(content: bytes, rng: random.Random) -> bytes:
    words = list(re.finditer(rb"[\w.+-]+|[\[\]{}:,\"]", content))
    if not words:
        return rng.choice(TOKENS)
    one = rng.choice(words)
    return content[: one.start()] + rng.choice(TOKENS) + content[one.end() :]


def _replace_value(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n") if b"\n{" in content else [content]
    place = rng.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return _replace_token(content, rng)
    holders = list(_holders(value))
    if not holders:
        value = rng.choice(HOSTILE)
    else:
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "\ud800", f"{key}s"))] = holder.pop(key)
        else:
            holder[key] = rng.choice(HOSTILE)
    with suppress(ValueError):
        lines[place] = json.dumps(value).encode()
    return b"\n".join(lines)


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


_MUTATIONS = (_flip, _cut, _replace_token, _replace_value, _replace_value)


# Readers.


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _lines(*rows: object) -> bytes:
    return b"\n".join(map(_json, rows)) + b"\n"


def _yaml(pattern: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(ROOT.glob(pattern)))


def _gguf() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.context_length") + struct.pack("<II", 4, 2048),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
    ]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs))
    return head + b"".join(pairs) + tensor + bytes(128)


def _rows() -> dict[str, bytes]:
    rows = [
        {"instruction": f"q {i}?", "output": f"a {i}", "generator": "m", "dataset": "d"}
        for i in range(3)
    ]
    pairs = [
        {
            **row,
            "output_1": "x",
            "output_2": "y",
            "generator_1": "base",
            "generator_2": "m",
            "annotator": "judge",
            "preference": 1.25,
            "time_per_example": 0.1,
            "price_per_example": 0.01,
            "raw_completion": {"text": "m"},
            "referenced_models": {"m": "x", "M": "y"},
        }
        for row in rows
    ]
    return {
        "outputs": _json(rows),
        "annotations": _json(pairs),
        "fields": _lines({"instruction": "q", "reference": "r", "rubric": "s"}),
    }


_TOKEN: Final = {
    "token": "m",
    "logprob": -0.1,
    "top_logprobs": [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.4}],
}
_REPLY: Final = {
    "model": "served",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "[[A]]", "reasoning_content": "since"},
            "text": "[[A]]",
            "logprobs": {"content": [_TOKEN]},
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}


def readers() -> list[Reader]:
    """Every reader with a good input or several."""
    from alignboard.benchmarks.scores import read_scores
    from alignboard.benchmarks.task_files import digests
    from alignboard.boards.board import read_board
    from alignboard.data.instruction_sets import load_set, read_references
    from alignboard.engines.openai.format import UnreadableError, read_reply
    from alignboard.engines.openai.prices import load_prices
    from alignboard.fetch.sources import _parse_listing
    from alignboard.judges.backends.chat_format import read_judge_reply
    from alignboard.judges.load import read_judge
    from alignboard.judges.parsing.raw_completions import reply_of_raw
    from alignboard.models.gguf.file import read_header
    from alignboard.models.registry import _local, load_model
    from alignboard.pipeline.judged_outputs import read_fields
    from alignboard.pipeline.plans.plan import load_plan
    from alignboard.pipeline.plans.schema import Plan, check
    from alignboard.records import Generation
    from alignboard.reports.judges.rows import read_judgments
    from alignboard.results.conversations import read_conversations
    from alignboard.results.formats import read_annotations, read_outputs, read_rows
    from alignboard.suites import convert, load_evaluation, read_yaml
    from alignboard.train.recipe import load_recipe

    rows = _rows()
    reply = _json(_REPLY)
    bad = (UnreadableError, AlignboardError)
    asked = {"question_id": 1, "category": "w", "turns": ["a", "b"], "reference": ["r", "s"]}
    turns = {"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["a", "b"]}]}
    card = {
        "base_model_name_or_path": "microsoft/phi-2",
        "peft_type": "LORA",
        "r": 8,
        "target_modules": ["q"],
    }
    sample = {"results": {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1}}}
    sample |= {"n-shot": {"t": 0}, "n-samples": {"t": {"original": 4, "effective": 4}}}
    listing = [{"path": "a/b.json", "type": "blob", "mode": "100644", "sha": "0" * 40, "size": 3}]
    board = _board()
    task = {"task": "input", "dataset_path": "json", "metric_list": [{"metric": "acc"}]}
    task |= {"doc_to_text": "{{ q }}", "output_type": "multiple_choice", "include": "input.yaml"}

    def in_room(read: Callable[..., object], path: Path) -> object:
        return read(path.stem, path.parents[2])

    return [
        Reader("outputs", (rows["outputs"],), read_outputs),
        Reader("outputs as rows", (rows["outputs"],), lambda p: read_rows(p, Generation)),
        Reader("annotations", (rows["annotations"],), read_annotations),
        Reader("judgments", (rows["annotations"],), lambda p: read_judgments([p])),
        Reader(
            "conversations",
            (_lines(turns, turns | {"question_id": 2}),),
            read_conversations,
            "input.jsonl",
        ),
        Reader("set.json", (rows["outputs"],), lambda p: load_set(str(p), p.parent)),
        Reader(
            "set.jsonl",
            (_lines(asked, asked | {"turns": ["c"]}),),
            lambda p: load_set(str(p), p.parent),
            "input.jsonl",
        ),
        Reader(
            "set.csv",
            (b'instruction,subset\n"a, b",x\nc,y\n',),
            lambda p: load_set(str(p), p.parent),
            "input.csv",
        ),
        Reader("references", (rows["outputs"],), read_references),
        Reader("fields", (rows["fields"],), read_fields, "input.jsonl"),
        Reader("board", (board,), read_board),
        Reader("lm-eval results", (_json(sample),), read_scores),
        Reader("reply", (reply,), lambda p: read_reply(p.read_bytes(), "chat"), allowed=bad),
        Reader(
            "completion",
            (reply,),
            lambda p: read_reply(p.read_bytes(), "completions"),
            allowed=bad,
        ),
        Reader("judge reply", (reply,), lambda p: read_judge_reply(p.read_bytes()), allowed=bad),
        Reader(
            "raw completion",
            (_json(_REPLY["choices"][0]),),
            lambda p: reply_of_raw(json.loads(p.read_bytes())),
            allowed=(ValueError, TypeError, RecursionError),
        ),
        Reader(
            "listing",
            (_json({"tree": listing, "truncated": False}),),
            lambda p: _parse_listing("http://x", p.read_bytes()),
        ),
        Reader("gguf", (_gguf(),), read_header, "input.gguf"),
        Reader(
            "adapter",
            (_json(card),),
            lambda p: _local(p.parent),
            "adapter_config.json",
        ),
        Reader("judge", _yaml("evaluate/judges/*.yaml"), read_judge, "input.yaml"),
        Reader(
            "model",
            tuple(
                re.sub(rb"(?m)^name: .*", b"name: input", s)
                for s in _yaml("evaluate/models/*.yaml")
            ),
            partial(in_room, load_model),
            "evaluate/models/input.yaml",
        ),
        Reader(
            "suite",
            _yaml("evaluate/suites/*.yaml"),
            partial(in_room, load_evaluation),
            "evaluate/suites/input.yaml",
        ),
        Reader(
            "plan",
            _yaml("evaluate/plans/*.yaml"),
            lambda p: check(p, convert(p, read_yaml(p), Plan, "a plan")),
            "input.yaml",
        ),
        Reader(
            "resolved plan",
            _yaml("evaluate/plans/demo.yaml"),
            lambda p: load_plan(str(p), p.parents[2]),
            "evaluate/plans/input.yaml",
        ),
        Reader(
            "set.yaml",
            _yaml("evaluate/sets/demo-world.yaml"),
            partial(in_room, load_set),
            "evaluate/sets/input.yaml",
        ),
        Reader(
            "prices",
            _yaml("evaluate/prices.yaml"),
            lambda p: load_prices(p.parents[1]),
            "evaluate/prices.yaml",
        ),
        Reader("recipe", _yaml("train/**/*.yaml"), load_recipe, "input.yaml"),
        Reader(
            "task",
            (_json(task).replace(b', "include": "input.yaml"', b""),),
            lambda p: digests(["input"], p.parents[2]),
            "evaluate/tasks/input.yaml",
        ),
    ]


def _board() -> bytes:
    """A board of two models, as it is written."""
    from alignboard.boards.files import WRITERS
    from alignboard.boards.of_results import results_board

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "tests/synthetic_release/results", folder, dirs_exist_ok=True)
        made = WRITERS["json"](results_board(Path(folder)))
    return made.encode() if isinstance(made, str) else made


# The watch.


class _TooLongError(BaseException):
    """An input took longer than `HANG`."""


@contextmanager
def watched(counts: Counts, inside: Path) -> Iterator[None]:
    """Note in ``counts`` what is written outside ``inside``, started and connected to."""
    active, root = True, str(inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active:
            return
        what = None
        if event == "open" and isinstance(arguments[0], str) and _writes(arguments):
            what = arguments[0]
        elif event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"}:
            what = str(arguments[0])
        elif event in {"subprocess.Popen", "os.system", "os.exec", "socket.connect"}:
            counts.outside[f"{event} {arguments[0]}"] += 1
        if what is not None and not what.startswith((root, "/dev/null")):
            counts.outside[f"{event} {what}"] += 1

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active = False


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return any(c in str(mode) for c in "wax+") if mode else bool(flags & 0o3)


def place(error: BaseException) -> str:
    """The exception, and the last line of ours that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/alignboard/" in f.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    where = last.filename.rpartition("/alignboard/")[2]
    return f"{type(error).__name__} {where}:{last.lineno}"


def run(reader: Reader, n: int, seed: int) -> Counts:
    """Give ``n`` mutated inputs to a reader."""
    counts, rng = Counts(reader.name), random.Random(f"{reader.name} {seed}")
    started = time.monotonic()

    def too_long(_number: int, _frame: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / reader.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.seeds[0])
        reader.read(path)  # imports, and that the seed is good
        with watched(counts, Path(folder)):
            for _ in range(n):
                path.write_bytes(mutated(rng.choice(reader.seeds), rng))
                _one(reader, path, counts)
    counts.seconds = round(time.monotonic() - started, 1)
    return counts


def _one(reader: Reader, path: Path, counts: Counts) -> None:
    counts.inputs += 1
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 4 * HANG)
    try:
        reader.read(path)
        counts.read += 1
    except reader.allowed:
        counts.refused += 1
    except _TooLongError:
        pass
    except Exception as error:  # noqa: BLE001 - what is counted
        found = place(error)
        counts.foreign[found] += 1
        if counts.foreign[found] == 1:
            print(f"{reader.name}: {found}: {path.read_bytes()[:300]!r}", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    passed = time.monotonic() - started
    counts.slowest = max(counts.slowest, round(passed, 3))
    counts.hangs += passed > HANG


def main() -> None:
    """Fuzz the readers and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of readers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wanted = options.only.split(",") if options.only else None
    found = []
    for reader in readers():
        if wanted is not None and reader.name not in wanted:
            continue
        counts = run(reader, options.inputs, options.seed)
        found.append(counts)
        print(
            f"{counts.name:<16} {counts.inputs} inputs: {counts.read} read, {counts.refused} refused, "
            f"{sum(counts.foreign.values())} foreign, {counts.hangs} hangs, {sum(counts.outside.values())} outside, "
            f"{counts.seconds:.0f} s (slowest {counts.slowest} s)",
            flush=True,
        )
        for what, times in (*counts.foreign.items(), *counts.outside.items()):
            print(f"    {times} x {what}")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    if any(one.foreign or one.hangs or one.outside for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
