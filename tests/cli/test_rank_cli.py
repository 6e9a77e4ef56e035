"""`alignboard rank`: files of anybody to ratings, refusals by row and field, and exit codes."""

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import alignboard
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.reports.rank import rank

MODELS = ("strong", "middle", "weak")


def battles(n=120, seed=0, **extra):
    rng = random.Random(seed)
    rows = []
    for prompt in range(n):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            u = rng.random()
            p = 0.45 + 0.15 * (b - a)
            winner = "model_a" if u < p else "tie" if u < p + 0.1 else "model_b"
            rows.append(
                {
                    "model_a": MODELS[a],
                    "model_b": MODELS[b],
                    "winner": winner,
                    "prompt_id": f"q{prompt}",
                }
                | {name: make(rng) for name, make in extra.items()}
            )
    return rows


def write(path: Path, rows) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["rank", *map(str, arguments)])


def as_json(*arguments):
    result = CliRunner().invoke(cli, ["rank", *map(str, arguments), "--json", "-"])
    assert result.exit_code in {0, 3}, result.output
    return json.loads(result.stdout)


def test_csv_jsonl_and_parquet_give_one_rating(tmp_path):
    rows = battles()
    files = [write(tmp_path / f"b.{suffix}", rows) for suffix in ("csv", "jsonl", "parquet")]
    one, two, three = (as_json(file) for file in files)
    assert one == two == three
    assert one["status"] == "ranked"
    assert [line["model"] for line in one["models"]] == list(MODELS)
    assert one["n_clusters"] == 120
    assert one["clustered_by"] == "prompts"
    top = one["models"][0]
    assert top["ci_low"] < top["elo"] < top["ci_high"]
    assert (top["rank_low"], top["rank_high"]) == (1, 1)
    assert top["n"] == 240
    assert sum(line["log_strength"] for line in one["models"]) == pytest.approx(0, abs=1e-9)
    assert one["components"] == [sorted(MODELS)]
    assert [order["better"] for order in one["orders"]] == ["strong", "middle"]
    text = run(files[0]).output
    assert "360 comparisons, 0 not scored" in text
    assert alignboard.rank(files[0]).models[0].model == "strong"


