"""Power of the paired test: published values, scipy's noncentral t, inverses, and the command."""

import json
import math

import pytest
from click.testing import CliRunner
from scipy import stats

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.judges.pricing import BYTES_PER_TOKEN
from alignboard.stats.power import (
    detectable_difference,
    power,
    prompts_needed,
    resolution,
)
from builders import judgments, write_json

SD = 0.1884542253861944  # gpt-3.5-turbo-1106 against its concise version
MEDIAN_SD = 0.2531392570266357  # of the 253 released pairs


def test_prompts_of_the_released_pairs():
    assert [prompts_needed(d, SD) for d in (0.01, 0.02, 0.05)] == [2790, 699, 114]
    assert prompts_needed(0.02, MEDIAN_SD) == 1260
    critical, shift = stats.t.ppf(0.975, 804), 0.02 / SD * math.sqrt(805)
    right, wrong = stats.nct.sf(critical, 804, shift), stats.nct.cdf(-critical, 804, shift)
    assert right == pytest.approx(0.852569115, abs=1e-9)  # claims of the right sign alone
    assert power(0.02, SD, 805) == pytest.approx(right + wrong, abs=1e-9)


@pytest.mark.parametrize(
    ("d", "n", "alpha"),
    [(0.02, 805, 0.05), (0.1, 20, 0.05), (0.3, 3, 0.01), (0.5, 2, 0.05), (0.05, 50, 0.05 / 253)],
)
def test_power_against_scipy(d, n, alpha):
    critical, shift = stats.t.ppf(1 - alpha / 2, n - 1), d / SD * math.sqrt(n)
    expected = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power(d, SD, n, alpha) == pytest.approx(expected, rel=1e-9)


def test_without_a_difference_power_is_the_level():
    assert power(0.0, SD, 30) == pytest.approx(0.05, rel=1e-9)
    assert math.isnan(power(0.1, SD, 1))


@pytest.mark.parametrize("n", [5, 100, 805])
def test_the_detectable_difference_needs_these_prompts(n):
    found = detectable_difference(SD, n)
    assert power(found, SD, n) == pytest.approx(0.8, abs=1e-6)
    assert prompts_needed(found * (1 + 1e-7), SD) == n


def test_no_number_of_prompts_separates_nearly_nothing():
    with pytest.raises(ValueError, match="no number of prompts"):
        prompts_needed(1e-9, SD)


def run(*arguments):
    result = CliRunner().invoke(cli, ["power", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_takes_assumptions():
    said = run("--sd", "18.84542253861944", "--difference", "2")
    assert said.startswith("699 prompts separate 2 points in 80% of runs")
    assert not run("--sd", "18.8", "--difference", "2", "--tests", "22").startswith("699")


def test_the_command_takes_a_pilot(tmp_path):
    files = []
    for model, wins in (("A", 30), ("B", 26)):
        rows = judgments(60, generator_2=model)
        for number, row in enumerate(rows):
            row["preference"] = 2.0 if number < wins else 1.0
        files.append(str(write_json(tmp_path / f"{model}.json", rows)))
    out = tmp_path / "out.json"
    run(*files, "--difference", "2", "--json", str(out))
    (pair,) = json.loads(out.read_text())
    assert pair["difference"] == pytest.approx(4 / 60)
    assert pair["needed"] == prompts_needed(0.02, pair["sd"])
    assert pair["resolution"] == pytest.approx(60 / prompts_needed(4 / 60, pair["sd"]))
    assert pair["detectable"] == pytest.approx(detectable_difference(pair["sd"], 60))


@pytest.mark.parametrize(
    "options", [[], ["--sd", "20"], ["a.json", "b.json", "--sd", "20"], ["--difference", "0"]]
)
def test_neither_pilot_nor_assumptions(options):
    with pytest.raises(InputError, match="--"):
        run(*options)


def test_calls_and_dollars_of_the_prompts_needed(tmp_path, monkeypatch):
    """By hand: two orders a prompt and model, each of a prompt and 100 tokens of a reply, at 1 and 2 dollars."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluate" / "judges").mkdir(parents=True)
    (tmp_path / "evaluate" / "judges" / "paid.yaml").write_text(
        "kind: prompted\nname: paid\ntitle: paid\nmodel: some-model\napi_key_env: null\norder: both\n"
        "prompt: {text: '{instruction} {first} {second}'}\nverdict: {by: bracket}\nsampling: {max_new_tokens: 100}\n"
    )
    (tmp_path / "evaluate" / "prices.yaml").write_text(
        "date: 2026-11-01\nsource: here\nmodels:\n  some-model: {prompt: 1.0, answer: 2.0}\n"
    )
    for model, wins in (("A", 30), ("B", 26)):
        rows = judgments(60, generator_2=model, annotator="paid")
        for number, row in enumerate(rows):
            row["preference"] = 2.0 if number < wins else 1.0
        write_json(tmp_path / "results" / model / "paid" / "annotations.json", rows)
    out = tmp_path / "out.json"
    said = run("A", "B", "--from", "results", "--judge", "paid", "--json", str(out))
    (pair,) = json.loads(out.read_text())
    assert pair["calls"] == 4 * pair["needed"]
    texts = [f"{row['instruction']} {row['output_1']} {row['output_2']}" for row in rows]
    tokens = sum(round(len(text) / BYTES_PER_TOKEN) for text in texts) / len(texts)
    assert pair["dollars"] == pytest.approx(pair["calls"] * (tokens + 2 * 100) / 1e6)
    assert f"{pair['calls']}" in said
    assert "US dollars" in said


def test_a_finished_board_has_the_resolution_of_every_neighbour():
    assert resolution(0.02, SD, 805) == pytest.approx(805 / 699)
    assert resolution(-0.02, SD, 805) == pytest.approx(805 / 699)
    assert math.isnan(resolution(0.0, SD, 805))
    assert math.isnan(resolution(1e-9, SD, 805))
