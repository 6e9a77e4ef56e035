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
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from alignboard.data.preferences.schemas import Kind
from alignboard.errors import InputError, nearest
from alignboard.models.templates import TRAINED
from alignboard.suites import convert, read_yaml
from alignboard.training.methods import SFT, LossSpec, Value, loss_spec, methods
from alignboard.training.sections import (
    WEST_OF_N,
    BatchSpec,
    DataSpec,
    DurationSpec,
    HeldOutSpec,
    LoraSpec,
    OptimizerSpec,
    PairSpec,
    Positive,
    QuantizationSpec,
    RecipeError,
)

FULL: Final = "none"
"""in place of a `lora` section: every weight is trained"""
_LATER: Final[dict[str, dict[str, Any]]] = {
    "": {
        "held_out": None,
        "revision": None,
        "train_on": "replies",
        "trl": {},
        "checkpoints": None,
    },
    "data": {"share": 1.0},
    "pairs": {"of": "demo-world", "finished": False},
    "lora": {"dora": False, "rslora": False},
    "optimizer": {"schedule_settings": {}, "warmup_steps": None, "beta1": 0.9},
}
"""by section: what a recipe may say since a later version, and its default"""
_SET_HERE: Final = {
    "learning_rate": "optimizer.learning_rate",
    "lr_scheduler_type": "optimizer.schedule",
    "lr_scheduler_kwargs": "optimizer.schedule_settings",
    "warmup_steps": "optimizer.warmup_steps",
    "warmup_ratio": "optimizer.warmup_ratio",
    "optim": "optimizer.name",
    "weight_decay": "optimizer.weight_decay",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "max_grad_norm": "optimizer.max_grad_norm",
    "per_device_train_batch_size": "batch.per_device",
    "gradient_accumulation_steps": "batch.global",
    "max_steps": "duration.steps",
    "num_train_epochs": "duration.epochs",
    "max_length": "max_length",
    "seed": "seed",
    "bf16": "precision",
    "gradient_checkpointing": "gradient_checkpointing",
    "beta": "loss.beta",
    "loss_type": "method",
    "desirable_weight": "loss.desirable_weight",
    "undesirable_weight": "loss.undesirable_weight",
    "assistant_only_loss": "train_on",
    "completion_only_loss": "train_on",
    "eval_strategy": "held_out",
    "eval_steps": "held_out.every",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "report_to": "report_to",
}
"""TRL's names for what a recipe has fields for"""


