"""Size: a thousand models, sets and journals of many rows, the contamination of 60,000 pairs by 805 prompts.

Run:  ALIGNBOARD_RELEASED_DATA=<folder> python benchmarks/scale.py [--only board,audit] [--json FILE]

The models are the released ones with AlpacaEval 2's verdicts, in as many copies as it takes: every copy has a name and
answers of its own, and another verdict in 30 % of its rows. `audit`, `judge report` and `board` are whole processes
that find no cache. The instructions are read from a file, `generate` asks a server on this machine that answers at
once, and asks again where it has every answer. The journal is written in commits of 1,000 rows and opened anew for
each figure.

wall            seconds by the clock
cpu             seconds of the processor, of the process and its children, system included
mib             the most memory of the process and its children together (PSS: what they share counts once)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

JUDGE: Final = "weighted_alpaca_eval_gpt4_turbo"
BASELINE: Final = "gpt4_1106_preview"
NOISY: Final = 0.3
"""share of the rows whose verdict is drawn anew"""
BATCH: Final = 1_000
SERVER: Final = """
import asyncio, json, sys
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
                   "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 1}}).encode()
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY)
class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.have = transport, b""
    def data_received(self, data):
        self.have += data
        while (end := self.have.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.have[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15:].split(b"\\r\\n")[0]) if at >= 0 else 0
            if len(self.have) < end + 4 + size:
                return
            self.have = self.have[end + 4 + size:]
            self.transport.write(HEAD + BODY)
async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

CONTAMINATION: Final = """
import random
from alignboard.data.preferences.contamination import contamination
rng = random.Random(1)
words = ["".join(rng.choices("abcdefghijklmnop", k=3 + n % 6)) for n in range(20_000)]
def text(n):
    return " ".join(rng.choices(words[:3000], k=n // 2) + rng.choices(words, k=n - n // 2)) + "."
def row():
    return dict(prompt=[dict(role="user", content=text(130))], chosen=[dict(role="assistant", content=text(300))])
prompts, some = [text(40) for _ in range(805)], [row() for _ in range(2000)]
contamination((some[k % 2000] for k in range({n})), prompts, "set")
"""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    n: int
    wall: float
    cpu: float
    mib: float


def released() -> list[Path]:
    """The models' folders that have AlpacaEval 2's verdicts."""
    folder = Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "results"
    found = sorted(path.parents[1] for path in folder.glob(f"*/{JUDGE}/annotations.json"))
    if not found:
        raise SystemExit(f"{folder} holds no verdicts of {JUDGE}.")
    return found


