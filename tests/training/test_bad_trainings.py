"""What a training cannot use is one sentence with file, row, column and the way out, before anything is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("datasets")

from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.models import arithmetic
from alignboard.pipeline import training_preflight
from alignboard.pipeline.executors.work import Event, RunFailedError
from alignboard.pipeline.training import TrainingRequest, train_recipe
from alignboard.training import resume
from test_train import QuickBase, base, pair_rows, short

__all__ = ["base"]  # the fixture

PAIRS: list[Any] = [
    {"prompt": f"What is {n}?", "chosen": "A number.", "rejected": f"No idea, {n}."}
    for n in range(12)
]
USER, OTHER = ({"role": "user", "content": text} for text in ("Hello.", "Bye."))
REPLY, ANOTHER = ({"role": "assistant", "content": text} for text in ("Hi.", "Ho."))
DATA: dict[str, tuple[Sequence[Any], Sequence[str], str]] = {
    "empty": ([], (), r"d\.jsonl is empty"),
    "broken": ([*PAIRS[:5], '{"prompt": '], (), r"d\.jsonl, line 6: broken JSON"),
    "null": (
        [*PAIRS[:7], PAIRS[0] | {"chosen": None}, *PAIRS[7:]],
        (),
        r"d\.jsonl, row 8: the column chosen is null",
    ),
    "empty replies": (
        [row | {"rejected": " "} for row in PAIRS],
        (),
        r"12 of 12 rows cannot be used; in 12 of them the rejected reply is empty \(first: row 1\)",
    ),
    "no schema": (
        [{"question": "a", "best": "b"}] * 2,
        (),
        r"best, question are no known schema; the nearest, orca, needs .* \{chosen: <column>, rejected: <column>\}",
    ),
    "no column of any schema": (
        [{"ask": "a", "good": "b", "bad": "c"}] * 2,
        (),
        r"the nearest, pairs, needs .* columns: \{chosen: <column>, prompt: <column>, rejected: <column>\}",
    ),
    "demonstrations": (
        [{"instruction": "a", "input": "", "output": "b"}] * 2,
        (),
        r"its columns are those of alpaca \(demonstrations\), where pairs are trained on \(alpaca-pairs or",
    ),
    "two schemas": (
        [row | {"instruction": "x"} for row in PAIRS],
        (),
        "the schemas pairs and alpaca-pairs fit its columns; say which, schema: pairs",
    ),
    "not the assistant's": (
        [{"chosen": [USER, REPLY], "rejected": [USER, OTHER]}],
        (),
        r"d\.jsonl, row 1: the column rejected ends with a message that is not the assistant's",
    ),
    "two prompts": (
        [{"chosen": [USER, REPLY], "rejected": [OTHER, ANOTHER]}],
        (),
        "1 of 1 rows cannot be used; in 1 of them chosen and rejected have different prompts",
    ),
    "equal pairs": (
        [row | {"rejected": row["chosen"]} for row in PAIRS[:7]] + PAIRS[7:],
        (),
        r"7 of 12 rows cannot be used; in 7 of them chosen and rejected are the same \(first: row 1\)",
    ),
    "few rows": (
        PAIRS,
        ("batch.global=16",),
        r"recipe demo/dpo: d\.jsonl: there are 12 rows to train on, fewer than the 16 of one step; .* batch\.global",
    ),
    "few rows are left": (
        PAIRS,
        ("batch.global=12", "held_out={rows: 4}"),
        "there are 8 rows to train on, fewer than the 12 of one step",
    ),
    "rated": (
        [{"prompt": "a", "completion": "b", "label": "good"}],
        ("method=kto", "loss={beta: 0.1}"),
        r"row 1: the column label is 'good', where true or false was expected",
    ),
}
RECIPES: dict[str, tuple[Sequence[str], str]] = {
    "the output layer": (
        ["lora.target_modules=[q_proj, lm_head]"],
        r"demo/dpo\.yaml: target_modules has lm_head, .* leave it out",
    ),
    "no such target": (
        ["lora.target_modules=none"],
        r"demo/dpo\.yaml: Invalid enum value 'none' - at `\$\.lora\.target_modules`; it takes all-linear",
    ),
    "no such tracker": (
        ["report_to=[x]"],
        r"demo/dpo\.yaml: Invalid enum value 'x' - at `\$\.report_to\[0\]`; it takes tensorboard, wandb, trackio",
    ),
    "a section without adapter": (
        ["lora={adapter: none}"],
        r"a recipe has no field 'lora\.adapter'",
    ),
    "checkpoints without adapter": (
        ["lora=none", "checkpoints=3"],
        "checkpoints keeps adapters, and lora: none trains every weight",
    ),
    "trl against a field": (["trl={beta: 1}"], r"trl\.beta: the field loss\.beta says it"),
    "no such setting of trl": (
        ["trl={neftune_noise_alfa: 5}"],
        r"recipe demo/dpo: trl\.neftune_noise_alfa: DPOConfig has no such setting, did you mean 'neftune_noise_alpha'",
    ),
    "no parent": (
        ["start_from=./nowhere"],
        "./nowhere is no recipe of train/, and neither a folder",
    ),
    "a parent of the hub": (
        ["start_from=nobody/nothing"],
        "nobody/nothing is neither a folder nor in the hub's cache on this machine, and the hub cannot be reached",
    ),
}


def refused(command: Sequence[str]) -> str:
    """The sentence of a command that starts no job."""
    done = CliRunner().invoke(cli, [*command])
    message = str(done.exception)
    assert type(done.exception).__name__ in {"InputError", "RecipeError", "PreflightError"}, message
    assert not list(Path().glob("results/*"))
    assert message.count("\n") == 0
    return message


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(rows: Sequence[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path("d.jsonl").write_text("".join(f"{line}\n" for line in lines))


def training(settings: Sequence[str]) -> list[str]:
    command = ["train", "demo/dpo", "--model", "tiny-phi", "--data", "d.jsonl"]
    return [*command, *(word for one in settings for word in ("--set", one))]


@pytest.mark.parametrize("fault", DATA)
def test_data_are_refused_before_what_a_training_starts_from_is_trained(fault: str) -> None:
    rows, settings, message = DATA[fault]
    write(rows)
    assert re.search(message, refused(training(["batch={global: 4, per_device: 4}", *settings])))


@pytest.mark.parametrize("fault", RECIPES)
def test_recipes_are_refused_by_name(fault: str) -> None:
    settings, message = RECIPES[fault]
    write(PAIRS)
    assert re.search(message, refused(training(["batch={global: 4, per_device: 4}", *settings])))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("loss.betta=1,2", "loss: method dpo has no parameter 'betta', did you mean 'beta'"),
        ("optimiser.name=a,b", "a recipe has no field 'optimiser', did you mean 'optimizer'"),
        ("seeds=1,2", "a recipe has no field 'seeds', did you mean 'seed'"),
    ],
)
def test_a_sweep_over_a_key_that_does_not_exist(over: str, message: str) -> None:
    write(PAIRS)
    command = ["sweep", "demo/dpo", "--model", "tiny-phi", "--data", "d.jsonl", "--over", over]
    assert message in refused([*command, "--judge", "demo-simulated"])


def test_layers_that_a_base_does_not_have_are_noticed_before_its_sft(base: QuickBase) -> None:
    write(PAIRS)
    command = ["train", "demo/dpo", "--model", str(base("llama")), "--data", "d.jsonl"]
    few = ["--set", "batch={global: 4, per_device: 4}"]
    message = refused([*command, *few, "--set", "lora.target_modules=[Wqkv, q_proj]"])
    assert "recipe demo/dpo: lora.target_modules Wqkv: no such layer in LlamaForCausalLM" in message
    assert "down_proj, gate_proj" in message


def test_a_large_file_that_cannot_be_read_stops_what_only_leads_to_its_training(
    base: QuickBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_preflight, "LARGEST", 10)
    write([*PAIRS[:7], PAIRS[0] | {"chosen": None}])
    asked = TrainingRequest(
        "demo/dpo", str(base("llama")), {"data": {"name": "d.jsonl"}, "pairs": None}
    )
    events = list[Event]()
    with pytest.raises(
        RunFailedError, match=r"row 8: the column chosen is null.* were not started"
    ):
        train_recipe(asked, on_progress=events.append)
    assert {event.job.kind for event in events} == {"data"}


def test_a_disk_without_room_for_the_checkpoints_is_noticed_before_the_first_job(
    base: QuickBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(PAIRS)
    command = ["train", "demo/dpo", "--model", str(base("llama")), "--data", "d.jsonl"]
    full = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(resume, "shutil", full)
    message = refused([*command, "--set", "batch={global: 4, per_device: 4}"])
    assert re.search(r"has 0\.00 GiB free, and the checkpoints and results of 2 trainings", message)


def test_settings_of_trl_that_fight_are_one_sentence(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    for setting, value, reason in (
        ("dataloader_prefetch_factor", 2, "can only be set when"),
        ("output_dir", "x", "alignboard sets it by itself"),
    ):
        recipe = short("demo/dpo", steps=1, trl={setting: value})
        with pytest.raises(InputError, match=rf"trl.*{setting}.*{reason}"):
            train(recipe, base("llama"), pair_rows(8), tmp_path / "out")


def test_four_bits_without_bitsandbytes_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "find_spec", lambda _: None)
    how = arithmetic.Arithmetic(dtype="float32", device="cpu", quantization="4bit")
    with pytest.raises(InputError, match=r"needs bitsandbytes: .*, or take none"):
        arithmetic._bitsandbytes(how, None, type(None))
