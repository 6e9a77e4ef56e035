"""Boards in trackers: what was logged is read back by each tracker's own files."""

import struct
import time
from importlib import import_module

import msgspec
import pytest
from click.testing import CliRunner

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.tracking.points import by_model, metric_name, points
from alignboard.cli.app import cli
from alignboard.errors import InputError
from boards import plan_board

BLOCK = 32768


@pytest.fixture
def board(tmp_path):
    """A board of two models at training steps that it says."""
    columns = [
        Column(key="steps", name="steps", kind="diagnostic", unit="steps"),
        Column(key="w", name="win rate", kind="win rate", unit="%", judge="a/judge [x]"),
    ]
    rows = [
        Row("dpo", {"steps": Score(20.0), "w": Score(60.5, 50.0, 70.0)}, method="dpo"),
        Row("sft", {"steps": Score(10.0), "w": Score(40.0)}, family="tiny"),
        Row("unknown", {"w": Score(reason="not run")}),
    ]
    made = Board(name="mine", title="Mine", columns=columns, rows=rows)
    (tmp_path / "mine.json").write_text(made.to_json())
    return tmp_path / "mine.json"


NAME = "evaluation/a-judge x win rate"
WANTED = {
    "dpo": (20, {NAME: 60.5, f"{NAME} low": 50.0, f"{NAME} high": 70.0}),
    "sft": (10, {NAME: 40.0}),
}


def track(*arguments):
    return CliRunner().invoke(cli, ["track", *map(str, arguments)], catch_exceptions=False)


def test_every_number_of_a_board_is_a_metric_of_its_model():
    board = plan_board()
    found = {one.model: one for one in points(board)}
    for row in board.rows:
        values = {
            f"evaluation/{metric_name(board.label(column))}": board.score(row, column).value
            for column in board.columns
            if board.score(row, column).value is not None
        }
        assert values.items() <= found[row.model].metrics.items()
        assert found[row.model].step == 0


def test_checkpoints_of_one_training_are_one_run():
    step = Column(key="step", name="step", kind="diagnostic")
    rate = Column(key="w", name="win rate", kind="win rate", unit="%")
    rows = [
        Row(f"{model}@{n}", {"step": Score(float(n)), "w": Score(50.0 + n)})
        for model in ("dpo", "ipo")
        for n in (40, 20)
    ]
    found = by_model(points(Board(name="c", title="C", columns=[step, rate], rows=rows)))
    assert {model: [(p.step, p.metrics) for p in own] for model, own in found.items()} == {
        model: [(n, {"evaluation/win rate": 50.0 + n}) for n in (20, 40)]
        for model in ("dpo", "ipo")
    }


def test_tensorboard(board, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert "2 runs in" in track(board, "--to", "tensorboard", "--dir", tmp_path / "runs").output
    for model, (step, metrics) in WANTED.items():
        events = accumulator.EventAccumulator(str(tmp_path / "runs" / model)).Reload()
        from tensorboard.util import tensor_util

        logged = {
            tag: (
                events.Tensors(tag)[0].step,
                float(tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)),
            )
            for tag in events.Tags()["tensors"]
        }
        assert logged == {name: (step, pytest.approx(value)) for name, value in metrics.items()}


def test_what_a_tracker_refuses_is_a_sentence(board, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "ml").as_uri())
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    mlflow.set_tracking_uri(None)
    with pytest.raises(InputError, match="mlflow did not take the runs: The filesystem tracking"):
        track(board, "--to", "mlflow")


def test_mlflow(board, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "ml").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)
    track(board, "--to", "mlflow", "--project", "p")
    track(board, "--to", "mlflow", "--project", "p")
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("p").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["dpo", "dpo", "sft", "sft"]
    for run in runs:
        step, metrics = WANTED[run.info.run_name]
        assert run.data.metrics == metrics
        assert client.get_metric_history(run.info.run_id, NAME)[0].step == step
        assert run.data.tags["board"] == "mine"


def records(path):
    """The records of W&B's file: LevelDB's log format, a protocol buffer each."""
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, held = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        held += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            yield record.FromString(held)
            held = b""


def finished(path):
    """The records of a run, once W&B's own process has written the last one."""
    end = time.monotonic() + 20
    while True:
        found = list(records(path))
        if [one.WhichOneof("record_type") for one in found[-1:]] == ["exit"]:
            return found
        assert time.monotonic() < end, "the run was never finished"
        time.sleep(0.05)


def test_wandb(board, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(board, "--to", "wandb", "--dir", tmp_path / "w")
    for model, (step, metrics) in WANTED.items():
        (path,) = (tmp_path / "w").glob(f"wandb/offline-run-*-{model}/*.wandb")
        found = finished(path)
        (history,) = [one.history for one in found if one.WhichOneof("record_type") == "history"]
        logged = {
            item.key or "/".join(item.nested_key): msgspec.json.decode(item.value_json)
            for item in history.item
        }
        assert {name: logged[name] for name in metrics} == metrics
        assert logged["evaluation/step"] == step
        axes = [one.metric for one in found if one.WhichOneof("record_type") == "metric"]
        assert ("evaluation/*", "evaluation/step") in [(a.glob_name, a.step_metric) for a in axes]


def test_mistakes_are_one_sentence(board, tmp_path):
    with pytest.raises(InputError, match=r"tensorbord.*tensorboard"):
        track(board, "--to", "tensorbord")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        track(board, "--to", "mlflow", "--dir", tmp_path)
    with pytest.raises(InputError, match="There is no board"):
        track("nothing", "--to", "tensorboard")


def test_a_tracker_that_is_not_installed_is_named_with_its_command(board, monkeypatch):
    monkeypatch.setattr("alignboard.extras.find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install 'wandb'"):
        track(board, "--to", "wandb")
