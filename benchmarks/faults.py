"""Processes killed at random moments and at chosen system calls: equal files afterwards, and nothing paid twice?

Run:  python benchmarks/faults.py [--kills 108] [--seed 0] [--only judge,batch] [--json FILE]

Four campaigns in workspaces of their own: `judge` and `generate` at an endpoint that counts, `judge --batch-api`, and
a `run` that trains, generates, asks lm-eval's tasks, judges at the endpoint and makes a board. A workspace is killed
(SIGKILL to all its processes) until a command comes to its end; half of the kills are at a random moment, half where
``strace`` meets the n-th rename, fsync, fdatasync, unlink, write to a file or to a socket. After every kill the rows
that the journal acknowledges are read. In the end the workspace is held against one that nobody killed.

equal           workspaces whose result files are those of the uninterrupted one (of lm-eval's: their numbers)
lost            rows that a journal held after a kill and does not hold, or holds otherwise, in the end
in flight       replies that came again, and whose first delivery was at most a second before a kill; where strace
                killed, also those after which the client made at most as many requests as it makes at a time: strace
                stops a process at every call, so its own progress is the clock there
paid twice      replies that came again otherwise
again           in the JSON, of the replies that came again more than a second after their delivery: the seconds
                between delivery and kill, the requests in that time, and the call it was killed at

The delivery is counted when the server has written the reply and flushed it. The figures so far are printed, and
written to FILE, after every workspace.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from loopback import Handler, Loopback  # noqa: E402 - the tests' module

CALLS: Final = {"rename": 2, "fsync": 4, "fdatasync": 12, "unlink": 3, "pwrite64": 40, "sendto": 60}
"""system call -> about the how manyth of a process it is that is met"""
IN_FLIGHT: Final = 1.0
"""seconds before a kill in which a reply may have been delivered and not yet kept"""
AT_ONCE: Final = 4
"""requests that a client has under way"""
LATE: Final = 0.3
"""seconds after a kill in which the server may still come to read a request of the dead client"""
LONGEST: Final = 900.0
JUDGE: Final = """
kind: prompted
name: paid
title: A judge that is paid
model: counting
api_key_env: null
order: both
prompt: {text: "{instruction} A: {first} B: {second}"}
verdict: {by: bracket}
"""
PLAN: Final = """
name: small
models: {tiny-phi: {pretrain: phi}}
recipes: [demo/sft]
suites: [small]
judges: [{judge: paid, engine: "URL", concurrency: 4}]
baseline: base
overrides:
  pretraining: {steps: 20, n_documents: 400}
  recipes:
    demo/sft: {data: {n: 128}, duration: {steps: 6}}
"""
SUITE: Final = """
kind: evaluation
name: small
title: small
instructions: {set: demo-world, limit: 16, max_new_tokens: 8}
n_documents: 8
benchmarks: [{task: demo_choice, metric: "acc,none"}]
"""


def reply_to(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same reply to the same request, always."""
    text = json.dumps(body.get("messages", body.get("prompt")))
    digest = hashlib.sha256(text.encode()).hexdigest()
    content = f"[[{'AB'[int(digest, 16) % 2]}]] because {digest[:8]}"
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "text": content}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {"choices": [choice], "model": "counting", "usage": usage}


class _Handler(Handler):
    owner: PaidServer

    def do_POST(self) -> None:
        content = self.body()
        server = self.owner
        if self.path.endswith("/files"):
            part = content.split(b'name="file"', 1)[1].split(b"\r\n\r\n", 1)[1]
            name = f"file-{len(server.files)}"
            server.files[name] = part.rsplit(b"\r\n--", 2)[0]
            self.send({"id": name})
        elif self.path.endswith("/batches"):
            self.send(server.add_batch(json.loads(content)))
        else:
            body, came = json.loads(content), time.monotonic()
            time.sleep(server.delay)
            self.send(reply_to(body))
            server.count(body, came)

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")[1:]
        if parts == ["batches"]:
            self.send({"data": list(self.owner.batches.values()), "has_more": False})
        elif parts[0] == "batches":
            self.send(self.owner.batches[parts[1]])
        else:
            self.send(self.owner.files[parts[1]])

    def handle(self) -> None:
        """A client that was killed resets its connections."""
        with contextlib.suppress(ConnectionError, json.JSONDecodeError):
            super().handle()

    def send(self, *args: Any, **options: Any) -> None:
        with contextlib.suppress(OSError):
            super().send(*args, **options)


