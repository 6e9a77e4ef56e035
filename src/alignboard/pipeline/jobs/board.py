"""The job that makes the board of a plan from responses, verdicts, benchmarks and ratings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, RatingTable, Row, Score
from alignboard.boards.drift import KL, KL_COLUMN, STEP, STEP_COLUMN, kl_score
from alignboard.boards.examples import Collector, Examples
from alignboard.boards.files import write_board
from alignboard.boards.judge_prompts import with_judges
from alignboard.boards.of_alpaca_eval import with_published
from alignboard.boards.registered import with_registered
from alignboard.boards.scoring import (
    BASELINE,
    LENGTH,
    NEW_PROMPTS,
    interval_score,
    judged_columns,
    judged_scores,
    length_column,
    mean_length,
    rank_column,
    support_notes,
    with_identical,
    with_unfinished,
)
from alignboard.data.generated import GeneratedSet, generated_set
from alignboard.pipeline.answering import OUTPUTS
from alignboard.pipeline.executors.doing import JobTask
from alignboard.pipeline.jobs.benchmark_steps import signal_notes, steps_of
from alignboard.pipeline.jobs.benchmarks import suite_notes, suite_scores, with_warnings
from alignboard.pipeline.jobs.board_notes import conditions, inside, summary
from alignboard.pipeline.jobs.contamination import with_contamination
from alignboard.pipeline.jobs.differences import with_differences
from alignboard.pipeline.jobs.repeats import (
    ByPrompt,
    mean_by_prompt,
    ranks_of_rows,
    shown_runs,
    with_repeats,
)
from alignboard.pipeline.judging import ANNOTATIONS
from alignboard.records import Annotations, Generation
from alignboard.results.formats import read_annotations, read_rows
from alignboard.stats.intervals import bounded_mean
from alignboard.suites import load_suite

RATINGS = "ratings.json"
DRIFT = "drift.json"
CORRECT, RATING, PLACE = "correct", "rating", "place"


def board(task: JobTask) -> dict[str, str]:
    """The files of `write_board` in ``leaderboards/``."""
    name = task.job.hints.get("answer_key")
    made = board_of(task.job.parameters, task.inputs, generated_set(name) if name else None)
    made = with_judges(made, task.paths.workspace)
    paths = write_board(made, task.folder, examples_of(task.job.parameters, task.inputs))
    return {f"leaderboards/{path.name}": path.name for path in paths}


def found(folder: Path, name: str) -> Path:
    """The file called ``name`` in a job's folder, wherever it lies there."""
    (path,) = folder.rglob(name)
    return path


def board_of(
    parameters: Mapping[str, Any], inputs: Mapping[str, Path], key: GeneratedSet | None
) -> Board:
    """The board, from the folders of the jobs that it is made of; ``key`` knows the first set's right responses."""
    made = _Plan(parameters, inputs, key)
    made.add_responses()
    for asked in parameters["sets"]:
        for judge in parameters["judges"]:
            made.add_judge(judge, asked)
    made.add_drift()
    made.add_benchmarks()
    rated = made.add_ratings()
    rows = [
        Row(entry["model"], made.scores[entry["model"]], entry["family"], entry["method"])
        for entry in parameters["models"]
    ]
    notes = [*conditions(parameters, rated), *support_notes(rows), *made.benchmark_notes()]
    whole = Board(
        name=parameters["name"],
        title=parameters["title"],
        columns=made.columns,
        rows=rows,
        summary=summary(parameters, {name: len(rows) for name, rows in made.outputs.items()}),
        notes=notes,
        provenance={
            "source": f"the plan {parameters['name']}",
            "command": f"alignboard run {parameters['name']}",
            "seed": str(parameters["seed"]),
        },
    )
    texts = {
        model: {row.instruction: row.output for row in rows} for model, rows in made.outputs.items()
    }
    counts = {model: _unfinished(rows) for model, rows in made.outputs.items()}
    n_prompts = parameters["sets"][0]["n"] if parameters["sets"] else None
    whole = with_unfinished(with_identical(whole, texts), counts, n_prompts)
    # Of single runs, by their names: what is known of a model is so before several runs become one row.
    whole = with_warnings(with_contamination(whole, inputs), inputs)
    whole = with_repeats(with_registered(whole, made.files), parameters, made.by_prompt)
    whole = with_differences(whole, parameters, made.by_prompt)
    wanted = parameters.get("published", {"suites": [], "models": None})
    for suite in wanted["suites"]:
        models = None if wanted["models"] == "all" else wanted["models"]
        whole = with_published(whole, load_suite(suite), models)
    return whole


