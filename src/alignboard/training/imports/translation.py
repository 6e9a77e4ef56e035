"""A translation in progress: the keys of a configuration, the recipe so far, and a note of what became of every key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alignboard.errors import InputError

What = Literal["kept", "renamed", "dropped"]


@dataclass(frozen=True)
class KeyNote:
    """What became of one key."""

    key: str
    what: What
    note: str
    """where it went, or why it went"""


@dataclass
class Translation:
    """The keys of a configuration, each used once."""

    source: str
    keys: dict[str, Any]
    notes: list[KeyNote] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """what the recipe does otherwise than the published run"""
    recipe: dict[str, Any] = field(default_factory=dict)

    def take(self, key: str, to: str, default: Any = None) -> Any:
        """The value of ``key``, noted as kept or renamed to the field ``to``; ``default`` where it is not there."""
        value = self.keys.pop(key, None)
        if value is None:
            return default
        self.notes.append(KeyNote(key, "kept" if key == to else "renamed", to))
        return value

    def put(self, key: str, to: str) -> None:
        """Move ``key`` to the field ``to`` of the recipe, where it is there."""
        value = self.take(key, to)
        if value is not None:
            self.set(to, value)

    def set(self, to: str, value: Any) -> None:
        """Set the field ``to`` of the recipe, such as ``optimizer.learning_rate``."""
        inner = self.recipe
        *path, last = to.split(".")
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value

    def drop(self, keys: Iterable[str], why: str) -> None:
        """Leave ``keys`` out."""
        for key in keys:
            if key in self.keys:
                del self.keys[key]
                self.notes.append(KeyNote(key, "dropped", why))

    def settle(self) -> None:
        """Note as dropped what was taken for a field that the recipe does not have."""
        self.notes = [
            one
            if one.what == "dropped" or self._has(one.note)
            else KeyNote(
                one.key, "dropped", f"off, or without effect: the recipe has no {one.note}"
            )
            for one in self.notes
        ]

    def _has(self, field_: str) -> bool:
        inner: list[Any] = [self.recipe]
        for part in field_.split("."):
            found = [one[part] for one in inner if isinstance(one, dict) and part in one]
            inner = [x for one in found for x in (one if isinstance(one, list) else [one])]
        return bool(inner)

    def need(self, key: str, to: str) -> Any:
        """As `take`, of a key that has to be there."""
        value = self.take(key, to)
        if value is None:
            raise InputError(f"{self.source}: {key} is missing, so the recipe would have no {to}.")
        return value


DROPPED: Mapping[str, str] = {
    "output_dir overwrite_output_dir run_name logging_steps logging_strategy log_level report_to push_to_hub "
    "hub_model_id hub_model_revision hub_strategy hub_private_repo do_train plot_loss wandb_project wandb_entity "
    "wandb_watch wandb_name wandb_log_model logging_first_step": "the run's folder and its log are alignboard's",
    "save_strategy save_total_limit save_only_model saves_per_epoch resume_from_checkpoint save_steps": (
        "checkpoints are for going on after an interruption: save_every"
    ),
    "overwrite_cache streaming preprocessing_num_workers dataset_num_proc dataloader_num_workers ddp_timeout "
    "dataset_prepared_path "
    "remove_unused_columns per_device_eval_batch_size pad_to_sequence_len eval_sample_packing "
    "ddp_find_unused_parameters loss_watchdog_threshold loss_watchdog_patience "
    "experimental_skip_move_to_device": "no effect on the result",
    "dataset_kwargs": "rows are rendered by the chat template alone",
    "gradient_checkpointing_kwargs use_liger_kernel padding_free tf32 use_kernels use_scattermoe use_sonicmoe "
    "use_onebitllms plugins attn_implementation flash_attention flash_attn torch_dtype dtype bf16 fp16 "
    "enable_liger_kernel use_unsloth xformers_attention sdp_attention liger_rope liger_rms_norm "
    "liger_glu_activation liger_swiglu liger_layer_norm liger_cross_entropy liger_fused_linear_cross_entropy "
    "precompute_ref_log_probs precompute_ref_batch_size pure_bf16 upcast_layernorm": (
        "the machine's: precision and kernels are chosen by what it has"
    ),
    "fsdp fsdp_config fsdp_version deepspeed dp_shard_size dp_replicate_size tensor_parallel_size "
    "context_parallel_size accelerator_config average_tokens_across_devices": (
        "the machine's: how the work is divided changes no result"
    ),
    "model_type tokenizer_type processor_name_or_path": "read from the checkpoint",
    "trust_remote_code": "agreed to per model, in its registry entry",
    "shuffle_merged_datasets": "rows are always shuffled",
}
"""keys that say nothing which a recipe has a field for, by the reason"""


def drop_the_rest(one: Translation) -> None:
    """Note every key that is left: known ones with their reason, others as unknown."""
    for keys, why in DROPPED.items():
        one.drop(keys.split(), why)
    for key, value in list(one.keys.items()):
        if value is None or value is False or value == "":
            one.drop([key], "not set")
    for key in list(one.keys):
        one.differences.append(
            f"{key}: {one.keys[key]!r} has no field in a recipe, and is left out."
        )
        one.drop([key], "no field of a recipe has its meaning")


def optimizer(one: Translation, schedule: str = "lr_scheduler_type", name: str = "optim") -> None:
    """The optimiser's keys, most of which all tools have from transformers."""
    one.set("optimizer.learning_rate", float(one.need("learning_rate", "optimizer.learning_rate")))
    one.put(schedule, "optimizer.schedule")
    one.put(name, "optimizer.name")
    one.put("lr_scheduler_kwargs", "optimizer.schedule_settings")
    _warmup(one)
    for key, to in (
        ("weight_decay", "weight_decay"),
        ("adam_beta1", "beta1"),
        ("adam_beta2", "beta2"),
        ("max_grad_norm", "max_grad_norm"),
    ):
        one.put(key, f"optimizer.{to}")
    if one.recipe["optimizer"].get("schedule") is None:
        one.set("optimizer.schedule", "linear")  # transformers' default


