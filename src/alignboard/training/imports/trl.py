"""Configurations of alignment-handbook, SimPO and TRL's command line: transformers' own keys, and TRL's."""

from __future__ import annotations

from typing import Any, Final

from alignboard.errors import InputError
from alignboard.training.imports.translation import (
    Translation,
    batch,
    drop_the_rest,
    duration,
    no_nll_of_simpo,
    optimizer,
)
from alignboard.training.imports.trl_method import method_of
from alignboard.training.methods import SFT, loss_spec

_LENGTHS: Final = ("max_length", "max_seq_length")
_DEFAULT_LENGTH: Final = 1024
"""TRL's"""
_RATES: Final = {SFT: 2e-5, "reward": 1e-4}
"""TRL's learning rates where a configuration has none; 1e-6 for other methods"""
_PARAMETERS: Final = {
    "label_smoothing": "label_smoothing",
    "f_divergence_type": "divergence",
    "f_alpha_divergence_coef": "alpha",
    "discopop_tau": "tau",
    "cpo_alpha": "nll_weight",
    "desirable_weight": "desirable_weight",
    "undesirable_weight": "undesirable_weight",
}
"""TRL's names of a loss's parameters, and ours"""
_PASSED: Final = ("packing", "packing_strategy", "eos_token")
_NOW: Final = {"ffd": "bfd"}
"""values that TRL calls otherwise today"""


def translate(one: Translation, method: str | None, devices: int) -> None:
    """Fill in the recipe."""
    found = method or method_of(one)
    one.set("method", found)
    one.set("model", one.need("model_name_or_path", "model"))
    one.put("model_revision", "revision")
    if one.recipe.get("revision") == "main":
        del one.recipe["revision"]
    _data(one)
    length = next((one.take(key, "max_length") for key in _LENGTHS if key in one.keys), None)
    one.set("max_length", length or _DEFAULT_LENGTH)
    if "max_prompt_length" in one.keys:
        cut = one.keys["max_prompt_length"]
        one.drop(["max_prompt_length"], "prompts are not cut")
        one.differences.append(
            f"Prompts were cut to {cut} tokens; here they are whole, and rows whose prompt fills max_length are left "
            "out."
        )
    _adapter(one)
    if found == SFT:
        one.drop(["beta", "loss_type"], "not of SFT")
        _trained_on(one)
    else:
        _loss(one, found)
    if "learning_rate" not in one.keys:
        rate = one.keys["learning_rate"] = _RATES.get(found, 1e-6)
        one.differences.append(f"The configuration has no learning_rate; {rate:g} is TRL's own.")
    optimizer(one)
    batch(one, devices)
    duration(one)
    one.put("seed", "seed")
    one.put("gradient_checkpointing", "gradient_checkpointing")
    _passed(one)
    _template(one)
    one.drop(["use_peft", "load_in_4bit", "load_in_8bit"], "not set")
    drop_the_rest(one)


def _template(one: Translation) -> None:
    """The chat template, with the BOS that the handbook's tokenisation put before the text."""
    template = one.take("chat_template", "chat_template")
    if template is None:
        return
    if "eos_token" in template and "bos_token" not in template:
        template = "{{ bos_token }}" + template
        one.differences.append(
            "The chat template gets {{ bos_token }} in front, which the published tokenisation added outside of it; "
            "take it out where the model's tokenizer adds none."
        )
    one.set("chat_template", template)


def _loss(one: Translation, method: str) -> None:
    of_cpo = "simpo_gamma" in one.keys or one.keys.get("loss_type") in ("simpo", ["simpo"])
    one.drop(["loss_type"], f"method: {method}")
    if method == "reward":
        one.set("loss", {})
        one.put("center_rewards_coefficient", "loss.center")
        return
    beta = float(one.take("beta", "loss.beta", 0.1))
    one.set("loss.beta", beta)
    if method == "simpo" and of_cpo and "gamma_beta_ratio" not in one.keys:
        one.set("loss.gamma", float(one.take("simpo_gamma", "loss.gamma", 0.5)))
        no_nll_of_simpo(one)
    elif method == "simpo":
        ratio = float(one.take("gamma_beta_ratio", "loss.gamma", 0.25))
        one.set("loss.gamma", round(ratio * beta, 10))
        one.differences.append(
            f"gamma_beta_ratio {ratio:g} is gamma {ratio * beta:g} = ratio x beta."
        )
    if method == "orpo":
        one.differences.append(
            "The NLL is the mean per sequence over the reply; TRL's is over prompt and reply of the micro-batch."
        )
    known = loss_spec(method).parameters
    for theirs, ours in _PARAMETERS.items():
        if ours in known:
            one.put(theirs, f"loss.{ours}")
    if one.recipe["loss"].get("divergence") != "alpha_divergence":
        one.recipe["loss"].pop(
            "alpha", None
        )  # TRL's default stands in configurations of other divergences, too


