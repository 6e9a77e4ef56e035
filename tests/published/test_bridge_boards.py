"""The bridge on published boards, boards of one's own and folders of annotations, and its command."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner

from alignboard.cli.bridge import PUBLISHED, bridge
from alignboard.errors import InputError
from alignboard.published.bridge.boards import new_board, official_board
from alignboard.published.bridge.material import Material
from alignboard.published.bridge.report import bridge_report
from alignboard.results.folder import ResultsFolder
from alignboard.suites import load_suite

SUITES = [load_suite(name) for name in PUBLISHED]
OFFICIAL = SUITES[0]
N_INSTRUCTIONS = 805


# The published boards.

JUDGES = ("alpaca_eval_gpt4", "claude", "alpaca_eval_cot_gpt4_turbo_fn", "claude_3_opus_ranking")


@cache
def published(judge, metric):
    board = new_board(judge, SUITES, None, OFFICIAL.n_instructions)
    return Material.of(board, official_board(OFFICIAL, None), metric)


@cache
def validated(judge, metric):
    return published(judge, metric).validate()


@pytest.mark.parametrize(
    ("judge", "n", "metric"),
    [
        ("claude", 28, "win_rate"),
        ("claude", 28, "lc"),
        ("alpaca_eval_gpt4", 98, "lc"),
        pytest.param("alpaca_eval_gpt4", 98, "win_rate", marks=pytest.mark.slow),
    ],
)
def test_the_published_boards_of_alpaca_eval_1(judge, n, metric):
    material = published(judge, metric)
    validation = validated(judge, metric)
    assert len(material.names) == n
    for among in (validation.estimates.inside, np.ones(n, dtype=bool)):
        quality = validation.quality(material.own, among)
        assert 0.90 <= quality.coverage <= 0.99
        assert quality.mean_absolute_error < 0.1 * quality.naive_mean_absolute_error
    if metric == "lc":
        assert quality.spearman > quality.naive_spearman
        assert quality.kendall > quality.naive_kendall


@pytest.mark.parametrize("metric", ["win_rate", "lc"])
def test_the_published_boards_of_another_alpaca_eval_2_judge(metric):
    """Eleven models: one interval more or less is nine points of coverage."""
    material = published("alpaca_eval_cot_gpt4_turbo_fn", metric)
    validation = validated("alpaca_eval_cot_gpt4_turbo_fn", metric)
    inside = validation.quality(material.own, validation.estimates.inside)
    assert (len(material.names), inside.n) == (11, 9)
    assert inside.n_covered >= 8
    assert inside.mean_absolute_error < inside.naive_mean_absolute_error


@pytest.mark.parametrize("metric", ["win_rate", "lc"])
def test_what_is_official_of_a_model_has_no_part_in_its_own_estimate(metric):
    """Through everything that is made of official figures, the shift by length included."""
    judge, name = "alpaca_eval_cot_gpt4_turbo_fn", "claude-2.1"
    material = published(judge, metric)
    number = material.names.index(name)
    row = replace(material.target.models[name], win_rate=60.0, lc_win_rate=3.0, standard_error=0.4)
    target = replace(material.target, models=material.target.models | {name: row})
    other = Material.of(material.board, target, metric)
    assert other.official[number] != material.official[number]
    a, b = validated(judge, metric).estimates, other.validate().estimates
    for one, changed in ((a.estimate, b.estimate), (a.low, b.low), (a.high, b.high)):
        assert one[number] == changed[number]
        assert (np.delete(one, number) != np.delete(changed, number)).all()


@pytest.mark.parametrize("metric", ["win_rate", "lc"])
def test_six_shared_models_are_refused(metric):
    material = published("claude_3_opus_ranking", metric)
    assert len(material.names) == 6
    with pytest.raises(InputError, match="6 models in common, and a bridge takes at least 8"):
        material.validate()


def test_the_length_shift_of_a_fold_is_made_without_the_left_out_model():
    material = published("claude", "lc")
    rows = material.target.models
    changed = dict(rows) | {"gpt4": replace(rows["gpt4"], lc_win_rate=99.0)}
    other = replace(material, target=replace(material.target, models=changed))
    for hidden, same in (("gpt4", True), ("claude", False)):
        a = material.scores(material.names, hidden=hidden).length_shift
        b = other.scores(material.names, hidden=hidden).length_shift
        assert a is not None
        assert b is not None
        assert np.array_equal(a, b) is same


def test_the_report_names_its_estimates():
    report = bridge_report("claude", OFFICIAL, SUITES, models=["text_davinci_003", "claude-2"])
    content = report.to_json()
    new, anchor = content["estimates"][1], content["estimates"][0]
    assert (anchor["model"], new["model"]) == ("claude-2", "text_davinci_003")
    assert new["official_win_rate"] is None
    assert (
        new["estimated_official_win_rate_low"]
        < new["estimated_official_win_rate"]
        < new["estimated_official_win_rate_high"]
    )
    assert anchor["official_win_rate"] == pytest.approx(17.188, abs=1e-3)
    assert len(content["anchors"]) == content["validation"]["all_shared"]["n"] == 28
    assert 90 <= content["validation"]["within_range"]["coverage"] <= 99
    json.dumps(content, allow_nan=False)


# Boards of one's own, and the command.


def csv_board(path, n=14, extra=()):
    """Every few rows of the AlpacaEval 1 board as a file of one's own, and more rows."""
    material = published("alpaca_eval_gpt4", "win_rate")
    scored = [(name, material.board.models[name]) for name in material.names]
    lines = [
        f"{name},{one.win_rate!r},{one.standard_error!r},{one.length:.0f}"
        for name, one in scored[:: len(scored) // n][:n]
    ]
    path.write_text("\n".join(["name,win_rate,standard_error,avg_length", *lines, *extra]) + "\n")
    return str(path)


def test_a_csv_of_ones_own_gives_what_the_published_board_gives(tmp_path):
    path = csv_board(
        tmp_path / "mine.csv", extra=["new-model,85.5,,1400", "far,99.9,0.1,1400", "x,80"]
    )
    report = bridge_report(path, OFFICIAL, SUITES)
    whole = published("alpaca_eval_gpt4", "win_rate")
    rows = {row.model: row for row in report.anchors}
    assert len(rows) == 14
    for name, row in rows.items():
        assert row.new_win_rate == whole.board.models[name].win_rate
        assert row.official == pytest.approx(whole.target.models[name].win_rate)
    new, far, bare = report.estimates
    assert bare.refused == "its mean length is not known, and that of every anchor is"
    assert (new.model, far.model, far.estimate) == ("new-model", "far", None)
    assert new.refused is None
    assert far.refused is not None
    assert "outside of the anchors' range" in far.refused
    with pytest.raises(InputError, match=r"far: its win rate of 99.*, so that anchors surround"):
        bridge_report(path, OFFICIAL, SUITES, models=["far"])
    with pytest.raises(InputError, match="no model 'new-mode', did you mean 'new-model'"):
        bridge_report(path, OFFICIAL, SUITES, models=["new-mode"])


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["gpt4_1106_preview,50,1,1000"], "repeats the model 'gpt4_1106_preview'"),
        (["x,nan,1,1000"], "field 'win_rate': 'nan'"),
        (["x,,1,1000"], "field 'win_rate': empty"),
        (["x,120,1,1000"], "field 'win_rate': '120'; expected a number from 0 to 100"),
        (["x,50,much,1000"], "field 'standard_error': 'much'"),
        ([",50,1,1000"], "has no name"),
        (["x,50,1,1,400"], "row 15: 5 cells, and the header has 4 columns"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path, extra, told):
    path = csv_board(tmp_path / "mine.csv", extra=extra)
    with pytest.raises(InputError, match=told) as error:
        new_board(path, SUITES, None, N_INSTRUCTIONS)
    assert "\n" not in str(error.value)