def _warmup(one: Translation) -> None:
    """Steps go before a ratio; in transformers 5 steps below 1 are one."""
    steps = one.keys.get("warmup_steps")
    if not steps:
        one.drop(["warmup_steps"], "not set")
        one.put("warmup_ratio", "optimizer.warmup_ratio")
        return
    one.put("warmup_steps", f"optimizer.{'warmup_ratio' if float(steps) < 1 else 'warmup_steps'}")
    one.drop(["warmup_ratio"], "warmup_steps goes before it")


def no_nll_of_simpo(one: Translation) -> None:
    """SimPO by TRL's CPO trainer, which adds an NLL unless ``cpo_alpha`` is 0."""
    weight = one.keys.get("cpo_alpha", 1.0)  # TRL's default
    one.drop(["cpo_alpha"], "SimPO has no NLL term")
    if weight:
        one.differences.append(
            f"TRL adds {weight:g} x NLL of the chosen reply (cpo_alpha); here it is left out."
        )


def duration(one: Translation, epochs: str = "num_train_epochs") -> None:
    """Steps where they are given, else epochs."""
    steps = one.keys.get("max_steps")
    if isinstance(steps, int) and steps > 0:
        one.put("max_steps", "duration.steps")
        one.drop([epochs], "max_steps goes before it")
        return
    one.drop(["max_steps"], f"not set; {epochs} is")
    one.set("duration.epochs", float(one.take(epochs, "duration.epochs", 3.0)))


def batch(one: Translation, devices: int, per_device: str = "per_device_train_batch_size") -> None:
    """The global batch of all devices."""
    size = int(one.take(per_device, "batch.per_device", 8))
    steps = int(one.take("gradient_accumulation_steps", "batch.global", 1))
    one.recipe["batch"] = {"global": size * steps * devices, "per_device": size}
    if one.recipe["method"] == "kto" and size == 1 and steps * devices > 1:
        one.recipe["batch"]["per_device"] = 2
        one.differences.append(
            "KTO's KL term is of the rows on one device, of which there was one; batch.per_device is 2, the least that "
            "has such a term."
        )
    one.differences.append(
        f"The configuration does not say on how many devices it ran: batch.global is {size} x {steps} x {devices} "
        "devices (--devices)."
    )
