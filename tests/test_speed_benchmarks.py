"""The benchmarks of judging and generation on a tiny shape: the same results from all methods, and what they print."""

import importlib.util
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name):
    """A script as a module, which imports its neighbour as scripts do."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def neighbours():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in ("benchmark_judging", "benchmark_generation", "accelerator"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def benchmark(neighbours):
    return load("judging")


@pytest.fixture(scope="module")
def generation(neighbours):
    return load("generation")


# Judging.


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


@pytest.mark.slow
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


# Generation.


def test_every_method_says_the_same_tokens(generation, monkeypatch):
    build = generation.build_model
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    monkeypatch.setattr(generation, "build_model", lambda: build(**sizes, num_attention_heads=4))
    asked = generation.requests(4, 6)
    found = {
        name: generation.METHODS[name](asked)
        for name in (generation.ONE, "lm-eval HFLM, batch 16", generation.OURS)
    }
    assert len({row["digest"] for row in found.values()}) == 1


@pytest.mark.slow
def test_the_accelerators_part_of_generation_runs_on_a_cpu(generation, benchmark, capsys):
    asked = generation.requests(20, 5, 1000)
    found = list(
        generation.on_accelerator(
            asked, {"tiny": benchmark.TINY}, "cpu", batches=(1, 4), attentions=("sdpa", "eager")
        )
    )
    assert [
        (row["engine"], row["rows"], row["attention"].removeprefix("paged|")) for row in found
    ] == [
        ("ours", 1, "sdpa"),
        ("ours", 4, "sdpa"),
        ("transformers continuous", 20, "sdpa"),
        ("transformers continuous", 20, "eager"),
    ]
    for row in found[:2]:
        assert row["of_floor"] > 0
        assert row["busy"] > 0
        assert row["most_time"]
    assert "attention sdpa" in capsys.readouterr().out
    json.dumps(found)


def test_the_floor_is_weights_and_what_rows_hold(generation, benchmark):
    model = generation.build_shape(benchmark.TINY, "cpu")
    n = sum(one.numel() for one in model.parameters())
    part = [generation.Request([1] * 10, 20), generation.Request([1] * 30, 40)]
    # 2 (keys, values) x 2 layers x 2 heads x 8 numbers x 4 bytes, of (10 + 10 + 30 + 20) / 2 tokens
    assert generation.bytes_of_step(model, part, 3) == 4 * n + 3 * 35 * 256


# Coverage.


def test_the_page_on_coverage_is_that_of_its_numbers(neighbours):
    coverage = load("interval_coverage")
    content = json.loads((FOLDER / "coverage.json").read_text())
    cells = [coverage.Cell(**cell) for cell in content]
    page = FOLDER.parent / "docs" / "coverage.md"
    looking = json.loads((FOLDER / "sequential.json").read_text())
    assert page.read_text() == coverage.markdown(cells, looking)
    ours = [cell for cell in cells if cell.method == "alignboard"]
    assert {cell.design for cell in ours if cell.coverage + 2 * cell.error < 0.93} == set()


@pytest.fixture(scope="module")
def coverage_cells(neighbours):
    coverage = load("interval_coverage")
    return [coverage.Cell(**cell) for cell in json.loads((FOLDER / "coverage.json").read_text())]


def wider(cells, *, at_size):
    """Cells whose limits are more than 1.3 times as wide as another method's, which is valid."""
    found = load("coverage_widths").widths(cells, at_size=at_size)
    return {(one.ours.design, one.other.method): one for one in found if one.ratio > 1.3}


def test_limits_of_few_prompts_are_no_wider_than_those_of_another_valid_method(coverage_cells):
    assert wider(coverage_cells, at_size=True) == {}
    # Where a method is narrower in one cell alone, it misses in another one of this size.
    alone = wider(coverage_cells, at_size=False)
    assert {one.lowest.coverage < 0.93 for one in alone.values()} == {True}
    assert len(alone) == 14


def test_a_wider_rule_and_a_narrow_valid_one_are_found(coverage_cells):
    doubled = [
        replace(cell, width=2 * cell.width)
        if (cell.quantity, cell.design, cell.method)
        == (
            "win rate by people, with a judge",
            "sens 0.7, spec 0.6, p = 0.3, 50 labels",
            "alignboard",
        )
        else cell
        for cell in coverage_cells
    ]
    new = set(wider(doubled, at_size=True)) - set(wider(coverage_cells, at_size=True))
    assert new == {("sens 0.7, spec 0.6, p = 0.3, 50 labels", "people alone")}


def test_a_simulation_that_was_stopped_goes_on_as_if_it_had_not_been(neighbours):
    coverage = load("interval_coverage")
    design = next(coverage.clusters())
    whole = coverage.as_found(design.cells(120))
    parts: dict = {}
    for more in (100, 20):
        assert coverage.missing(design, parts, 120) == (20 if parts else 120)
        coverage.add(design, parts, 120, more)
    assert coverage.missing(design, parts, 120) == 0
    (key, found), (_, expected) = *parts.items(), *whole.items()
    assert key == (design.quantity, design.name)
    assert [cell.method for cell in found] == ["alignboard", "CR1, G - 1 (former)", "rows, 1.96 SE"]
    for one, other in zip(found, expected, strict=True):
        assert vars(one) == pytest.approx(vars(other))
    other_methods = replace(design, methods={"alignboard": coverage.ours})
    assert coverage.missing(other_methods, parts, 120) == 120


def test_the_page_has_the_tables_of_what_was_measured_beside_lm_eval():
    tables = load("lm_eval_tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    measured = json.loads(tables.MEASURED.read_text(encoding="utf-8"))
    assert tables.filled(page, measured) == page
    swept = {
        "n": 2,
        "cpu_ratio": 4.0,
        "lm_eval": {"wall_s": 9, "cpu_s": 8.0},
        "alignboard": {"wall_s": 3, "cpu_s": 2.0},
    }
    assert "| seven `lm_eval` runs | 9 s | 8.0 s |" in tables.tables({"sweep": swept})
