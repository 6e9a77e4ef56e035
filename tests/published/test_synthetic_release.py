"""The agreement with upstream where no released files are at hand: a committed synthetic release with goldens.

The goldens were computed by upstream's own code (`synthetic_release/make.py`); `test_length_control` and `test_cli`
hold the same on the released files where those are present.
"""

import json
import shutil
from pathlib import Path

import pytest

from alignboard.published import scores
from alignboard.published.calibration import read_calibration
from alignboard.published.scores import CalibratedScores
from alignboard.results.folder import ResultsFolder
from alignboard.results.formats import read_annotations
from alignboard.stats import length_control, liblinear
from alignboard.stats.length_control import GamedRows
from builders import length_difference
from commands import alignboard

RELEASE = Path(__file__).parent / "synthetic_release"
GOLDENS = json.loads((RELEASE / "goldens.json").read_text())


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A copy, so that no cache is written beside the committed files."""
    copy = tmp_path_factory.mktemp("synthetic")
    shutil.copytree(RELEASE, copy, dirs_exist_ok=True)
    return copy


def reproduce(release, out, *arguments):
    command = ["reproduce", "synthetic", "--json", out, "--from", release / "results"]
    done = alignboard(release, *command, *arguments)
    assert done.returncode == 0, done.stderr
    return {row["model"]: row for row in json.loads(out.read_text())["models"]}


def test_every_figure_equals_upstreams(release, tmp_path):
    rows = reproduce(release, tmp_path / "out.json", "--assets", str(release / "length_control"))
    assert set(rows) == set(GOLDENS)
    for model, golden in GOLDENS.items():
        row = rows[model]
        for field in ("win_rate", "standard_error", "discrete_win_rate"):
            assert row[field] == pytest.approx(golden[field], abs=1e-9), (model, field)
        for field in ("n_wins", "n_wins_base", "n_draws", "n_total"):
            assert row[field] == golden[field], (model, field)
        # Upstream's solver stops early; where two Cs are nearly as good its noise decides. The suite's own tolerance:
        assert row["lc_win_rate_compat"] == pytest.approx(
            golden["length_controlled_winrate"], abs=0.02
        ), model


@pytest.mark.parametrize("model", GOLDENS)
def test_length_control_equals_upstreams_at_its_C(model, tmp_path):
    annotations = tmp_path / "annotations.json"  # read beside no cache
    shutil.copy(next((RELEASE / "results" / model).rglob("annotations.json")), annotations)
    table = read_annotations(annotations)
    found = read_calibration(RELEASE / "length_control")
    gamed = GamedRows(found.gamed_preference, found.gamed_length, found.gamed_difficulty)
    rows = (table.preference, length_difference(table), found.difficulty, gamed)
    x_model, x, y, weight = length_control._design(*rows)
    prediction = length_control._predict(x_model, liblinear.fit(x, y, weight, GOLDENS[model]["C"]))
    assert 100 * prediction.mean() == pytest.approx(
        GOLDENS[model]["length_controlled_winrate"], abs=1e-9
    )


def test_ranks_are_tested_once_and_anew_where_a_verdict_changed(release, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    results = tmp_path / "results"
    shutil.copytree(release / "results", results)
    tested = []
    compute = scores.paired_ranks
    monkeypatch.setattr(scores, "paired_ranks", lambda tables: tested.append(1) or compute(tables))

    def ranks():
        with ResultsFolder(results) as folder:
            judge = folder.annotation_files("decided")[0].annotator
            tables = folder.tables(folder.annotated_models(judge), judge)
            found = scores.kept_ranks(folder, tables)
            assert found == compute(tables)
        return found

    first = ranks()
    assert ranks() == first
    assert len(tested) == 1
    assert None in {one.resolution for one in first.values()}
    path = next((results / "decided").rglob("annotations.json"))
    rows = json.loads(path.read_text())
    for row in rows[:40]:
        row["preference"] = 3 - row["preference"]
    path.write_text(json.dumps(rows))
    assert ranks() != first
    assert len(tested) == 2


def test_aligned_fits_are_made_once(release, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(release / "results", results)
    calibration = read_calibration(release / "length_control")
    with ResultsFolder(results) as folder:
        tables = folder.tables(list(GOLDENS), "weighted_alpaca_eval_gpt4_turbo")
        outputs = folder.outputs("reference")
        assert outputs is not None
        first = CalibratedScores(folder, outputs.instruction, calibration).aligned(tables)
    fit = scores.aligned_length_control(tables["verbose"], outputs.instruction, calibration)
    assert first["verbose"].influence.tolist() == fit.influence.tolist()
    monkeypatch.delattr(scores, "aligned_length_control")
    with ResultsFolder(results) as folder:
        kept = CalibratedScores(folder, outputs.instruction, calibration)
        assert kept.aligned(tables) == first


def test_a_changed_verdict_moves_the_figures(release, tmp_path):
    changed = tmp_path / "release"
    shutil.copytree(release, changed)
    path = next((changed / "results" / "decided").rglob("annotations.json"))
    rows = json.loads(path.read_text())
    rows[0]["preference"] = 3 - rows[0]["preference"]
    path.write_text(json.dumps(rows))
    found = reproduce(changed, tmp_path / "out.json", "--assets", str(changed / "length_control"))
    difference = abs(found["decided"]["win_rate"] - GOLDENS["decided"]["win_rate"])
    assert difference == pytest.approx(100 / 120, abs=1e-9)


def test_upstream_still_computes_the_goldens(upstream, monkeypatch):
    pandas = pytest.importorskip("pandas")
    glm_winrate = upstream("metrics.glm_winrate")
    local = str(RELEASE / "length_control" / "df_gamed.csv")
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: local)
    path = next((RELEASE / "results" / "verbose").rglob("annotations.json"))
    metrics = glm_winrate.get_length_controlled_winrate(
        pandas.DataFrame(json.loads(path.read_text())),
        save_weights_dir=None,
        is_warn_extreme_changes=False,
    )
    for field in metrics:
        value = GOLDENS["verbose"][field]
        assert metrics[field] == pytest.approx(value, abs=1e-9), field
