"""What a training recipe may say, and one clear sentence when it says something else.

A recipe is a YAML file under `train/<family>/<name>.yaml`. It declares the *global* batch: how it is divided into
per-device batches and accumulation steps depends on the machine, and the result does not. LoRA's target modules are
always written out: PEFT's defaults differ from every published recipe.

Light: pydantic and yaml only, no torch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignboard.errors import InputError
from alignboard.suites import read_yaml

Method = Literal["sft", "dpo", "ipo", "simpo"]
PREFERENCE_METHODS: tuple[Method, ...] = ("dpo", "ipo", "simpo")


class RecipeError(InputError):
    """A recipe that cannot be used: names the file, the key and what was expected."""


class _Strict(BaseModel):
    """No key but the declared ones, and no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Strict):
    """Where the rows come from; read by the caller of `train`, which receives rows."""

    name: str
    """A data set's name: `demo-world`, `west-of-n` (pairs sampled from the SFT model), a hub id, or a json or jsonl
    file, relative to the workspace."""
    split: str = "train"
    n: int | None = Field(default=None, gt=0)
    """At most so many rows; None means all."""

    @property
    def is_file(self) -> bool:
        """Whether the rows are in a local file."""
        return Path(self.name).suffix in {".json", ".jsonl"}


Modules = Annotated[list[str], Field(min_length=1)]


class LoraSpec(_Strict):
    """The adapter."""

    r: int = Field(gt=0)
    alpha: int = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Modules | Annotated[dict[str, Modules], Field(min_length=1)]
    """Names of linear layers, or such a list per `model_type` (one recipe for several architectures)."""

    def modules_for(self, model_type: str) -> list[str]:
        """The target modules for a `config.model_type`."""
        if isinstance(self.target_modules, list):
            return self.target_modules
        if model_type not in self.target_modules:
            known = ", ".join(self.target_modules)
            raise RecipeError(
                f"lora.target_modules has no entry for model type {model_type!r}; it has: {known}"
            )
        return self.target_modules[model_type]


class QuantizationSpec(_Strict):
    """How the base's weights are held (bitsandbytes)."""

    bits: Literal[4, 8] = 4
    type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True


class OptimizerSpec(_Strict):
    """The optimiser and its schedule."""

    name: str = "adamw_torch"
    """A transformers optimiser name."""
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)


class BatchSpec(_Strict):
    """The batch of one optimiser step, and how much of it is held at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    global_: int = Field(alias="global", gt=0)
    """Examples (or pairs) per optimiser step, over all devices."""
    per_device: int = Field(gt=0)
    """Examples in memory at once on one device; does not change the result."""

    def accumulation(self, world_size: int) -> int:
        """Gradient accumulation steps so that a step sees the global batch."""
        steps, rest = divmod(self.global_, self.per_device * world_size)
        if rest or not steps:
            raise RecipeError(
                f"batch.global = {self.global_} is not a multiple of batch.per_device x devices = "
                f"{self.per_device} x {world_size}; change batch.per_device"
            )
        return steps


class DurationSpec(_Strict):
    """Exactly one of the two."""

    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> DurationSpec:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class LossSpecification(_Strict):
    """The numbers of a preference loss."""

    beta: float = Field(gt=0)
    gamma: float | None = Field(default=None, ge=0)
    """SimPO's margin (published configurations state gamma/beta)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class PairSpec(_Strict):
    """How West-of-N pairs are sampled from the SFT model."""

    prompts: int = Field(gt=0)
    n: int = Field(default=4, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=24, gt=0)


class Recipe(_Strict):
    """One training run, up to the model's path, the rows and the seed's override."""

    method: Method
    model: str | None = None
    """The base model this recipe was written for; a model given on the command line replaces it."""
    start_from: str | None = None
    """A recipe whose adapter is trained on, and is the reference (preference methods: the SFT recipe)."""
    data: DataSpec
    pairs: PairSpec | None = None
    max_length: int = Field(gt=0)
    lora: LoraSpec
    quantization: QuantizationSpec | None = None
    loss: LossSpecification | None = None
    optimizer: OptimizerSpec
    batch: BatchSpec
    duration: DurationSpec
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, fp32 elsewhere (bf16 on a CPU is 7 to 11 times slower)."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """auto: off on the CPU and for models under a billion parameters, on otherwise."""
    chat_template: str | None = None
    """Jinja text for a base model that has none; None keeps the tokenizer's own."""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        preference = self.method in PREFERENCE_METHODS
        if preference != (self.loss is not None):
            raise ValueError(
                f"method {self.method} {'needs a' if preference else 'takes no'} loss section"
            )
        if self.loss is not None and (self.method == "simpo") != (self.loss.gamma is not None):
            raise ValueError(
                "loss.gamma is SimPO's margin: required with method simpo, refused with any other"
            )
        if self.loss is not None and self.method == "ipo" and self.loss.label_smoothing:
            raise ValueError("loss.label_smoothing has no meaning for method ipo")
        if self.pairs is not None and not preference:
            raise ValueError("pairs are for preference methods")
        return self

    def shortened(self, steps: int) -> Recipe:
        """The same recipe for so many steps: a trial run, with a key of its own."""
        return self.model_copy(update={"duration": DurationSpec(steps=steps)})

    def identity(self) -> dict[str, Any]:
        """Everything that determines the result; `batch.per_device` does not."""
        content = self.model_dump(mode="json", by_alias=True)
        content["batch"].pop("per_device")
        return content

    def key(self) -> str:
        """A digest of the identity."""
        text = json.dumps({"scheme": "recipe-1", **self.identity()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file. RecipeError names the file, the key and the nearest valid key."""
    path = Path(path)
    try:
        content = read_yaml(path)
    except InputError as error:
        raise RecipeError(str(error)) from error
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Check a recipe's content; `source` names it in errors."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: {'; '.join(_explain(e) for e in error.errors())}") from error


def _explain(error: Any) -> str:
    """One of pydantic's errors in words."""
    location = [
        str(part)
        for part in error["loc"]
        if part not in ("list[str]", "dict[str,list[str]]", "bool")
    ]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.0)
        return f"unknown key '{key}'; nearest valid key: '{'.'.join([*location[:-1], *near])}'"
    if error["type"] == "missing":
        return f"missing key '{key}'"
    message = error["msg"].removeprefix("Value error, ")
    return f"'{key}': {message} (got {_shortened(repr(error['input']))})" if key else message


def _shortened(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[:width]}..."


def _valid_keys(location: list[str]) -> list[str]:
    """The keys a section may have."""
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]
