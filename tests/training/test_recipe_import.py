"""Configurations of other tools as recipes: every key accounted for, and what is made trains."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.training.imports.read import import_recipe
from alignboard.training.recipe import load_recipe, parse_recipe
from test_train import conversations, pair_rows

PUBLISHED = Path(os.environ.get("ALIGNBOARD_RECIPES", "missing"))
FILES = sorted(PUBLISHED.glob("*/*.y*ml"))
TRL: dict[str, Any] = {
    "model_name_or_path": "owner/base",
    "dataset_mixer": {"owner/pairs": 0.5, "owner/more": 1.0},
    "dataset_splits": ["train_prefs", "test_prefs"],
    "beta": 2.0,
    "gamma_beta_ratio": 0.25,
    "eval_strategy": "steps",
    "eval_steps": 100,
    "learning_rate": "3.0e-7",
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "warmup_ratio": 0.1,
    "max_length": 1024,
    "max_prompt_length": 512,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 16,
    "num_train_epochs": 1,
    "use_peft": True,
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_target_modules": ["q_proj", "v_proj"],
    "load_in_4bit": True,
    "output_dir": "out",
    "torch_dtype": "bfloat16",
    "something_new": 7,
}
AXOLOTL: dict[str, Any] = {
    "base_model": "owner/base",
    "rl": "kto",
    "rl_beta": 0.5,
    "kto_desirable_weight": 0.2,
    "datasets": [{"path": "owner/rated", "split": "train", "type": "llama3.ultra"}],
    "val_set_size": 0.05,
    "adapter": "qlora",
    "load_in_4bit": True,
    "lora_r": 32,
    "lora_alpha": 64,
    "lora_target_linear": True,
    "sequence_len": 2048,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 3,
    "optimizer": "adamw_8bit",
    "lr_scheduler": "cosine",
    "learning_rate": 0.0002,
}
LLAMA_FACTORY: dict[str, Any] = {
    "model_name_or_path": "owner/base",
    "stage": "dpo",
    "pref_loss": "simpo",
    "pref_beta": 2.5,
    "simpo_gamma": 0.8,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "dataset": "one, two",
    "template": "qwen3",
    "cutoff_len": 2048,
    "max_samples": 1000,
    "val_size": 200,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 5.0e-6,
    "max_steps": 40,
    "num_train_epochs": 3.0,
}


def written(folder: Path, content: dict[str, Any], name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_trls_keys(tmp_path: Path) -> None:
    found = import_recipe(written(tmp_path, TRL), devices=4)
    recipe = found.recipe
    assert recipe.method == "simpo"
    assert recipe.loss is not None
    assert (recipe.loss["beta"], recipe.loss["gamma"]) == (2.0, 0.5)
    assert recipe.batch.global_ == 2 * 16 * 4
    assert [(one.name, one.split, one.share) for one in recipe.data_sets] == [
        ("owner/pairs", "train_prefs", 0.5),
        ("owner/more", "train_prefs", 1.0),
    ]
    assert recipe.held_out is not None
    assert recipe.held_out.data is not None
    assert (recipe.held_out.data.split, recipe.held_out.every) == ("test_prefs", 100)
    assert recipe.optimizer.schedule_settings == {"min_lr_rate": 0.1}
    assert recipe.optimizer.learning_rate == 3e-7
    assert recipe.adapter.target_modules == ["q_proj", "v_proj"]
    assert recipe.quantization is not None
    notes = {one.key: one for one in found.keys}
    assert set(notes) == set(TRL)
    assert (notes["lora_r"].what, notes["lora_r"].note) == ("renamed", "lora.r")
    assert notes["max_length"].what == "kept"
    assert notes["output_dir"].what == "dropped"
    said = " ".join(found.differences)
    assert "something_new: 7 has no field" in said
    assert "Prompts were cut to 512" in said
    assert "gamma 0.5 = ratio x beta" in said


def test_axolotls_keys(tmp_path: Path) -> None:
    found = import_recipe(written(tmp_path, AXOLOTL))
    recipe = found.recipe
    assert recipe.method == "kto"
    assert recipe.loss == {"beta": 0.5, "desirable_weight": 0.2, "undesirable_weight": 1.0}
    assert recipe.adapter.target_modules == "all-linear"
    assert (recipe.batch.global_, recipe.duration.epochs) == (8, 3.0)
    assert recipe.held_out is not None
    assert recipe.held_out.share == 0.05
    assert recipe.optimizer.name == "adamw_8bit"


def test_llama_factorys_keys(tmp_path: Path) -> None:
    recipe = import_recipe(written(tmp_path, LLAMA_FACTORY)).recipe
    assert recipe.method == "simpo"
    assert recipe.loss == {"beta": 2.5, "gamma": 0.8, "label_smoothing": 0.0}
    assert (recipe.adapter.r, recipe.adapter.alpha) == (8, 16)
    assert [(one.name, one.n) for one in recipe.data_sets] == [
        ("data/dataset_info.json#one", 1000),
        ("data/dataset_info.json#two", 1000),
    ]
    assert recipe.duration.steps == 40
    assert recipe.held_out is not None
    assert recipe.held_out.rows == 200


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ({"gamma_beta_ratio": None, "loss_type": "apo_zero"}, "apo-zero"),
        ({"gamma_beta_ratio": None, "loss_type": "sigmoid"}, "dpo"),
        ({"gamma_beta_ratio": None, "loss_type": "ipo"}, "ipo"),
        ({"gamma_beta_ratio": None, "loss_type": ["apo_down"]}, "apo-down"),
        ({"gamma_beta_ratio": None}, "dpo"),
        ({"gamma_beta_ratio": None, "beta": None}, "sft"),
        ({"gamma_beta_ratio": None, "beta": None, "loss_type": "nll"}, "sft"),
        ({"gamma_beta_ratio": None, "loss_type": "simpo"}, "simpo"),
        ({"gamma_beta_ratio": None, "loss_type": "kto"}, "kto"),
        ({"gamma_beta_ratio": None, "undesirable_weight": 1.5}, "kto"),
        ({"gamma_beta_ratio": None, "cpo_alpha": 0.5, "loss_type": "sigmoid"}, "cpo"),
        ({"gamma_beta_ratio": None, "beta": None, "center_rewards_coefficient": 0.01}, "reward"),
    ],
)
def test_the_method_is_known_by_the_keys(
    tmp_path: Path, change: dict[str, Any], method: str
) -> None:
    content = {key: value for key, value in {**TRL, **change}.items() if value is not None}
    assert import_recipe(written(tmp_path, content)).recipe.method == method


OFF: dict[str, Any] = {
    "eval_steps": 10,
    "eval_strategy": "no",
    "dataset_mixer": {"owner/pairs": 1.0},
    "dataset_splits": ["train"],
    "load_in_4bit": False,
}
"""of TRL: what no held-out rows and no quantisation leave without effect"""


@pytest.mark.parametrize(
    ("content", "off"),
    [
        (TRL, set()),
        ({**TRL, **OFF}, {"eval_steps", "eval_strategy", "load_in_4bit"}),
        (AXOLOTL, set()),
        (
            {**AXOLOTL, "val_set_size": 0.0, "sample_packing": False},
            {"val_set_size", "sample_packing"},
        ),
        (LLAMA_FACTORY, set()),
        ({**LLAMA_FACTORY, "val_size": 0.0, "eval_steps": 5}, {"val_size", "eval_steps"}),
    ],
)
def test_what_is_kept_or_renamed_stands_in_the_recipe(
    tmp_path: Path, content: dict[str, Any], off: set[str]
) -> None:
    found = import_recipe(written(tmp_path, content))
    moved = {one.key: one.note for one in found.keys if one.what != "dropped"}
    assert not off & set(moved)
    for key, path in moved.items():
        inner: list[Any] = [found.content]
        for part in path.split("."):
            inner = [one[part] for one in inner if part in one]
            inner = [x for one in inner for x in (one if isinstance(one, list) else [one])]
        assert inner, f"{key} is said to be in {path}"


def test_axolotls_files_columns_and_schedule(tmp_path: Path) -> None:
    data: dict[str, Any] = {"path": "json", "ds_type": "json", "data_files": ["a.jsonl", "b.jsonl"]}
    data["type"] = {
        "field_prompt": "question",
        "field_chosen": "good",
        "prompt_format": "Q: {prompt}",
    }
    change = {"rl": "simpo", "datasets": [data], "cosine_min_lr_ratio": 0.1}
    found = import_recipe(written(tmp_path, {**AXOLOTL, **change}))
    assert [(one.name, one.columns) for one in found.recipe.data_sets] == [
        (name, {"prompt": "question", "chosen": "good"}) for name in ("a.jsonl", "b.jsonl")
    ]
    optimizer = found.recipe.optimizer
    assert (optimizer.schedule, optimizer.schedule_settings) == (
        "cosine_with_min_lr",
        {"min_lr_rate": 0.1},
    )
    said = " ".join(found.differences)
    assert "datasets: prompt_format 'Q: {prompt}' of json has no field" in said
    assert "1 x NLL" in said, "axolotl's SimPO is TRL's, with its default cpo_alpha"


@pytest.mark.parametrize(
    ("given", "ratio", "steps"),
    [
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, 0.1, None),
        ({"warmup_ratio": 0.1, "warmup_steps": 20}, 0.0, 20),
        ({"warmup_ratio": None, "warmup_steps": 0.05}, 0.05, None),
    ],
)
def test_warmup_is_a_ratio_or_steps(
    tmp_path: Path, given: dict[str, Any], ratio: float, steps: int | None
) -> None:
    found = import_recipe(written(tmp_path, {**TRL, **given})).recipe.optimizer
    assert (found.warmup_ratio, found.warmup_steps) == (ratio, steps)


def test_axolotls_columns_of_rated_replies(tmp_path: Path) -> None:
    named = {"field_prompt": "q", "field_completion": "a", "field_label": "good"}
    data = [{"path": "owner/rated", "split": "train", "type": named}]
    found = import_recipe(written(tmp_path, {**AXOLOTL, "datasets": data}))
    (source,) = found.recipe.data_sets
    assert source.columns == {"prompt": "q", "completion": "a", "label": "good"}


def test_sft_on_prompts_too(tmp_path: Path) -> None:
    axolotl = {k: v for k, v in AXOLOTL.items() if not k.startswith(("rl", "kto"))}
    assert (
        import_recipe(written(tmp_path, {**axolotl, "train_on_inputs": True})).recipe.train_on
        == "all"
    )
    factory = {**LLAMA_FACTORY, "stage": "sft", "train_on_prompt": True}
    assert import_recipe(written(tmp_path, factory)).recipe.train_on == "all"


def test_one_row_per_device_becomes_two_for_kto(tmp_path: Path) -> None:
    found = import_recipe(written(tmp_path, {**AXOLOTL, "micro_batch_size": 1}))
    assert (found.recipe.batch.global_, found.recipe.batch.per_device) == (4, 2)
    assert any("batch.per_device is 2" in one for one in found.differences)


def test_a_mixture_and_the_defaults_of_trls_command_line(tmp_path: Path) -> None:
    data = [{"path": "owner/a", "name": "tldr", "split": "train", "fraction": 0.5}]
    data += [{"path": "json", "data_files": "mine.jsonl"}]
    content = {"model_name_or_path": "owner/base", "datasets": data, "test_split_size": 0.1}
    content |= {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence", "eval_steps": 5}
    content |= {"f_alpha_divergence_coef": 0.5}
    found = import_recipe(written(tmp_path, content))
    assert [(one.name, one.config, one.share) for one in found.recipe.data_sets] == [
        ("owner/a", "tldr", 0.5),
        ("mine.jsonl", None, 1.0),
    ]
    assert found.recipe.held_out is not None
    assert found.recipe.held_out.share == 0.1
    assert (found.recipe.loss or {})["divergence"] == "js_divergence"
    assert found.recipe.optimizer.learning_rate == 1e-6
    assert any("learning_rate" in one for one in found.differences)
    del content["datasets"], content["test_split_size"]
    content["dataset_mixture"] = {"datasets": data[:1], "test_split_size": 0.1}
    assert import_recipe(written(tmp_path, content)).recipe == msgspec.structs.replace(
        found.recipe, data=found.recipe.data_sets[0]
    )


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sft", "SFTConfig"), ("dpo", "DPOConfig"), ("kto", "KTOConfig"), ("reward", "RewardConfig")],
)
def test_without_a_learning_rate_it_is_trls(tmp_path: Path, method: str, kind: str) -> None:
    trl = pytest.importorskip("trl")
    rates = {one.name: one.default for one in fields(getattr(trl, kind))}
    content = {"model_name_or_path": "owner/base", "dataset_name": "owner/a", "use_peft": True}
    found = import_recipe(written(tmp_path, content), method=method)
    assert found.recipe.optimizer.learning_rate == rates["learning_rate"]


def test_the_parameters_of_trls_losses(tmp_path: Path) -> None:
    content = {"model_name_or_path": "owner/base", "dataset_name": "owner/a", "beta": 2.0}
    simpo = import_recipe(written(tmp_path, {**content, "loss_type": "simpo", "simpo_gamma": 1.2}))
    assert (simpo.recipe.loss or {})["gamma"] == 1.2
    assert any("1 x NLL" in one for one in simpo.differences), "TRL's default is not SimPO's loss"
    kto = import_recipe(written(tmp_path, {**content, "desirable_weight": 1.33}), method="kto")
    assert (kto.recipe.loss or {})["desirable_weight"] == 1.33
    cpo = import_recipe(written(tmp_path, {**content, "cpo_alpha": 0.5}))
    assert (cpo.recipe.method, cpo.recipe.loss) == ("cpo", {"beta": 2.0, "nll_weight": 0.5})
    reward = import_recipe(written(tmp_path, {**LLAMA_FACTORY, "stage": "rm"}))
    assert (reward.recipe.method, reward.recipe.loss) == ("reward", {"center": 0.0})


def test_sft_of_trl_is_on_all_tokens_unless_it_says_otherwise(tmp_path: Path) -> None:
    content = {k: v for k, v in TRL.items() if k not in {"beta", "gamma_beta_ratio"}}
    assert import_recipe(written(tmp_path, content)).recipe.train_on == "all"
    content["assistant_only_loss"] = True
    assert import_recipe(written(tmp_path, content)).recipe.train_on == "replies"


def test_a_template_without_bos_gets_the_one_that_tokenisation_added(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    found = import_recipe(written(tmp_path, {**TRL, "chat_template": template}))
    assert found.recipe.chat_template == "{{ bos_token }}" + template
    assert any("bos_token" in one for one in found.differences)
    own = "{{ '<|im_start|>' }}"
    assert (
        import_recipe(written(tmp_path, {**TRL, "chat_template": own})).recipe.chat_template == own
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"_component_": "x", "loss": {}},
            "LLaMA-Factory's have model_name_or_path, axolotl's has base_model; this one has _component_, loss.",
        ),
        ({**TRL, "num_generations": 8}, "num_generations: online methods (GRPO, RLOO, PPO"),
        (
            {**TRL, "gamma_beta_ratio": None, "cpo_alpha": 1.0, "loss_type": "hinge"},
            "loss_type hinge of cpo has no method",
        ),
        (
            {**LLAMA_FACTORY, "pref_loss": "bco_pair"},
            "pref_loss: bco_pair has no method of ours; sigmoid, orpo",
        ),
        ({**TRL, "gamma_beta_ratio": None, "loss_type": "aot"}, "loss_type 'aot' has no method"),
        ({**LLAMA_FACTORY, "stage": "ppo"}, "stage: ppo is none of ours"),
        ({**LLAMA_FACTORY, "finetuning_type": "oft"}, "finetuning_type: oft is none of ours"),
        ({**AXOLOTL, "rl": "grpo"}, "rl: grpo has no method of ours"),
        ({**AXOLOTL, "datasets": None}, "datasets is missing"),
        (
            {**AXOLOTL, "micro_batch_size": 1, "gradient_accumulation_steps": 1},
            "batch.per_device has to be 2",
        ),
        (
            {**TRL, "gamma_beta_ratio": None, "loss_type": ["sigmoid", "sft"]},
            "loss_type adds up sigmoid and sft; a recipe has one loss",
        ),
    ],
)
def test_what_has_no_translation_is_one_sentence(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    given = {key: value for key, value in content.items() if value is not None}
    with pytest.raises(InputError) as error:
        import_recipe(written(tmp_path, given))
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path))


def test_the_command_lists_every_key_and_writes_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, TRL)
    done = CliRunner().invoke(cli, ["recipe", "import", "config.yaml", "--to", "mine/simpo"])
    assert done.exit_code == 0, done.output
    for key in TRL:
        assert re.search(rf"^{key} +(kept|renamed|dropped)", done.output, re.MULTILINE), key
    text = (tmp_path / "train" / "mine" / "simpo.yaml").read_text()
    assert "# Differs from the published run:" in text
    assert load_recipe(tmp_path / "train/mine/simpo.yaml") == import_recipe("config.yaml").recipe
    again = CliRunner().invoke(cli, ["recipe", "import", "config.yaml", "--to", "mine/simpo"])
    assert isinstance(again.exception, InputError)
    out = CliRunner().invoke(cli, ["recipe", "import", "config.yaml", "--to", "../out"])
    assert isinstance(out.exception, InputError)
    listed = CliRunner().invoke(cli, ["recipe", "list"])
    assert re.search(r"^mine/simpo +simpo +owner/base", listed.output, re.MULTILINE)
    shown = CliRunner().invoke(cli, ["recipe", "show", "mine/simpo"])
    assert shown.output.strip() == text.strip()


@pytest.mark.parametrize("name", ["learning_rate", "beta", "eval_steps"])
def test_what_a_field_says_cannot_be_passed_to_trl(name: str) -> None:
    content = yaml.safe_load((Path(__file__).parents[2] / "train/demo/dpo.yaml").read_text())
    with pytest.raises(InputError, match=rf"trl\.{name}: the field .* says it"):
        parse_recipe({**content, "trl": {name: 1}}, "x.yaml")


@pytest.mark.skipif(not FILES, reason="ALIGNBOARD_RECIPES is not set")
def test_there_are_as_many_published_files_as_are_promised() -> None:
    count = {
        folder.name: len(list(folder.iterdir()))
        for folder in PUBLISHED.iterdir()
        if folder.is_dir()
    }
    assert (count["alignment-handbook"], count["SimPO"]) == (22, 7)


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_files_translate_with_every_key_accounted_for(file: Path, tmp_path: Path) -> None:
    found = import_recipe(file)
    assert {one.key for one in found.keys} == set(yaml.safe_load(file.read_text()))
    assert not [one for one in found.keys if one.note == "no field of a recipe has its meaning"]
    (tmp_path / "r.yaml").write_text(found.text())
    assert load_recipe(tmp_path / "r.yaml") == found.recipe


ARCHITECTURES = {
    "smollm3": "smollm3",
    "smollm": "llama",
    "starc": "starcoder2",
    "mixtral": "mixtral",
    "gemma-2-": "gemma2",
    "gemma": "gemma",
    "qwen3": "qwen3",
    "qwen2": "qwen2",
    "llama": "llama",
    "falcon-e": "llama",
    "mistral": "mistral",
    "zephyr": "mistral",
}
"""the architecture of a model, by a part of its name"""


def tiny_of(model: str, folder: Path) -> Path:
    """A checkpoint of random weights of the model's architecture, with the demo's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from alignboard.demo.tiny import build_tokenizer

    kind = next(kind for part, kind in ARCHITECTURES.items() if part in model.lower())
    tokenizer: Any = build_tokenizer()
    small = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    extra = {"num_local_experts": 2} if kind == "mixtral" else {}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small, **extra)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_files_train_two_steps(file: Path, tmp_path: Path) -> None:
    """The recipe on a tiny model of its architecture: other rows, batch, length and tokens; not in 4 bits."""
    from alignboard.data.preferences.read import read_rows
    from alignboard.data.preferences.sources import PreferenceSource
    from alignboard.training.trainer import train

    content = dict(import_recipe(file).content)
    base = tiny_of(content["model"], tmp_path / "base")
    for key in ("quantization", "held_out", "revision"):
        content.pop(key, None)
    if "eos_token" not in content.get("chat_template", "eos_token"):
        del content["chat_template"]  # its end of turn is no token of the tiny tokenizer
    content["trl"] = {k: v for k, v in content.get("trl", {}).items() if k != "eos_token"}
    if re.search("8bit|paged", content["optimizer"].get("name", "")):
        content["optimizer"] = {**content["optimizer"], "name": "adamw_torch"}
    content |= {"max_length": 64, "batch": {"global": 4, "per_device": 2}, "duration": {"steps": 2}}
    recipe = parse_recipe(json.loads(json.dumps(content)), file.name)
    rows: Any = pair_rows(16)
    if recipe.kind == "demonstration":
        rows = conversations(16)
    elif recipe.kind == "rated":
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows, _ = read_rows(PreferenceSource(str(source)), "rated")
    result = train(recipe, base, rows, tmp_path / "out")
    assert result.steps == 2


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_json_that_is_no_configuration_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        InputError, match=r"config\.json (cannot be read as JSON|holds no JSON object)"
    ):
        import_recipe(tmp_path / "config.json")
