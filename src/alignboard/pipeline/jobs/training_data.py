"""Jobs before a training: its rows, their tokens, and their log-probabilities under the reference.

Each depends on what decides its content and on nothing else, so that methods, settings and seeds on one base and one
file share all three. Rated replies (KTO) share their rows alone: TRL prepares them with those of its KL term.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from alignboard.data.generated import generated_set
from alignboard.errors import InputError
from alignboard.models.hub import locate_adapter
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.graph import Job
from alignboard.pipeline.jobs.weights import adapter_path, base_spec, model_path, which_files
from alignboard.pipeline.plans.made import made_here
from alignboard.training.launch import HELD_OUT, TRAINED
from alignboard.training.sections import WEST_OF_N, DataSpec, HeldOutSpec, PairSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from alignboard.models.checks.opened import Opened
    from alignboard.training.recipe import Recipe

PAIRS: Final = "pairs.json"
_ROWS: Final = "rows"
_REPORT: Final = "report.json"


def data(task: JobTask) -> dict[str, str]:
    """The rows that a recipe trains on and those that it holds out, in canonical form, with their report."""
    import datasets

    from alignboard.data.preferences.read import read_all, split, unpaired

    parameters = task.job.parameters
    kind, seed = parameters["kind"], parameters["seed"]
    if (
        "base" in task.inputs
    ):  # rows that are fetched: a tokenizer that is not there is noticed before
        _open_base(task, "base")
    sources = msgspec.convert(parameters["data"], DataSpec | list[DataSpec])
    held_out = msgspec.convert(parameters["held_out"], HeldOutSpec | None)
    if isinstance(sources, DataSpec) and made_here(sources.name):
        rows, report = datasets.Dataset.from_list(_made_rows(sources, task)), None
        rows = unpaired(rows) if kind == "rated" else rows
    else:
        several = sources if isinstance(sources, list) else [sources]
        rows, found = read_all([one.source() for one in several], kind, seed)
        whole = [one.to_json() for one in found]
        report = whole[0] if len(whole) == 1 else {"sources": whole}
    splits = {TRAINED: rows}
    if held_out is not None and held_out.data is not None:
        splits[HELD_OUT] = read_all([held_out.data.source()], kind, seed)[0]
    elif held_out is not None:
        splits[TRAINED], splits[HELD_OUT] = split(rows, held_out.count(len(rows)), seed)
    _write(task.folder, splits)
    (task.folder / _REPORT).write_text(json.dumps(report) + "\n", encoding="utf-8")
    return {}


def _made_rows(source: DataSpec, task: JobTask) -> list[Any]:
    if source.name == WEST_OF_N:
        from alignboard.training.pairs import PreferencePair, preference_rows

        content = json.loads((task.inputs["pairs"] / PAIRS).read_text(encoding="utf-8"))
        return preference_rows([PreferencePair(**pair) for pair in content])[: source.n]
    return generated_set(source.name).demonstrations(source.n or 1000, task.job.parameters["seed"])


def pairs(task: JobTask) -> dict[str, str]:
    """Preference pairs from a model's own samples on a generated set, the better by the set's rule."""
    from alignboard.models.loading import LoadedModel
    from alignboard.training.pairs import build_pairs

    parameters = task.job.parameters
    spec, seed = msgspec.convert(parameters["pairs"], PairSpec), parameters["seed"]
    asked, adapter = generated_set(spec.of), adapter_path(task.inputs)
    prompts = asked.prompts("preference", spec.prompts, seed)
    loaded = LoadedModel.load(
        model_path(task.inputs),
        chat_template=parameters.get("chat_template"),
        **which_files(task.inputs),
    )
    if adapter is not None:
        loaded.add_adapter("policy", adapter)
    with loaded.using(None if adapter is None else "policy"):
        stop = parameters.get("stop", ())
        found = build_pairs(spec, loaded, prompts, asked.score, seed, stop)
    if not found:
        raise InputError(
            f"{task.job.name}: the samples for each of {spec.prompts} prompts all score the same, so there is no "
            "pair to learn from; train the model that they come from longer, or raise pairs.n or pairs.temperature."
        )
    text = json.dumps([asdict(pair) for pair in found], indent=1)
    (task.folder / PAIRS).write_text(text + "\n", encoding="utf-8")
    return {}


def tokens(task: JobTask) -> dict[str, str]:
    """The rows as tokens of the base's tokenizer, or of the one that the start adapter brought."""
    from alignboard.training.arguments import quiet_data
    from alignboard.training.tokens import tokenized, training_tokenizer

    parameters = task.job.parameters
    base = _open_base(task, "start")
    tokenizer = training_tokenizer(
        base.tokenizer, parameters["chat_template"], start_of(task), base.checkpoint.path
    )
    with quiet_data():
        found = {
            name: tokenized(rows, tokenizer, whole=parameters["whole"])
            for name, rows in splits_in(task.inputs["data"]).items()
        }
        _write(task.folder, found)
    return {}