def test_an_unranked_board_exits_with_3_and_names_the_pairs(tmp_path):
    unbeaten = [
        {"model_a": "a", "model_b": "b", "winner": "model_a", "prompt_id": "1"},
        {"model_a": "b", "model_b": "c", "winner": "tie", "prompt_id": "1"},
    ]
    path = write(tmp_path / "b.jsonl", unbeaten)
    result = run(path)
    assert result.exit_code == 3
    assert "a with b" in result.output
    found = as_json(path)
    assert (found["status"], found["components"], found["missing"]) == (
        "not identified",
        [["a"], ["b", "c"]],
        [["a", "b"]],
    )
    with_prior = as_json(path, "--prior", "normal:2")
    assert with_prior["models"][0]["ci_high"] is None
    assert with_prior["models"][0]["rank_high"] > 1
    apart = write(tmp_path / "c.jsonl", [*battles(3), {**unbeaten[0], "winner": "tie"}])
    assert len(as_json(apart)["components"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": "model_c"}, r"row 2, field 'winner': 'model_c'; expected model_a"),
        ({"winner": "nan"}, "row 2, field 'winner'"),
        ({"winner": 1.5}, "row 2, field 'winner'"),
        ({"model_b": "strong"}, "row 2: a model is compared with itself"),
        ({"model_a": None}, "row 2, field 'model_a': no model is named"),
        ({"weight": 0}, "row 2, field 'weight': 0"),
        ({"weight": -1}, "row 2, field 'weight': -1"),
        ({"weight": "heavy"}, "row 2, field 'weight': 'heavy', a number was expected"),
        ({"position": "left"}, "row 2, field 'position': 'left'"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_no_comparison_is_refused_by_row_and_field(tmp_path, change, message, suffix):
    if suffix == "parquet" and not all(isinstance(value, str | None) for value in change.values()):
        pytest.skip("a column of parquet has one type")
    rows = battles(2)
    for row in rows:
        row |= {name: 1 if name == "weight" else "model_a" for name in change if name not in row}
        row |= {name: str(row[name]) for name, value in change.items() if isinstance(value, str)}
    rows[1] |= change
    path = write(tmp_path / f"b.{suffix}", rows)
    with pytest.raises(InputError, match=message):
        rank(path)


def test_unscored_rows_and_both_bad_are_counted_apart(tmp_path):
    rows = battles(20)
    rows[0]["winner"], rows[1]["winner"], rows[2]["winner"] = "both_bad", None, "tie (bothbad)"
    found = as_json(write(tmp_path / "b.jsonl", rows))
    assert (found["n_rows"], found["n_unscored"], found["n_both_bad"]) == (60, 1, 2)
    assert sum(line["n"] for line in found["models"]) == 2 * 59


def test_methods_and_what_does_not_go_together(tmp_path):
    path = write(tmp_path / "b.csv", battles(judge=lambda r: r.choice(["j1", "j2"])))
    davidson = as_json(path, "--method", "davidson")
    assert davidson["tie"] > 0
    assert (davidson["clustered_by"], davidson["n_clusters"]) == ("rows", davidson["n_rows"])
    for method in ("elo", "win-rate", "eigenvector"):
        found = as_json(path, "--method", method)
        assert found["models"][0]["model"] == "strong"
        assert "without an interval" in found["note"]
        assert found["models"][0]["ci_low"] is None
        assert "independent" not in run(path, "--method", method).output, "of no interval"
    sharp = as_json(path, "--method", "judge-aware")
    assert [one["name"] for one in sharp["effects"]] == [
        "discrimination of j1",
        "discrimination of j2",
    ]
    assert sharp["effects"][0]["value"] * sharp["effects"][1]["value"] == pytest.approx(1)
    for arguments in (
        ("--method", "elo", "--prior", "normal:1"),
        ("--method", "elo", "--style"),
        ("--prior", "normal:0"),
        ("--prior", "cauchy:1"),
        ("--cluster", "prompt"),
        ("--method", "davidson", "--cluster", "judge"),
        ("--method", "win-rate", "--cluster", "judge"),
        ("--style",),
    ):
        assert isinstance(run(path, *arguments).exception, InputError), arguments


def test_style_and_place_are_taken_out(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(1500):
        a, b = rng.permutation(2)
        long = {0: 300, 1: 600}  # the second model is worse, and writes twice as much
        first = rng.random() < 0.5
        eta = 0.8 * (b - a) + 1.5 * (long[a] - long[b]) / 900 * 3 + (0.5 if first else -0.5)
        rows.append(
            {
                "model_a": f"m{a}",
                "model_b": f"m{b}",
                "winner": "model_a" if rng.random() < 1 / (1 + np.exp(-eta)) else "model_b",
                "prompt_id": prompt,
                "position": "model_a" if first else "model_b",
                "length_a": int(long[a] * rng.uniform(0.5, 2)),
                "length_b": int(long[b] * rng.uniform(0.5, 2)),
            }
        )
    found = as_json(write(tmp_path / "b.jsonl", rows), "--style")
    effects = {one["name"]: one for one in found["effects"]}
    assert effects["shown first"]["low"] < 0.5 < effects["shown first"]["high"]
    assert set(effects) == {"length", "shown first"}


def test_a_judge_without_finite_sharpness_is_a_sentence(tmp_path):
    """The first judge's verdicts follow one order, the second's another: its sharpness grows without end."""
    pairs = (("a", "b", "j1", 3), ("a", "b", "j2", 2), ("a", "c", "j1", 0), ("c", "b", "j2", 5))
    rows = [
        {"model_a": a, "model_b": b, "judge": judge, "prompt_id": prompt,
         "winner": "model_b" if every and prompt % every == 0 else "model_a"}
        for prompt in range(30)
        for a, b, judge, every in pairs
    ]  # fmt: skip
    done = run(write(tmp_path / "b.jsonl", rows), "--method", "judge-aware")
    assert done.exit_code == 3
    assert "no finite effect of a covariate or sharpness of a judge" in done.output
    assert "Groups" not in done.output


def test_two_way_clusters(tmp_path):
    rows = battles(60, annotator=lambda r: f"u{r.randrange(6)}")
    path = write(tmp_path / "b.jsonl", rows)
    found = as_json(path, "--cluster", "prompt_id", "--cluster", "annotator")
    assert found["clustered_by"] == "prompt_id and annotator"
    single = as_json(path)
    assert found["models"][0]["elo"] == single["models"][0]["elo"]
    assert found["models"][0]["ci_low"] != single["models"][0]["ci_low"]
    # the limits rest on six annotators, not on 60 prompts
    assert (found["n_clusters"], single["n_effective"]) == (60, 60)
    assert found["n_effective"] < 6


def test_fits_of_styles_and_of_judges_say_how_many_clusters_they_rest_on(tmp_path):
    rows = battles(
        20,
        judge=lambda r: f"j{r.randrange(2)}",
        length_a=lambda r: r.randrange(99),
        length_b=lambda _: 50,
    )
    path = write(tmp_path / "b.jsonl", rows)
    for options in (["--style"], ["--method", "judge-aware"]):
        assert as_json(path, *options)["n_effective"] == 20
    assert as_json(path, "--method", "davidson")["n_effective"] is None


def test_fastchat_and_arena_hard_files(tmp_path):
    chat = [
        {
            "question_id": q,
            "model_1": "x",
            "model_2": "y",
            "g1_winner": "model_1" if q % 3 else "model_2",
            "g2_winner": ("tie", "model_2", "model_1", "error")[q % 4],
            "judge": ["gpt-4", "pair-v2"],
            "turn": 1,
        }
        for q in range(40)
    ]
    found = as_json(write(tmp_path / "mt.jsonl", chat))
    assert (found["n_rows"], found["n_unscored"], found["n_clusters"]) == (80, 10, 40)
    assert as_json(tmp_path / "mt.jsonl", "--style")["effects"][0]["name"].startswith("shown first")
    scores = ("A>>B", "A>B", "A=B", "B>A", "B>>A", None)
    hard = [
        {
            "question_id": str(q),
            "model": "mine",
            "judge": "gpt-4",
            "games": [{"score": scores[q % 6]}, {"score": scores[(q + 1) % 5]}],
        }
        for q in range(60)
    ]
    found = as_json(write(tmp_path / "ah.jsonl", hard))
    assert {line["model"] for line in found["models"]} == {"mine", "gpt-4-0314"}
    # by upstream's rule: a decided verdict counts three times, the second game is seen from the other side
    value = {"A>>B": (1, 3), "A>B": (1, 1), "A=B": (0.5, 1), "B>A": (0, 1), "B>>A": (0, 3)}
    points = games = 0.0
    for row in hard:
        for number, game in enumerate(row["games"]):
            if game["score"] is not None:
                score, weight = value[game["score"]]
                points += weight * (1 - score if number else score)
                games += weight
    strength = {line["model"]: line["log_strength"] for line in found["models"]}
    gap = strength["gpt-4-0314"] - strength["mine"]
    assert gap == pytest.approx(np.log(points / (games - points)), abs=1e-9)


def test_released_annotations_of_several_models(released):
    judge = "weighted_alpaca_eval_gpt4_turbo"
    models = ("claude-2.1", "alpaca-7b", "phi-2-sft")
    files = [released / "results" / model / judge / "annotations.json" for model in models]
    found = as_json(*files)
    assert [line["model"] for line in found["models"]][:2] == ["gpt4_1106_preview", "claude-2.1"]
    assert found["n_clusters"] == 805


def test_files_that_cannot_be_read(tmp_path):
    for name, content, message in (
        ("a.csv", "model_a,model_b\nx,y\n", "no field 'winner'"),
        ("a.csv", "model_a,model_b,winner\nx,y\n", "row 1: another number of fields"),
        ("a.csv", "", "nothing to rank"),
        ("a.json", "[" * 100_000, "no valid JSON"),
        ("a.jsonl", "{", "line 1: no valid JSON"),
        ("a.jsonl", '{"model_a": "x"}\n' + "[" * 100_000, "line 2: no valid JSON"),
        ("a.jsonl", "3\n", "an object was expected"),
        ("a.txt", "", "comparisons are read from"),
        ("a.parquet", "no parquet", "cannot be read"),
    ):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            rank(path)
    path.write_bytes(b"\xff\xfe")
    path.rename(tmp_path / "b.csv")
    with pytest.raises(InputError, match="UTF-8"):
        rank(tmp_path / "b.csv")


@pytest.mark.parametrize("at", [4, 24, 60])
def test_damaged_pages_of_parquet_are_a_sentence(tmp_path, at):
    """Arrow meets them where rows are read, long after the file was opened."""
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "b.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(battles()), path, compression="none")
    content = path.read_bytes()
    path.write_bytes(content[:at] + b"\xff" * 12 + content[at + 12 :])
    with pytest.raises(InputError, match=r"b\.parquet cannot be read: ") as error:
        rank(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("inf", "row 1, field 'length_a': inf; a length or count was expected"),
        ("nan", "row 1, field 'length_a': nan"),
        ("-2", "row 1, field 'length_a': -2"),
        ("long", "row 1, field 'length_a': 'long', a number was expected"),
    ],
)
def test_a_length_that_is_none_stops_only_who_asks_for_it(tmp_path, length, message):
    rows = [row | {"length_a": "5", "length_b": "6"} for row in battles()]
    expected = rank(write(tmp_path / "whole.csv", rows))
    rows[0]["length_a"] = length
    path = write(tmp_path / "b.csv", rows)
    assert rank(path) == expected
    with pytest.raises(InputError, match=re.escape(message)):
        rank(path, style=True)


def test_texts_beside_the_verdicts_are_no_style(tmp_path):
    """Data of arenas holds the responses themselves as response_a and response_b."""
    rows = [
        row | {"response_a": f"one {n}", "response_b": "two", "length_a": 5 + n % 3, "length_b": 6}
        for n, row in enumerate(battles())
    ]
    lengths = [{k: v for k, v in row.items() if "response" not in k} for row in rows]
    for style in (False, True):
        found = rank(write(tmp_path / "b.csv", rows), style=style)
        assert found == rank(write(tmp_path / "c.csv", lengths), style=style)


def test_a_long_cell_of_a_csv_is_read(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text(f"model_a,model_b,winner,note\nx,y,model_a,{'a' * 200_000}\ny,x,model_a,b\n")
    assert [line.model for line in rank(path).models] == ["x", "y"]


def test_json_on_a_terminal_holds_nothing_that_it_obeys(tmp_path):
    name = "m\x1b[31m\x7f\x9b31m\u202e\u2066"
    rows = [one | {"model_a": name} for one in battles(10)]
    file = write(tmp_path / "b.jsonl", rows)
    out = CliRunner().invoke(cli, ["rank", str(file), "--json", "-"]).stdout
    assert not set("\x1b\x7f\x9b\u202e\u2066") & set(out)
    assert name in {line["model"] for line in json.loads(out)["models"]}
