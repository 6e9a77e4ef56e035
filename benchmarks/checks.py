"""What the checks of a paid run cost: their share of the time of `judge` at an endpoint.

Run:  ALIGNBOARD_RELEASED_DATA=<folder> python benchmarks/checks.py [--seconds 1] [--concurrency 16] [--json FILE]

A released model's outputs are judged against the released baseline, both orders, by a server on this machine whose
replies take SECONDS each. Every check is measured where it is called, by the processor time of its thread; a check
that another one calls counts once. Claims, checksums and commits are the price of "nothing paid twice, nothing lost":
commits are shown apart, since without them nothing would be kept at all.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from faults import JUDGE, PaidServer

MODEL, BASELINE = "zephyr-7b-beta", "gpt4_1106_preview"
CHECKS: Final = {
    "claims": ("results.claims:Claims.claim", "results.claims:Claims.release"),
    "checksums of rows": ("results.journal:row_sum", "results.shard:row_sum"),
    "journal opened, verified": ("results.journal:open_own", "results.journal:open_other"),
    "keys masked in replies": ("engines.openai.requesting:without_key",),
    "status and form of replies": (
        "engines.openai.requesting:require_success",
        "judges.backends.chat_format:read_choice",
        "judges.backends.chat_format:read_body",
    ),
    "attacks in outputs": ("judges.annotations:detect", "judges.runner:_marks"),
}
"""what is checked -> functions, by module below ``alignboard`` and name"""
COMMITS: Final = ("results.journal:Journal.add",)


class Meter:
    """Processor seconds and calls, by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._inside = threading.local()

    def watch(self, name: str, target: str) -> None:
        """Measure a function under ``name``, wherever its module calls it."""
        module, _, path = target.partition(":")
        *owners, last = path.split(".")
        owner: Any = functools.reduce(getattr, owners, import_module(f"alignboard.{module}"))
        setattr(owner, last, self._measured(name, getattr(owner, last)))

    def _measured(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*arguments: Any, **options: Any) -> Any:
            if getattr(self._inside, "check", None) == name:
                return function(*arguments, **options)
            outer, self._inside.check = getattr(self._inside, "check", None), name
            began = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - began
                self.seconds[name] += spent
                self.calls[name] += 1
                if outer is not None:
                    self.seconds[outer] -= spent
                self._inside.check = outer

        return measured


def prepare(folder: Path) -> None:
    """A workspace with the outputs of a model and of the baseline, and the judge."""
    released = Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "results"
    for model in (MODEL, BASELINE):
        (folder / "results" / model).mkdir(parents=True)
        shutil.copy(released / model / "model_outputs.json", folder / "results" / model)
    (folder / "evaluate" / "judges").mkdir(parents=True)
    (folder / "evaluate" / "judges" / "paid.yaml").write_text(JUDGE)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="that a reply takes")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not os.environ.get("ALIGNBOARD_RELEASED_DATA"):
        print("skipped: ALIGNBOARD_RELEASED_DATA does not name the folder of released files")
        return
    from alignboard.cli.app import cli

    meter = Meter()
    for name, targets in {**CHECKS, "commits": COMMITS}.items():
        for target in targets:
            meter.watch(name, target)
    with tempfile.TemporaryDirectory() as scratch, PaidServer(options.seconds) as server:
        prepare(Path(scratch))
        os.chdir(scratch)
        arguments = ["judge", "outputs", f"results/{MODEL}/model_outputs.json", "--judge", "paid"]
        arguments += ["--baseline", BASELINE, "--judge-engine", server.url]
        began = time.monotonic()
        cli([*arguments, "--concurrency", str(options.concurrency)], standalone_mode=False)
        wall = time.monotonic() - began
        os.chdir("/")
    checks = sum(meter.seconds[name] for name in CHECKS)
    for name in (*CHECKS, "commits"):
        spent = meter.seconds[name]
        print(f"{name:28} {meter.calls[name]:6} calls {spent:7.3f} s {spent / wall:7.2%}")
    print(f"{'all checks':28} {'':12} {checks:7.3f} s {checks / wall:7.2%} of {wall:.1f} s")
    if options.json is not None:
        content = {
            "seconds_a_reply": options.seconds,
            "concurrency": options.concurrency,
            "load": round(os.getloadavg()[0], 1),
            "wall": round(wall, 1),
            "cpu_of_checks": {name: round(meter.seconds[name], 3) for name in CHECKS},
            "cpu_of_commits": round(meter.seconds["commits"], 3),
            "share_of_checks": round(checks / wall, 5),
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
