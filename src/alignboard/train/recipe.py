"""What a training recipe may say, and one clear sentence when it says something else.

A recipe is a YAML file under `train/<family>/<name>.yaml`. It declares the *global* batch: how it is divided into
per-device batches and accumulation steps depends on the machine, and the result does not. LoRA's target modules are
always written out: PEFT's defaults differ from every published recipe.

Light: msgspec and yaml only, no torch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from alignboard.data.preferences.sources import PreferenceSource
from alignboard.errors import InputError, nearest
from alignboard.suites import convert, read_yaml
from alignboard.train.methods import SFT, LossSpec, Value, loss_spec, methods

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
    schema: str | None = None
    """what the columns mean (`alignboard.data.preferences.schemas`); None = found out by their names"""
    columns: dict[str, str] = {}
    """the columns of the source by their canonical names: {prompt: question}"""

    def source(self, workspace: Path = Path()) -> PreferenceSource:
        """Where the rows are read from."""
        return PreferenceSource(**msgspec.structs.asdict(self), workspace=workspace)


class LoraSpec(Struct, forbid_unknown_fields=True, frozen=True):
    """The adapter."""

    r: Positive
    alpha: Positive
    target_modules: Modules | Annotated[dict[str, Modules], Meta(min_length=1)]
    """Names of linear layers, or such a list per `model_type` (one recipe for several architectures)."""
    dropout: Share = 0.0

    def modules_for(self, model_type: str) -> list[str]:
        """The target modules for a `config.model_type`."""
        if isinstance(self.target_modules, list):
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
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Share = 0.0
    weight_decay: AtLeast0 = 0.0
    beta2: Annotated[float, Meta(gt=0, lt=1)] = 0.999
    max_grad_norm: PositiveFloat = 1.0


class BatchSpec(Struct, forbid_unknown_fields=True, frozen=True, rename={"global_": "global"}):
    """The batch of one optimiser step, and how much of it is held at once."""

    global_: Positive
    """Examples (or pairs) per optimiser step, over all devices."""
    per_device: Positive
    """Examples in memory at once on one device; does not change the result."""

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
    """How West-of-N pairs are sampled from the SFT model."""

    prompts: Positive
    n: Annotated[int, Meta(ge=2)] = 4
    temperature: PositiveFloat = 1.0
    max_new_tokens: Positive = 24


class Recipe(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One training run, up to the model's path, the rows and the seed's override."""

    method: str
    """``sft``, or a registered loss (`alignboard.train.methods`)"""
    model: str | None = None
    """The base model this recipe was written for; a model given on the command line replaces it."""
    start_from: str | None = None
    """A recipe whose adapter is trained on, and is the reference (preference methods: the SFT recipe)."""
    data: DataSpec
    pairs: PairSpec | None = None
    max_length: Positive
    lora: LoraSpec
    quantization: QuantizationSpec | None = None
    loss: dict[str, Value] | None = None
    """the parameters of the method's loss; completed with its defaults when a recipe is read"""
    optimizer: OptimizerSpec
    batch: BatchSpec
    duration: DurationSpec
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, fp32 elsewhere (bf16 on a CPU is 7 to 11 times slower)."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """auto: off on the CPU and for models under a billion parameters, on otherwise."""
    save_every: Positive | None = None
    """Steps between optimiser checkpoints, from which an interrupted run goes on; None: every ten minutes. No part of
    the identity."""
    chat_template: str | None = None
    """Jinja text for a base model that has none; None keeps the tokenizer's own."""

    @property
    def is_preference(self) -> bool:
        """Whether it trains on pairs."""
        return self.method != SFT

    @property
    def loss_spec(self) -> LossSpec:
        """The registered loss of a preference method."""
        return loss_spec(self.method)

    def identity(self) -> dict[str, Any]:
        """Everything that determines the result; `batch.per_device` and `save_every` do not."""
        content = msgspec.to_builtins(self)
        content["batch"].pop("per_device")
        content.pop("save_every")
        return content

    def key(self) -> str:
        """A digest of the identity."""
        text = json.dumps({"scheme": "recipe-2", **self.identity()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file; `InputError` names the file, the key and the nearest valid key."""
    return parse_recipe(read_yaml(Path(path)), str(path))


def parse_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Check a recipe's content; ``source`` names it in errors."""
    recipe = convert(source, content, Recipe, "a recipe")
    try:
        return _completed(recipe)
    except InputError as error:
        raise RecipeError(f"{source}: {error}") from error


def _completed(recipe: Recipe) -> Recipe:
    """The recipe with its loss's defaults filled in, its sections checked against each other."""
    known = methods()
    if recipe.method not in known:
        hint = nearest(recipe.method, known) or f"; known are {', '.join(known)}."
        raise InputError(f"there is no method {recipe.method!r}{hint}")
    if recipe.pairs is not None and not recipe.is_preference:
        raise InputError("pairs are for preference methods; leave the section out.")
    if not recipe.is_preference:
        if recipe.loss is not None:
            raise InputError(f"method {recipe.method} takes no loss section; leave it out.")
        return recipe
    if recipe.loss is None:
        needed = ", ".join(recipe.loss_spec.parameters)
        raise InputError(f"method {recipe.method} needs a loss section, with {needed}.")
    loss = recipe.loss_spec.complete(recipe.method, recipe.loss)
    return msgspec.structs.replace(recipe, loss=loss)
