"""`alignboard compare`: from annotations files and results folders to differences, corrected p-values, exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError


def annotations(
    path: Path, model: str, preferences: list, *, judge: str = "j", start: int = 0
) -> str:
    rows = [
        {
            "instruction": f"prompt {start + number}",
            "output_1": "from the baseline",
            "output_2": "from the model",
            "generator_1": "base",
            "generator_2": model,
            "annotator": judge,
            "preference": preference,
        }
        for number, preference in enumerate(preferences)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return str(path)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_two_files(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A", [2, 2, 1, 2, 2, 2, 1, 2, 2, None])
    b = annotations(tmp_path / "b.json", "B", [1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2])
    out = tmp_path / "out.json"
    shown = run(a, b, "--json", str(out))
    assert "A better" in shown
    (pair,) = json.loads(out.read_text())["pairs"]
    assert (pair["n"], pair["only_a"], pair["only_b"]) == (9, 0, 2)
    assert pair["estimate"] == pytest.approx(6 / 9)
    assert pair["adjusted_p"] == pair["p_value"] < 0.05


@pytest.mark.parametrize("correction", ["holm", "maxt", "bh", "none"])
def test_three_models_all_pairs(tmp_path: Path, correction: str) -> None:
    files = [
        annotations(tmp_path / f"{m}.json", m, [2 if (n * k) % 5 else 1 for n in range(60)])
        for k, m in enumerate("ABC")
    ]
    out = tmp_path / "out.json"
    run(*files, "--all-pairs", "--correction", correction, "--json", str(out))
    pairs = json.loads(out.read_text())["pairs"]
    assert [(p["a"], p["b"]) for p in pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert all(p["adjusted_p"] is None or p["adjusted_p"] >= 0.99 * p["p_value"] for p in pairs)


def test_the_same_verdicts_are_identical_and_no_test(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A", [1, 2, 1])
    b = annotations(tmp_path / "b.json", "B", [1, 2, 1])
    assert "identical" in run(a, b)


def test_nothing_in_common_is_exit_code_3(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A", [1, 2])
    b = annotations(tmp_path / "b.json", "B", [1, 2], start=9)
    assert "no scored prompt in common" in run(a, b, code=3)


def test_two_judges_are_refused_by_name(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A", [1, 2])
    b = annotations(tmp_path / "b.json", "B", [1, 2], judge="another")
    with pytest.raises(InputError, match="'another'"):
        run(a, b)


@pytest.mark.parametrize("options", [["--judge", "j"], ["--assets", "there"]])
def test_options_that_need_others(tmp_path: Path, options: list[str]) -> None:
    a = annotations(tmp_path / "a.json", "A", [1, 2])
    with pytest.raises(InputError, match="--from DIR"):
        run(a, "b.json", *options)


def test_released_models_raw_and_length_controlled(released: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    judge = "weighted_alpaca_eval_gpt4_turbo"
    models = ("phi-2-sft", "phi-2", "alpaca-7b")
    where = ("--from", str(released / "results"), "--assets", str(released / "length_control"))
    run(*models, *where, "--judge", judge, "--all-pairs", "--json", str(out))
    pairs = json.loads(out.read_text())["pairs"]
    found = {(p["a"], p["b"], p["quantity"]): p["estimate"] for p in pairs}
    assert found["phi-2-sft", "phi-2", "win_rate"] == pytest.approx(0.016368024314321297, rel=1e-9)
    lc = found["phi-2-sft", "phi-2", "lc_win_rate"]
    assert lc == pytest.approx(0.019652123607425916, rel=1e-9)