def _open_base(task: JobTask, role: str) -> Opened:
    """The base's tokenizer and configuration, without its weights."""
    from alignboard.models.checks.opened import open_small
    from alignboard.models.spec import ModelSpec

    return open_small(msgspec.convert({"name": "base", **base_spec(task.inputs, role)}, ModelSpec))


def reference(task: JobTask) -> dict[str, str]:
    """The tokens with the log-probabilities of the reference; nothing where a training would see less than the rows.

    Then the few rows that it sees are computed on its way.
    """
    from alignboard.training.reference import reference_columns

    splits = splits_in(task.inputs["tokens"])
    at_most = task.job.parameters["at_most"]
    if at_most is not None and at_most < len(splits[TRAINED]):
        return {}
    start = start_of(task)
    path, which = model_path(task.inputs, "start"), which_files(task.inputs, "start")
    with naming_recipe(task.job):
        found = reference_columns(recipe_of(task.job), path, splits, adapter=start, **which)
    _write(task.folder, found)
    return {}


def recipe_of(job: Job) -> Recipe:
    """The recipe of a training, with what is no part of its identity: how a batch is divided, what is kept."""
    from alignboard.training.recipe import parse_recipe

    hints = job.hints
    content = hints["recipe"] if "recipe" in hints else job.parameters["recipe"]
    content = {**content, "save_every": hints.get("save_every")}
    content["report_to"] = hints.get("report_to", [])
    content["batch"] = {**content["batch"], "per_device": hints["per_device"]}
    return parse_recipe(content, job.name)


@contextmanager
def naming_recipe(job: Job) -> Iterator[None]:
    """Inside the block, an error about what a recipe says names it."""
    from alignboard.training.checks.preflight import PreflightError
    from alignboard.training.sections import RecipeError

    try:
        yield
    except (RecipeError, PreflightError) as error:
        raise type(error)(f"recipe {job.hints['declared']}: {error}") from error


def start_of(task: JobTask) -> Path | None:
    """The adapter that a training starts from: made by a job, in a folder, or on the hub."""
    if "start" in task.job.hints:
        return locate_adapter(task.job.hints["start"])
    return adapter_path(task.inputs, "start")


def places_of(task: JobTask) -> dict[str, str]:
    """What a training reads, by split: the rows with their reference, else as tokens, else as messages."""
    for role in ("reference", "tokens", "data"):
        if role in task.inputs:
            found = _places(task.inputs[role])
            if found:
                return found
    raise KeyError(f"{task.job.name} has no rows")


def splits_in(folder: Path) -> dict[str, Dataset]:
    """The data sets in a job's folder, by split; read from the disk as they are needed."""
    import datasets

    found = {name: datasets.load_from_disk(place) for name, place in _places(folder).items()}
    return {name: rows for name, rows in found.items() if isinstance(rows, datasets.Dataset)}


def _places(folder: Path) -> dict[str, str]:
    places = (folder / _ROWS / name for name in (TRAINED, HELD_OUT))
    return {place.name: str(place) for place in places if place.is_dir()}


def report_of(task: JobTask) -> dict[str, Any] | None:
    """The report about a training's rows; None where they were made here."""
    return json.loads((task.inputs["data"] / _REPORT).read_text(encoding="utf-8"))


def _write(folder: Path, splits: Mapping[str, Dataset]) -> None:
    from alignboard.training.arguments import quiet_data

    with quiet_data():
        for name, rows in splits.items():
            rows.save_to_disk(folder / _ROWS / name)
