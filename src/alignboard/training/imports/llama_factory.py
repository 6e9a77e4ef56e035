"""Configurations of LLaMA-Factory: ``stage`` sft, dpo (with ``pref_loss``) and kto."""

from __future__ import annotations

from typing import Final

from alignboard.errors import InputError
from alignboard.training.imports.translation import (
    Translation,
    batch,
    drop_the_rest,
    duration,
    optimizer,
)
from alignboard.training.methods import SFT

_LOSSES: Final = {
    "sigmoid": "dpo", "orpo": "orpo", "simpo": "simpo", "ipo": "ipo", "hinge": "hinge", "kto_pair": "kto"
}  # fmt: skip


def translate(one: Translation, method: str | None, devices: int) -> None:
    """Fill in the recipe."""
    found = method or _method(one)
    one.set("method", found)
    one.set("model", one.need("model_name_or_path", "model"))
    one.drop(["stage", "pref_loss"], f"method: {found}")
    _data(one)
    one.set("max_length", int(one.take("cutoff_len", "max_length", 2048)))
    _adapter(one)
    if found != SFT:
        _loss(one, found)
    elif one.take("train_on_prompt", "train_on"):
        one.set("train_on", "all")
    optimizer(one)
    batch(one, devices)
    duration(one)
    one.put("seed", "seed")
    if one.take("packing", "trl.packing"):
        one.set("trl.packing", value=True)
    name = one.keys.get("template")
    one.drop(["template"], "a name of LLaMA-Factory's; the model's own template is used")
    if name not in {None, "default"}:
        one.differences.append(
            f"template: {name}: the model's own chat template is used; give a text as chat_template where it has none."
        )
    drop_the_rest(one)


def _method(one: Translation) -> str:
    stage = one.keys.get("stage", "sft")
    if stage == "dpo":
        loss = one.keys.get("pref_loss", "sigmoid")
        if loss not in _LOSSES:
            raise InputError(
                f"{one.source}: pref_loss: {loss} has no method of ours; {', '.join(_LOSSES)} have."
            )
        return _LOSSES[loss]
    if stage in {"sft", "kto"}:
        return stage
    if stage == "rm":
        return "reward"
    raise InputError(
        f"{one.source}: stage: {stage} is none of ours; sft, dpo, kto and rm are (reinforcement is not done here)."
    )


def _loss(one: Translation, method: str) -> None:
    if method == "reward":
        one.set("loss", {})
        return
    one.set("loss.beta", float(one.take("pref_beta", "loss.beta", 0.1)))
    if method == "simpo":
        one.set("loss.gamma", float(one.take("simpo_gamma", "loss.gamma", 0.5)))
    if method == "kto":
        one.put("kto_chosen_weight", "loss.desirable_weight")
        one.put("kto_rejected_weight", "loss.undesirable_weight")
    if method == "dpo":
        one.put("dpo_label_smoothing", "loss.label_smoothing")
    weight = one.keys.get("pref_ftx")
    one.drop(["pref_ftx"], "a loss has no SFT term here")
    if weight:
        one.differences.append(f"pref_ftx {weight}: the SFT term beside the loss is left out.")


def _adapter(one: Translation) -> None:
    kind = one.take("finetuning_type", "lora", "lora")
    if kind == "full":
        one.set("lora", "none")
        return
    if kind != "lora":
        raise InputError(
            f"{one.source}: finetuning_type: {kind} is none of ours; lora and full are."
        )
    r = int(one.take("lora_rank", "lora.r", 8))
    targets = one.take("lora_target", "lora.target_modules", "all")
    lora = {
        "r": r,
        "alpha": int(one.take("lora_alpha", "lora.alpha", 2 * r)),
        "dropout": float(one.take("lora_dropout", "lora.dropout", 0.0)),
        "target_modules": "all-linear"
        if targets == "all"
        else [name.strip() for name in targets.split(",")],
    }
    one.set("lora", lora)
    one.put("use_dora", "lora.dora")
    one.put("use_rslora", "lora.rslora")
    bits = one.take("quantization_bit", "quantization.bits")
    if bits:
        one.set("quantization.bits", int(bits))
    if one.keys.get("quantization_method") in {"bnb", "bitsandbytes"}:
        one.drop(["quantization_method"], "bitsandbytes quantises here, too")


def _data(one: Translation) -> None:
    folder = one.take("dataset_dir", "data.name", "data")
    info = f"{folder}/dataset_info.json"
    most = one.take("max_samples", "data.n")
    limit = {} if most is None else {"n": int(most)}
    named = [name.strip() for name in str(one.need("dataset", "data.name")).split(",")]
    sources = [{"name": f"{info}#{name}", **limit} for name in named]
    one.recipe["data"] = sources[0] if len(sources) == 1 else sources
    other, share = one.take("eval_dataset", "held_out.data"), one.take("val_size", "held_out.share")
    every = one.take("eval_steps", "held_out.every")
    one.drop(["eval_strategy"], "held_out says when")
    measured = {} if every is None else {"every": int(every)}
    if other:
        one.set("held_out", {"data": {"name": f"{info}#{other}"}, **measured})
    elif share:
        one.set("held_out", {"share" if share < 1 else "rows": share, **measured})