def test_a_bad_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read as csv"):
        bridge_report(str(tmp_path / "none.csv"), OFFICIAL, SUITES)
    path = tmp_path / "headless.csv"
    path.write_text("name,score\na,1\n")
    with pytest.raises(InputError, match="the header has no column 'win_rate'"):
        bridge_report(str(path), OFFICIAL, SUITES)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the header has no column 'name'"),
        ("name;win_rate\na;4\n", "no column 'name'; columns, separated by commas"),
        ("name,win_rate\n\n,\n", "holds no rows"),
        ("name,win_rate\na\n", "field 'win_rate': empty"),
        ("name,win_rate\na,0.4\nb,0.7\n", "'win_rate': .* percentages were expected, not frac"),
        (
            "name,win_rate,lc_win_rate\na,40,0.3\nb,70,0.6\n",
            "'length_controlled_winrate': .* percentages were expected, not fractions",
        ),
        (
            "name,win_rate,standard_error\na,40,0.017\nb,70,0.015\n",
            "'standard_error': .* percentages were expected, not fractions",
        ),
        ("name,winrate\na,4\n", "the column 'winrate' is none that is read, did you mean 'win_ra"),
        ("name,model,win_rate\na,b,4\n", "'name' and 'model' of the header both hold the name"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, content, told):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=told) as error:
        new_board(str(path), SUITES, None, N_INSTRUCTIONS)
    assert "\n" not in str(error.value)


