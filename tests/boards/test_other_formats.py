"""Inspect's logs in, AlpacaEval's submission out: in the layouts that those tools write and read."""

import csv
import json
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignboard.boards.board import read_board
from alignboard.boards.exports.inspect_logs import read_logs
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.fetch.package_file import package_file
from alignboard.records import Generation
from alignboard.results.formats import read_rows
from alignboard.suites import load_suite

RELEASED = os.environ.get("ALIGNBOARD_RELEASED_DATA")


def log(
    model="mockllm/small", task="sums", accuracy=0.55, created="2026-11-28T18:25:11", **changes
):
    """What inspect_ai 0.3.285 wrote of a run, without the fields that nobody reads here."""
    error = {"name": "stderr", "value": 0.114, "params": {}}
    content = {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": "dxS2MqPT3Y2i9FrKC2jGMo",
            "created": created,
            "task": task,
            "task_version": 0,
            "dataset": {"samples": 20, "shuffled": False},
            "model": model,
            "packages": {"inspect_ai": "0.3.285"},
        },
        "results": {
            "total_samples": 20,
            "completed_samples": 20,
            "scores": [
                {
                    "name": "exact",
                    "scorer": "exact",
                    "scored_samples": 20,
                    "metrics": {"mean": {"name": "mean", "value": accuracy}, "stderr": error},
                },
                {
                    "name": "includes",
                    "scorer": "includes",
                    "scored_samples": 20,
                    "metrics": {
                        "accuracy": {"name": "accuracy", "value": accuracy},
                        "stderr": error,
                    },
                },
            ],
        },
        "samples": [],
    }
    return content | changes


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def test_logs_of_inspect_become_a_board(logs):
    (logs / "a.json").write_text(json.dumps(log()))
    (logs / "old.json").write_text(json.dumps(log(accuracy=0.1, created="2026-01-01T00:00:00")))
    with zipfile.ZipFile(logs / "b.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(log(model="mockllm/large", accuracy=0.85)))
        archive.writestr("samples/1_epoch_1.json", "{}")
    (logs / "notes.json").write_text('{"status": "of something else"}')
    board = read_logs(logs)
    assert [(c.name, c.unit) for c in board.columns] == [
        ("sums mean (exact)", ""),
        ("sums accuracy (includes)", "%"),
    ]
    shown = {row.model: [row.scores[c.key].value for c in board.columns] for row in board.rows}
    assert shown == {
        "mockllm/large": pytest.approx([0.85, 85.0]),
        "mockllm/small": pytest.approx([0.55, 55.0]),
    }
    score = board.score(board.rows[1], board.columns[1])
    assert (score.standard_error, score.n) == (pytest.approx(11.4), 20)


def test_the_command_reads_a_folder_of_logs(logs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (logs / "a.json").write_text(json.dumps(log()))
    done = CliRunner().invoke(cli, ["convert", "logs", "--to", "board", "--out", "out"])
    assert done.exit_code == 0, done.output
    assert [row.model for row in read_board(tmp_path / "out" / "logs.json").rows] == [
        "mockllm/small"
    ]


def zstandard(path):
    """A zip as Inspect writes it by default: its members say that they are compressed by Zstandard."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(log()))
    content = path.read_bytes()
    for mark, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        place = content.index(mark) + at
        content = content[:place] + b"\x5d\x00" + content[place + 2 :]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda _: None, "no logs of Inspect"),
        (
            lambda f: (f / "a.json").write_text(json.dumps(log(status="error"))),
            "status 'error'.*eval-retry",
        ),
        (lambda f: (f / "a.json").write_text(json.dumps(log(results=None))), r"ended with status"),
        (lambda f: (f / "a.eval").write_bytes(b"PK no zip"), "a.eval is not a log"),
        (
            lambda f: (f / "a.json").write_text(json.dumps(log(eval={"eval_id": 1}))),
            "a.json is not a log",
        ),
        (
            lambda f: (f / "a.json").write_bytes(
                json.dumps(log()).encode().replace(b'"model": "', b'"model": "\xff', 1)
            ),
            "a.json is not a log",
        ),
        (lambda f: zstandard(f / "a.eval"), "inspect log convert --to json"),
    ],
)
def test_what_is_no_finished_log_is_one_sentence(logs, write, words):
    write(logs)
    with pytest.raises(InputError, match=words):
        read_logs(logs)


@pytest.mark.skipif(RELEASED is None, reason="ALIGNBOARD_RELEASED_DATA is not set")
def test_a_submission_is_what_upstream_released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Path(str(RELEASED))
    model = "gemma-2b-it"
    command = ["convert", str(data / "results" / model), "--to", "alpaca-eval", "--out", "out"]
    done = CliRunner().invoke(cli, [*command, "--assets", str(data / "length_control")])
    assert done.exit_code == 0, done.output
    for name in ("model_outputs.json", "weighted_alpaca_eval_gpt4_turbo/annotations.json"):
        ours = json.loads((tmp_path / "out" / "results" / model / name).read_text())
        theirs = json.loads((data / "results" / model / name).read_text())
        assert ours == [{k: v for k, v in row.items() if k in ours[0]} for row in theirs]
    (row,) = csv.DictReader(
        (tmp_path / "out" / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open()
    )
    rows = csv.DictReader(package_file(load_suite("alpaca-eval-2").board.file).open())
    (wanted,) = [one for one in rows if one[""] == model]
    assert list(row) == list(wanted)
    for name in (
        "win_rate",
        "standard_error",
        "discrete_win_rate",
        "avg_length",
        "n_wins",
        "n_total",
    ):
        assert float(row[name]) == pytest.approx(float(wanted[name]), abs=1e-6)
    assert float(row["length_controlled_winrate"]) == pytest.approx(
        float(wanted["length_controlled_winrate"]), abs=0.02
    )


def test_a_submission_of_some_instructions_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"takes a model's results: results/MODEL"):
        CliRunner().invoke(
            cli, ["convert", "demo", "--to", "alpaca-eval", "--out", "o"], catch_exceptions=False
        )
    if RELEASED is None:
        pytest.skip("ALIGNBOARD_RELEASED_DATA is not set")
    source = Path(RELEASED) / "results" / "phi-2"
    assert len(read_rows(source / "model_outputs.json", Generation)) < 805
    command = ["convert", str(source), "--to", "alpaca-eval", "--out", "o"]
    assets = ["--assets", str(Path(RELEASED) / "length_control")]
    with pytest.raises(InputError, match="of 805 instructions have a verdict"):
        CliRunner().invoke(cli, [*command, *assets], catch_exceptions=False)
