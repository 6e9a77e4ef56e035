"""What training starts from: tokenizer, base model and adapter, as the recipe declares them.

Heavy: imports torch, transformers and peft.
"""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.utils import load_peft_weights
from transformers import AutoModelForSequenceClassification

from alignboard.models.adapters import require_same_base
from alignboard.models.arithmetic import QLORA
from alignboard.models.loading import LoadedModel
from alignboard.training.checks import preflight
from alignboard.training.launch import is_sharded
from alignboard.training.recipe import Recipe
from alignboard.training.sections import LoraSpec, RecipeError


def load_base(
    recipe: Recipe,
    model_path: str | Path,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
) -> LoadedModel:
    """The base model through the one loader, quantised as the recipe says; float32 on the CPU.

    What is going to be parted among GPUs need not fit one of them, and waits in the memory of the machine.
    """
    q, cuda = recipe.quantization, torch.cuda.is_available()
    on_gpu = cuda and (q is not None or not is_sharded())
    loaded = LoadedModel.load(
        model_path,
        dtype="bfloat16" if compute_dtype(recipe) is torch.bfloat16 else "float32",
        quantization=None if q is None else ("4bit" if q.bits == 4 else "8bit"),
        four_bit=QLORA if q is None else (q.type, q.double),
        device=f"cuda:{torch.cuda.current_device()}" if on_gpu else "cpu",
        chat_template=recipe.chat_template,
        revision=revision,
        gguf_file=gguf_file,
    )
    if recipe.trains_head:
        loaded.model = _with_head(loaded.model)
    # PEFT writes this name into the adapter: the one that was asked for, not the folder of a download.
    loaded.model.name_or_path = loaded.source
    return loaded


def trainable(loaded: LoadedModel, recipe: Recipe, start: str | Path | None) -> Any:
    """The model with what the recipe trains: an adapter, or every weight."""
    base: Any = loaded.model
    if start is not None:
        require_same_base(Path(start), loaded.path, loaded.source, loaded.fingerprint)
    if isinstance(recipe.lora, LoraSpec):
        return with_adapter(base, recipe.lora, start, head=recipe.trains_head)
    if start is not None:
        raise RecipeError(
            f"lora: none trains every weight, and {start} is an adapter; merge it first (alignboard export), and train "
            "the merged checkpoint."
        )
    return base.requires_grad_()


def _with_head(language: Any) -> Any:
    """The body of a language model with a head that gives one number, drawn as transformers draws it."""
    config = copy.deepcopy(language.config)
    config.num_labels = 1
    with torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, getattr(language, language.base_model_prefix))
    size = config.get_text_config().hidden_size
    model.score = torch.nn.Linear(size, 1, bias=False, device=language.device, dtype=language.dtype)
    torch.nn.init.normal_(model.score.weight, std=config.get_text_config().initializer_range)
    return model


def with_adapter(base: Any, spec: LoraSpec, start: str | Path | None, *, head: bool = False) -> Any:
    """`base` with a trainable adapter of `spec`, equal in function to the adapter `start` where one is given.

    A start of smaller rank is continued at the recipe's rank: its factors fill the first rows and columns, the rest is
    as in a fresh adapter (A random, B zero), so B A is unchanged and the new directions can be learnt. Zephyr's
    published ranks need this: 16 in SFT, 128 in DPO.
    """
    targets = spec.modules_for(base.config.model_type)
    if targets != "all-linear":
        preflight.check_targets(base, targets)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        use_dora=spec.dora,
        use_rslora=spec.rslora,
        task_type="SEQ_CLS"
        if head
        else "CAUSAL_LM",  # PEFT trains and writes the head of the former
    )
    model = get_peft_model(base, config)
    if start is None:
        return model
    old: Any = PeftConfig.from_pretrained(str(start))
    dora, rslora = bool(getattr(old, "use_dora", False)), bool(getattr(old, "use_rslora", False))
    if old.r > spec.r or dora != spec.dora:
        raise RecipeError(
            f"{start} is {'DoRA' if dora else 'LoRA'} of rank {old.r}, which the recipe's "
            f"{'DoRA' if spec.dora else 'LoRA'} of rank {spec.r} cannot continue; change lora.r or lora.dora"
        )
    weights = load_peft_weights(str(start), device="cpu")
    rescale = old.lora_alpha / (math.sqrt(old.r) if rslora else old.r) / spec.scale
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            target = parameters.get(
                re.sub(r"\.lora_(A|B)\.", r".lora_\1.default.", name).replace(
                    ".lora_magnitude_vector", ".lora_magnitude_vector.default.weight"
                )
            )
            if target is None:
                raise RecipeError(
                    f"{start} adapts {name}, which the recipe's lora.target_modules does not"
                )
            if ".lora_A." in name:  # (rank, in)
                target[: old.r] = value.to(target)
            elif ".lora_magnitude_vector" in name:  # (out,)
                target.copy_(value.to(target))
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
