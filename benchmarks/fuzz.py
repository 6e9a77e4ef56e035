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
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignboard.engines.openai.format import UnreadableError
from alignboard.errors import AlignboardError
from fuzz_readers import readers
from fuzz_seeds import Reader

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
        place = _place(event, arguments)
        if not place.startswith(inside) and "__pycache__" not in place:
            findings.faults.append(f"{findings.mutations}: {event} {place}")

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active = False


def _place(event: str, arguments: tuple[Any, ...]) -> str:
    """The path of an event; one that is relative to an open folder (`shutil.rmtree`) as a whole."""
    path = str(arguments[0])
    if event in {"os.remove", "os.rmdir"} and arguments[1] >= 0:
        return str(Path(f"/proc/self/fd/{arguments[1]}").readlink() / path)
    return path


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