class PaidServer(Loopback):
    """An endpoint, with batches, that counts what it has delivered."""

    handler = _Handler

    def __init__(self, delay: float = 0.03) -> None:
        self.delay = delay
        self.delivered: dict[str, list[tuple[float, float]]] = defaultdict(list)
        """by the digest of a request: when it came, and when a reply to it had been written"""
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Begin to count anew, for another workspace."""
        with self._lock:
            self.delivered.clear()
            self.files.clear()
            self.batches.clear()

    def count(self, body: Mapping[str, Any], came: float) -> None:
        """Count a delivered reply."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self._lock:
            self.delivered[digest].append((came, time.monotonic()))

    def add_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        """A batch, which is done at once."""
        requests = self.files[body["input_file_id"]].splitlines()
        rows = [self._row(json.loads(line)) for line in requests]
        with self._lock:
            output, name = f"out-{len(self.batches)}", f"batch-{len(self.batches)}"
            self.files[output] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            self.batches[name] = {
                **body,
                "id": name,
                "status": "completed",
                "output_file_id": output,
            }
            return self.batches[name]

    def _row(self, request: dict[str, Any]) -> dict[str, Any]:
        self.count(request["body"], time.monotonic())
        response = {"status_code": 200, "body": reply_to(request["body"])}
        return {"custom_id": request["custom_id"], "error": None, "response": response}


@dataclass(frozen=True)
class Campaign:
    """One command in a workspace, killed and started again."""

    name: str
    prepare: Callable[[Path, str], None]
    arguments: Callable[[str], list[str]]
    latest: float
    """seconds after which a kill at a random moment comes at the latest"""


@dataclass
class Counts:
    """What came of a campaign."""

    name: str
    kills: int = 0
    at_calls: int = 0
    """of ``kills``: where strace met a system call"""
    workspaces: int = 0
    equal: int = 0
    rows: int = 0
    """acknowledged after kills, all kills together"""
    lost: int = 0
    requests: int = 0
    in_flight: int = 0
    paid_twice: int = 0
    again: list[tuple[float, int, str]] = field(default_factory=list)
    seconds: float = 0.0
    differing: list[str] = field(default_factory=list)


def prepare_outputs(folder: Path, _url: str, n: int = 150) -> None:
    """A judge, a baseline and a model of ``n`` answers."""
    (folder / "evaluate" / "judges").mkdir(parents=True)
    (folder / "evaluate" / "judges" / "paid.yaml").write_text(JUDGE)
    for model in ("base", "one"):
        rows = [
            {"instruction": f"question {i}?", "output": f"{model} {i}", "generator": model}
            for i in range(n)
        ]
        path = folder / "results" / model / "model_outputs.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))


def prepare_set(folder: Path, _url: str) -> None:
    """A file of instructions."""
    rows = [{"instruction": f"question {i}?"} for i in range(300)]
    (folder / "asked.json").write_text(json.dumps(rows))


def prepare_plan(folder: Path, url: str) -> None:
    """A plan that trains, generates, asks a task, judges and makes a board."""
    for room, text in (("judges/paid", JUDGE), ("plans/small", PLAN), ("suites/small", SUITE)):
        path = folder / "evaluate" / f"{room}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text.replace("URL", url))


def judge_arguments(url: str) -> list[str]:
    """`alignboard judge` at the endpoint."""
    outputs = ["judge", "results/one/model_outputs.json", "--baseline", "base", "--judge", "paid"]
    return [*outputs, "--judge-engine", url, "--concurrency", str(AT_ONCE)]


def generate_arguments(url: str) -> list[str]:
    """`alignboard generate` at the endpoint."""
    asked = ["generate", "zephyr-7b-beta", "--set", "asked.json", "--api", "chat"]
    return [*asked, "--engine", url, "--served-as", "counting", "--concurrency", str(AT_ONCE)]


CAMPAIGNS: Final = (
    Campaign("judge", prepare_outputs, judge_arguments, 6.0),
    Campaign("generate", prepare_set, generate_arguments, 6.0),
    Campaign("batch", prepare_outputs, lambda url: [*judge_arguments(url), "--batch-api"], 4.0),
    Campaign("run", prepare_plan, lambda _: ["run", "small"], 30.0),
)


def start(folder: Path, arguments: list[str], call: tuple[str, int] | None) -> subprocess.Popen:
    """The command in a process group of its own; under strace it is killed at the n-th of a system call."""
    command = [sys.executable, "-m", "alignboard", *arguments]
    if call is not None:
        name, n = call
        inject = ["-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={n}"]
        command = ["strace", "-f", "-qq", "-o", os.devnull, *inject, *command]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def end(process: subprocess.Popen) -> None:
    """Kill whatever is left of the group, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def acknowledged(folder: Path) -> dict[tuple[str, bytes], str]:
    """Every row that the journal holds, by shard and key."""
    found = {}
    for path in sorted((folder / "results" / ".journal").glob("journal-*.sqlite")):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchall():
                continue
            for key, kind, payload in connection.execute("SELECT key, kind, payload FROM rows"):
                if kind in {"generation", "judge-reply"}:
                    found[kind, bytes(key)] = payload
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """The result files of a workspace; without times, and of lm-eval's only the numbers."""
    found = {}
    for path in sorted([*(folder / "results").rglob("*"), *(folder / "leaderboards").rglob("*")]):
        name = path.relative_to(folder).as_posix()
        if "/." in name or not path.is_file():
            continue
        if path.name.startswith("results_"):
            found[name] = json.dumps(json.loads(path.read_bytes())["results"]).encode()
        elif path.name == "annotations.json":
            rows = json.loads(path.read_bytes())
            kept = [{k: v for k, v in row.items() if k != "time_per_example"} for row in rows]
            found[name] = json.dumps(kept).encode()
        elif path.suffix in {".json", ".jsonl", ".csv", ".md"} and path.name not in {
            "judging.json",
            "training.json",
        }:
            found[name] = path.read_bytes()
    return found


