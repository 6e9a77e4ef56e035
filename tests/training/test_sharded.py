"""Trainings whose processes hold parts of the weights, or of the gradients: fsdp2, and DeepSpeed's zero2 and zero3.

On processors, in two processes. ``planted/sitecustomize.py`` is run in each: it lets accelerate shard without GPUs, and
plants the faults. DeepSpeed is no requirement of the package: its tests run where it is (``make test-zero``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from alignboard.errors import AlignboardError
from alignboard.training.launch import HELD_OUT, TRAINED, Launch
from alignboard.training.recipe import Recipe
from alignboard.training.sections import LauncherName
from test_train import QuickBase, base, pair_rows, sft_rows, short

__all__ = ["base"]

pytestmark = pytest.mark.slow
PLANTED = Path(__file__).parent / "planted"
BIN = str(Path(sys.executable).parent)
"""where ninja is, by which DeepSpeed compiles what it needs"""
NO_DEEPSPEED = "deepspeed is not installed; make test-zero has it"

Train = Callable[..., Path]
"""of (launcher, recipe, adapter, fault); the folder of what was trained"""


@pytest.fixture
def train(base: QuickBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    from datasets import Dataset

    from alignboard.training.processes import TrainingCall, launched, perform

    places = [str(PLANTED), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    monkeypatch.setenv("PATH", os.pathsep.join([BIN, os.environ["PATH"]]))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    def trained(
        launcher: LauncherName,
        recipe: Recipe,
        *,
        adapter: Path | None = None,
        fault: str | None = None,
        name: str | None = None,
    ) -> Path:
        if launcher in {"zero2", "zero3"} and find_spec("deepspeed") is None:
            pytest.skip(NO_DEEPSPEED)
        folder = tmp_path / (name or launcher)
        folder.mkdir(exist_ok=True)
        rows = sft_rows() if recipe.loss is None else pair_rows()
        for split, some in ((TRAINED, rows), (HELD_OUT, rows[:8])):
            if not (tmp_path / split).exists():
                Dataset.from_list(some).save_to_disk(str(tmp_path / split))
        call = TrainingCall(
            recipe=recipe,
            model=str(base("llama")),
            rows={split: str(tmp_path / split) for split in (TRAINED, HELD_OUT)},
            out=str(folder / "adapter"),
            adapter=None if adapter is None else str(adapter),
            data=None,
            last_good=str(folder / "last-good"),
            work=str(folder / "work"),
            seed=0,
            name=launcher,
        )
        if fault is not None:
            monkeypatch.setenv("PLANTED", fault)
        if launcher == "none":
            perform(call, lambda *_: None)
        else:
            launched(call, Launch(launcher, 2), lambda *_: None)
        return folder / "adapter"

    return trained


def difference(one: Path, other: Path) -> float:
    """The largest between two files of weights of the same names."""
    from safetensors.numpy import load_file

    (file,) = (path.name for path in one.glob("*.safetensors"))
    a, b = load_file(one / file), load_file(other / file)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def held_out(folder: Path) -> dict[str, float]:
    """The held-out loss by step."""
    found = json.loads((folder / "training.json").read_text())["held_out"]
    return {step: measured["loss"] for step, measured in found.items()}


LAUNCHERS: list[LauncherName] = ["fsdp2", "zero2", "zero3"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_adapter_is_that_of_one_process(
    launcher: LauncherName, base: QuickBase, train: Train, tmp_path: Path
) -> None:
    """From an SFT adapter, with adapters kept on the way and rows that are held out."""
    from alignboard.training.trainer import train as in_this_process

    start = tmp_path / "start"
    in_this_process(short("demo/sft"), base("llama"), sft_rows(), start)
    recipe = short("demo/dpo", checkpoints=2, held_out={"rows": 8})
    one, several = train("none", recipe, adapter=start), train(launcher, recipe, adapter=start)
    assert difference(one, several) < 1e-5
    kept = [folder.parent / "checkpoints" / "1" for folder in (one, several)]
    assert difference(kept[0], one) > 0
    assert difference(*kept) < 1e-5
    assert held_out(several) == pytest.approx(held_out(one), abs=1e-5)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_weight_is_that_of_one_process(launcher: LauncherName, train: Train) -> None:
    recipe = short("demo/sft", lora="none")
    assert difference(train("none", recipe), train(launcher, recipe)) < 1e-5


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_training_goes_on(launcher: LauncherName, train: Train) -> None:
    recipe = short("demo/dpo", steps=6, save_every=2, checkpoints=2)
    with pytest.raises(AlignboardError, match="exit code"):
        train(launcher, recipe, fault="killed")
    resumed = train(launcher, recipe, fault="killed")
    assert len((resumed / "steps.jsonl").read_text().splitlines()) == 6
    assert difference(train("none", recipe), resumed) < 1e-5


START = "before the first step is .*, expected 0.693"
UNREACHED = r"1 matrices of the adapter got no gradient in 1 steps, the first is .*\.idle"
ZERO = r"2 matrices of the adapter got no gradient in 5 steps, the first is .*k_proj\.lora_A"
WRITTEN = "gives other logits than the trained one"
FAULTS = {
    "another_reference": START,
    "idle_matrix": UNREACHED,
    "zero_gradient": ZERO,
    "written_wrong": WRITTEN,
}
TRIED = [
    *((launcher, fault) for launcher in ("fsdp2", "zero3") for fault in FAULTS),
    ("zero2", "zero_gradient"),  # whose weights are whole: the rest is as without it
]


@pytest.mark.parametrize(("launcher", "fault"), TRIED)
def test_what_goes_wrong_is_noticed(launcher: LauncherName, fault: str, train: Train) -> None:
    with pytest.raises(AlignboardError, match=FAULTS[fault]):
        train(launcher, short("demo/dpo", steps=6), fault=fault)


@pytest.mark.parametrize("launcher", ["fsdp2", "zero3"])
def test_every_weight_that_is_written_wrong_is_noticed(
    launcher: LauncherName, train: Train
) -> None:
    with pytest.raises(AlignboardError, match=WRITTEN):
        train(launcher, short("demo/sft", lora="none"), fault="written_wrong")


@pytest.mark.parametrize("launcher", ["ddp", "fsdp2", "zero3"])
def test_the_last_good_adapter_is_kept(
    launcher: LauncherName, train: Train, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    at_once = {"learning_rate": 0.001, "schedule": "constant"}
    message = r"step 3 of 4: the loss is nan .* The adapter of step 1 is kept in .*last-good\.$"
    with pytest.raises(AlignboardError, match=message):
        train(launcher, short("demo/dpo", optimizer=at_once), fault="no_number")
    kept = load_file(tmp_path / launcher / "last-good" / "adapter_model.safetensors")
    assert all(bool(np.isfinite(value).all()) for value in kept.values())
    assert any(bool(value.any()) for name, value in kept.items() if "lora_B" in name)


def test_the_command_line_trains_by_zero3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user would type, on a device of DeepSpeed's own choice."""
    if find_spec("deepspeed") is None:
        pytest.skip(NO_DEEPSPEED)
    monkeypatch.setenv("PATH", os.pathsep.join([BIN, os.environ["PATH"]]))
    losses = {}
    for launcher in ("none", "zero3"):
        train = ["train", "demo/sft", "--model", "tiny-phi", "--name", launcher]
        asked = [*train, "--set", "duration.steps=3", "--launcher", launcher, "--workers", "2"]
        done = subprocess.run(
            [sys.executable, "-m", "alignboard", *asked],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        steps = (tmp_path / "results" / launcher / "adapter" / "steps.jsonl").read_text()
        losses[launcher] = [json.loads(line)["loss"] for line in steps.splitlines()]
    assert len(losses["none"]) == 3
    assert losses["zero3"] == pytest.approx(losses["none"], abs=1e-5)
