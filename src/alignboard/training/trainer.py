"""From a recipe, a base model and rows to a LoRA adapter, through TRL's own trainers.

What this module promises
    `train` writes a PEFT adapter folder (with the tokenizer it was trained with, `training.json`, the run card, and
    `steps.jsonl`, the log) that appears only when it is complete, or raises. With a ``work`` folder a run that was
    killed goes on from its last checkpoint, and ends with the same adapter. One copy of the base model is held: the
    reference is the adapter that training started from, kept beside the trained one, or the bare base when it started
    fresh. In float32 on the CPU, whatever TRL's defaults; usage statistics are never sent.

SFT is TRL's own trainer. All preference methods are losses of `alignboard.training.methods` in TRL's DPO trainer
(`alignboard.training.preference`).

Heavy: imports torch, transformers, peft and trl. `train.recipe` is the light part.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import huggingface_hub.constants
import torch
from transformers import set_seed

from alignboard.models.identity import adapter_fingerprint
from alignboard.models.turns import taught_spellings
from alignboard.training import launch, resume
from alignboard.training.arguments import Rows, make_trainer, prepared, quiet_data, trl_arguments
from alignboard.training.card import card_text, rows_digest
from alignboard.training.checks import ends, preflight
from alignboard.training.checks.reached import Reached
from alignboard.training.checks.watch import OnStep, StoppedError, Watch, memory_mib
from alignboard.training.recipe import Recipe
from alignboard.training.resume import KeptAdapters, gather
from alignboard.training.sections import RecipeError
from alignboard.training.start import load_base, trainable
from alignboard.training.threads import few_threads
from alignboard.training.tokens import filled_prompts, prompt_length, training_tokenizer
from alignboard.training.tracking import trackers

CHECKPOINTS: Final = "checkpoints"
"""beside the adapter: those that were kept on the way, by number"""
LIBRARIES: Final = ("alignboard", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
"""whose versions the run card holds"""


@dataclass(frozen=True)
class TrainResult:
    """A finished run and the conditions that made it; also what `training.json` holds."""

    method: str
    recipe_key: str
    recipe: Mapping[str, Any]
    """Its identity."""
    base: str
    base_fingerprint: str
    parent_fingerprint: str | None
    """Of the adapter that training started from."""
    device: str
    seed: int
    steps: int
    global_batch: int
    n_rows: int
    rows_digest: str
    """Of the rows as they were given to the trainer: tokens, or messages (KTO)."""
    n_dropped: int
    """Rows that TRL dropped because the prompt alone fills max_length."""
    trainable_parameters: int
    first_loss: float
    last_loss: float
    """Mean over the last tenth of the steps."""
    losses: tuple[float, ...]
    metrics: dict[str, float]
    """Whatever else TRL logged at the last step: rewards/accuracies, rewards/margins, ..."""
    held_out: Mapping[int, Mapping[str, float]]
    """By step: loss, rewards/accuracies and the like of rows that are not trained on."""
    template_digest: str | None
    end_tokens: tuple[str, ...]
    """The tokens that training taught as the end of a reply, by spelling; whoever generates stops there."""
    sample_row: str
    seconds: float
    memory_mib: float
    """The most that was held: on the GPU where there is one, else of the process."""
    versions: dict[str, str]
    data: Mapping[str, Any] | None = None
    """The report about the rows: schema, kept, dropped by reason, warnings."""


def train(  # noqa: PLR0913 - the run's inputs, each by name
    recipe: Recipe,
    model_path: str | Path,
    rows: Rows,
    out_dir: str | Path,
    *,
    adapter: str | Path | None = None,
    held_out: Rows | None = None,
    data: Mapping[str, Any] | None = None,
    last_good: str | Path | None = None,
    work: str | Path | None = None,
    seed: int | None = None,
    name: str | None = None,
    on_step: OnStep | None = None,
    revision: str | None = None,
    gguf_file: str | None = None,
) -> TrainResult:
    """Train an adapter, or every weight (``lora: none``), on `rows` and write it to the new folder `out_dir`.

    `adapter` is what training starts from (an SFT adapter for the preference methods, where it is also the
    reference); it may have a smaller rank than the recipe's. `held_out` are rows whose loss is measured as the recipe's
    `held_out` says. `data` is the report about the rows, for the run card. `last_good` is the folder that gets the
    adapter of the last good step where a run goes wrong on its way (default: beside `out_dir`). `work` is a folder of
    this run alone that holds optimiser checkpoints: where it has one, training goes on from there (None: no
    checkpoints). `seed` replaces the recipe's. `revision` and `gguf_file` say which commit of a
    repository, or which file of a folder, is meant. `name` is what trackers call the run (default: that of
    `out_dir`'s folder).
    """
    started, out_dir = time.monotonic(), Path(out_dir)
    _require(recipe, rows, out_dir)
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    seed, run = recipe.seed if seed is None else seed, name or out_dir.parent.name
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}."))
    made = scratch / "made"
    saving = [] if work is None else [resume.Checkpoints(recipe.save_every)]
    work = scratch / "work" if work is None else Path(work)
    if launch.is_main():
        resume.claim(work, {"recipe": recipe.key(), "seed": seed, "rows": len(rows)})
    try:
        with quiet_data():
            loaded = load_base(recipe, model_path, revision=revision, gguf_file=gguf_file)
            tokenizer = training_tokenizer(
                loaded.tokenizer, recipe.chat_template, adapter, loaded.path
            )
            with few_threads(loaded.model):
                set_seed(seed)
                model = trainable(loaded, recipe, adapter)
                n_trainable = preflight.count_trainable(model)
                told, log = (on_step, work / "steps.jsonl") if launch.is_main() else (None, None)
                watch = Watch(told, log, adapter=not recipe.is_full)
                arguments = {**trl_arguments(recipe, model, work, seed), "run_name": run}
                keeping = KeptAdapters.of(recipe.checkpoints, work, tokenizer, held_out is not None)
                callbacks = [watch, Reached(), *saving, *keeping, *trackers(recipe.report_to, run)]
                if launch.is_main() and (saving or keeping):
                    resume.require_room(work, model, recipe.checkpoints)
                trained_on = prepared(rows, recipe, tokenizer)
                held = None if held_out is None else prepared(held_out, recipe, tokenizer)
                trainer = make_trainer(
                    recipe, arguments, model, tokenizer, trained_on, callbacks, held
                )
                launch.meet()  # the first process has claimed the folder
                _require_left(recipe, trained_on, len(trainer.train_dataset))
                first_row = ends.checked_rows(trainer, recipe, tokenizer)
                batch = ends.checked_start(trainer, recipe)
                _run(trainer, watch, work, last_good or f"{out_dir}-last-good", tokenizer)
                if held_out is not None and trainer.state.global_step not in watch.held_out:
                    trainer.evaluate()
                ends.save_checked(trainer, made, batch)
        tail = watch.losses[-max(1, len(watch.losses) // 10) :]
        result = TrainResult(
            method=recipe.method,
            recipe_key=recipe.key(),
            recipe=recipe.identity(),
            base=loaded.source,
            base_fingerprint=loaded.fingerprint,
            parent_fingerprint=None if adapter is None else adapter_fingerprint(Path(adapter)),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            seed=seed,
            steps=trainer.state.global_step,
            global_batch=recipe.batch.global_,
            n_rows=len(rows),
            rows_digest=rows_digest(trained_on),
            n_dropped=len(rows) - len(trainer.train_dataset),
            trainable_parameters=n_trainable,
            first_loss=watch.losses[0],
            last_loss=sum(tail) / len(tail),
            losses=tuple(watch.losses),
            metrics=watch.last,
            held_out=watch.held_out,
            template_digest=preflight.template_digest(tokenizer),
            end_tokens=taught_spellings(tokenizer),
            sample_row=preflight.show_row(first_row, tokenizer),
            seconds=time.monotonic() - started,
            memory_mib=memory_mib(),
            versions={p: version(p) for p in LIBRARIES},
            data=data,
        )
        if launch.is_main():
            tokenizer.save_pretrained(str(made))
            _write_cards(made, result, loaded.source)
            shutil.copy(work / "steps.jsonl", made / "steps.jsonl")
            gather(recipe.checkpoints, result.steps, work, out_dir.parent / CHECKPOINTS)
            made.replace(out_dir)
            shutil.rmtree(work)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _require(recipe: Recipe, rows: Rows, out_dir: Path) -> None:
    """Raise `RecipeError` for what can be seen before anything is loaded."""
    if out_dir.exists():
        raise RecipeError(f"{out_dir} exists; an adapter is only written to a new folder")
    recipe.require_rows(len(rows))


def _require_left(recipe: Recipe, rows: Any, left: int) -> None:
    """Raise `RecipeError` where the rows whose prompt leaves room for a reply are fewer than one step takes."""
    if left < recipe.batch.global_:
        raise filled_prompts(recipe, left, [prompt_length(row) for row in rows])


def _run(trainer: Any, watch: Watch, work: Path, last_good: str | Path, tokenizer: Any) -> None:
    """Train, from the last checkpoint where there is one; a run that goes wrong keeps its last good adapter."""
    checkpoint = resume.latest(work)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except StoppedError as error:
        # Each process saw the same; the others wait, since the launcher ends them all when one has ended.
        if launch.is_main():
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(last_good, ignore_errors=True)
            watch.keep_good(trainer.model, tokenizer, Path(last_good))
        launch.meet()
        if watch.good is None:
            raise
        raise StoppedError(
            f"{error} The adapter of step {watch.good[0]} is kept in {last_good}."
        ) from error


def _write_cards(folder: Path, result: TrainResult, base: str) -> None:
    """Write `training.json`, and a README in place of PEFT's blank one."""
    card = json.dumps(asdict(result), indent=2)
    (folder / "training.json").write_text(card + "\n", encoding="utf-8")
    library = "peft" if (folder / "adapter_config.json").is_file() else "transformers"
    name = f"{result.method} of {Path(base).name}"
    text = card_text(name, json.loads(card), base=base, library=library)
    (folder / "README.md").write_text(text, encoding="utf-8")
