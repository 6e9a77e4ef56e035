"""Runs that are interrupted go on from their checkpoints and end with the same adapter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from test_train import QuickBase, base, content, pair_rows, rated, same, sft_rows, short

__all__ = ["base"]  # the fixture


class Killed(BaseException):
    """What stands for a kill inside one process."""


def rated_rows() -> list[dict[str, Any]]:
    return rated(pair_rows())


@pytest.mark.parametrize("name", ["demo/sft", "demo/dpo", "kto"])
def test_an_interrupted_run_ends_with_the_same_adapter(
    base: QuickBase, tmp_path: Path, name: str
) -> None:
    from alignboard.training.trainer import train

    rows = {"demo/sft": sft_rows, "demo/dpo": pair_rows, "kto": rated_rows}[name]()
    lora = {**content()["lora"], "dropout": 0.1}  # random numbers have to go on, too
    kto = {"method": "kto", "data": {"name": "x.jsonl"}, "pairs": None}
    changes = {"save_every": 2, "lora": lora} | (kto if name == "kto" else {})
    recipe = short("demo/dpo" if name == "kto" else name, 6, **changes)
    whole = train(recipe, base("llama"), rows, tmp_path / "whole")
    work, steps = tmp_path / "work", []

    def stop(step: int, _of: int, _log: Any) -> None:
        steps.append(step)
        if steps in ([1, 2, 3], [1, 2, 3, 3, 4, 5]):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train(recipe, base("llama"), rows, tmp_path / "again", work=work, on_step=stop)
    # Killed while it wrote a checkpoint: the one before counts.
    torn = work / "checkpoint-5"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{}")
    again = train(recipe, base("llama"), rows, tmp_path / "again", work=work, on_step=stop)
    assert steps == [1, 2, 3, 3, 4, 5, 5, 6]
    assert same(tmp_path / "whole", tmp_path / "again")
    assert again.losses == whole.losses
    assert not work.exists()
    log = (tmp_path / "again" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5, 6]


def test_a_work_folder_of_another_run_is_not_taken_up(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    def stop(step: int, _of: int, _log: Any) -> None:
        if step == 3:
            raise Killed

    work, steps = tmp_path / "work", []
    recipe = short("demo/dpo", save_every=1)
    with pytest.raises(Killed):
        train(recipe, base("llama"), pair_rows(), tmp_path / "a", work=work, on_step=stop)
    train(
        short("demo/dpo", save_every=1, loss={"beta": 0.3}),
        base("llama"),
        pair_rows(),
        tmp_path / "b",
        work=work,
        on_step=lambda step, *_: steps.append(step),
    )
    assert steps == [1, 2, 3, 4]


CHILD = """
import json, sys
from pathlib import Path
from test_train import pair_rows, sft_rows, short
from alignboard.training.trainer import train

name, base, out, work = sys.argv[1:]
rows = sft_rows() if name.endswith("sft") else pair_rows()
def step(n, _of, _log):
    print(n, flush=True)
train(short(name, steps=8, save_every=2), base, rows, out, work=work, on_step=step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo/sft", "demo/dpo"])
def test_killed_at_three_points_a_run_ends_with_the_same_adapter(
    base: QuickBase, tmp_path: Path, name: str
) -> None:
    from alignboard.training.trainer import train

    rows = sft_rows() if name.endswith("sft") else pair_rows()
    train(short(name, steps=8, save_every=2), base("llama"), rows, tmp_path / "whole")
    out, work = tmp_path / "killed", tmp_path / "work"
    command = [sys.executable, "-c", CHILD, name, str(base("llama")), str(out), str(work)]
    path = os.pathsep.join(
        [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    )
    seen: list[int] = []
    for at in (3, 4, 7, None):
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert child.stdout is not None
        for line in child.stdout:
            seen.append(int(line))
            if seen[-1] == at:
                time.sleep(0.02)  # somewhere in the next step, or in the checkpoint
                child.send_signal(signal.SIGKILL)
        assert child.wait() == (0 if at is None else -signal.SIGKILL)
    assert seen.count(1) == 1  # nothing began anew
    assert same(tmp_path / "whole", out)
    assert not work.exists()
