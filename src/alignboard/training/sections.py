"""The sections of a training recipe: data, adapter, quantisation, optimiser, batch, duration.

Light: msgspec only, no torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from alignboard.data.preferences.sources import PreferenceSource
from alignboard.errors import InputError

WEST_OF_N: Final = "west-of-n"
"""the data set that is sampled from the model which training starts from, as `pairs` says"""
Positive = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
AtLeast0 = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Modules = Annotated[list[str], Meta(min_length=1)]


class RecipeError(InputError):
    """A recipe that cannot be used: names the file, the key and what was expected."""


class DataSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """Where the rows come from; read by the caller of `train`, which receives rows."""

    name: str
    """A data set's name: `demo-world`, `west-of-n` (pairs sampled from the SFT model), a hub id, a json, jsonl, csv or
    parquet file, a folder of `datasets`, relative to the workspace, or a LLaMA-Factory entry (file#entry)."""
    config: str | None = None
    """the configuration of a hub data set that has several"""
    split: str = "train"
    revision: str | None = None
    """the commit of a hub data set"""
    n: Positive | None = None
    """At most so many rows; None means all."""
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """of the rows that can be used, drawn by the seed: what a mixture of several data sets weighs them by"""
    schema: str | None = None
    """what the columns mean (`alignboard.data.preferences.schemas`); None = found out by their names"""
    columns: dict[str, str] = {}
    """the columns of the source by their canonical names: {prompt: question}"""

    def source(self, workspace: Path = Path()) -> PreferenceSource:
        """Where the rows are read from."""
        return PreferenceSource(**asdict(self), workspace=workspace)


class LoraSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """The adapter."""

    r: Positive
    alpha: Positive
    target_modules: (
        Modules | Annotated[dict[str, Modules], Meta(min_length=1)] | Literal["all-linear"]
    )
    """Names of linear layers, or such a list per `model_type` (one recipe for several architectures), or all but the
    output layer."""
    dropout: Share = 0.0
    dora: bool = False
    """train a magnitude per output beside the direction (DoRA, arXiv 2402.09353)"""
    rslora: bool = False
    """scale by alpha / sqrt(r) instead of alpha / r (arXiv 2312.03732)"""

    def __post_init__(self) -> None:
        named = self.target_modules
        for targets in named.values() if isinstance(named, dict) else [named]:
            if "lm_head" in targets:
                raise ValueError(
                    "target_modules has lm_head, whose plain weights the loss is computed from; leave it out"
                )

    @property
    def scale(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def modules_for(self, model_type: str) -> list[str] | Literal["all-linear"]:
        """The target modules for a `config.model_type`."""
        if not isinstance(self.target_modules, dict):
            return self.target_modules
        if model_type not in self.target_modules:
            known = ", ".join(self.target_modules)
            raise RecipeError(
                f"lora.target_modules has no entry for model type {model_type!r}; it has: {known}."
            )
        return self.target_modules[model_type]


class QuantizationSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """How the base's weights are held (bitsandbytes)."""

    bits: Literal[4, 8] = 4
    type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True


class OptimizerSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """The optimiser and its schedule."""

    learning_rate: PositiveFloat
    name: str = "adamw_torch"
    """A transformers optimiser name."""
    schedule: Literal[
        "cosine",
        "linear",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "inverse_sqrt",
        "polynomial",
        "warmup_stable_decay",
    ] = "cosine"
    schedule_settings: dict[str, float] = {}
    """of the schedule: {min_lr_rate: 0.1}"""
    warmup_ratio: Share = 0.0
    warmup_steps: Positive | None = None
    """instead of warmup_ratio"""
    weight_decay: AtLeast0 = 0.0
    beta1: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(gt=0, lt=1)] = 0.999
    max_grad_norm: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_ratio:
            raise ValueError("give one of warmup_ratio and warmup_steps")


LauncherName = Literal["auto", "none", "ddp", "fsdp2", "zero2", "zero3"]
"""what makes the processes of a training; auto decides by the GPUs that are there"""


class BatchSpec(Struct, forbid_unknown_fields=True, frozen=True, rename={"global_": "global"}):
    """The batch of one optimiser step, and how much of it is held at once."""

    global_: Positive
    """Examples (or pairs) per optimiser step, over all devices."""
    per_device: Positive
    """Examples in memory at once on one device; does not change the result."""

    def on(self, world_size: int) -> BatchSpec:
        """The batch with no more on one device than its share of a step."""
        share = max(1, self.global_ // world_size)
        return replace(self, per_device=min(self.per_device, share))

    def accumulation(self, world_size: int) -> int:
        """Gradient accumulation steps so that a step sees the global batch."""
        steps, rest = divmod(self.global_, self.per_device * world_size)
        if rest or not steps:
            raise RecipeError(
                f"batch.global = {self.global_} is not a multiple of batch.per_device x devices = "
                f"{self.per_device} x {world_size}; change batch.per_device."
            )
        return steps


class DurationSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """Exactly one of the two."""

    epochs: PositiveFloat | None = None
    steps: Positive | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")


class PairSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """How West-of-N pairs are sampled from the model that training starts from."""

    prompts: Positive
    n: Annotated[int, Meta(ge=2)] = 4
    temperature: PositiveFloat = 1.0
    max_new_tokens: Positive = 24
    of: str = "demo-world"
    """the generated set whose prompts (of its split ``preference``) are sampled, and whose rule scores the replies"""
    finished: bool = False
    """leave out replies that the token limit ended"""


class HeldOutSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """Rows that are not trained on, whose loss is measured on the way: exactly one of ``data``, ``share``, ``rows``."""

    data: DataSpec | None = None
    share: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """of the rows, drawn by the seed"""
    rows: Positive | None = None
    """so many of the rows, drawn by the seed"""
    every: Positive | None = None
    """steps between measurements; None: after the last one"""

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.data, self.share, self.rows)) != 1:
            raise ValueError("give exactly one of data, share and rows")

    def count(self, n: int) -> int:
        """How many of ``n`` rows are held out."""
        return self.rows or max(1, round((self.share or 0.0) * n))
