"""The bridge to people: Arena Elo from a judge's scores, on AlpacaEval's own table of both."""

import csv
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.published.bridge.people import read_ratings
from alignboard.stats.human_map import fit_human_map, left_out


def table_of(released, tmp_path):
    """A board of one's own with the table's LC win rates, and the table itself."""
    source = released / "benchmarks.csv"
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = [(row["Model"], row["LC AlpacaEval 2.0"]) for row in csv.DictReader(file)]
    own = tmp_path / "own.csv"
    with own.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "win_rate"])
        writer.writerows(row for row in rows if row[1])
        writer.writerow(["hopeless", "0.1"])
    return own, source


def test_arena_elo_from_length_controlled_win_rates(released, tmp_path):
    own, source = table_of(released, tmp_path)
    result = CliRunner().invoke(
        cli, ["bridge", str(own), "--people", str(source), "--json", "-"], catch_exceptions=False
    )
    found = json.loads(result.stdout)
    assert found["n_anchors"] == 37
    assert (
        found["mean_absolute_error"] <= 17.9
    )  # conformal soft Elo reaches this from richer inputs (2606.13221)
    assert 0.93 <= found["covered"] <= 0.98
    assert "Arena Elo" in result.stderr
    by_name = {one["model"]: one for one in found["models"]}
    assert by_name["hopeless"]["estimate"] is None
    assert "outside the range" in result.stderr
    new = [one for one in found["models"] if one["rating"] is None and one["estimate"] is not None]
    assert new
    assert all(one["low"] < one["estimate"] < one["high"] for one in new)


def test_prediction_intervals_cover_new_models():
    rng = np.random.default_rng(0)
    held = n = 0
    for _ in range(1500):
        x = rng.normal(size=13)
        y = 1000 + 80 * x + rng.normal(0, 25, 13)
        score = 1 / (1 + np.exp(-x))
        _, low, high = fit_human_map(score[:-1], y[:-1]).predict(float(score[-1]))
        if not math.isnan(low):
            held += low <= y[-1] <= high
            n += 1
    assert 0.935 <= held / n <= 0.965


def test_what_cannot_be_bridged_is_refused(tmp_path):
    score = np.linspace(0.1, 0.9, 9)
    with pytest.raises(InputError, match="7 models have both"):
        fit_human_map(score[:7], score[:7])
    with pytest.raises(InputError, match="same score"):
        fit_human_map(np.full(9, 0.5), score)
    ends = left_out(score, 1000 + 100 * score)
    assert math.isnan(ends[0][0])  # the lowest lies outside of the others
    assert not math.isnan(ends[4][0])
    path = tmp_path / "people.csv"
    path.write_text("Model,Arena Elo\na,much\n")
    with pytest.raises(InputError, match="row 1, field 'Arena Elo': 'much'"):
        read_ratings(path, None)
    with pytest.raises(InputError, match="no column 'Score'"):
        read_ratings(path, "Score")
