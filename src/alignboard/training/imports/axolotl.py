"""Configurations of axolotl: preference tuning (``rl:``) and SFT."""

from __future__ import annotations

import copy
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
from alignboard.training.methods import SFT

_METHODS: Final = {"dpo": "dpo", "ipo": "ipo", "orpo": "orpo", "kto": "kto", "simpo": "simpo"}
_BETA: Final = 0.1
"""axolotl's default of rl_beta"""
_ORPO: Final = 0.1


def translate(one: Translation, method: str | None, devices: int) -> None:
    """Fill in the recipe."""
    rl = one.take("rl", "method")
    if rl is not None and rl not in _METHODS:
        raise InputError(
            f"{one.source}: rl: {rl} has no method of ours; {', '.join(_METHODS)} have."
        )
    found = method or (SFT if rl is None else _METHODS[rl])
    one.set("method", found)
    one.set("model", one.need("base_model", "model"))
    one.put("revision_of_model", "revision")
    _data(one)
    one.set("max_length", int(one.take("sequence_len", "max_length", 2048)))
    _adapter(one)
    if found != SFT:
        _loss(one, found)
    elif one.take("train_on_inputs", "train_on"):
        one.set("train_on", "all")
    optimizer(one, "lr_scheduler", "optimizer")
    least = one.take("cosine_min_lr_ratio", "optimizer.schedule_settings")
    if least and one.recipe["optimizer"]["schedule"] == "cosine":
        one.set("optimizer.schedule", "cosine_with_min_lr")
        one.set("optimizer.schedule_settings", {"min_lr_rate": float(least)})
    batch(one, devices, "micro_batch_size")
    duration(one, "num_epochs")
    one.put("seed", "seed")
    one.put("gradient_checkpointing", "gradient_checkpointing")
    if one.take("sample_packing", "trl.packing"):
        one.set("trl.packing", value=True)
    template = one.keys.get("chat_template")
    if template is not None:
        one.drop(["chat_template"], "a name of axolotl's; the model's own template is used")
        if template != "tokenizer_default":
            one.differences.append(
                f"chat_template: {template}: the model's own template is used; give its text as chat_template where it "
                "has none."
            )
    tokens = one.keys.get("special_tokens") or {}
    one.drop(["special_tokens", "eot_tokens"], "those of the model's tokenizer are used")
    if set(tokens) - {"pad_token"}:
        one.differences.append(f"special_tokens {tokens}: the tokenizer's own are used.")
    drop_the_rest(one)


def _loss(one: Translation, method: str) -> None:
    if method == "orpo":
        one.set("loss.beta", float(one.take("orpo_alpha", "loss.beta", _ORPO)))
        return
    one.set("loss.beta", float(one.take("rl_beta", "loss.beta", _BETA)))
    if method == "simpo":
        one.set("loss.gamma", float(one.take("simpo_gamma", "loss.gamma", 0.5)))
        no_nll_of_simpo(one)
    if method == "kto":
        for side in ("desirable", "undesirable"):
            one.put(f"kto_{side}_weight", f"loss.{side}_weight")
    if method == "dpo":
        one.put("dpo_label_smoothing", "loss.label_smoothing")


def _adapter(one: Translation) -> None:
    kind = one.take("adapter", "lora")
    if kind is None:
        one.set("lora", "none")
        one.drop(["load_in_4bit", "load_in_8bit"], "every weight is trained")
        return
    if kind not in {"lora", "qlora"}:
        raise InputError(f"{one.source}: adapter: {kind} is none of ours; LoRA and QLoRA are.")
    linear = one.take("lora_target_linear", "lora.target_modules")
    named = one.take("lora_target_modules", "lora.target_modules")
    lora = {
        "r": int(one.take("lora_r", "lora.r", 8)),
        "alpha": int(one.take("lora_alpha", "lora.alpha", 16)),
        "dropout": float(one.take("lora_dropout", "lora.dropout", 0.0)),
        "target_modules": "all-linear" if linear or not named else named,
    }
    one.set("lora", lora)
    one.put("peft_use_dora", "lora.dora")
    one.put("peft_use_rslora", "lora.rslora")
    if "lora_modules_to_save" in one.keys:
        saved = ", ".join(one.keys["lora_modules_to_save"])
        one.drop(["lora_modules_to_save"], "an adapter trains no whole matrices here")
        one.differences.append(f"{saved} were trained whole; here they stay as they are.")
    four, eight = (one.take(f"load_in_{bits}bit", "quantization.bits") for bits in (4, 8))
    if four or eight:
        one.set("quantization.bits", 4 if four else 8)
    one.drop(["lora_model_dir"], "not set")


def _data(one: Translation) -> None:
    sources = [found for part in one.need("datasets", "data") for found in _sources(one, part)]
    one.recipe["data"] = sources[0] if len(sources) == 1 else sources
    share = one.take("val_set_size", "held_out.share")
    one.drop(["evals_per_epoch", "eval_steps"], "held-out rows are measured after the last step")
    if share:
        one.set("held_out", {"share" if share < 1 else "rows": share})


_COLUMNS: Final = {
    "field_messages": "prompt",
    "field_prompt": "prompt",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
    "field_completion": "completion",
    "field_label": "label",
}
_FOUND: Final = ("type", "ds_type", "roles", "field", "preprocess_shards")
"""what the columns and the template say"""


def _sources(one: Translation, part: dict[str, Any]) -> list[dict[str, Any]]:
    """A data set, or each of its files."""
    left, found = dict(part), dict[str, Any]()
    path, files = left.pop("path"), left.pop("data_files", None) or []
    for theirs, ours in (("name", "config"), ("split", "split"), ("revision", "revision")):
        value = left.pop(theirs, None)
        if value:
            found[ours] = value
    kind = left.get("type")
    fields = {**left, **kind} if isinstance(kind, dict) else left
    columns = {ours: fields[theirs] for theirs, ours in _COLUMNS.items() if fields.get(theirs)}
    columns = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if columns:
        found["columns"] = columns
    unread = {
        key: value
        for key, value in fields.items()
        if key not in {*_COLUMNS, *_FOUND} and value not in (None, False, "")
    }
    one.differences += [
        f"datasets: {key} {value!r} of {path} has no field in a recipe, and is left out."
        for key, value in unread.items()
    ]
    names = [files] if isinstance(files, str) else files
    return [{"name": name, **copy.deepcopy(found)} for name in names or [path]]
