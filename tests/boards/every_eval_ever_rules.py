"""What Every Eval Ever asks of its files: schema 0.2.2 as types of ours, and the rules of its validator.

The types hold every field of ``eval.schema.json`` and ``instance_level_eval.schema.json`` that a record of ours may
have; a field that is not here is refused. The rules are those of ``validation_core.py`` as it is since 0.2.2, where a
finding that it calls a warning counts, too. Its check that two names are one organization needs a register of its own.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Texts = dict[str, str]
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NAME = r"[^/]+"
ROWS_PATH = rf"^data/{NAME}/{NAME}/{NAME}/{UUID}_samples\.jsonl$"
DEVICES = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)


class Strict(Struct, forbid_unknown_fields=True):
    """A part of the schema that takes no other fields."""


class SourceMetadata(Strict):
    source_type: Literal["documentation", "evaluation_run"]
    source_organization_name: str
    evaluator_relationship: Literal["first_party", "third_party", "collaborative", "other"]
    source_name: str | None = None
    additional_details: Texts = {}


class Library(Strict):
    name: str
    version: str


class Deployment(Struct):
    deployment_type: Literal["self_deployed", "externally_managed", "unknown"]
    model_availability: Literal["open_weights", "closed_weights", "unknown"]


class Model(Strict):
    name: str
    id: str
    additional_details: Texts


class Judge(Strict):
    model_info: Model


class LlmScoring(Strict):
    judges: Annotated[list[Judge], Meta(min_length=1)]
    input_prompt: str
    additional_details: Texts = {}


class Metric(Strict):
    lower_is_better: bool
    score_type: Literal["continuous"]
    min_score: float
    max_score: float
    evaluation_description: str
    metric_id: str
    metric_name: str
    metric_kind: str
    metric_unit: str
    llm_scoring: LlmScoring | None = None
    additional_details: Texts = {}


class StandardError(Strict):
    value: float
    method: str


class Interval(Strict):
    lower: float
    upper: float
    confidence_level: Annotated[float, Meta(ge=0, le=1)]
    method: str


class Uncertainty(Strict):
    standard_error: StandardError | None = None
    confidence_interval: Interval | None = None
    num_samples: int | None = None


class ScoreDetails(Strict):
    score: float
    uncertainty: Uncertainty
    details: Texts = {}


class UrlSource(Strict, tag_field="source_type", tag="url"):
    dataset_name: str
    url: Annotated[list[str], Meta(min_length=1)]


class OtherSource(Strict, tag_field="source_type", tag="other"):
    dataset_name: str


class Result(Strict):
    evaluation_result_id: str
    evaluation_name: str
    source_data: UrlSource | OtherSource
    metric_config: Metric
    score_details: ScoreDetails


class Detailed(Strict):
    format: Literal["jsonl"]
    file_path: Annotated[str, Meta(pattern=ROWS_PATH)]
    hash_algorithm: Literal["sha256", "md5"]
    checksum: str
    total_rows: Annotated[int, Meta(ge=1)]


class Record(Strict):
    schema_version: Literal["0.2.2"]
    evaluation_id: str
    retrieved_timestamp: Annotated[str, Meta(pattern=r"^\d+$")]
    source_metadata: SourceMetadata
    eval_library: Library
    model_info: Model
    evaluation_results: list[Result]
    detailed_evaluation_results: Detailed | None = None


class Input(Strict):
    raw: str
    reference: list[str]


class Output(Strict):
    raw: list[str]


class Attribution(Strict):
    turn_idx: Annotated[int, Meta(ge=0)]
    source: str
    extracted_value: str
    extraction_method: str
    is_terminal: bool


class Evaluation(Strict):
    score: float
    is_correct: bool


class RowOfRecord(Strict):
    schema_version: Literal["instance_level_eval_0.2.2"]
    evaluation_id: str
    model_id: str
    evaluation_name: str
    sample_id: str
    interaction_type: Literal["single_turn"]
    input: Input
    output: Output
    answer_attribution: list[Attribution]
    evaluation: Evaluation
    evaluation_result_id: str
    sample_hash: str
    metadata: Texts = {}


def strict_json(text: str) -> object:
    """Json without NaN and without a key twice, as the validator reads it."""

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(found)) == len(found), f"a key twice: {found}"
        return dict(found)

    def constant(text: str) -> float:
        raise AssertionError(text)

    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)


def check_folder(folder: Path) -> tuple[list[Record], list[RowOfRecord]]:
    """Every record and every row below ``folder``; fails by AssertionError or `msgspec.ValidationError`."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.json*")}
    records, rows, companions = [], [], set[str]()
    for name in sorted(files):
        check_path(name)
        if name.endswith(".json"):
            record = msgspec.convert(strict_json(files[name].read_text("utf-8")), Record)
            check_record(record)
            if record.detailed_evaluation_results is not None:
                wanted = name.removesuffix(".json") + "_samples.jsonl"
                assert record.detailed_evaluation_results.file_path == wanted
                rows += check_rows(record, files[wanted].read_text("utf-8"))
                companions.add(wanted)
            records.append(record)
    assert {name for name in files if name.endswith(".jsonl")} == companions
    return records, rows


def check_path(name: str) -> None:
    parts = name.split("/")
    assert (len(parts), parts[0]) == (5, "data"), name
    for part in parts[1:4]:
        assert not re.search(r'[<>:"\\|?*\x00-\x1f]', part), name
        assert part not in {"", "data"}, name
        assert not part.endswith((".", " ")), name
        assert not DEVICES.fullmatch(part), name
    assert re.fullmatch(rf"{UUID}(\.json|_samples\.jsonl)", parts[4]), name


def check_record(record: Record) -> None:
    msgspec.convert(record.model_info.additional_details, Deployment)
    names = [result.evaluation_result_id for result in record.evaluation_results]
    assert len(set(names)) == len(names)
    for result in record.evaluation_results:
        metric, score = result.metric_config, result.score_details
        assert math.isfinite(score.score)
        assert metric.min_score <= score.score <= metric.max_score, result
        for judge in metric.llm_scoring.judges if metric.llm_scoring else ():
            msgspec.convert(judge.model_info.additional_details, Deployment)


def check_rows(record: Record, text: str) -> list[RowOfRecord]:
    # The validator's own way to find lines: other line breaks than ours count, too.
    rows = [msgspec.convert(strict_json(line), RowOfRecord) for line in text.splitlines()]
    assert record.detailed_evaluation_results is not None
    assert len(rows) == record.detailed_evaluation_results.total_rows
    assert {row.evaluation_id for row in rows} == {record.evaluation_id}
    assert {row.model_id for row in rows} == {record.model_info.id}
    return rows