def paid_again(
    delivered: Mapping[str, list[tuple[float, float]]], kills: Mapping[float, str]
) -> tuple[int, list[tuple[float, int, str]], int]:
    """How many replies that were in flight at a kill came again, ``again`` as above, and how many there are at all."""
    asked = sorted(came for times in delivered.values() for came, _ in times)
    in_flight, late = 0, []
    for times in delivered.values():
        for came, delivered_at in times[:-1]:
            kill = min((one for one in kills if one >= came - LATE), default=math.inf)
            if kill <= delivered_at + IN_FLIGHT:
                in_flight += 1
                continue
            between = bisect.bisect(asked, kill) - bisect.bisect(asked, delivered_at)
            late.append((round(kill - delivered_at, 2), between, kills.get(kill, "")))
    slowed = sum(call != "" and between <= AT_ONCE for _, between, call in late)
    again = sum(len(times) - 1 for times in delivered.values())
    return in_flight + slowed, late, again


@contextlib.contextmanager
def workspace(campaign: Campaign, server: PaidServer) -> Iterator[Path]:
    """A fresh workspace, with a server that has delivered nothing yet."""
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{campaign.name}-"))
    server.forget()
    campaign.prepare(folder, server.url)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kill_until_done(
    campaign: Campaign,
    folder: Path,
    server: PaidServer,
    rng: random.Random,
    counts: Counts,
    most: int,
) -> None:
    """Kill the command up to ``most`` times, and let it come to its end."""
    arguments, held = campaign.arguments(server.url), {}
    kills: dict[float, str] = {}
    while True:
        stop = len(kills) < most
        call = None
        if stop and rng.random() < 0.5 and shutil.which("strace"):
            name = rng.choice(sorted(CALLS))
            call = name, 1 + int(rng.expovariate(1 / CALLS[name]))
        process = start(folder, arguments, call)
        wait = rng.uniform(0.2, campaign.latest) if stop and call is None else LONGEST
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        code, ended = process.poll(), time.monotonic()
        end(process)
        if code == 0:
            break
        if code is not None and call is None:
            raise RuntimeError(
                f"{campaign.name}: exit code {code}\n{(folder / 'log').read_text()[-2000:]}"
            )
        kills[ended] = "" if call is None else call[0]
        counts.kills += 1
        counts.at_calls += call is not None
        now = acknowledged(folder)
        counts.lost += sum(now.get(key) != payload for key, payload in held.items())
        held |= now
        counts.rows += len(now)
    last = acknowledged(folder)
    counts.lost += sum(last.get(key) != payload for key, payload in held.items())
    in_flight, late, again = paid_again(server.delivered, kills)
    counts.in_flight += in_flight
    counts.paid_twice += again - in_flight
    counts.again += late
    counts.requests += len(server.delivered)


def run_campaign(
    campaign: Campaign, server: PaidServer, kills: int, seed: int, show: Callable[[Counts], None]
) -> Counts:
    """At least ``kills`` kills, in as many workspaces as that takes; ``show`` is given the figures after each."""
    started, counts = time.monotonic(), Counts(campaign.name)
    rng = random.Random(f"{campaign.name} {seed}")
    with workspace(campaign, server) as folder:
        kill_until_done(campaign, folder, server, rng, Counts(""), 0)
        expected = files_of(folder)
    while counts.kills < kills:
        with workspace(campaign, server) as folder:
            kill_until_done(campaign, folder, server, rng, counts, min(6, kills - counts.kills))
            found = files_of(folder)
        counts.workspaces += 1
        differing = [name for name in expected | found if expected.get(name) != found.get(name)]
        counts.equal += not differing
        counts.differing += differing
        counts.seconds = round(time.monotonic() - started, 1)
        show(counts)
    return counts


def table(found: list[Counts]) -> str:
    """For docs/reliability.md."""
    head = "| | kills | at system calls | equal | rows held | lost | in flight | paid twice |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for one in found:
        equal = f"{one.equal} of {one.workspaces}"
        cells = [one.kills, one.at_calls, equal, one.rows, one.lost, one.in_flight, one.paid_twice]
        lines.append(f"| {one.name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run the campaigns and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=108, help="all campaigns together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(one.name for one in CAMPAIGNS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    chosen = [one for one in CAMPAIGNS if one.name in options.only.split(",")]
    each = -(-options.kills // len(chosen))
    found: dict[str, Counts] = {}

    def show(now: Counts) -> None:
        found[now.name] = now
        print(
            f"{table([now]).splitlines()[-1]} {now.differing or ''} {now.again or ''}", flush=True
        )
        if options.json:
            figures = [asdict(one) for one in found.values()]
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    with PaidServer() as server:
        for campaign in chosen:
            run_campaign(campaign, server, each, options.seed, show)
    print(table(list(found.values())))
    if any(one.lost or one.paid_twice or one.equal < one.workspaces for one in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
