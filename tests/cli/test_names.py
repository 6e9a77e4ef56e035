"""What results are called: judges, baselines, sets and models that must not stand for each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import tiny_models
from alignboard.data.instruction_sets import load_set
from alignboard.engines.openai.prices import load_prices
from alignboard.errors import InputError
from alignboard.judges.backends.endpoint import judge_suffix
from alignboard.judges.load import load_judge, require_own_name
from alignboard.models.registry import load_model
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.evaluation import declared_judge
from alignboard.pipeline.jobs import judge as jobs_judge
from alignboard.pipeline.model_names import claim, named
from alignboard.pipeline.plans.schema import PlanJudge
from alignboard.pipeline.store import WorkspacePaths
from alignboard.records import Generation
from alignboard.reports.judges.rows import read_judgments
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal
from alignboard.results.verdict_paths import (
    beside,
    judge_and_baseline,
    judge_folder,
    one_column,
    part_of,
    verdict_files,
)
from builders import write_json
from test_judge_cli import JUDGE, alignboard, outputs, own_name, verdicts, workspace  # noqa: F401
from test_judge_cli import server as loopback  # noqa: F401


def write_judgments(path: Path, n: int, **changes):
    rows = [
        {
            "instruction": f"question {i}?",
            "output_1": "a",
            "generator_1": "base",
            "output_2": "bb",
            "generator_2": "one",
            "preference": 2.0,
            "annotator": "mine",
        }
        | changes
        for i in range(n)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


# WorkspacePaths.


def test_alpaca_evals_own_baselines_have_alpaca_evals_places():
    assert judge_folder("weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview") == (
        "weighted_alpaca_eval_gpt4_turbo"
    )
    assert judge_folder("alpaca_eval_gpt4", "text_davinci_003") == "alpaca_eval_gpt4"
    assert judge_folder("pairrm", "gpt4_1106_preview") == "pairrm"
    assert judge_folder("skywork-reward", None) == "skywork-reward", "ratings have no baseline"


@pytest.mark.parametrize("baseline", ["zephyr-7b-beta", "text_davinci_003", "a-vs-b"])
def test_other_baselines_are_in_the_folders_name_and_read_back(baseline):
    folder = judge_folder("pairrm", baseline)
    assert judge_and_baseline(folder) == ("pairrm", baseline)


def test_a_judge_whose_name_could_be_read_as_a_baseline_is_refused():
    with pytest.raises(InputError, match="-vs-"):
        judge_folder("mine-vs-base", "gpt4_1106_preview")


def test_verdicts_lie_beside_what_was_judged():
    assert beside(Path("r2/one/model_outputs.json"), "one") == Path("r2/one")
    assert beside(Path("r2/one/arena/model_outputs.json"), "one") == Path("r2/one/arena")
    # Files of other names may have neighbours.
    assert beside(Path("answers/one.json"), "one") == Path("answers/one")
    assert beside(Path("r2/one/model_outputs.json"), "one", Path("out")) == Path("out/one")


def test_a_part_of_a_set_is_beside_the_whole():
    assert part_of(Path("results/one"), "one", 5, 9) == Path("results/one/first-5")
    assert part_of(Path("results/one/arena"), "one", 5, 9) == Path("results/one/arena-first-5")
    assert part_of(Path("results/one"), "one", 9, 9) == Path("results/one")


def test_verdict_files_of_every_set_and_baseline_are_found(tmp_path):
    for folder in ("mine", "mine-vs-base", "arena/mine", "first-3/mine", "old/old"):
        write_judgments(tmp_path / "one" / folder / "annotations.json", 1)
    found = {(one.set, one.judge, one.baseline) for one in verdict_files(tmp_path / "one")}
    assert found == {
        (None, "mine", None),
        (None, "mine", "base"),
        ("arena", "mine", None),
        ("first-3", "mine", None),
        (None, "old", None),
    }


def test_a_report_reads_other_sets_and_counts_a_part_once(tmp_path):
    results = tmp_path / "results"
    write_judgments(results / "one" / "mine" / "annotations.json", 4)
    write_judgments(results / "one" / "first-2" / "mine" / "annotations.json", 2)
    write_judgments(results / "two" / "arena" / "mine" / "annotations.json", 3, generator_2="two")
    rows = read_judgments([results])
    assert sorted(rows.model.tolist()) == ["one"] * 4 + ["two"] * 3


def test_a_folder_and_its_rows_must_name_one_judge(tmp_path):
    write_judgments(tmp_path / "results" / "one" / "yours" / "annotations.json", 2)
    with pytest.raises(InputError, match="'mine', but the folder is that of 'yours'"):
        read_judgments([tmp_path / "results"])


# Judging.


def judge(folder, server, *options, outputs="results/one/model_outputs.json", baseline="base"):
    return alignboard(
        folder,
        *("judge", outputs, "--judge", "mine", "--baseline", baseline),
        *("--judge-engine", server.url),
        *options,
    )


def test_a_second_baseline_does_not_overwrite_the_first(workspace, loopback):  # noqa: F811
    write_rows(workspace / "results/other/model_outputs.json", outputs("other", 12))
    loopback.choice = lambda _: {"message": {"role": "assistant", "content": "[[A]]"}}
    assert judge(workspace, loopback).returncode == 0
    first = verdicts(workspace, "mine", loopback) / "annotations.json"
    before = first.read_bytes()
    done = judge(workspace, loopback, baseline="other")
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == before
    second = first.parents[1] / f"{own_name('mine', loopback)}-vs-other" / "annotations.json"
    assert {row["generator_1"] for row in json.loads(second.read_text())} == {"other"}


def test_verdicts_on_outputs_of_another_folder_leave_results_alone(workspace, loopback):  # noqa: F811
    assert judge(workspace, loopback).returncode == 0
    mine = verdicts(workspace, "mine", loopback) / "annotations.json"
    before = mine.read_bytes()
    other = [Generation(row.instruction, row.output + "!", "one") for row in outputs("one", 12)]
    write_rows(workspace / "r2/one/model_outputs.json", other)
    done = judge(workspace, loopback, outputs="r2/one/model_outputs.json")
    assert done.returncode == 0, done.stderr
    assert mine.read_bytes() == before
    assert (workspace / "r2/one" / mine.parent.name / "annotations.json").is_file()


def test_a_judge_elsewhere_has_its_address_in_name_record_and_rows(workspace, loopback):  # noqa: F811
    assert judge(workspace, loopback, "--json", "out.json").returncode == 0
    folder = verdicts(workspace, "mine", loopback)
    told = json.loads((folder / "judging.json").read_text())
    at = {"judge": own_name("mine", loopback), "model": "tiny-judge", "addresses": [loopback.url]}
    assert (told["judge"], told["asked"]) == (own_name("mine", loopback), [at])
    for row in json.loads((folder / "annotations.json").read_text()):
        assert (row["judge_model"], row["judge_address"]) == ("tiny-judge", loopback.url)
        assert row["annotator"] == own_name("mine", loopback)


def test_a_judge_of_another_model_does_not_overwrite_its_namesake(workspace, loopback):  # noqa: F811
    assert judge(workspace, loopback).returncode == 0
    n = len(loopback.requests)
    declared = workspace / "evaluate/judges/mine.yaml"
    declared.write_text(JUDGE.replace("tiny-judge", "another-judge"))
    refused = judge(workspace, loopback)
    assert refused.returncode == 2
    assert "give this judge another name" in refused.stderr
    assert len(loopback.requests) == n, "nothing was asked"


def test_an_official_judge_at_another_address_is_not_called_by_the_official_name(tmp_path):
    declared = declared_judge("alpaca-eval-2", tmp_path, urls=["http://127.0.0.1:8123/v1"])
    assert declared.name == "weighted_alpaca_eval_gpt4_turbo-at-127.0.0.1-8123"
    assert declared_judge("alpaca-eval-2", tmp_path).name == "weighted_alpaca_eval_gpt4_turbo"


def test_a_judge_at_its_own_address_keeps_its_name(tmp_path):
    folder = tmp_path / "evaluate/judges"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(JUDGE + "base_url: http://127.0.0.1:8123/v1\n")
    assert declared_judge("mine", tmp_path, urls=["http://127.0.0.1:8123/v1/"]).name == "mine"


def test_addresses_of_a_judge_that_is_not_at_an_endpoint_are_refused(tmp_path):
    with pytest.raises(InputError, match="not asked at an endpoint"):
        declared_judge("demo-simulated", tmp_path, urls=["http://127.0.0.1:8123/v1"])


def test_suffixes_are_short_and_tell_addresses_apart():
    several = [f"http://judge-{i}.cluster.example.org:8000/v1" for i in range(8)]
    suffixes = {judge_suffix(several), judge_suffix(several[:4]), judge_suffix(several[:1])}
    suffixes |= {judge_suffix(["http://a/v1"]), judge_suffix(["https://a/v1"])}
    assert len(suffixes) == 5
    assert max(map(len, suffixes)) < 80


def test_nothing_else_stands_under_an_official_judges_name(tmp_path):
    official = load_judge("alpaca-eval-2")
    require_own_name(official, "alpaca-eval-2")
    other = msgspec.structs.replace(official, model="my-own-judge")
    with pytest.raises(InputError, match="give it a name of its own"):
        require_own_name(other, "other.yaml")


def test_own_endpoints_are_not_priced_as_openais():
    prices = load_prices()
    assert prices.of("gpt-4o") is not None
    assert prices.of("gpt-4o", urls=["https://api.openai.com/v1"]) is not None
    assert prices.of("gpt-4o", urls=["http://127.0.0.1:8000/v1"]) is None


def test_a_hardened_judge_of_a_plan_draws_its_marks_from_the_workspaces_secret(tmp_path):
    """Without it the marks follow from public facts, and outputs could hold them."""
    paths = WorkspacePaths(tmp_path)
    with Journal(paths.journal) as journal:
        given = msgspec.to_builtins(PlanJudge(judge="demo-simulated"))
        job = SimpleNamespace(hints={"access": given})
        task: Any = SimpleNamespace(held={}, paths=paths, journal=journal, job=job)
        judges = jobs_judge.judges_of(task, load_judge("demo-simulated"))
    secret = (paths.journal / "hardened-secret").read_text().strip()
    assert len(secret) == 64
    assert judges.secret == secret


# Sets and models.


def test_a_file_called_alpaca_eval_is_alpaca_evals_set_or_refused(tmp_path):
    path = tmp_path / "alpaca-eval.json"
    path.write_text('[{"instruction": "mine"}]')
    with pytest.raises(InputError, match="not AlpacaEval's 805"):
        load_set(path)


def test_alpaca_evals_instructions_are_known_by_content(released):
    outputs = released / "results/gpt4_1106_preview/model_outputs.json"
    assert load_set(outputs).name == "alpaca-eval"


def test_checkpoints_of_a_trainer_are_called_after_their_run(tmp_path):
    for run in ("run1", "run2"):
        (tmp_path / run / "checkpoint-500").mkdir(parents=True)
        for name, text in (
            ("adapter_config.json", '{"base_model_name_or_path": "microsoft/phi-2"}'),
            ("adapter_model.safetensors", ""),
        ):
            (tmp_path / run / "checkpoint-500" / name).write_text(text)
    specs = [load_model(str(tmp_path / run / "checkpoint-500")) for run in ("run1", "run2")]
    assert [spec.name for spec in named(specs)] == ["run1-checkpoint-500", "run2-checkpoint-500"]


def test_two_models_of_one_name_are_refused_and_can_be_renamed():
    specs = [ModelSpec("dpo", "b", adapter="a/dpo"), ModelSpec("dpo", "b", adapter="b/dpo")]
    with pytest.raises(InputError, match=r"a/dpo and b/dpo; name them apart by --name"):
        named(specs)
    assert [spec.name for spec in named(specs, "first, second")] == ["first", "second"]
    with pytest.raises(InputError, match="1 of the 2"):
        named(specs, "first")
    with pytest.raises(InputError, match="Two models are called 'one'"):
        named(specs, "one,one")


def test_a_name_stands_for_one_model_over_many_calls(tmp_path):
    one = ModelSpec("dpo", "b", adapter="a/dpo")
    claim(tmp_path, [one])
    claim(tmp_path, [one])
    with pytest.raises(
        InputError, match=r"holds results of a/dpo, and b/dpo has the same name.*--name"
    ):
        claim(tmp_path, [ModelSpec("dpo", "b", adapter="b/dpo"), ModelSpec("new", "c")])
    assert not (tmp_path / "results/new").exists(), "none is recorded where one is refused"


def test_generate_refuses_two_adapters_of_one_folder_name(tmp_path):
    base = tiny_models.base("phi")
    for folder in ("a", "b"):
        shutil.copytree(base, tmp_path / folder / "dpo")
    options = ("--set", "demo-world", "--limit", "2", "--max-new-tokens", "4")
    refused = alignboard(tmp_path, "generate", "a/dpo", "b/dpo", *options)
    assert (refused.returncode, "--name" in refused.stderr) == (2, True)
    assert alignboard(tmp_path, "generate", "a/dpo", *options).returncode == 0
    path = tmp_path / "results/dpo/demo-world-first-2/model_outputs.json"
    before = path.read_bytes()
    refused = alignboard(tmp_path, "generate", "b/dpo", *options)
    assert (refused.returncode, "--name" in refused.stderr) == (2, True)
    assert path.read_bytes() == before
    done = alignboard(tmp_path, "generate", "b/dpo", "--name", "b-dpo", *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.with_name(path.name).read_text())
    assert {row["generator"] for row in rows} == {"dpo"}
    assert (tmp_path / "results/b-dpo/demo-world-first-2/model_outputs.json").is_file()


def test_one_column_is_found_by_judge_set_and_baseline(tmp_path):
    for model in ("a", "b"):
        for folder in ("koala/mine-vs-one", "koala/mine-vs-two"):
            write_json(tmp_path / model / folder / "annotations.json", [])
    write_json(tmp_path / "a" / "oasst" / "mine-vs-one" / "annotations.json", [])
    found = one_column(tmp_path, ["a", "b"], "mine", baseline="one")
    assert found["b"] == tmp_path / "b" / "koala" / "mine-vs-one" / "annotations.json"
    assert one_column(tmp_path, ["a", "b"], "mine-vs-one") == found
    with pytest.raises(InputError, match=r"several sets or baselines .*koala against one; koala"):
        one_column(tmp_path, ["a", "b"], "mine")
    with pytest.raises(InputError, match="no such verdicts by 'mina', did you mean 'mine'"):
        one_column(tmp_path, ["a", "b"], "mina")
    write_json(tmp_path / "c" / "mine-vs-three" / "annotations.json", [])
    with pytest.raises(InputError, match="no set and baseline"):
        one_column(tmp_path, ["a", "c"], "mine")
    with pytest.raises(InputError, match="has no model 'd'"):
        one_column(tmp_path, ["a", "d"], "mine")
