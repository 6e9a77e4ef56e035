"""Reproducing AlpacaEval 2: upstream's own code against ours on the same files, whole processes, side by side.

Run:  ALIGNBOARD_RELEASED_DATA=<folder> python benchmarks/reproduce.py [--repeats 5] [--json FILE]

Upstream is ``alpaca_eval.metrics`` as installed (an environment where it imports: ``setuptools<81``), reading every
annotation and output file with pandas and calling `get_length_controlled_winrate` on every model; its download of
``df_gamed.csv`` is replaced by the local file, and it writes no weights. Ours is ``alignboard reproduce``, once
without its cache (cold) and once with it (warm). The two take turns, so that a slow moment of the machine hits both.
Both run with compiled bytecode, as installed packages do, whatever PYTHONDONTWRITEBYTECODE says: with it a checkout
compiles its own modules in every process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

JUDGE = "weighted_alpaca_eval_gpt4_turbo"

UPSTREAM = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from pathlib import Path
from alpaca_eval.metrics import glm_winrate
assets, results = Path(sys.argv[1]), Path(sys.argv[2])
glm_winrate.hf_hub_download = lambda filename, **_: str(assets / filename)
rows = {}
for path in sorted(results.glob("*/JUDGE/annotations.json")):
    annotations = pd.read_json(path)
    row = glm_winrate.get_length_controlled_winrate(annotations, save_weights_dir=None)
    outputs = pd.read_json(path.parents[1] / "model_outputs.json")
    row["avg_length"] = int(outputs["output"].str.len().mean())
    rows[path.parents[1].name] = row
print(pd.DataFrame.from_dict(rows, orient="index").sort_values("length_controlled_winrate").to_string())
""".replace("JUDGE", JUDGE)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/reproduce.json"))
    arguments = parser.parse_args()
    released = os.environ.get("ALIGNBOARD_RELEASED_DATA")
    if not released:
        print("skipped: ALIGNBOARD_RELEASED_DATA does not name the folder of released files")
        return
    with tempfile.TemporaryDirectory() as scratch:
        results = _copy(Path(released) / "results", Path(scratch) / "results")
        assets = Path(released) / "length_control"
        measured = whole_processes(results, assets, arguments.repeats)
        measured |= floor(results)
        measured |= one_fit(results, assets)
    _print(measured)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


def _copy(source: Path, target: Path) -> Path:
    """The AlpacaEval 2 part of the released results, in a folder of our own: the released one is left alone."""
    for path in source.glob(f"*/{JUDGE}/annotations.json"):
        folder = target / path.parents[1].name
        (folder / JUDGE).mkdir(parents=True)
        shutil.copy(path, folder / JUDGE)
        shutil.copy(path.parents[1] / "model_outputs.json", folder)
    return target


def whole_processes(results: Path, assets: Path, repeats: int) -> dict:
    """Wall and CPU seconds of whole processes, the minimum and median over repeats."""
    program = str(Path(sys.executable).parent / "alignboard")
    ours = [program, "reproduce", "alpaca-eval-2", "--from", str(results), "--assets", str(assets)]
    upstream = [sys.executable, "-c", UPSTREAM, str(assets), str(results)]
    times: dict[str, list[tuple[float, float]]] = {"upstream": [], "cold": [], "warm": []}
    for _ in range(repeats):
        times["upstream"].append(_timed(upstream))
        shutil.rmtree(results / ".alignboard", ignore_errors=True)
        times["cold"].append(_timed(ours))
        # A file read right after it was written is not trusted yet; the second warm run is what users have.
        times["warm"].append(_timed(ours))
    summary = {
        name: {
            "wall_s": statistics.median(wall for wall, _ in runs),
            "wall_min_s": min(wall for wall, _ in runs),
            "cpu_s": statistics.median(cpu for _, cpu in runs),
        }
        for name, runs in times.items()
    }
    base = summary["upstream"]["wall_s"]
    return {
        "processes": summary,
        "cold_speedup": base / summary["cold"]["wall_s"],
        "warm_speedup": base / summary["warm"]["wall_s"],
    }


