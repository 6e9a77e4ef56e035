"""Trainings in several processes: the same losses as in one, and which plans get which processes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from alignboard.errors import InputError
from alignboard.pipeline.executors import machine as of_machine
from alignboard.pipeline.executors.machine import Machine
from alignboard.training.launch import Launch
from alignboard.training.processes import accelerate_command
from alignboard.training.recipe import load_recipe
from alignboard.training.sections import LauncherName
from alignboard.workspace import declaration
from commands import alignboard


@pytest.mark.parametrize(
    ("machine", "trainings", "models", "devices", "launched"),
    [
        (Machine(devices=("0", "1")), 3, 1, ("0", "1"), Launch()),  # one GPU each
        (Machine(devices=("0", "1")), 1, 2, ("0", "1"), Launch()),
        (Machine(devices=("0", "1")), 1, 1, ("0,1",), Launch("ddp", 2)),
        (Machine(devices=("0", "1"), launcher="none"), 1, 1, ("0", "1"), Launch()),
        (Machine(devices=("0", "1"), launcher="fsdp2"), 3, 1, ("0,1",), Launch("fsdp2", 2)),
        (Machine(devices=("0", "1"), launcher="zero3"), 3, 1, ("0,1",), Launch("zero3", 2)),
        (Machine(n_workers=2, launcher="ddp"), 1, 1, (), Launch("ddp", 2)),
        (Machine(n_workers=2, launcher="zero3"), 1, 1, (), Launch("zero3", 2)),
        (Machine(devices=("0", "1"), launcher="ddp"), 0, 1, ("0", "1"), Launch()),
        (Machine(devices=("0",)), 1, 1, ("0",), Launch()),
    ],
)
def test_processes_and_gpus_of_trainings(
    machine: Machine,
    trainings: int,
    models: int,
    devices: tuple[str, ...],
    launched: Launch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(of_machine, "find_spec", lambda _: "deepspeed is installed")
    found = machine.for_trainings(trainings, models)
    assert found.devices == devices
    for name in ("ALIGNBOARD_LAUNCH", *Launch(found.launcher, found.processes).environment()):
        monkeypatch.delenv(name, raising=False)
    for name, value in Launch(found.launcher, found.processes).environment().items():
        monkeypatch.setenv(name, value)
    assert Launch.from_environment() == launched


def test_visible_gpus_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert Machine().for_trainings(4, 1).devices == ("2", "3")
    assert Machine().for_trainings(1, 1).devices == ("2,3",)


@pytest.mark.parametrize("launcher", ["ddp", "zero2"])
def test_a_launcher_without_gpus_asks_for_the_number(
    launcher: LauncherName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(of_machine, "find_spec", lambda _: "deepspeed is installed")
    with pytest.raises(InputError, match="--workers"):
        Machine(launcher=launcher).for_trainings(1, 1)


def test_fsdp2_needs_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="take --launcher ddp"):
        Machine(n_workers=2, launcher="fsdp2").for_trainings(1, 1)


def test_the_option_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    train = ["train", "demo/sft", "--model", "tiny-phi", "--dry-run", "--launcher", "fsdp2"]
    asked = alignboard(tmp_path, *train)
    assert asked.returncode == 2
    assert "take --launcher ddp" in asked.stderr


@pytest.mark.parametrize("launcher", ["zero2", "zero3"])
def test_a_missing_deepspeed_is_named_before_the_first_job(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(of_machine, "find_spec", lambda _: None)
    asked = alignboard(tmp_path, "train", "demo/sft", "--model", "tiny-phi", "--launcher", launcher)
    assert asked.returncode == 2
    assert asked.stderr.startswith(f"alignboard: --launcher {launcher} needs the package deepspeed")
    assert not (tmp_path / "results").exists()


LAUNCHED = {
    "ddp": ("multi_gpu_launcher", {"multi_gpu": True}),
    "fsdp2": ("multi_gpu_launcher", {"use_fsdp": True, "fsdp_version": "2"}),
    "zero2": ("deepspeed_launcher", {"use_deepspeed": True, "zero_stage": "2"}),
    "zero3": ("deepspeed_launcher", {"use_deepspeed": True, "zero_stage": "3"}),
}


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_accelerate_reads_what_each_launcher_means(
    launcher: LauncherName, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands import launch as of_accelerate

    calls: dict[str, Any] = {}
    for name in ("multi_gpu_launcher", "deepspeed_launcher", "simple_launcher"):
        monkeypatch.setattr(of_accelerate, name, partial(calls.__setitem__, name))
    recipe = load_recipe(declaration("train", "demo/dpo"))
    command = accelerate_command(recipe, Launch(launcher, 2))
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    parser = of_accelerate.launch_command_parser()
    of_accelerate.launch_command(parser.parse_args([*command[3:], "-m", "module", "call.json"]))
    ((name, asked),) = calls.items()
    wanted, settings = LAUNCHED[launcher]
    assert name == wanted
    assert {key: str(getattr(asked, key)) for key in settings} == {
        key: str(value) for key, value in settings.items()
    }
    per_step = 2 * recipe.batch.on(2).per_device * asked.gradient_accumulation_steps
    assert (asked.num_processes, per_step) == (2, recipe.batch.global_)
    assert (asked.module, asked.training_script, asked.training_script_args) == (
        True,
        "module",
        ["call.json"],
    )


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from alignboard.cli.app import cli

    losses = {}
    for how in (["none"], ["ddp", "--workers", "2"]):
        folder = tmp_path / how[0]
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            command = ["train", "demo/dpo", "--model", "tiny-phi", "--launcher", *how]
            done = CliRunner().invoke(cli, [*command, "--set", "duration.steps=6"])
        assert done.exit_code == 0, done.output
        for model in ("tiny-phi-sft", "tiny-phi-dpo"):
            lines = (folder / "results" / model / "adapter" / "steps.jsonl").read_text()
            losses[how[0], model] = [json.loads(line)["loss"] for line in lines.splitlines()]
    for model, n in (("tiny-phi-sft", 60), ("tiny-phi-dpo", 6)):
        one = losses["none", model]
        assert len(one) == n
        assert losses["ddp", model] == pytest.approx(one, abs=1e-5)


@pytest.mark.slow
def test_a_fault_in_a_process_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from alignboard.cli.app import cli

    monkeypatch.chdir(tmp_path)
    command = ["train", "demo/sft", "--model", "tiny-phi", "--launcher", "ddp", "--workers", "2"]
    wrong = ["--set", "lora.target_modules=[Wqkv]"]
    done = CliRunner().invoke(cli, [*command, *wrong])
    assert "Wqkv: no such layer" in str(done.exception)
