"""The functions of benchmarks/judging.py on a tiny shape: the same numbers from all, and the lengths it promises."""

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "judging.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_judging", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_prompts_have_alpaca_evals_lengths(benchmark):
    asked = benchmark.questions(200)
    lengths = sorted(len(benchmark.prompt_ids(one)) for one in asked)
    assert statistics.fmean(lengths) == pytest.approx(927, rel=0.02)
    for share, expected in ((0.5, 928), (0.9, 1343), (0.99, 1999)):
        assert lengths[int(share * len(lengths)) - 1] == pytest.approx(expected, rel=0.05)
    assert [one.first for one in asked[::2]] == [one.second for one in asked[1::2]]
    shared = benchmark.questions(5, models=3)
    assert len(shared) == 30
    assert len({tuple(one.first) for one in shared[::2]}) == 5


def test_every_method_computes_the_same(benchmark):
    asked = benchmark.questions(2)
    rows = {name: run(asked, benchmark.TINY) for name, run in benchmark.METHODS.items()}
    for row in rows.values():
        assert benchmark.difference(rows[benchmark.PLAIN]["p"], row["p"]) <= 1e-6
        assert row["cpu_s"] > 0


def test_the_accelerators_part_runs_on_a_cpu(benchmark):
    found = list(benchmark.on_accelerator(benchmark.questions(1), {"tiny": benchmark.TINY}, "cpu"))
    assert [row["head_shared"] for row in found] == [False, True]
    for row in found:
        assert row["of_floor"] > 0
        assert row["attention"] == "sdpa"
        assert row["most_time"]
    json.dumps(found)


def test_the_table_is_printed_and_written(benchmark, monkeypatch, tmp_path, capsys):
    arguments = ["judging.py", "--small", "--shape", "tiny", "--device", "cpu"]
    arguments += ["--json", str(tmp_path / "found.json"), "--repeats", "1"]
    arguments += ["--only", benchmark.PLAIN, benchmark.OURS]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["prompts"] == 16
    assert written["methods"][benchmark.OURS]["max_dp"] <= 1e-6
    assert "CPU ratio" in capsys.readouterr().out