def _timed(command: list[str]) -> tuple[float, float]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        command, check=True, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return wall, cpu


def floor(results: Path) -> dict:
    """The least that a cold run must do: decode the rows of every JSON file, at the rate measured here."""
    import msgspec

    from alignboard.records import Generation, Judgment

    judgments, generations = (
        msgspec.json.Decoder(list[Judgment]),
        msgspec.json.Decoder(list[Generation]),
    )
    contents = [
        (judgments, path.read_bytes()) for path in results.glob(f"*/{JUDGE}/annotations.json")
    ]
    contents += [(generations, path.read_bytes()) for path in results.glob("*/model_outputs.json")]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for decoder, content in contents:
            decoder.decode(content)
        seconds.append(time.perf_counter() - start)
    n_bytes = sum(len(content) for _, content in contents)
    return {
        "json_bytes": n_bytes,
        "parse_bytes_per_s": n_bytes / min(seconds),
        "floor_s": min(seconds),
    }


def one_fit(results: Path, assets: Path) -> dict:
    """One length-controlled win rate with its cross-validation, in a warm process; milliseconds, median and minimum."""
    import warnings

    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    from alignboard.published.calibration import read_calibration
    from alignboard.results.formats import read_annotations
    from alignboard.stats.length_control import GamedRows, length_controlled_win_rate

    warnings.filterwarnings("ignore")
    glm_winrate.hf_hub_download = lambda filename, **_: str(assets / filename)
    calibration = read_calibration(assets)
    gamed = GamedRows(
        calibration.gamed_preference, calibration.gamed_length, calibration.gamed_difficulty
    )
    ours, upstream = [], []
    for path in sorted(results.glob(f"*/{JUDGE}/annotations.json")):
        table = read_annotations(path)
        if table.generator == table.baseline:
            continue
        frame = pd.read_json(path)
        difference = table.length_1.astype(np.float64) - table.length_2
        difficulty = calibration.difficulty[: len(table)]
        start = time.perf_counter()
        glm_winrate.get_length_controlled_winrate(frame, save_weights_dir=None)
        upstream.append((time.perf_counter() - start) * 1000)
        for _ in range(3):
            start = time.perf_counter()
            length_controlled_win_rate(table.preference, difference, difficulty, gamed)
            ours.append((time.perf_counter() - start) * 1000)
    return {
        "lc_fit_ms": statistics.median(ours),
        "lc_fit_min_ms": min(ours),
        "upstream_lc_fit_ms": statistics.median(upstream),
        "lc_fit_speedup": statistics.median(upstream) / statistics.median(ours),
    }


def _print(measured: dict) -> None:
    print(
        f"{'whole process, 24 models':28s} {'wall, median':>13s} {'wall, least':>12s} {'CPU':>8s} {'speed-up':>9s}"
    )
    for name, label in (
        ("upstream", "upstream"),
        ("cold", "alignboard, no cache"),
        ("warm", "alignboard, cache"),
    ):
        run = measured["processes"][name]
        ratio = measured["processes"]["upstream"]["wall_s"] / run["wall_s"]
        print(
            f"{label:28s} {run['wall_s']:11.2f} s {run['wall_min_s']:10.2f} s {run['cpu_s']:6.2f} s {ratio:8.1f}x"
        )
    rate, bound = measured["parse_bytes_per_s"] / 1e6, measured["floor_s"]
    cold = measured["processes"]["cold"]["wall_s"]
    print(
        f"\nfloor: {measured['json_bytes'] / 1e6:.1f} MB of JSON at {rate:.0f} MB/s = {bound:.2f} s; "
        f"the cold run takes {cold / bound:.1f} times that"
    )
    print(
        f"one LC fit with cross-validation: {measured['lc_fit_ms']:.1f} ms (least {measured['lc_fit_min_ms']:.1f}), "
        f"upstream {measured['upstream_lc_fit_ms']:.0f} ms: {measured['lc_fit_speedup']:.0f}x"
    )


if __name__ == "__main__":
    main()