class Recipe(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One training run, up to the model's path, the rows and the seed's override."""

    method: str
    """``sft``, or a registered loss (`alignboard.training.methods`)"""
    model: str | None = None
    """The base model this recipe was written for; a model given on the command line replaces it."""
    revision: str | None = None
    """of that model, on the hub"""
    start_from: str | None = None
    """What is trained on, and is the reference: a recipe, an adapter's folder, or one on the hub."""
    data: DataSpec | Annotated[list[DataSpec], Meta(min_length=1)]
    """one data set, or several, whose rows are put together"""
    held_out: HeldOutSpec | None = None
    pairs: PairSpec | None = None
    max_length: Positive
    train_on: Literal["replies", "all"] = "replies"
    """of demonstrations: the tokens that the loss is taken on"""
    lora: LoraSpec | Literal["none"]
    """the adapter; ``none`` trains every weight and writes a checkpoint"""
    quantization: QuantizationSpec | None = None
    loss: dict[str, Value] | None = None
    """the parameters of the method's loss; completed with its defaults when a recipe is read"""
    optimizer: OptimizerSpec
    batch: BatchSpec
    duration: DurationSpec
    trl: dict[str, Any] = {}
    """settings of TRL and transformers that have no field here, as they call them; part of the identity"""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, fp32 elsewhere (bf16 on a CPU is 7 to 11 times slower)."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """auto: off on the CPU and for models under a billion parameters, on otherwise."""
    save_every: Positive | None = None
    """Steps between optimiser checkpoints, from which an interrupted run goes on; None: every ten minutes. No part of
    the identity."""
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that get every step's log, by their own settings (WANDB_MODE, ...). No part of the identity."""
    checkpoints: Annotated[int, Meta(ge=2)] | None = None
    """Points on the way, evenly spaced, at which the adapter is kept: a plan generates with each and judges it. The
    last one is the result."""
    chat_template: str | None = None
    """Jinja text for a base model that has none, or the name of a form in `alignboard.models.templates.TRAINED`,
    in whose place reading a recipe puts the text; None keeps the tokenizer's own."""

    @property
    def is_preference(self) -> bool:
        """Whether it trains by a preference loss."""
        return self.method != SFT

    @property
    def kind(self) -> Kind:
        """What rows it trains on."""
        if not self.is_preference:
            return "demonstration"
        return "rated" if self.loss_spec.rated else "pair"

    @property
    def is_full(self) -> bool:
        """Whether every weight is trained."""
        return self.lora == FULL

    @property
    def trains_head(self) -> bool:
        """Whether the result is a reward model."""
        return self.is_preference and self.loss_spec.head

    @property
    def adapter(self) -> LoraSpec:
        """The adapter's section; raises `RecipeError` where every weight is trained."""
        if isinstance(self.lora, LoraSpec):
            return self.lora
        raise RecipeError("lora: none trains no adapter.")

    @property
    def data_sets(self) -> list[DataSpec]:
        """What it trains on."""
        return self.data if isinstance(self.data, list) else [self.data]

    @property
    def sole_data(self) -> str | None:
        """The name of its data set; None where there are several."""
        return self.data.name if isinstance(self.data, DataSpec) else None

    @property
    def source(self) -> str:
        """The names of its data sets."""
        return ", ".join(one.name for one in self.data_sets)

    def require_rows(self, n: int) -> None:
        """Raise `RecipeError` where ``n`` rows are fewer than one step takes."""
        if n < self.batch.global_:
            raise RecipeError(
                f"{self.source}: there are {n} rows to train on, fewer than the {self.batch.global_} of one step; add "
                "rows, or lower batch.global."
            )

    @property
    def loss_spec(self) -> LossSpec:
        """The registered loss of a preference method."""
        return loss_spec(self.method)

    def identity(self) -> dict[str, Any]:
        """What determines the result: not `save_every` and `report_to`, nor `batch.per_device` but for KTO.

        What a recipe may say since a later version is left out where it has its default, so that no key moves.
        """
        content = msgspec.to_builtins(self)
        if self.kind != "rated":  # KTO's KL term is of the batch on one device
            content["batch"].pop("per_device")
        content.pop("save_every")
        content.pop("report_to")
        for section, later in _LATER.items():
            inside = content[section] if section else content
            for one in inside if isinstance(inside, list) else [inside]:
                for name, default in later.items():
                    if isinstance(one, dict) and one.get(name) == default:
                        del one[name]
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
    if recipe.chat_template is not None:
        recipe = msgspec.structs.replace(recipe, chat_template=_template(recipe.chat_template))
    known = methods()
    if recipe.method not in known:
        hint = nearest(recipe.method, known) or f"; known are {', '.join(known)}."
        raise InputError(f"there is no method {recipe.method!r}{hint}")
    if not recipe.is_preference:
        if recipe.pairs is None and recipe.loss is not None:
            raise InputError(f"method {recipe.method} takes no loss section; leave it out.")
        _check_sections(recipe)
        return recipe
    _check_sections(recipe)
    if recipe.loss is None:
        needed = ", ".join(recipe.loss_spec.parameters)
        raise InputError(f"method {recipe.method} needs a loss section, with {needed}.")
    loss = recipe.loss_spec.complete(recipe.method, recipe.loss)
    return msgspec.structs.replace(recipe, loss=loss)


def _template(given: str) -> str:
    """The text of a form's name; any Jinja text as it is."""
    if "{" not in given and given not in TRAINED:
        hint = nearest(given, TRAINED) or "."
        raise InputError(
            f"chat_template: {given!r} is neither Jinja text nor a form ({', '.join(TRAINED)}){hint}"
        )
    return TRAINED.get(given, given)


def _check_sections(recipe: Recipe) -> None:
    """Raise `InputError` for sections that contradict each other."""
    if recipe.pairs is not None and not recipe.is_preference:
        raise InputError("pairs are for preference methods; leave the section out.")
    if (recipe.pairs is None) == (recipe.sole_data == WEST_OF_N):
        raise InputError(
            f"a pairs section and data.name: {WEST_OF_N} belong together; give both, or neither."
        )
    for name in recipe.trl:
        if name in _SET_HERE:
            raise InputError(f"trl.{name}: the field {_SET_HERE[name]} says it; set that one.")
    if recipe.is_full and recipe.checkpoints is not None:
        raise InputError(
            "checkpoints keeps adapters, and lora: none trains every weight; leave one of them out."
        )
    if recipe.is_full and recipe.quantization is not None:
        raise InputError(
            "lora: none trains every weight, and a quantization section holds them in few bits; leave one of them out."
        )
    if recipe.trains_head and (recipe.is_full or recipe.checkpoints is not None):
        raise InputError(
            f"method {recipe.method} trains an adapter with a head, which generates nothing: it needs a lora section, "
            "and no checkpoints."
        )
    if recipe.kind == "rated" and recipe.batch.per_device < 2:
        raise InputError(
            f"method {recipe.method} estimates the KL divergence over the rows of one device; batch.per_device has to "
            "be 2 at least."
        )
