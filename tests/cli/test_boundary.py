"""The command line's boundary: a user's mistakes and the machine's are one sentence and an exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import click
import pytest

from alignboard.cli.app import cli
from alignboard.cli.boundary import guarded
from alignboard.errors import InputError
from alignboard.extras import missing_text
from alignboard.judges.calls import Judge
from alignboard.judges.load import load_judge
from alignboard.judges.pairs import Pair
from alignboard.judges.rows import Reply
from alignboard.judges.runner import InMemory, judge_pairs
from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.executors.work import Event
from alignboard.pipeline.progress import showing, time_table
from alignboard.text import table
from commands import alignboard


def run(folder, *arguments, **environment):
    return alignboard(folder, *arguments, env=os.environ | environment)


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a.yaml: x is missing."), 2, "alignboard: a.yaml: x is missing."),
        (KeyboardInterrupt(), 130, "stopped; what is done is kept."),
        (click.Abort(), 130, "stopped; what is done is kept."),
        (
            OSError(errno.ENOSPC, "No space left on device", "results/a"),
            2,
            "results/a cannot be read or written (No space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            2,
            "out cannot be read or written (Permission denied): make room, or change its permissions",
        ),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), 2, "pip install"),
        (click.UsageError("No such option"), 2, "No such option"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(error, code, said, capsys):
    assert guarded(raising(error)) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ValueError("a defect"), ModuleNotFoundError("x", name="alignboard.nowhere")]
)
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        guarded(raising(error))


def test_a_missing_extra_names_packages_and_not_the_extra():
    said = missing_text(["no_such_module"])
    assert "pip install 'no_such_module'" in said
    assert "alignboard[" not in missing_text(["trl"])


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = run(tmp_path, "board", "alpaca-eval-2", "--out", "taken")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "taken" in done.stderr


def test_an_interrupt_leaves_with_130(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "alignboard", "run", "demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "results").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped; what is done is kept." in said
    assert "Aborted" not in said


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_wrong_name_is_said_before_a_missing_package(command, tmp_path):
    """As in a base install: nothing that trains can be imported."""
    for name in ("torch", "transformers", "trl", "peft"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError(name=__name__)")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = run(tmp_path, command, "nosuch", PYTHONPATH=path)
    assert done.returncode == 2
    assert "nosuch.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_nothing_is_refused_before_a_job_is_done(tmp_path):
    done = run(tmp_path, "train", "demo/dpo", "--model", "nosuch")
    assert (done.returncode, "There is no model 'nosuch'" in done.stderr) == (2, True)


def test_json_on_standard_output_is_json_alone(tmp_path):
    done = run(tmp_path, "models", "list", "--json", "-")
    assert any(one["name"] == "zephyr-7b-beta" for one in json.loads(done.stdout))
    assert "zephyr-7b-beta" in done.stderr, "the text for people"
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    "arguments", [("run", "demo", "--dry-run"), ("judge", "list"), ("models", "show", "phi-2")]
)
def test_every_listing_has_json(arguments, tmp_path):
    done = run(tmp_path, *arguments, "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())


def commands(command: click.Command = cli, path: tuple[str, ...] = ()):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path, command


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=str)
def test_every_commands_help_has_an_example_and_a_result_has_json(path, command):
    shown = " ".join(name for name in path if name != "outputs")
    assert (command.epilog or "").startswith(f"Example: alignboard {shown}")
    assert "--json" in {name for one in command.params for name in one.opts}


# Tables.

ROWS = [["zephyr-7b-beta", "12.34", "56.78", "one flag of many words that wraps"] for _ in range(2)]
COLUMNS = ["model", ("judge", "win %"), ("judge", "LC %"), "flags"]


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_table_is_as_wide_as_the_terminal_and_loses_nothing(width):
    shown = table(COLUMNS, ROWS, left=(0, 3), width=width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    for word in ("zephyr-7b-beta", "12.34", "56.78", "win %", "judge", "wraps"):
        assert word in shown


def test_what_does_not_fit_goes_to_blocks_that_begin_with_the_first_column():
    shown = table(COLUMNS, ROWS, left=(0, 3), width=24)
    blocks = shown.split("\n\n")
    assert len(blocks) == 3
    assert all("zephyr-7b-beta" in block for block in blocks)


def test_a_terminals_width_is_known(tmp_path):
    done = run(tmp_path, "models", "list", COLUMNS="60")
    assert max(map(len, done.stdout.splitlines())) <= 60


# Progress.


def test_jobs_done_before_are_counted_and_a_rerun_says_so(capsys):
    with showing(8, n_before=3) as listener:
        job: Any = SimpleNamespace(name="train")
        listener(Event("done", job, worker=0))
    assert "4/8 done" in capsys.readouterr().err
    assert time_table([], 0.1) == "Everything had been done before."


# A judge that cannot be read.


class Babbling:
    def __init__(self):
        self.identity = {"scheme": "test"}
        self.n_asked = 0

    def ask(self, calls):
        for call in calls:
            self.n_asked += 1
            yield call, Reply(text="I would rather not say.")


def test_a_judge_that_gives_no_verdict_is_stopped_after_a_dozen_and_its_replies_are_kept():
    backend, replies = Babbling(), InMemory()
    spec = load_judge("mt-bench-pair")
    assert isinstance(spec, JudgeSpec)
    pairs = [Pair(f"q{i}", "a", "base", "b", "one") for i in range(50)]
    with pytest.raises(InputError, match="none of its first 12 replies holds a verdict"):
        judge_pairs(Judge(spec, backend, ""), pairs, replies)
    assert backend.n_asked == len(replies.rows) == 12
