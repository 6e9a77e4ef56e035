"""TRL's trainers and their settings, as a recipe asks for them.

Heavy: imports torch and trl.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets.utils import are_progress_bars_disabled
from peft import PeftModel
from transformers.trainer_callback import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from alignboard.errors import nearest
from alignboard.training.launch import n_processes
from alignboard.training.preference import CHOSEN, PreferenceTrainer
from alignboard.training.recipe import Recipe
from alignboard.training.scored import score_labelled
from alignboard.training.sections import RecipeError
from alignboard.training.start import compute_dtype
from alignboard.training.tokens import is_tokenized, tokenized

Row = Mapping[str, Any]
"""SFT: {prompt, completion} or {messages}; pairs: {prompt, chosen, rejected}; each a list of messages; KTO: {prompt,
completion, label}."""
Rows = Sequence[Row] | datasets.Dataset


def make_trainer(
    recipe: Recipe,
    arguments: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    rows: datasets.Dataset,
    callbacks: Sequence[Any],
    held_out: datasets.Dataset | None = None,
) -> Any:
    """The TRL trainer that the recipe asks for; its rows are tokens (`prepared`)."""
    trainer = _trainer(recipe, arguments, model, tokenizer, rows, callbacks, held_out)
    trainer.remove_callback(PrinterCallback)  # prints every log line
    if trainer.args.device.type == "cpu" and not recipe.trains_head:
        for one in (trainer.model, getattr(trainer, "ref_model", None)):
            if one is not None:
                score_labelled(one.get_base_model() if isinstance(one, PeftModel) else one)
    return trainer


def _trainer(
    recipe: Recipe,
    arguments: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    rows: datasets.Dataset,
    callbacks: Sequence[Any],
    held_out: datasets.Dataset | None,
) -> Any:
    given: dict[str, Any] = {
        "model": model,
        "train_dataset": rows,
        "eval_dataset": held_out,
        "processing_class": tokenizer,
        "callbacks": list(callbacks),
    }
    if recipe.loss is None:
        return SFTTrainer(args=_config(recipe, arguments), **given)
    spec = recipe.loss_spec
    no_copy = not spec.uses_reference or CHOSEN in rows.column_names
    if recipe.is_full and not no_copy:
        given["ref_model"] = copy.deepcopy(model)
    if spec.rated:
        # Its KL term pairs neighbours in a fixed order, so the rows are shuffled here.
        given["train_dataset"] = rows.shuffle(seed=arguments["seed"])
        loss: dict[str, Any] = dict(recipe.loss)
        arguments = {**arguments, "loss_type": spec.function, **loss}
        return KTOTrainer(args=_config(recipe, arguments), **given)
    if spec.head:
        return _reward_trainer(recipe, arguments, given)
    beta = float(recipe.loss.get("beta", 1.0))
    # Where an adapter is trained TRL would take the digest of all weights, which no one reads.
    arguments = {**arguments, "precompute_ref_log_probs": no_copy and recipe.is_full}
    config = _config(recipe, {**arguments, "beta": beta})
    return PreferenceTrainer(args=config, **given, loss=spec, settings=recipe.loss)


def _reward_trainer(recipe: Recipe, arguments: Mapping[str, Any], given: dict[str, Any]) -> Any:
    """TRL's, whose rows are whole conversations; those over max_length are left out."""
    center = float((recipe.loss or {})["center"])

    def whole(row: Mapping[str, Any]) -> dict[str, list[int]]:
        return {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")}

    for name in ("train_dataset", "eval_dataset"):
        if given[name] is not None:
            given[name] = given[name].map(whole, remove_columns=given[name].column_names)
    arguments = {**arguments, "center_rewards_coefficient": center or None}
    return RewardTrainer(args=_config(recipe, arguments), **given)


def _config(recipe: Recipe, arguments: Mapping[str, Any]) -> Any:
    """TRL's configuration, with what the recipe passes to it; raises `RecipeError` for what it does not take."""
    require_settings(recipe, arguments)
    try:
        return _one_device(_config_kind(recipe)(**arguments, **recipe.trl))
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        if not recipe.trl:
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise RecipeError(f"trl: {{{', '.join(recipe.trl)}}}: {reason}.") from error


def require_settings(recipe: Recipe, arguments: Collection[str] = ()) -> None:
    """Raise `RecipeError` for a setting under ``trl`` that TRL does not have, or that is among our ``arguments``."""
    kind = _config_kind(recipe)
    known = {one.name for one in fields(kind)}
    for name in recipe.trl:
        if name in arguments:
            raise RecipeError(f"trl.{name}: alignboard sets it by itself; leave it out.")
        if name not in known:
            hint = nearest(name, known - set(arguments)) or "."
            raise RecipeError(f"trl.{name}: {kind.__name__} has no such setting{hint}")


def _config_kind(recipe: Recipe) -> type[Any]:
    if recipe.loss is None:
        return SFTConfig
    spec = recipe.loss_spec
    return KTOConfig if spec.rated else RewardConfig if spec.head else DPOConfig


def prepared(rows: Rows, recipe: Recipe, tokenizer: Any) -> datasets.Dataset:
    """``rows`` as tokens; rated replies stay messages, which TRL's trainer prepares with those of its KL term."""
    if not isinstance(rows, datasets.Dataset):
        rows = datasets.Dataset.from_list([dict(row) for row in rows])
    if recipe.kind == "rated" or is_tokenized(rows):
        return rows
    return tokenized(rows, tokenizer, whole=recipe.train_on == "all")


@contextlib.contextmanager
def quiet_data() -> Iterator[None]:
    """Without the data library's progress bars, and without cache files beside data sets that are read."""
    was_off, cached = are_progress_bars_disabled(), datasets.is_caching_enabled()
    datasets.disable_progress_bars()
    datasets.disable_caching()
    try:
        yield
    finally:
        if cached:
            datasets.enable_caching()
        if not was_off:
            datasets.enable_progress_bars()


def _one_device(config: Any) -> Any:
    """``config`` for one GPU where several are visible and no launcher has made a process for each.

    transformers would wrap the model in `nn.DataParallel`, which TRL refuses.
    """
    if n_processes() == 1 and config.n_gpu > 1:
        config._n_gpu = 1  # noqa: SLF001 - transformers' own way to say it, as for models split by device_map
    return config


def _measured(recipe: Recipe) -> dict[str, Any]:
    """When the held-out rows are measured; after the last step in any case (`trainer.train`)."""
    if recipe.held_out is None or recipe.held_out.every is None:
        return {"eval_strategy": "no"}
    return {"eval_strategy": "steps", "eval_steps": recipe.held_out.every}


def trl_arguments(recipe: Recipe, model: Any, work: Path, seed: int) -> dict[str, Any]:
    """TRL's settings that all methods share. Set where TRL's default is wrong for us, or differs from the recipe."""
    o, on_gpu = recipe.optimizer, torch.cuda.is_available()
    checkpointing, batch = recipe.gradient_checkpointing, recipe.batch.on(n_processes())
    if checkpointing == "auto":
        checkpointing = on_gpu and model.num_parameters() >= 1_000_000_000
    return {
        "output_dir": str(work),
        "max_length": recipe.max_length,
        "learning_rate": o.learning_rate,
        "lr_scheduler_type": o.schedule,
        "lr_scheduler_kwargs": o.schedule_settings,
        "warmup_steps": o.warmup_steps or o.warmup_ratio,  # below 1 it is a ratio (transformers 5)
        "optim": o.name,
        "weight_decay": o.weight_decay,
        "adam_beta1": o.beta1,
        "adam_beta2": o.beta2,
        "max_grad_norm": o.max_grad_norm,
        "per_device_train_batch_size": batch.per_device,
        "gradient_accumulation_steps": batch.accumulation(n_processes()),
        "max_steps": recipe.duration.steps or -1,
        "num_train_epochs": recipe.duration.epochs or 1.0,
        "seed": seed,
        "bf16": compute_dtype(recipe) is torch.bfloat16,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": checkpointing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log 0 where the loss is not a number
        "per_device_eval_batch_size": batch.per_device,
        **_measured(recipe),
        "save_strategy": "no",  # `resume.Checkpoints` asks for checkpoints
        "save_total_limit": 2,  # the older one stays until the newer is whole
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
    }
