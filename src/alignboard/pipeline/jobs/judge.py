"""Jobs that compare answers: verdicts against the baseline, the round robin, and ratings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from alignboard.judges.load import decode_judge
from alignboard.judges.pairs import Judged, Pair
from alignboard.judges.round_robin import rate, round_robin
from alignboard.judges.runner import Counts
from alignboard.leaderboards.plan_board import Rating, RatingTable, known
from alignboard.pipeline.evaluation import hardening_secret
from alignboard.pipeline.executors.worker import Task
from alignboard.pipeline.jobs.board import ANNOTATIONS, OUTPUTS, RATINGS
from alignboard.pipeline.jobs.train import CHECKPOINT
from alignboard.pipeline.judged_outputs import pairs_of
from alignboard.pipeline.judges import Access, Declared, Judges
from alignboard.pipeline.judging import JournalReplies, annotation_rows
from alignboard.records import Generation
from alignboard.results.formats import read_rows, write_rows
from alignboard.results.verdict_places import judge_folder
from alignboard.workspace import model_name


def judge(task: Task) -> dict[str, str]:
    """One judge's verdicts on one model against its baseline."""
    baseline = read_rows(task.inputs["baseline"] / OUTPUTS, Generation)
    pairs = pairs_of(read_rows(task.inputs["outputs"] / OUTPUTS, Generation), baseline)
    declared = _declared(task)
    judged = _judged(task, declared, pairs)
    model, against = pairs[0].generator_2, pairs[0].generator_1
    datasets = {row.instruction: row.dataset for row in baseline}
    write_rows(task.folder / ANNOTATIONS, annotation_rows(declared, judged, datasets))
    # Only AlpacaEval's own set has no folder of its own below the model's.
    place = f"results/{model}/{model_name(str(baseline[0].dataset))}"
    return {f"{place}/{judge_folder(declared.name, against)}/{ANNOTATIONS}": ANNOTATIONS}


def pairwise(task: Task) -> dict[str, str]:
    """Every model against every other on some of the prompts, and ratings from it."""
    parameters = task.job.parameters
    outputs = {
        model: read_rows(task.inputs[f"outputs {model}"] / OUTPUTS, Generation)
        for model in parameters["models"]
    }
    pairs = round_robin(outputs, parameters["n_prompts"], parameters["seed"])
    table = rate(_judged(task, _declared(task), pairs))
    ratings = {
        row.model: Rating(
            value=known(row.elo),
            low=known(row.elo_low),
            high=known(row.elo_high),
            rank_best=row.rank_best,
            rank_worst=row.rank_worst,
            n_battles=row.n_battles,
        )
        for row in table.rows
    }
    content = RatingTable(ratings, table.n_prompts, table.n_unparsed + table.n_failed, table.note)
    (task.folder / RATINGS).write_bytes(
        msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    )
    return {}


def _declared(task: Task) -> Declared:
    declared: dict[str, Any] = task.job.parameters["declared"]
    found = decode_judge(declared)
    trained = task.inputs.get("judge-model")
    if trained is None or found.prompted is None:
        return found
    return msgspec.structs.replace(found.prompted, model=str(trained / CHECKPOINT))


def _judged(task: Task, declared: Declared, pairs: Sequence[Pair]) -> list[Judged]:
    """The verdicts on ``pairs``; only what the journal does not know is asked for, and each model is loaded once."""
    if "judges" not in task.held:
        secret = hardening_secret(task.places.journal)
        task.held["judges"] = Judges(Access(), task.places.workspace, secret=secret)
    judges: Judges = task.held["judges"]
    judges.require_supported(declared, dt.datetime.now(dt.UTC).date())

    def show(now: Counts) -> None:
        task.progress(now.known + now.asked, now.total)

    return judges.judge(declared, pairs, JournalReplies(task.journal), show)