def make_models(target: Path, n: int) -> None:
    """``n`` models below ``target``."""
    for number, path in enumerate((released() * (1 + n // 10))[:n]):
        name = f"{path.name}-{number}"
        rng = random.Random(number)
        outputs = json.loads((path / "model_outputs.json").read_bytes())
        verdicts = json.loads((path / JUDGE / "annotations.json").read_bytes())
        for row in outputs:
            row["generator"], row["output"] = name, f"{row['output']} ({number})"
        for row in verdicts:
            row["generator_2"], row["output_2"] = name, f"{row['output_2']} ({number})"
            if rng.random() < NOISY:
                row["preference"] = rng.uniform(1, 2)
        (target / name / JUDGE).mkdir(parents=True)
        (target / name / "model_outputs.json").write_bytes(msgspec.json.encode(outputs))
        (target / name / JUDGE / "annotations.json").write_bytes(msgspec.json.encode(verdicts))


def alignboard(name: str, n: int, folder: Path, arguments: list[str]) -> Figure:
    """A command as a process of its own."""
    before, began = _spent(), time.monotonic()
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "alignboard", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        with peak(process.pid) as memory:
            code = process.wait()
    if code not in {0, 3}:
        raise SystemExit(f"{arguments}: exit code {code}\n{(folder / 'log').read_text()[-3000:]}")
    wall, cpu = time.monotonic() - began, _spent() - before
    return Figure(name, n, round(wall, 1), round(cpu, 1), round(memory[0]))


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def peak(pid: int) -> Iterator[list[float]]:
    """The most memory, in MiB, that a process and its descendants have together."""
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most[0] = max(most[0], sum(map(_pss, _family(pid))))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{parent}/task").iterdir()
            found += [int(c) for task in tasks for c in (task / "children").read_text().split()]
    return found


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def models(only: set[str], n: int) -> Iterator[Figure]:
    """`audit`, `judge report` and `board` of ``n`` models."""
    assets = str(Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "length_control")
    commands = {
        "audit": ["audit", "--from", "results", "--assets", assets],
        "judge report": ["judge", "report", "results"],
        "board": ["board", "alpaca-eval-2", "--from", "results", "--assets", assets],
        "board, cached": ["board", "alpaca-eval-2", "--from", "results", "--assets", assets],
    }
    if not only & commands.keys():
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_models(folder / "results", n)
        for name, command in commands.items():
            if name in only:
                if "cached" not in name:
                    _forget(folder)
                yield alignboard(name, n, folder, command)


def _forget(folder: Path) -> None:
    for path in (folder / "results" / ".alignboard").glob("*"):
        path.unlink()


def instructions(only: set[str], n: int) -> Iterator[Figure]:
    """A set of ``n`` instructions: read, validated and keyed; every answer generated; and nothing left to do."""
    if not only & {"set", "generate", "generate, all known"}:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = [{"instruction": f"What is {k} times {k + 1}, and why?"} for k in range(n)]
        (folder / "asked.json").write_bytes(msgspec.json.encode(rows))
        with subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            asked = ["generate", "zephyr-7b-beta", "--set", "asked.json", "--api", "chat"]
            asked += ["--engine", url, "--served-as", "m", "--concurrency", "64"]
            if "set" in only:
                yield alignboard("set", n, folder, [*asked, "--dry-run"])
            if "generate" in only:
                yield alignboard("generate", n, folder, asked)
                yield alignboard("generate, all known", n, folder, asked)
            server.kill()


def journal(only: set[str], n: int) -> Iterator[Figure]:
    """A journal of ``n`` rows: written, opened and 805 of them looked up, all of them read, and checked."""
    if "journal" not in only:
        return
    keys = f"[hashlib.sha256(str(k).encode()).digest() for k in range({n})]"
    steps = {
        "write": f"""
for first in range(0, {n}, {BATCH}):
    journal.add([JournalRow(key, "generation", PAYLOAD) for key in keys[first:first + {BATCH}]])""",
        "look up 805": "assert len(journal.get(keys[:805])) == 805",
        "resume: look up all": "assert len(journal.get(keys)) == len(keys)",
        "first row": "next(journal.rows('generation'))",
        "check": "assert journal.check().n_rows == {'generation': len(keys)}",
    }
    one_by_one = """
for key in keys:
    claimed = journal.claim([key.hex()])
    journal.add([JournalRow(key, "generation", PAYLOAD)])
    journal.release(claimed)"""
    with tempfile.TemporaryDirectory() as scratch:
        for name, body in steps.items():
            yield _script(f"journal, {name}", n, Path(scratch), keys, body)
    with tempfile.TemporaryDirectory() as scratch:
        few = f"[hashlib.sha256(str(k).encode()).digest() for k in range({BATCH})]"
        yield _script("journal, claim and commit one", BATCH, Path(scratch), few, one_by_one)


def contamination(only: set[str], n: int) -> Iterator[Figure]:
    """``n`` pairs of 130 and 300 words, looked through for 805 prompts of 40."""
    if "contamination" in only:
        yield _process("contamination", n, CONTAMINATION.format(n=n))


def _script(name: str, n: int, folder: Path, keys: str, body: str) -> Figure:
    script = f"""
import hashlib
from pathlib import Path
from alignboard.results.journal import Journal, JournalRow
keys = {keys}
PAYLOAD = {{"output": "x" * 500, "finish": "stop", "seconds": 0.1, "n_answer": 100}}
journal = Journal(Path({str(folder)!r}), "run")
{body}
journal.close()
"""
    return _process(name, n, script)


def _process(name: str, n: int, script: str) -> Figure:
    before, began = _spent(), time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", script])
    with peak(process.pid) as memory:
        if process.wait():
            raise SystemExit(name)
    wall, cpu = time.monotonic() - began, _spent() - before
    return Figure(name, n, round(wall, 1), round(cpu, 1), round(memory[0]))


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    every = "audit,judge report,board,set,generate,journal,contamination"
    parser.add_argument("--models", type=int, default=1_001)
    parser.add_argument("--instructions", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--only", default=every, metavar="NAMES", help=every)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not os.environ.get("ALIGNBOARD_RELEASED_DATA"):
        print("skipped: ALIGNBOARD_RELEASED_DATA does not name the folder of released files")
        return
    only = set(options.only.split(","))
    only |= {"board, cached"} if "board" in only else set()
    parts: list[tuple[Callable[[set[str], int], Iterator[Figure]], int]] = [
        (models, options.models),
        (instructions, options.instructions),
        (journal, options.rows),
        (contamination, options.pairs),
    ]
    found: list[Figure] = []
    for measure, n in parts:
        for figure in measure(only, n):
            found.append(figure)
            print(
                f"{figure.name:32} {figure.n:9} {figure.wall:8} s wall {figure.cpu:8} s CPU {figure.mib:7} MiB",
                flush=True,
            )
    if options.json is not None:
        content: dict[str, Any] = {
            "cores": len(os.sched_getaffinity(0)),
            "figures": [asdict(one) for one in found],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
