"""Ratings of encoded comparisons with prompt-clustered intervals, beside evalica, arena-rank and choix.

Run ``python benchmarks/rating.py --peers PYTHON --json benchmarks/rating.json``, where PYTHON is an interpreter
with evalica 0.4, arena-rank 0.1 and choix 0.4. Every tool runs in a process of its own, one at a time; the least CPU
time of several repetitions counts. Only alignboard's times contain an interval that clusters by prompt.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TIMER = """
import json, sys, time
import numpy as np
data = np.load(sys.argv[1])
first, second, prompt = (data[k].astype(np.int32) for k in ("first", "second", "prompt"))
score = data["score"]
models = int(data["models"])
def least(run, repeats):
    run()
    found = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    print(json.dumps([1e3 * min(c for c, _ in found), 1e3 * min(w for _, w in found)]))
"""
_OURS = """
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import bradley_terry
least(lambda: bradley_terry(Battles(first, second, score, prompt), models), 7)
"""
_BOOTSTRAP = """
from alignboard.stats.rating.battles import Battles
from alignboard.stats.rating.bradley_terry import bradley_terry
from alignboard.stats.rating.resampling import prompt_bootstrap
battles = Battles(first, second, score, prompt)
fit = bradley_terry(battles, models)
least(lambda: prompt_bootstrap(battles, fit, draws=1000, rng=np.random.default_rng(0)), 3)
"""
_TOOLS = {
    "alignboard, numpy": "from alignboard.stats.rating import kernel\nkernel._WORTH_IT = 10**9\n"
    + _OURS,
    "alignboard, numba (extra fast)": _OURS,
    "evalica kernel, arrays": """
from evalica import _brzo
xs, ys = first.astype(np.uint64), second.astype(np.uint64)
w, one = np.where(score == 1, 1, np.where(score == 0, 2, 0)).astype(np.uint8), np.ones(len(xs))
least(lambda: _brzo.bradley_terry(xs, ys, w, one, models, 1.0, 0.5, 1e-6, 100), 7)
""",
    "evalica kernel, lists": """
from evalica import _brzo, Winner
xs, ys = first.tolist(), second.tolist()
w = [Winner.X if s == 1 else Winner.Y if s == 0 else Winner.Draw for s in score]
one = [1.0] * len(xs)
least(lambda: _brzo.bradley_terry(xs, ys, w, one, models, 1.0, 0.5, 1e-6, 100), 2)
""",
    "evalica API": """
import evalica
from evalica import Winner
xs, ys = first.tolist(), second.tolist()
w = [Winner.X if s == 1 else Winner.Y if s == 0 else Winner.Draw for s in score]
least(lambda: evalica.bradley_terry(xs, ys, w), 2)
""",
    "arena-rank": """
import pandas as pd
from arena_rank.utils.data_utils import PairDataset
from arena_rank.models.bradley_terry import BradleyTerry
frame = pd.DataFrame({"model_a": np.char.add("m", first.astype(str)), "model_b": np.char.add("m", second.astype(str)),
    "winner": np.where(score == 1, "model_a", np.where(score == 0, "model_b", "tie"))})
def run():
    data = PairDataset.from_pandas(frame)
    BradleyTerry(n_competitors=len(data.competitors)).compute_ratings_and_cis(data, significance_level=0.05)
least(run, 1)
""",
}


def measure(python: str, code: str, data: Path) -> list[float] | str:
    """CPU and wall milliseconds, or why there are none."""
    done = subprocess.run(
        [python, "-c", _TIMER + code, str(data)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


def write_comparisons(path: Path, models: int, prompts: int, rows: int | None) -> None:
    """A round robin on ``prompts``, or ``rows`` random pairs, a fifth of them draws."""
    import numpy as np

    rng = np.random.default_rng(0)
    if rows is None:
        i, j = np.triu_indices(models, 1)
        first, second = np.tile(i, prompts), np.tile(j, prompts)
        prompt = np.repeat(np.arange(prompts), len(i))
    else:
        first = rng.integers(0, models, rows)
        second = (first + rng.integers(1, models, rows)) % models
        prompt = rng.integers(0, prompts, rows)
    theta = np.linspace(1, -1, models)
    u, p = rng.random(len(first)), 1 / (1 + np.exp(theta[second] - theta[first]))
    score = np.where(u < 0.8 * p, 1.0, np.where(u > 1 - 0.8 * (1 - p), 0.0, 0.5))
    np.savez(path, first=first, second=second, score=score, prompt=prompt, models=models)


def write_parquet(folder: Path, rows: int) -> Path:
    """Comparisons with names."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_comparisons(folder / "rows.npz", 20, 805, rows)
    data = np.load(folder / "rows.npz")
    names = pa.array([f"model-{k:02}" for k in range(20)])
    labels = pa.array(["model_b", "tie", "model_a"])
    coded = {
        "model_a": (data["first"], names),
        "model_b": (data["second"], names),
        "winner": (2 * data["score"], labels),
    }
    table = {
        name: pa.DictionaryArray.from_arrays(pa.array(codes.astype("int32")), values).cast(
            pa.string()
        )
        for name, (codes, values) in coded.items()
    }
    path = folder / "rows.parquet"
    pq.write_table(pa.table(table | {"prompt_id": data["prompt"]}), path)
    return path


def rank_file(path: Path) -> list[float]:
    """CPU and wall milliseconds of `alignboard rank` from parquet to JSON, and the most memory, MiB; of three runs."""
    command = [
        sys.executable,
        "-m",
        "alignboard",
        "rank",
        str(path),
        "--json",
        str(path.with_suffix(".json")),
    ]
    found = []
    for _ in range(3):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append([1e3 * cpu, 1e3 * (time.perf_counter() - start), after.ru_maxrss / 1024])
    return min(found)


def main() -> None:
    """Time every tool on each input; without peers, what is known of them is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="an interpreter that has evalica, arena-rank and choix")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float] | str]] = {}
    if not arguments.peers and arguments.json.is_file():
        found = json.loads(arguments.json.read_text())["found"]
    with tempfile.TemporaryDirectory() as folder:
        found["1e+07 x 20, rank from parquet to JSON"] = {
            "alignboard": rank_file(write_parquet(Path(folder), 10**7))
        }
        print(found["1e+07 x 20, rank from parquet to JSON"], flush=True)
        data = Path(folder) / "rows.npz"
        for rows in (10**6, 10**7):
            write_comparisons(data, 20, 805, rows)
            own = found.setdefault(f"{rows:.0e} x 20, fit", {})
            for tool, code in _TOOLS.items():
                ours = tool.startswith("alignboard")
                slow = rows > 10**6 and not (ours or tool.endswith("arrays"))
                if not slow and (ours or arguments.peers):
                    own[tool] = measure(sys.executable if ours else arguments.peers, code, data)
                    print(f"{rows:.0e}", tool, own[tool], flush=True)
        for models, prompts in ((20, 805), (20, 5000), (200, 805)):
            write_comparisons(data, models, prompts, None)
            cell = measure(sys.executable, _BOOTSTRAP, data)
            found[f"1,000 prompt bootstraps, {models} models, {prompts} prompts"] = {
                "alignboard": cell
            }
            print(models, prompts, cell, flush=True)
    content = {"milliseconds": "CPU, wall (and MiB)", "found": found}
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
