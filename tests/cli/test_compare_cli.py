"""`alignboard compare`: from annotations files and results folders to differences, corrected p-values, exit codes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import alignboard
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.results.folder import ResultsFolder
from alignboard.stats.multiplicity import holm as holm_of
from alignboard.stats.paired import mcnemar


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
    assert "A higher" in shown
    (pair,) = json.loads(out.read_text())["pairs"]
    assert (pair["n"], pair["only_a"], pair["only_b"]) == (9, 0, 2)
    assert pair["estimate"] == pytest.approx(6 / 9)
    assert pair["adjusted_p"] == pair["p_value"] < 0.05


def test_binary_verdicts_have_mcnemars_test(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "a", [2] * 15 + [1] * 4 + [2] * 30 + [1] * 20)
    b = annotations(tmp_path / "b.json", "b", [1] * 15 + [2] * 4 + [2] * 30 + [1] * 20)
    soft = annotations(tmp_path / "c.json", "c", [1.25] * 15 + [2] * 54)
    out = tmp_path / "out.json"
    run(a, b, soft, "--json", str(out), "--csv", str(tmp_path / "out.csv"))
    binary, other = json.loads(out.read_text())["pairs"]
    assert (binary["n_a_higher"], binary["n_b_higher"]) == (15, 4)
    assert binary["mcnemar_p"] == pytest.approx(0.01921081543, abs=1e-11)
    assert binary["mcnemar_mid_p"] == pytest.approx(0.01181793213, abs=1e-11)
    assert other["mcnemar_p"] is None
    assert "0.0192108154296" in (tmp_path / "out.csv").read_text()


def test_a_p_value_too_small_to_compute_is_no_zero(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "a", [2] * 3000)
    b = annotations(tmp_path / "b.json", "b", [1] * 2999 + [1.9])
    assert "<1e-300" in run(a, b)


@pytest.mark.parametrize("correction", ["holm", "maxt", "bh", "none"])
def test_three_models_all_pairs(tmp_path: Path, correction: str) -> None:
    files = [
        annotations(tmp_path / f"{m}.json", m, [2 if (n * k) % 5 else 1 for n in range(60)])
        for k, m in enumerate("ABC")
    ]
    out = tmp_path / "out.json"
    run(*files, "--all-pairs", "--correction", correction, "--json", str(out))
    content = json.loads(out.read_text())
    pairs = content["pairs"]
    assert [(p["a"], p["b"]) for p in pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    # Rank sets hold all at once only with a correction for the whole family.
    assert len(content["rankings"]) == (correction in {"holm", "maxt"})
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


def test_length_control_of_repeated_runs_is_refused_by_their_names(tmp_path: Path) -> None:
    for name in ("A-response0", "A-response1", "B"):
        folder = tmp_path / name / "judge"
        folder.mkdir(parents=True)
        annotations(folder / "annotations.json", name, [1, 2, 2], judge="judge")
    arguments = ("A", "B", "--from", str(tmp_path), "--judge", "judge")
    assert "identical" in run(*arguments), "their means are compared"
    with pytest.raises(InputError, match=r"several runs of 'A'.* A-response0, A-response1"):
        run(*arguments, "--assets", str(tmp_path))


def test_a_results_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*gone; --from takes"):
        run("A", "B", "--from", str(tmp_path / "gone"), "--judge", "j")


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


def test_a_model_without_a_length_controlled_rate_is_named(released: Path, tmp_path: Path) -> None:
    judge, models = "weighted_alpaca_eval_gpt4_turbo", ("phi-2", "gpt4_1106_preview")
    where = ("--from", str(released / "results"), "--assets", str(released / "length_control"))
    with pytest.raises(InputError, match=r"gpt4_1106_preview is the baseline.*leave it out"):
        run(*models, *where, "--judge", judge)
    assert "phi-2" in run(*models, *where[:2], "--judge", judge)
    for name in ("phi-2", "equal"):
        source = released / "results" / "phi-2" / judge / "annotations.json"
        rows = json.loads(source.read_text())
        for row in rows if name == "equal" else ():
            row |= {"generator_2": name, "output_2": row["output_1"]}
        target = tmp_path / name / judge / "annotations.json"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(rows))
    where = ("--from", str(tmp_path), *where[2:])
    with pytest.raises(InputError, match=r"equal has no length-controlled win rate \(All length"):
        run("phi-2", "equal", *where, "--judge", judge)


@pytest.fixture(scope="module")
def released_pairs(released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """All 253 pairs of the 23 released models, raw and length-controlled."""
    out = tmp_path_factory.mktemp("released") / "out.json"
    judge = "weighted_alpaca_eval_gpt4_turbo"
    with ResultsFolder(released / "results") as folder:
        models = [m for m in folder.annotated_models(judge) if m != "gpt4_1106_preview"]
    where = ("--from", str(released / "results"), "--assets", str(released / "length_control"))
    run(*models, *where, "--judge", judge, "--all-pairs", "--json", str(out))
    return json.loads(out.read_text())


def test_counts_of_the_released_board(released_pairs: dict) -> None:
    for quantity, plain, holm, adjacent in (
        ("win_rate", 207, 175, (5, 2)),
        ("lc_win_rate", 194, 159, (3, 2)),
    ):
        pairs = [p for p in released_pairs["pairs"] if p["quantity"] == quantity]
        assert len(pairs) == 253
        assert sum(p["p_value"] < 0.05 for p in pairs) == plain
        assert sum(p["adjusted_p"] < 0.05 for p in pairs) == holm
        (ranking,) = (r for r in released_pairs["rankings"] if r["quantity"] == quantity)
        order = [one["model"] for one in ranking["models"]]
        assert [one["p_best"] for one in ranking["models"]][:2] == [1, 0]
        by_pair = {frozenset((p["a"], p["b"])): p["p_value"] for p in pairs}
        p_adjacent = np.array([by_pair[frozenset(two)] for two in itertools.pairwise(order)])
        found = ((p_adjacent < 0.05).sum(), (holm_of(p_adjacent) < 0.05).sum())
        assert found == adjacent


def samples(path: Path, scores: list[float], **changes: object) -> str:
    """A samples file as lm-eval writes it: two questions on each passage."""
    rows = [
        {
            "doc_id": number,
            "doc": {"question": f"q{number}", "passage": f"p{number // 2}"},
            "filter": "none",
            "metrics": ["acc", "tokens"],
            "doc_hash": f"doc{number}",
            "prompt_hash": f"prompt{number}",
            "acc": score,
            "tokens": 17,
        }
        | changes
        for number, score in enumerate(scores)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


STAMP = "2026-01-01T00-00-00.000001"
A_SCORES = [1.0] * 12 + [0.0] * 4
B_SCORES = [1.0, 0.0] * 8


def test_samples_of_lm_eval_are_paired_by_document(tmp_path: Path) -> None:
    a = samples(tmp_path / "A" / f"samples_boolq_{STAMP}.jsonl", A_SCORES)
    b = samples(tmp_path / "B" / f"samples_boolq_{STAMP}.jsonl", B_SCORES[:-2])
    out = tmp_path / "out.json"
    shown = run(a, b, "--json", str(out))
    assert "boolq acc" in shown
    (pair,) = json.loads(out.read_text())["pairs"]
    assert (pair["a"], pair["b"], pair["n"], pair["only_a"]) == ("A", "B", 14, 2)
    assert pair["estimate"] == pytest.approx(5 / 14)
    assert pair["n_effective"] == 7  # two questions on each passage, found in the documents
    assert "14, n_eff 7" in shown
    run(a, b, "--cluster", "question", "--json", str(out))
    (single,) = json.loads(out.read_text())["pairs"]
    assert single["n_effective"] == 14
    assert single["sign_flip_p"] == mcnemar(6, 1).exact
    assert single["estimate"] == pair["estimate"]
    with pytest.raises(
        InputError, match="no 'chapter' to cluster by; its fields: passage, question"
    ):
        run(a, b, "--cluster", "chapter")


def test_another_prompt_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    a = samples(tmp_path / "A" / f"samples_boolq_{STAMP}.jsonl", A_SCORES)
    b = samples(tmp_path / "B" / f"samples_boolq_{STAMP}.jsonl", B_SCORES, prompt_hash="five-shot")
    with pytest.raises(InputError, match="two prompts"):
        run(a, b)
    assert "boolq acc" in run(a, b, "--any-prompt")


def results(path: Path, n: int, version: float) -> None:
    """The results file of the same run, beside the samples."""
    content = {"n-samples": {"boolq": {"effective": n}}, "versions": {"boolq": version}}
    (path / f"results_{STAMP}.json").write_text(json.dumps(content))


def test_samples_that_are_not_whole_or_of_another_version_are_refused(tmp_path: Path) -> None:
    a = samples(tmp_path / "A" / f"samples_boolq_{STAMP}.jsonl", A_SCORES)
    b = samples(tmp_path / "B" / f"samples_boolq_{STAMP}.jsonl", B_SCORES)
    results(tmp_path / "A", 16, 2.0)
    results(tmp_path / "B", 16, 2.0)
    assert "boolq acc" in run(a, b)
    by_results = [str(tmp_path / model / f"results_{STAMP}.json") for model in "AB"]
    assert run(*by_results) == run(a, b)
    results(tmp_path, 16, 2.0)
    with pytest.raises(InputError, match=r"has no samples_\*.*; models are compared document by"):
        run(str(tmp_path / f"results_{STAMP}.json"), by_results[1])
    results(tmp_path / "B", 16, 1.0)
    with pytest.raises(InputError, match=r"boolq has version 2.0 in one and 1.0 in the other"):
        run(a, b)
    results(tmp_path / "A", 20, 2.0)
    with pytest.raises(InputError, match=r"holds 16 documents of boolq, but results_.* counted 20"):
        run(a, b)
    (tmp_path / "A" / f"results_{STAMP}.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"is not a results file of lm-eval"):
        run(a, b)


def test_another_filter_is_no_shared_task(tmp_path: Path) -> None:
    a = samples(tmp_path / "A" / f"samples_gsm8k_{STAMP}.jsonl", A_SCORES, filter="strict-match")
    b = samples(tmp_path / "B" / f"samples_gsm8k_{STAMP}.jsonl", B_SCORES, filter="flexible")
    with pytest.raises(InputError, match="share no task"):
        run(a, b)


def test_a_suite_compares_its_benchmarks_and_their_mean(tmp_path: Path) -> None:
    for model, scores in (("A", A_SCORES), ("B", B_SCORES)):
        folder = tmp_path / "results" / model / "lm_eval"
        for task in ("demo_choice", "demo_exact", "elsewhere"):
            samples(folder / f"samples_{task}_{STAMP}.jsonl", scores)
    out = tmp_path / "out.json"
    run("A", "B", "--from", str(tmp_path / "results"), "--suite", "demo", "--json", str(out))
    pairs = json.loads(out.read_text())["pairs"]
    assert [p["quantity"] for p in pairs] == [
        "demo_choice acc",
        "demo_exact acc",
        "mean of 2 tasks acc",
    ]
    first, _, mean = pairs
    assert mean["estimate"] == first["estimate"]
    assert mean["standard_error"] == pytest.approx(first["standard_error"] / 2**0.5)
    assert mean["n_effective"] == pytest.approx(15)  # 2 x 7 degrees of freedom of passages


def test_a_file_that_is_not_lm_evals_names_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / f"samples_boolq_{STAMP}.jsonl"
    path.write_text('{"doc_id": 0, "acc": 1.0}\n')
    with pytest.raises(InputError, match=r"row 1, field 'doc': missing"):
        run(str(path), str(path) + "2")


def test_rows_of_a_conversation_are_one_cluster(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for model in "AB":
        path = Path(annotations(tmp_path / f"{model}.json", model, rng.choice([1, 2], 40).tolist()))
        rows = json.loads(path.read_text())
        for number, row in enumerate(rows):
            row["dataset"] = f"d{min(number, 20)}"
        path.write_text(json.dumps(rows))
        files.append(str(path))
    out = tmp_path / "out.json"
    run(*files, "--cluster", "dataset", "--json", str(out))
    (pair,) = json.loads(out.read_text())["pairs"]
    assert pair["n"] == 40
    assert pair["n_effective"] < 6  # 21 clusters, of which one holds 20 of 40 rows
    with pytest.raises(InputError, match="field 'topic': missing"):
        run(*files, "--cluster", "topic")


def test_tables_for_papers_and_equivalence(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A_1", [1, 2] * 300)
    b = annotations(tmp_path / "b.json", "B", [1, 2] * 299 + [2, 1])
    out, tex = tmp_path / "out.csv", tmp_path / "out.tex"
    shown = run(a, b, "--margin", "5", "--csv", str(out), "--latex", str(tex))
    assert "equivalent" in shown
    assert "not separated" in run(a, b)
    header, line = out.read_text().splitlines()
    assert header.startswith("a,b,quantity,estimate")
    assert line.startswith("A_1,B,win_rate,0.0,")
    assert r"A\_1 & B & win rate" in tex.read_text()


@pytest.mark.parametrize("points", ["-1", "0", "250", "nan"])
def test_a_margin_is_refused_in_the_unit_that_was_given(tmp_path: Path, points: str) -> None:
    file = annotations(tmp_path / "a.json", "A", [1, 2])
    with pytest.raises(
        InputError, match=f"--margin {points} is no .*; give points above 0, below 100"
    ):
        run(file, file, "--margin", points)


def test_python_gives_what_the_command_prints(tmp_path: Path) -> None:
    a = annotations(tmp_path / "a.json", "A", [2, 2, 1, 2, 2, 2, 1, 2, 2])
    b = annotations(tmp_path / "b.json", "B", [1, 1, 1, 1, 2, 1, 1, 1, 1])
    out = tmp_path / "out.json"
    run(a, b, "--json", str(out))
    assert alignboard.compare(a, b).to_json() == json.loads(out.read_text())
    with pytest.raises(InputError, match="no difference of rates"):
        alignboard.compare(a, b, margin=5)
