"""Trackers of a training, and the room that its checkpoints need on the disk."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignboard.errors import InputError
from alignboard.training.launch import TRAINED
from alignboard.training.processes import TrainingCall, perform
from alignboard.training.recipe import parse_recipe
from test_train import QuickBase, base, content, sft_rows, short

__all__ = ["base"]  # the fixture


def test_the_trackers_that_a_recipe_names_have_every_step(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    wandb = pytest.importorskip("wandb")
    from alignboard.training.trainer import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # its settings, with the folder, are those of the first run in the process
    recipe = short("demo/sft", 3, report_to=["tensorboard", "wandb"])
    made = train(recipe, base("llama"), sft_rows(), tmp_path / "mine" / "adapter")
    found = event_file.EventAccumulator(str(tmp_path / "runs" / "mine")).Reload()
    logged = [(one.step, one.value) for one in found.Scalars("train/loss")]
    assert logged == [(n, pytest.approx(loss)) for n, loss in enumerate(made.losses, start=1)]
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_run_of_a_plan_is_tracked_by_its_models_name(base: QuickBase, tmp_path: Path) -> None:
    """A job trains in a folder of its own, which is moved when it is whole."""
    pytest.importorskip("tensorboard")
    datasets = pytest.importorskip("datasets")
    rows = tmp_path / "rows"
    datasets.Dataset.from_list(sft_rows(8)).save_to_disk(rows)
    call = TrainingCall(
        recipe=short("demo/sft", 2, report_to=["tensorboard"]),
        model=str(base("llama")),
        rows={TRAINED: str(rows)},
        out=str(tmp_path / ".tmp-train-mine-1" / "adapter"),
        adapter=None,
        data=None,
        last_good=str(tmp_path / "good"),
        work=str(tmp_path / "work"),
        seed=0,
        name="mine",
    )
    told = list[tuple[int, int, str]]()
    with contextlib.chdir(tmp_path):
        perform(call, lambda *now: told.append(now))
    assert [one.name for one in (tmp_path / "runs").iterdir()] == ["mine"]
    assert [(step, of) for step, of, _ in told] == [(1, 2), (2, 2)]
    assert all(said.startswith("loss ") and "token accuracy" in said for _, _, said in told)


def test_trackers_are_off_and_no_part_of_the_identity(tmp_path: Path) -> None:
    plain = parse_recipe(content(), "x")
    assert plain.report_to == []
    tracked = parse_recipe({**content(), "report_to": ["wandb"]}, "x")
    assert tracked.key() == plain.key()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"report_to": ["wandbb"]}, "report_to"),
        ({"trl": {"report_to": "wandb"}}, "trl.report_to: the field report_to says it"),
    ],
)
def test_a_tracker_that_there_is_not_is_one_sentence(change: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_recipe({**content(), **change}, "x")


def test_a_tracker_that_is_not_installed_is_named(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignboard.training import tracking
    from alignboard.training.trainer import train

    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    recipe = short("demo/sft", report_to=["trackio"])
    with pytest.raises(InputError, match="trackio is not installed; pip install trackio"):
        train(recipe, base("llama"), sft_rows(), tmp_path / "adapter")


def test_a_disk_too_small_for_checkpoints_is_noticed_before_the_first_step(
    base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignboard.training import resume
    from alignboard.training.trainer import train

    few = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1000), rmtree=shutil.rmtree)
    monkeypatch.setattr(resume, "shutil", few)
    steps = []
    with pytest.raises(InputError, match=r"has 0.00 GiB free, and the checkpoints of this run"):
        train(
            short("demo/sft"), base("llama"), sft_rows(), tmp_path / "adapter",
            work=tmp_path / "work", on_step=lambda *_: steps.append(1),
        )  # fmt: skip
    assert steps == []
    assert not (tmp_path / "adapter").exists()
