"""What training starts from: tokenizer, base model and adapter, as the recipe declares them.

Heavy: imports torch, transformers and peft.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.utils import load_peft_weights
from transformers import AutoTokenizer

from alignboard.models.arithmetic import QLORA
from alignboard.models.loading import LoadedModel
from alignboard.train import preflight
from alignboard.train.recipe import LoraSpec, Recipe, RecipeError


def load_base(recipe: Recipe, model_path: str | Path) -> LoadedModel:
    """The base model through the one loader, quantised as the recipe says; float32 on the CPU."""
    q, cuda = recipe.quantization, torch.cuda.is_available()
    loaded = LoadedModel.load(
        model_path,
        dtype="bfloat16" if compute_dtype(recipe) is torch.bfloat16 else "float32",
        quantization=None if q is None else ("4bit" if q.bits == 4 else "8bit"),
        four_bit=QLORA if q is None else (q.type, q.double),
        device=f"cuda:{torch.cuda.current_device()}" if cuda else "cpu",
        chat_template=recipe.chat_template,
    )
    # PEFT writes this name into the adapter: the one that was asked for, not the folder of a download.
    loaded.model.name_or_path = loaded.source
    return loaded


def load_tokenizer(recipe: Recipe, loaded: LoadedModel, adapter: str | Path | None) -> Any:
    """The start adapter's tokenizer, else the base's, with the recipe's template and a pad token."""
    tokenizer: Any = loaded.tokenizer
    if adapter is not None and (Path(adapter) / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(adapter)
        if recipe.chat_template is not None:
            tokenizer.chat_template = recipe.chat_template
    if not tokenizer.chat_template:
        raise RecipeError(
            f"{loaded.path} has no chat template; give one in the recipe's chat_template."
        )
    if tokenizer.pad_token is None:
        # TRL masks padding by length, not by token, so the end token stays trained.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def with_adapter(base: Any, spec: LoraSpec, start: str | Path | None) -> Any:
    """`base` with a trainable adapter of `spec`, equal in function to the adapter `start` where one is given.

    A start of smaller rank is continued at the recipe's rank: its factors fill the first rows and columns, the rest is
    as in a fresh adapter (A random, B zero), so B A is unchanged and the new directions can be learnt. Zephyr's
    published ranks need this: 16 in SFT, 128 in DPO.
    """
    targets = spec.modules_for(base.config.model_type)
    preflight.check_targets(base, targets)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    if start is None:
        return model
    old: Any = PeftConfig.from_pretrained(str(start))
    if old.r > spec.r or getattr(old, "use_dora", False) or getattr(old, "use_rslora", False):
        raise RecipeError(
            f"{start} is no plain LoRA of rank at most {spec.r} (it has rank {old.r})"
        )
    weights = load_peft_weights(str(start), device="cpu")
    rescale = (old.lora_alpha / old.r) / (spec.alpha / spec.r)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            target = parameters.get(
                name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
            )
            if target is None:
                raise RecipeError(
                    f"{start} adapts {name}, which the recipe's lora.target_modules does not"
                )
            if ".lora_A." in name:  # (rank, in)
                target[: old.r] = value.to(target)
            else:  # (out, rank)
                target[:, : old.r] = value.to(target) * rescale
    return model


def compute_dtype(recipe: Recipe) -> torch.dtype:
    """What the recipe computes in; `auto` is bfloat16 on a GPU that has it, else float32."""
    if recipe.precision == "auto":
        return (
            torch.bfloat16
            if torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            else torch.float32
        )
    return torch.bfloat16 if recipe.precision == "bf16" else torch.float32
