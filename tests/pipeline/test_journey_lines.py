"""Every line of the newcomer's week that lost numbers (A) or stopped the work (B), and the test that holds it now.

The lines are the numbered faults that a first user met. `LINES` names the test of each; what no other file tests is
tested below. Three belong to wider subjects, whose tests stand here as well: comparison of two models (B9), figures and
LaTeX (B12), and benchmarks of one adapter (B15).
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.models.registry import load_model

TESTS = Path(__file__).parents[1]
HERE = "pipeline/test_journey_lines.py"
NAMES = "cli/test_names.py"
BOUNDARY = "cli/test_boundary.py"
EXECUTORS = "pipeline/test_executors.py"
LINES = {
    "A1 a second baseline overwrites the first": (
        f"{NAMES}::test_a_second_baseline_does_not_overwrite_the_first",
        "pipeline/test_journey.py::test_a_newcomers_week",
    ),
    "A2 two models of one folder name": (
        f"{NAMES}::test_generate_refuses_two_adapters_of_one_folder_name",
        f"{NAMES}::test_checkpoints_of_a_trainer_are_called_after_their_run",
        f"{NAMES}::test_a_name_stands_for_one_model_over_many_calls",
    ),
    "A3 verdicts on another folder's outputs": (
        f"{NAMES}::test_verdicts_on_outputs_of_another_folder_leave_results_alone",
    ),
    "A4 a stand-in under an official judge's name": (
        f"{NAMES}::test_a_judge_elsewhere_has_its_address_in_name_record_and_rows",
        f"{NAMES}::test_an_official_judge_at_another_address_is_not_called_by_the_official_name",
        f"{NAMES}::test_nothing_else_stands_under_an_official_judges_name",
    ),
    "A5 joint estimates in the column of aligned ones": (
        "boards/test_board.py::test_a_joint_fit_has_a_column_of_its_own",
        "cli/test_cli.py::test_without_calibration_difficulties_are_joint_and_said_to_be",
    ),
    "A6 a source that is nothing is a job done": (
        f"{BOUNDARY}::test_a_model_that_is_nothing_is_refused_before_a_job_is_done",
        f"{HERE}::test_a6_a_dry_run_names_a_model_that_is_nothing",
    ),
    "A7 one's own endpoint priced as OpenAI's": (
        f"{NAMES}::test_own_endpoints_are_not_priced_as_openais",
    ),
    "A8 a sum of known costs that looks like an estimate": (
        f"{HERE}::test_a8_a_dry_run_begins_with_what_it_cannot_estimate",
    ),
    "B9 no paired comparison": ("pipeline/test_journey.py::test_a_newcomers_week",),
    "B10 no board of one's own verdicts": (
        "pipeline/test_journey.py::test_a_newcomers_week",
        "cli/test_cli.py::test_board_of_verdicts_by_a_judge_of_ones_own",
    ),
    "B11 plans without adapters, registry names, sets, baselines": (
        "pipeline/test_one_pipeline.py::test_a_plan_and_the_single_commands_are_one_pipeline",
        "pipeline/test_one_pipeline.py::test_several_sets_and_any_baseline",
        "pipeline/test_one_pipeline.py::test_a_published_suite_is_a_suite_of_a_plan",
        f"{HERE}::test_b11_a_name_of_the_registry_is_a_model_of_a_plan",
    ),
    "B12 no PDF, SVG, LaTeX": (
        "boards/test_figures.py::test_every_kind_is_drawn_into_every_format_with_the_same_bytes",
        "boards/test_exports.py::test_the_table_compiles",
    ),
    "B13 no html of a board": ("pipeline/test_journey.py::test_a_newcomers_week",),
    "B14 phi-2-dpo is in no registry": (
        f"{HERE}::test_b14_a_model_of_the_published_boards_has_an_entry",
    ),
    "B15 benchmarks of one adapter, names of results": (
        f"{HERE}::test_b15_a_suite_of_benchmarks_names_the_plan_that_runs_it",
        f"{HERE}::test_b15_a_trained_model_is_found_by_its_name_in_results",
    ),
    "B16 options that the command does not have": (
        f"{HERE}::test_b16_a_file_that_cannot_be_fetched_names_commands_with_their_options",
    ),
    "B17 a judge that parses nothing is asked to the end": (
        f"{BOUNDARY}::test_a_judge_that_gives_no_verdict_is_stopped_after_a_dozen_and_its_replies_are_kept",
    ),
    "B18 one writer in a workspace": (
        f"{EXECUTORS}::test_commands_on_different_products_run_side_by_side_and_looks_need_no_lock",
        f"{EXECUTORS}::test_two_runs_of_one_plan_at_once_do_each_job_once",
    ),
    "B19 a workspace cannot be moved": (
        f"{HERE}::test_b19_an_adapter_finds_its_base_in_a_workspace_that_was_moved",
    ),
}


def alignboard(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_every_line_has_its_tests():
    assert [line.split()[0] for line in LINES] == [
        *(f"A{n}" for n in range(1, 9)),
        *(f"B{n}" for n in range(9, 20)),
    ]
    for test in {test for tests in LINES.values() for test in tests}:
        file, _, name = test.partition("::")
        there = ast.parse((TESTS / file).read_text(encoding="utf-8")).body
        assert name in {node.name for node in there if isinstance(node, ast.FunctionDef)}, test


def test_a6_a_dry_run_names_a_model_that_is_nothing():
    done = alignboard("train", "phi-2/dpo-qlora", "--model", "nosuch", "--dry-run")
    assert isinstance(done.exception, InputError)
    assert "There is no model 'nosuch'" in str(done.exception)


def test_a8_a_dry_run_begins_with_what_it_cannot_estimate():
    lines = alignboard("run", "zephyr-dpo", "--dry-run").output.splitlines()
    unknown = "14 jobs, 14 to do: no estimate for 11 of them (never run on this machine); the rest"
    assert [line for line in lines if line.startswith(unknown)]


def test_b11_a_name_of_the_registry_is_a_model_of_a_plan(workspace):
    (workspace / "mine.yaml").write_text(
        "name: mine\nmodels: {zephyr-7b-beta: {}, phi-2-dpo: {}}\nsuites: [demo]\n"
        "judges: [demo-simulated]\nbaseline: phi-2-dpo\n"
    )
    done = alignboard("run", "mine.yaml", "--dry-run")
    assert done.exit_code == 0, done.exception
    assert "generate demo-world zephyr-7b-beta" in done.output
    assert "judge demo-simulated demo-world zephyr-7b-beta" in done.output


def test_b14_a_model_of_the_published_boards_has_an_entry():
    assert load_model("phi-2-dpo").base == "lxuechen/phi-2-dpo"


def test_b15_a_suite_of_benchmarks_names_the_plan_that_runs_it():
    done = alignboard("evaluate", "phi-2", "--suite", "open-llm-v1")
    assert "write `suites: [open-llm-v1]` into a plan's file" in str(done.exception)


def trained(workspace, base):
    """An adapter in results/ as a run leaves it, on the checkpoint ``base`` of the same store."""
    store = workspace / "results" / ".store"
    (store / base).mkdir(parents=True)
    (store / base / "config.json").write_text('{"model_type": "phi"}')
    made = store / "train-my-dpo-0" / "adapter"
    made.mkdir(parents=True)
    config = {"base_model_name_or_path": str(store / base)}
    (made / "adapter_config.json").write_text(json.dumps(config))
    (workspace / "results" / "my-dpo").mkdir()
    link = workspace / "results" / "my-dpo" / "adapter"
    link.symlink_to(Path("..") / ".store" / "train-my-dpo-0" / "adapter")
    return store / base


def test_b15_a_trained_model_is_found_by_its_name_in_results(workspace):
    trained(workspace, "checkpoint-0/checkpoint")
    with pytest.raises(InputError, match=r"did you mean results/my-dpo/adapter\?"):
        load_model("my-dpo")


def test_b16_a_file_that_cannot_be_fetched_names_commands_with_their_options(monkeypatch):
    monkeypatch.setenv("ALIGNBOARD_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    for command in ("generate", "evaluate"):
        done = alignboard(command, "phi-2", "--dry-run")
        assert "give local files with generate --set FILE or judge --baseline FILE" in str(
            done.exception
        )


def test_b19_an_adapter_finds_its_base_in_a_workspace_that_was_moved(workspace):
    old = workspace / "old"
    base = trained(old, "checkpoint-0/checkpoint")
    assert load_model(str(old / "results/my-dpo/adapter")).base == str(base)
    old.rename(workspace / "new")
    found = load_model(str(workspace / "new/results/my-dpo/adapter"))
    assert found.base == str(workspace / "new/results/.store/checkpoint-0/checkpoint")
    Path(found.base).rename(workspace / "elsewhere")
    with pytest.raises(InputError, match=r"names the base .*which is not here"):
        load_model(str(workspace / "new/results/my-dpo/adapter"))