def _adapter(one: Translation) -> None:
    if not one.take("use_peft", "lora"):
        one.set("lora", "none")
        return
    targets = one.take("lora_target_modules", "lora.target_modules")
    if targets is None:
        targets = "all-linear"
        one.differences.append(
            "lora_target_modules is not given: PEFT takes its own for the architecture (mostly q_proj and v_proj), "
            "here it is every linear layer."
        )
    one.set("lora.r", int(one.take("lora_r", "lora.r", 16)))
    one.set("lora.alpha", int(one.take("lora_alpha", "lora.alpha", 32)))
    one.set("lora.dropout", float(one.take("lora_dropout", "lora.dropout", 0.05)))
    one.set("lora.target_modules", targets)
    if one.recipe["method"] != SFT:
        one.differences.append(
            f"Where {one.recipe['model']} is an adapter, give it as start_from, and its base as model."
        )
    for key, to in (("use_dora", "lora.dora"), ("use_rslora", "lora.rslora")):
        one.put(key, to)
    for key, bits in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if one.take(key, "quantization.bits"):
            double = bool(one.take("use_bnb_nested_quant", "quantization.double", default=False))
            one.set("quantization", {"bits": bits, "type": "nf4", "double": double})


def _trained_on(one: Translation) -> None:
    """TRL takes SFT's loss on all tokens of conversations unless it is told otherwise."""
    one.set("train_on", "replies" if one.take("assistant_only_loss", "train_on") else "all")


def _passed(one: Translation) -> None:
    for key in _PASSED:
        value = one.take(key, f"trl.{key}")
        if value:
            one.set(f"trl.{key}", _NOW.get(value, value))


def _data(one: Translation) -> None:
    if isinstance(one.keys.get("datasets"), list):
        _datasets(one)
    elif "dataset_mixture" in one.keys:
        _mixture(one, one.take("dataset_mixture", "data"))
    elif "dataset_mixer" in one.keys:
        _mixer(one)
    else:
        name = one.need("dataset_name", "data.name")
        split = one.take("dataset_train_split", "data.split", "train")
        config = one.take("dataset_config", "data.config")
        one.recipe["data"] = _source(name, split=split, config=config)
        test = one.take("dataset_test_split", "held_out.data.split")
        _held_out(one, None if test is None else {"data": _source(name, split=test, config=config)})


def _source(name: str, **fields: Any) -> dict[str, Any]:
    given = {key: value for key, value in fields.items() if value not in {None, "default"}}
    return {"name": name, **given}


def _mixture(one: Translation, given: dict[str, Any]) -> None:
    """The handbook's: data sets with configuration, split and the share that is taken; or in TRL's words."""
    sources = []
    for part in given["datasets"]:
        weight = float(part.get("weight", part.get("fraction", 1.0)))
        share = None if weight == 1 else weight
        fields = {"config": part.get("config", part.get("name")), "split": part.get("split")}
        name = part["id"] if "id" in part else part["path"]
        sources.append(_source(name.strip(), share=share, **_stripped(fields)))
        if "chat_template_kwargs" in part.get("columns", []):
            kwargs = (
                "Rows' chat_template_kwargs are not read: every row is rendered by one template."
            )
            if kwargs not in one.differences:
                one.differences.append(kwargs)
    one.recipe["data"] = sources[0] if len(sources) == 1 else sources
    size = given.get("test_split_size")
    _held_out(one, None if size is None else {"share" if size < 1 else "rows": size})


def _datasets(one: Translation) -> None:
    """TRL's own mixture: data sets on the hub or of files, each with a configuration, a split and a share."""
    sources = []
    for part in one.take("datasets", "data"):
        files, share = part.get("data_files"), part.get("fraction")
        if isinstance(files, list) and len(files) == 1:
            (files,) = files
        if files is not None and not isinstance(files, str):
            raise InputError(
                f"{one.source}: datasets: {part['path']} has several data_files; give each an entry of its own."
            )
        fields = {"config": part.get("name"), "split": part.get("split"), "share": share}
        sources.append(_source(files or part["path"], **_stripped(fields)))
    one.recipe["data"] = sources[0] if len(sources) == 1 else sources
    size = one.take("test_split_size", "held_out.share")
    _held_out(one, None if size is None else {"share" if size < 1 else "rows": size})


def _stripped(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.strip() if isinstance(value, str) else value for key, value in fields.items()
    }


def _mixer(one: Translation) -> None:
    """The handbook's older form: shares by name, the splits apart."""
    mixer = one.take("dataset_mixer", "data")
    splits = one.take("dataset_splits", "data.split", ["train"])
    configs = one.take("dataset_configs", "data.config", [None] * len(mixer))
    sources = [
        _source(
            name, split=splits[0], config=config, share=None if float(share) == 1 else float(share)
        )
        for (name, share), config in zip(mixer.items(), configs, strict=True)
    ]
    one.recipe["data"] = sources[0] if len(sources) == 1 else sources
    test = splits[1] if len(splits) > 1 else None
    first = sources[0]["name"]
    if test is not None and len(sources) > 1:
        one.differences.append(f"Only the {test} rows of {first} are measured.")
    _held_out(one, None if test is None else {"data": _source(first, split=test)})


def _held_out(one: Translation, section: dict[str, Any] | None) -> None:
    """What is measured, where the configuration measures at all."""
    wanted = one.take("do_eval", "held_out", default=True)
    strategy = one.take("eval_strategy", "held_out.every") or one.take(
        "evaluation_strategy", "held_out.every"
    )
    every = one.take("eval_steps", "held_out.every")
    if section is None or not wanted or strategy in {"no", False}:
        return
    if strategy == "steps" and every:
        section["every"] = int(every)
    one.recipe["held_out"] = section
