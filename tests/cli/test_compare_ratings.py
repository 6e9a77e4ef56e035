"""`alignboard compare` of ratings of single outputs: from files and results folders, on the judge's own scale."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import alignboard
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.stats.paired import paired_difference

JUDGE = "mt-bench-single"


def ratings(
    path: Path, model: str, values: list, *, judge: str = JUDGE, second: list | None = None
) -> str:
    """A file as `alignboard judge rate` writes it; ``second`` are the ratings of second turns."""

    def row(question: str, value: float | None, turn: int) -> dict:
        return {
            "instruction": question,
            "output": "text",
            "generator": model,
            "annotator": judge,
            "rating": value,
            "status": "scored" if value is not None else "unparsed",
            "turn": turn,
            "dataset": "math",
        }

    rows = [row(f"question {k}", value, 1) for k, value in enumerate(values)]
    for k, value in enumerate(second or []):
        rows.append(row(f"question {k}\n\nand then?\n\nWhy?", value, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return str(path)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_two_files_of_ratings_are_the_paired_difference_on_the_judges_scale(tmp_path: Path) -> None:
    one, other = [9, 8, 7, 10, 3, 6, 8, None, 9, 7], [7, 8, 5, 9, 4, 5, 6, 9, 8, 6, 5]
    out = tmp_path / "out.json"
    a, b = (ratings(tmp_path / f"{m}.json", m, own) for m, own in (("A", one), ("B", other)))
    shown = run(a, b, "--json", str(out))
    (pair,) = json.loads(out.read_text())["pairs"]
    common = [(x, y) for x, y in zip(one, other, strict=False) if x is not None]
    x, y = (np.array(column) for column in zip(*common, strict=True))
    wanted = paired_difference((x - 1) / 9, (y - 1) / 9)
    assert (pair["quantity"], pair["scale"]) == ("rating", [1, 10])
    assert (pair["n"], pair["only_a"], pair["only_b"]) == (9, 0, 2)
    assert (pair["estimate"], pair["low"], pair["p_value"]) == pytest.approx(
        (wanted.estimate, wanted.low, wanted.p_value), rel=1e-12
    )
    assert f"rating, 1 to 10  {(x - y).mean():+.2f}" in shown
    assert f"{9 * wanted.low:+.2f} to {9 * wanted.high:+.2f}" in shown


def test_turns_of_a_conversation_are_one_cluster(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    first = {m: rng.integers(1, 11, 30).tolist() for m in "AB"}
    files = [
        ratings(tmp_path / f"{m}.json", m, first[m], second=first[m]) for m in "AB"
    ]  # the second turn says nothing new
    (row,) = alignboard.compare(*files).rows
    (single,) = alignboard.compare(
        *(ratings(tmp_path / f"{m}1.json", m, first[m]) for m in "AB")
    ).rows
    assert (row.found.n, row.found.n_clusters) == (60, 30)
    assert row.found.standard_error == pytest.approx(single.found.standard_error, rel=1e-12)
    (by_field,) = alignboard.compare(*files, cluster="turn").rows
    assert by_field.found.n_clusters == 2


def test_a_results_folder_with_ratings_alone_and_with_verdicts_beside_them(tmp_path: Path) -> None:
    for k, model in enumerate("ABC"):
        own = [(3 * n + 2 * k * n + k) % 10 + 1 for n in range(40)]
        ratings(tmp_path / model / JUDGE / "ratings.json", model, own)
    found = alignboard.compare("A", "B", "C", results=tmp_path, judge=JUDGE, all_pairs=True)
    assert {row.quantity for row in found.rows} == {"rating"}
    assert found.rankings[0].quantity == "rating"
    for model in "ABC":
        rows = [
            {
                "instruction": f"question {n}",
                "output_1": "b",
                "output_2": "text",
                "generator_1": "base",
                "generator_2": model,
                "annotator": JUDGE,
                "preference": 1 + n % 2,
            }
            for n in range(9)
        ]
        (tmp_path / model / JUDGE / "annotations.json").write_text(json.dumps(rows))
    found = alignboard.compare("A", "B", results=tmp_path, judge=JUDGE)
    assert [row.quantity for row in found.rows] == ["win_rate", "rating"]


def test_ratings_of_several_sets_are_chosen_by_name(tmp_path: Path) -> None:
    for model in "AB":
        for name in ("mt-bench", "mine"):
            ratings(tmp_path / model / name / JUDGE / "ratings.json", model, [1, 5, 9])
    with pytest.raises(InputError, match="several sets of ratings by"):
        alignboard.compare("A", "B", results=tmp_path, judge=JUDGE)
    (row,) = alignboard.compare("A", "B", results=tmp_path, judge=JUDGE, set_name="mt-bench").rows
    assert row.verdict == "identical"


def test_power_takes_ratings_as_a_pilot(tmp_path: Path) -> None:
    for k, model in enumerate("AB"):
        own = [(3 * n + 2 * k * n + k) % 10 + 1 for n in range(40)]
        ratings(tmp_path / model / JUDGE / "ratings.json", model, own)
    arguments = ["power", "A", "B", "--from", str(tmp_path), "--judge", JUDGE]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "rating, % of its scale" in result.output


@pytest.mark.parametrize(
    ("judge", "other", "value", "words"),
    [
        (JUDGE, JUDGE, 11, "row 2, field 'rating': 11 is not between 1 and 10"),
        (JUDGE, "another", 5, "two judges, 'mt-bench-single' and 'another'"),
        ("nobody", "nobody", 5, "the judge declares the scale of its ratings. There is no judge"),
        ("skywork-reward", "skywork-reward", 5, "have no lowest and highest value"),
        (JUDGE, JUDGE, "good", "row 2: Expected `float | null`, got `str` - at `$.rating`"),
    ],
)
def test_ratings_that_cannot_be_compared(
    tmp_path: Path, judge: str, other: str, value: object, words: str
) -> None:
    a = ratings(tmp_path / "a.json", "A", [3, value, 4], judge=judge)
    b = ratings(tmp_path / "b.json", "B", [3, 4, 5], judge=other)
    with pytest.raises(InputError) as error:
        run(a, b)
    assert words in str(error.value)


def test_a_rating_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    a = ratings(tmp_path / "a.json", "A", [3, 4])
    rows = json.loads(Path(a).read_text())
    Path(a).write_text(json.dumps([*rows, rows[0]]))
    with pytest.raises(
        InputError, match="row 3, field 'instruction': the same instruction as in row 1"
    ):
        run(a, ratings(tmp_path / "b.json", "B", [3, 4]))
