"""KTO, mixtures, held-out rows, full fine-tuning, DoRA, and adapters as a start, through TRL on tiny checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignboard.data.preferences.read import read_all, read_rows, split
from alignboard.data.preferences.sources import PreferenceSource
from alignboard.errors import InputError
from alignboard.pipeline.plans.build import build_graph
from alignboard.pipeline.training import TrainingRequest, training_plan
from alignboard.training.recipe import parse_recipe
from alignboard.training.sections import RecipeError
from test_train import QuickBase, adapter_weights, base, content, pair_rows, same, sft_rows, short

__all__ = ["base"]  # the fixture

KTO = {"method": "kto", "data": {"name": "x.jsonl"}, "pairs": None}


def written(file: Path, rows: list[dict[str, Any]]) -> PreferenceSource:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PreferenceSource(str(file))


# Data


def test_pairs_are_rated_replies_too(tmp_path: Path) -> None:
    pairs = pair_rows(4)
    found, report = read_rows(written(tmp_path / "pairs.jsonl", pairs), "rated")
    rows: list[Any] = list(found)
    assert (report.kind, report.kept, len(rows)) == ("pair", 4, 8)
    assert [row["label"] for row in rows] == [True, False] * 4
    assert rows[1]["completion"] == pairs[0]["rejected"]
    assert rows[1]["prompt"] == pairs[0]["prompt"]
    with pytest.raises(InputError, match="holds demonstrations; rated replies"):
        read_rows(written(tmp_path / "sft.jsonl", sft_rows(4)), "rated")


def test_a_mixture_takes_shares_by_the_seed(tmp_path: Path) -> None:
    from dataclasses import replace

    one = written(tmp_path / "one.jsonl", pair_rows(8))
    two = replace(written(tmp_path / "two.jsonl", pair_rows(40)[8:]), share=0.25)
    rows, reports = read_all([one, two], "pair", seed=3)
    assert len(rows) == 8 + 8
    assert [report.kept for report in reports] == [8, 32]
    again, _ = read_all([one, two], "pair", seed=3)
    other, _ = read_all([one, two], "pair", seed=4)
    assert list(rows) == list(again) != list(other)
    apart = written(tmp_path / "sft.jsonl", [{"messages": row["prompt"]} for row in sft_rows(4)])
    with pytest.raises(InputError, match="ends with a message that is not the assistant's"):
        read_all([apart], "demonstration")


def test_held_out_rows_are_not_trained_on() -> None:
    rows = pair_rows(20)
    kept, out = split(rows, 5, seed=1)
    assert (len(kept), len(out)) == (15, 5)
    assert all(row in rows for row in out)
    assert not any(row in kept for row in out)


# Recipes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": "none", "quantization": {}}, "lora: none trains every weight, and a quant"),
        ({"lora": "all"}, "lora"),
        ({"held_out": {}}, "exactly one of data, share and rows"),
        ({"held_out": {"share": 1.5}}, "held_out.share"),
        ({**KTO, "batch": {"global": 8, "per_device": 1}}, "batch.per_device has to be 2"),
        ({"data": []}, "data"),
        ({"data": {"name": "x.jsonl"}}, "belong together; give both, or neither"),
    ],
)
def test_sections_that_contradict_each_other(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_recipe({**content(), **change}, "x.yaml")
    assert message in str(error.value)


def test_the_batch_on_one_device_is_part_of_ktos_identity() -> None:
    keys = {
        parse_recipe({**content(), **KTO, "batch": {"global": 8, "per_device": n}}, "x").key()
        for n in (2, 4)
    }
    assert len(keys) == 2


def test_what_a_recipe_may_say_since_later_moves_no_key() -> None:
    identity = parse_recipe(content(), "x").identity()
    assert "held_out" not in identity
    assert not {"dora", "rslora"} & identity["lora"].keys()
    assert "share" not in identity["data"]
    dora = parse_recipe({**content(), "lora": {**content()["lora"], "dora": True}}, "x")
    assert dora.identity()["lora"]["dora"] is True
    # What a job holds is read back.
    again = {**dora.identity(), "batch": {"global": 32, "per_device": 32}}
    assert parse_recipe(again, "y") == dora


def test_an_adapter_in_a_folder_is_a_start(tmp_path: Path) -> None:
    start = tmp_path / "sft-adapter"
    start.mkdir()
    (start / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (start / "adapter_model.safetensors").write_bytes(b"x")
    written(tmp_path / "rows.jsonl", pair_rows(8))
    settings = {"start_from": "sft-adapter", "data": {"name": "rows.jsonl"}, "pairs": None}
    (tmp_path / "train").mkdir()
    recipe = {**content(), **settings}
    (tmp_path / "train" / "mine.yaml").write_text(json.dumps(recipe))
    graph = build_graph(training_plan(TrainingRequest("mine", "tiny-phi"), tmp_path))
    job = graph.jobs["train tiny-phi-mine"]
    assert set(job.needs) == {"base", "data", "tokens", "reference"}
    assert job.hints["start"] == str(start)
    first = job.parameters["start"]["adapter"]
    (start / "adapter_model.safetensors").write_bytes(b"y")
    graph = build_graph(training_plan(TrainingRequest("mine", "tiny-phi"), tmp_path))
    assert graph.jobs["train tiny-phi-mine"].parameters["start"]["adapter"] != first


# Training


def test_kto_starts_at_a_half_from_an_adapter_and_learns(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    train(short("demo/sft"), base("llama"), sft_rows(), tmp_path / "sft")
    rows, _ = read_rows(written(tmp_path / "p.jsonl", pair_rows(16)), "rated")
    recipe = short("demo/dpo", steps=6, **KTO, held_out={"share": 0.5, "every": 3})
    result = train(
        recipe, base("llama"), rows, tmp_path / "kto", adapter=tmp_path / "sft", held_out=rows
    )
    assert result.first_loss == pytest.approx(0.5, abs=1e-4)
    assert result.losses[-1] < result.losses[0]
    assert sorted(result.held_out) == [3, 6]
    assert result.held_out[6]["loss"] < result.held_out[3]["loss"] < 0.5
    assert result.sample_row.endswith("<eos> ]")


def test_measuring_held_out_rows_changes_no_adapter(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    rows, plain = pair_rows(16), short("demo/dpo", steps=3)
    train(plain, base("llama"), rows, tmp_path / "plain")
    recipe = short("demo/dpo", steps=3, held_out={"share": 0.5, "every": 1})
    result = train(recipe, base("llama"), rows, tmp_path / "measured", held_out=pair_rows(32)[16:])
    assert same(tmp_path / "plain", tmp_path / "measured")
    assert sorted(result.held_out) == [1, 2, 3]
    assert 0 <= result.held_out[3]["rewards/accuracies"] <= 1


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_every_weight_is_trained_and_a_checkpoint_written(
    base: QuickBase, tmp_path: Path, method: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignboard.training.trainer import train

    recipe = short(f"demo/{method}", lora="none")
    result = train(recipe, base("llama"), pair_rows(), tmp_path / "full")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    assert result.trainable_parameters == model.num_parameters()
    assert result.losses[-1] < result.losses[0]
    if method == "dpo":  # against a reference that does not move
        assert result.first_loss == pytest.approx(0.693147, rel=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "full").chat_template
    with pytest.raises(RecipeError, match="is an adapter; merge it first"):
        train(recipe, base("llama"), pair_rows(), tmp_path / "no", adapter=adapter(base, tmp_path))


def adapter(base: QuickBase, folder: Path) -> Path:
    from alignboard.training.trainer import train

    if not (folder / "sft").exists():
        train(short("demo/sft", steps=1), base("llama"), sft_rows(), folder / "sft")
    return folder / "sft"


def test_dora_on_all_linear_layers_goes_on_from_dora_alone(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    lora = {"r": 4, "alpha": 8, "target_modules": "all-linear", "dora": True, "rslora": True}
    train(short("demo/sft", steps=3, lora=lora), base("llama"), sft_rows(), tmp_path / "dora")
    names = adapter_weights(tmp_path / "dora")
    assert any("magnitude" in name for name in names)
    assert not any("lm_head" in name for name in names)
    bigger = {**lora, "r": 8, "alpha": 16}
    result = train(
        short("demo/dpo", steps=3, lora=bigger),
        base("llama"),
        pair_rows(),
        tmp_path / "dpo",
        adapter=tmp_path / "dora",
    )
    # The reference is the start, at its larger rank.
    assert result.first_loss == pytest.approx(0.693147, rel=1e-4)
    with pytest.raises(RecipeError, match=r"is DoRA of rank 4, .* LoRA of rank 16 cannot"):
        train(
            short("demo/dpo"),
            base("llama"),
            pair_rows(),
            tmp_path / "no",
            adapter=tmp_path / "dora",
        )


def test_an_adapter_of_another_base_is_refused(base: QuickBase, tmp_path: Path) -> None:
    from alignboard.training.trainer import train

    start = adapter(base, tmp_path)
    with pytest.raises(InputError, match=r"was trained on .*tiny-llama, not on .*tiny-mistral"):
        train(short("demo/dpo"), base("mistral"), pair_rows(), tmp_path / "out", adapter=start)
    assert not (tmp_path / "out").exists()