def _unfinished(rows: list[Generation]) -> tuple[int, int, int]:
    """How many responses are empty, how many the token limit ended, and how many there are."""
    cut = sum(row.finish == "length" for row in rows)
    return sum(not row.output.strip() for row in rows), cut, len(rows)


def examples_of(parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> Examples:
    """Every prompt of the plan's sets with responses, verdicts and what the judges replied."""
    collector = Collector()
    rows = shown_runs(parameters["models"])
    several = len(parameters["sets"]) > 1
    for asked in parameters["sets"]:
        for judge in parameters["judges"]:
            column, _ = judged_columns(judge, None, asked["name"] if several else None)
            for entry in parameters["models"]:
                role = f"verdicts {judge} {asked['name']} {entry['model']}"
                if role in inputs and entry["model"] in rows:
                    collector.add_verdicts(
                        found(inputs[role], ANNOTATIONS),
                        column.key,
                        rows[entry["model"]],
                        asked["reference"] or entry["baseline"],
                        asked["name"],
                    )
        files = _output_files(asked["name"], parameters["models"], inputs)
        for model, path in files.items():
            if model in rows:
                collector.add_responses(path, rows[model], asked["name"])
    return collector.examples()


class _Plan:
    """The columns and scores of a plan, as they are put together."""

    def __init__(
        self, parameters: Mapping[str, Any], inputs: Mapping[str, Path], key: GeneratedSet | None
    ) -> None:
        self.parameters, self.inputs, self.key = parameters, inputs, key
        self.models: list[dict[str, Any]] = parameters["models"]
        self.columns: list[Column] = []
        self.scores: dict[str, dict[str, Score]] = {entry["model"]: {} for entry in self.models}
        self.sets: list[dict[str, Any]] = parameters["sets"]
        self.files = _output_files(self.sets[0]["name"], self.models, inputs) if self.sets else {}
        """the responses to the first set; those of two turns are not shown"""
        self.outputs = {model: read_rows(path, Generation) for model, path in self.files.items()}
        self.by_prompt: dict[str, dict[str, ByPrompt]] = {}
        """column -> model -> value by prompt, in the column's unit; for rows of several runs"""

    def add_responses(self) -> None:
        """Correct responses, where a program knows the answers, and mean lengths."""
        if self.outputs and self.key is not None:
            self.columns.append(
                Column(
                    key=CORRECT,
                    name="correct",
                    kind="accuracy",
                    unit="%",
                    source="responses",
                    estimator="share of responses that a program found right",
                    conditional_on=NEW_PROMPTS,
                )
            )
        if self.outputs:
            self.columns.append(length_column())
        for model, rows in self.outputs.items():
            if self.key is not None:
                right = {
                    row.instruction: float(self.key.check(row.instruction, row.output))
                    for row in rows
                }
                self.by_prompt.setdefault(CORRECT, {})[model] = {
                    p: 100 * v for p, v in right.items()
                }
                self.scores[model][CORRECT] = _correct(rows, self.key)
            lengths = {row.instruction: float(len(row.output)) for row in rows}
            self.by_prompt.setdefault(LENGTH, {})[model] = lengths
            self.scores[model][LENGTH] = mean_length([len(row.output) for row in rows])

    def add_judge(self, judge: str, asked: Mapping[str, Any]) -> None:
        """One judge's verdicts on a set; length control is fitted to the models that share their baseline."""
        raw, controlled = judged_columns(judge, None, asked["name"] if len(self.sets) > 1 else None)
        against = asked["reference"] or inside(self.parameters)
        pair = (
            msgspec.structs.replace(raw, baseline=against, set=asked["name"]),
            msgspec.structs.replace(controlled, baseline=against, set=asked["name"]),
        )
        ranks = rank_column(pair[0])
        by_baseline: dict[str, dict[str, Annotations]] = {}
        for entry in self.models:
            role = f"verdicts {judge} {asked['name']} {entry['model']}"
            baseline = asked["reference"] or entry["baseline"]
            if role in self.inputs:
                table = read_annotations(
                    found(self.inputs[role], ANNOTATIONS),
                    generator=entry["model"],
                    baseline=baseline,
                )
                by_baseline.setdefault(baseline, {})[entry["model"]] = table
            elif baseline == entry["model"]:
                self.scores[entry["model"]] |= {column.key: BASELINE for column in pair}
        for tables in by_baseline.values():
            for model, table in tables.items():
                rates = mean_by_prompt(table.instruction, 100 * (table.balanced - 1))
                self.by_prompt.setdefault(pair[0].key, {})[model] = rates
            for model, scores in judged_scores(tables, pair).items():
                self.scores[model] |= scores
            for model, rank in ranks_of_rows(tables, self.models).items():
                self.scores[model][ranks.key] = rank
        self.columns += [*pair, ranks]

    def add_drift(self) -> None:
        """How far models are from what they started from, where that was computed."""
        for model, rows in self.outputs.items():
            if f"drift {model}" in self.inputs:
                folder = self.inputs[f"drift {model}"]
                ratios = json.loads((folder / DRIFT).read_text(encoding="utf-8"))
                self.scores[model][KL] = kl_score(ratios)
                known = zip(rows, ratios, strict=True)
                self.by_prompt.setdefault(KL, {})[model] = {
                    row.instruction: value for row, value in known if value is not None
                }
        if KL in self.by_prompt:
            self.columns.append(KL_COLUMN)

    def add_benchmarks(self) -> None:
        """The numbers of every suite's lm-eval tasks, and their means where the suite asks for them."""
        names = [entry["model"] for entry in self.models]
        several = len(self.parameters["suites"]) > 1
        steps = steps_of(self.models)
        if steps:
            self.columns.append(STEP_COLUMN)
            for model, step in steps.items():
                self.scores[model][STEP] = Score(float(step))
        for suite in self.parameters["suites"]:
            columns, scores = suite_scores(suite, names, self.inputs, several=several)
            self.columns += columns
            for model, own in scores.items():
                self.scores[model] |= own

    def benchmark_notes(self) -> list[str]:
        """What has to be known of the runs of lm-eval."""
        names = [entry["model"] for entry in self.models]
        suites = self.parameters["suites"]
        notes = [note for suite in suites for note in suite_notes(suite, names, self.inputs)]
        return [*notes, *signal_notes(self.columns, self.scores, steps_of(self.models))]

    def add_ratings(self) -> RatingTable | None:
        """Ratings and places of the round robin."""
        if "pairwise" not in self.inputs:
            return None
        table = msgspec.json.decode(
            (self.inputs["pairwise"] / RATINGS).read_bytes(), type=RatingTable
        )
        rating = Column(
            key=RATING,
            name="rating",
            kind="rating",
            unit="Elo",
            judge=self.parameters["rating_judge"],
            set=self.sets[0]["name"] if self.sets else None,
            source="round robin",
            estimator="Bradley-Terry, Elo scale",
            conditional_on=NEW_PROMPTS,
            digits=0,
        )
        place = msgspec.structs.replace(
            rating, key=PLACE, name="place", kind="place", unit="", better="low",
            estimator="best and worst place that the intervals allow", of=RATING,
        )  # fmt: skip
        self.columns += [rating, place]
        for model, rated in table.ratings.items():
            self.scores[model][RATING] = Score(
                rated.value, rated.low, rated.high, n=rated.n_battles
            )
            if rated.value is not None:
                best, worst = rated.rank_best, rated.rank_worst
                self.scores[model][PLACE] = Score(best, best, worst)
        return table


def _output_files(
    asked: str, models: list[dict[str, Any]], inputs: Mapping[str, Path]
) -> dict[str, Path]:
    """Every model's responses to a set; of two turns there is no such file."""
    folders = {
        entry["model"]: inputs[role]
        for entry in models
        if (role := f"outputs {asked} {entry['model']}") in inputs
    }
    return {model: path for model, folder in folders.items() for path in folder.rglob(OUTPUTS)}


def _correct(rows: list[Generation], key: GeneratedSet) -> Score:
    """How many responses are right, by the generated set's own answer key."""
    right = np.array([key.check(row.instruction, row.output) for row in rows], dtype=np.float64)
    found = bounded_mean(right)
    return interval_score(found.estimate, found, len(rows))