def test_columns_are_read_by_their_titles_wherever_they_stand(tmp_path):
    """Titles that mean nothing may stand twice; what has none in the first place is the index with the models."""
    path = tmp_path / "mine.csv"
    path.write_text(",note,note,avg_length,win_rate,mode\na,x,y,900,40,minimal\n\nb,,,,70\n")
    models = new_board(str(path), SUITES, None, N_INSTRUCTIONS).models
    assert {name: (one.win_rate, one.length) for name, one in models.items()} == {
        "a": (40, 900),
        "b": (70, None),
    }


def test_judges_that_cannot_be_named_are_refused():
    with pytest.raises(InputError, match="did you mean 'claude'"):
        bridge_report("claud", OFFICIAL, SUITES)
    with pytest.raises(InputError, match="is the official judge of alpaca-eval-2 itself"):
        bridge_report(OFFICIAL.annotator, OFFICIAL, SUITES)


def test_the_command(tmp_path):
    out = tmp_path / "bridge.json"
    result = CliRunner().invoke(bridge, ["claude", "--metric", "lc", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "estimated_official_lc_win_rate" in result.output
    assert "Estimates are no official scores" in result.output
    content = json.loads(out.read_text())
    assert content["metric"] == "lc"
    assert content["estimates"][0]["model"] == "text_davinci_003"
    failed = CliRunner().invoke(bridge, ["claude_3_opus_ranking"])
    assert isinstance(failed.exception, InputError)
    folder = CliRunner().invoke(bridge, ["claude", "--json", str(tmp_path)])
    assert (folder.exit_code, "is a directory" in folder.output) == (2, True)


# A folder of annotations.


def annotations(rng, model, baseline, rate, n=40):
    return [
        {
            "instruction": f"question {i}",
            "output_1": "a" * 100,
            "generator_1": baseline,
            "output_2": "b" * int(rng.integers(50, 150)),
            "generator_2": model,
            "preference": 1.0 + (rng.random() < rate),
        }
        for i in range(n)
    ]


def results_folder(root, n_models=12):
    """Two judges on the answers of n models; the official one has judged all but model-06."""
    rng = np.random.default_rng(6)
    for number, rate in enumerate(np.linspace(0.15, 0.8, n_models)):
        model = f"model-{number:02d}"
        rows = annotations(rng, model, "other_baseline", rate)
        official = [
            row | {"generator_1": OFFICIAL.baseline, "preference": 1.0 + (rng.random() < rate / 2)}
            for row in rows
        ]
        judged = {"mine": rows} | ({OFFICIAL.annotator: official} if number != 6 else {})
        for judge, content in judged.items():
            path = root / model / judge / "annotations.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))
    return root


def test_annotations_of_both_judges_are_used(tmp_path):
    with ResultsFolder(results_folder(tmp_path / "results")) as folder:
        report = bridge_report("mine", OFFICIAL, SUITES, folder=folder)
        assert report.n_models_with_items == 11
        assert [row.model for row in report.estimates] == ["model-06"]
        assert report.estimates[0].estimate is not None
        with pytest.raises(InputError, match="did you mean 'mine'"):
            bridge_report("mime", OFFICIAL, SUITES, folder=folder)
        with pytest.raises(InputError, match="0 models in common"):
            bridge_report("mine", OFFICIAL, SUITES, folder=folder, metric="lc")


@pytest.mark.parametrize("metric", [pytest.param("win_rate", marks=pytest.mark.slow), "lc"])
def test_the_released_annotations(released, tmp_path, monkeypatch, metric):
    """Twenty models judged by GPT-4; four of them have official verdicts on the very same answers."""
    monkeypatch.setattr("alignboard.results.cache._folder", lambda _: tmp_path / "cache")
    with ResultsFolder(released / "results") as folder:
        report = bridge_report("alpaca_eval_gpt4", OFFICIAL, SUITES, folder=folder, metric=metric)
        assert report.n_models_with_items == 4
        assert (report.all_shared.n, report.within_range.n) == (19, 16)
        assert report.within_range.n_covered >= 15
        assert report.within_range.mean_absolute_error < 0.04
        assert [row.model for row in report.estimates] == ["Mistral-7B+RAHF-DUAL+LoRA"]
        with pytest.raises(InputError, match="5 models in common"):
            bridge_report("alpaca_eval_cot_gpt4_turbo_fn", OFFICIAL, SUITES, folder=folder)
