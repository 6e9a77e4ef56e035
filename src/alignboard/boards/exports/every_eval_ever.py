"""*Every Eval Ever*: one JSON file per model with its scores, and one row per verdict in a jsonl file beside it.

Written to schema 0.2.2 of the aggregate and of the rows (``every_eval_ever/schemas`` of evaleval/every_eval_ever), and
so that its validator (``validation_core.py``, of 0.2.2 and as it is since: the path of the rows from ``data/`` on, who
deployed a model and its judges, names that every file system takes) finds no error and has nothing to warn of where
every set's source is known.
What the schema has no field for stands in its ``additional_details``, so that `read_folder` gives the same board back.
A standard error names the method that it was computed by.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from alignboard import __version__
from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.examples import CHUNK, Examples, Preferences
from alignboard.errors import InputError
from alignboard.results.files import UNREADABLE, paths_under, write_atomically
from alignboard.text import storable

SCHEMA = "0.2.2"
ROWS_SCHEMA = "instance_level_eval_0.2.2"
_LEVEL = 0.95
_UNIT_NAMES = {"%": "percent", "": "points"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(data|(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?)", re.IGNORECASE)
"""names of folders that the validator refuses: its own, and those of devices"""
_DEPLOYMENT = {"deployment_type": "unknown", "model_availability": "unknown"}
"""a board does not say whether a model was asked here or through an API"""
_LINE_BREAKS = {chr(code): f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""what `str.splitlines` breaks a line at, by which the validator reads rows, and JSON does not escape"""
_BOARD, _COLUMN, _PLACE, _UNSCORED = (
    f"alignboard_{name}" for name in ("board", "column", "place", "unscored")
)


@dataclass(frozen=True)
class Source:
    """Who evaluated, and when: what a board does not know of itself."""

    organization: str
    relationship: str = "third_party"
    """of the evaluator to the models: first_party, third_party, collaborative, other"""
    when: int = 0
    """seconds since 1970"""
    datasets: Mapping[str, str] = field(default_factory=dict[str, str])
    """the address of the texts, by the name of an instruction set, a suite, a column or the board"""


def write_folder(
    board: Board, folder: Path, source: Source, examples: Examples | None = None
) -> list[Path]:
    """Write every model of ``board`` to ``folder``/data/<board>/<developer>/<model>/<uuid>.json; returns the files."""
    written = []
    for place, row in enumerate(board.rows):
        developer, _, name = row.model.rpartition("/")
        identity = f"{_safe(board.name)}/{_safe(row.model)}/{source.when}"
        # The validator wants the form of version 4; the digest keeps the same board's files the same.
        stem = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)
        parts = (board.name, developer or "unknown", name)
        target = folder.joinpath("data", *(_safe(part) for part in parts))
        content = _aggregate(board, row, place, source, identity)
        rows = [] if examples is None else list(_rows(board, row.model, examples, identity))
        if rows:
            lines = "".join(_line(row) for row in rows).encode()
            path = target / f"{stem}_samples.jsonl"
            write_atomically(path, lines)
            written.append(path)
            content["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": path.relative_to(folder).as_posix(),
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(lines).hexdigest(),
                "total_rows": len(rows),
            }
        path = target / f"{stem}.json"
        write_atomically(path, msgspec.json.format(_json(content), indent=2).encode())
        written.append(path)
    return written


def read_folder(folder: Path) -> Board:
    """The board that `write_folder` wrote below ``folder``.

    Raises
    ------
    InputError
        Where there is none, where a file is no record of ours, or where the records are of several boards.
    """
    paths = sorted(path for path in paths_under(folder) if path.suffix == ".json")
    if not paths:
        raise InputError(f"{folder} holds no json files of Every Eval Ever.")
    boards: dict[str, None] = {}
    rows: list[tuple[int, Row]] = []
    for path in paths:
        board, place, row = _record(path)
        boards[board] = None
        rows.append((place, row))
    if len(boards) != 1:
        raise InputError(f"{folder} holds records of {len(boards)} boards; give the folder of one.")
    whole = Board.from_json(next(iter(boards)), str(folder))
    columns = {column.key for column in whole.columns}
    for _, row in rows:
        unknown = next((key for key in row.scores if key not in columns), None)
        if unknown is not None:
            raise InputError(
                f"{folder}: {row.model} has a score of an undeclared column {unknown!r}."
            )
    rows.sort(key=lambda pair: pair[0])
    return msgspec.structs.replace(whole, rows=[row for _, row in rows])


def _safe(text: str) -> str:
    name = _UNSAFE.sub("_", text).strip("._") or "_"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def _line(row: dict[str, Any]) -> str:
    text = msgspec.json.encode(row).decode()
    return text.translate(str.maketrans(_LINE_BREAKS)) + "\n"


def _json(content: object) -> str:
    return msgspec.json.encode(storable(msgspec.to_builtins(content))).decode()


def _aggregate(board: Board, row: Row, place: int, source: Source, identity: str) -> dict[str, Any]:
    own = [(column, board.score(row, column)) for column in board.columns]
    known = [(column, score) for column, score in own if score.value is not None]
    documented = bool(known) and all(column.source == "published" for column, _ in known)
    unscored = {c.key: s for c, s in own if s.value is None and c.key in row.scores}
    model = {"family": row.family, "method": row.method, "flags": _json(row.flags)}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": identity,
        "retrieved_timestamp": str(source.when),
        "source_metadata": {
            "source_name": board.title,
            "source_type": "documentation" if documented else "evaluation_run",
            "source_organization_name": source.organization,
            "evaluator_relationship": source.relationship,
            "additional_details": {
                _BOARD: _json(msgspec.structs.replace(board, rows=[])),
                _PLACE: str(place),
            },
        },
        "eval_library": {"name": "alignboard", "version": __version__},
        "model_info": {
            "name": row.model,
            "id": row.model,
            "additional_details": {k: v for k, v in model.items() if v is not None}
            | {_UNSCORED: _json(unscored)}
            | _DEPLOYMENT,
        },
        "evaluation_results": [
            _result(board, column, score, source.datasets) for column, score in known
        ],
    }


def _bounds(board: Board, column: Column) -> tuple[float, float, str]:
    """The least and the greatest score that a column can have, and what is known of them."""
    values = [
        score.value for row in board.rows if (score := board.score(row, column)).value is not None
    ]
    least, greatest = min(values), max(values)
    # A diagnostic may be a difference of two percentages.
    if column.unit == "%" and column.kind != "diagnostic" and 0 <= least <= greatest <= 100:
        return 0, 100, "of the unit"
    return least, greatest, "of the scores on this board: the quantity has none of its own"


def _result(
    board: Board, column: Column, score: Score, datasets: Mapping[str, str]
) -> dict[str, Any]:
    least, greatest, bounds = _bounds(board, column)
    metric: dict[str, Any] = {
        "evaluation_description": column.conditional_on or board.label(column),
        "metric_id": f"alignboard.{column.kind.replace(' ', '_').lower()}",
        "metric_name": board.label(column),
        "metric_kind": column.kind.replace(" ", "_").lower(),
        "metric_unit": _UNIT_NAMES.get(column.unit, column.unit),
        "lower_is_better": column.better == "low",
        "score_type": "continuous",
        "min_score": least,
        "max_score": greatest,
        "additional_details": {_COLUMN: column.key, "source": column.source, "bounds": bounds},
    }
    if column.judge:
        judge = {"name": column.judge, "id": column.judge, "additional_details": _DEPLOYMENT}
        metric["llm_scoring"] = {
            "judges": [{"model_info": judge}],
            "input_prompt": f"The prompt that the judge {column.judge} declares; the board does not hold it.",
            "additional_details": {"baseline": column.baseline or "of the same family"},
        }
    name = column.set or column.name
    texts: dict[str, Any] = {"dataset_name": name, "source_type": "other"}
    address = datasets.get(name, datasets.get(board.name))
    if address is not None:
        texts |= {"source_type": "url", "url": [address]}
    return {
        "evaluation_result_id": column.key,
        "evaluation_name": name,
        "source_data": texts,
        "metric_config": metric,
        "score_details": {
            "score": score.value,
            "details": {_COLUMN: _json(score)},
            "uncertainty": _uncertainty(column, score),
        },
    }


def _uncertainty(column: Column, score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {}
    method = column.estimator or "as published"
    if score.standard_error is not None:
        found["standard_error"] = {"value": score.standard_error, "method": f"analytic: {method}"}
    if score.low is not None and score.high is not None and column.kind != "place":
        found["confidence_interval"] = {
            "lower": score.low,
            "upper": score.high,
            "confidence_level": _LEVEL,
            "method": f"analytic: {method}",
        }
    if score.n is not None:
        found["num_samples"] = score.n
    return found


def _rows(board: Board, model: str, examples: Examples, identity: str) -> Iterator[dict[str, Any]]:
    names = {column.key: column.set or column.name for column in board.columns}
    for one in examples.preferences:
        if one.model != model or one.column not in names:
            continue
        for k, value in enumerate(one.preference):
            if value is not None:
                yield _verdict(one, k, value, examples, (identity, names[one.column]))


def _verdict(
    one: Preferences, k: int, value: float, examples: Examples, names: tuple[str, str]
) -> dict[str, Any]:
    chunk, at = examples.chunks[k // CHUNK], k % CHUNK

    def response(model: str) -> list[str]:
        place = chunk.responses.get(model, [])[at : at + 1]
        return [chunk.texts[p] for p in place if p >= 0]

    prompt, baseline = chunk.texts[chunk.prompts[at]], response(one.baseline)
    digest = hashlib.sha256("".join([prompt, *baseline]).encode("utf-8", "replace"))
    return {
        "schema_version": ROWS_SCHEMA,
        "evaluation_id": names[0],
        "model_id": one.model,
        "evaluation_name": names[1],
        "evaluation_result_id": one.column,
        "sample_id": f"{examples.sets[k]}-{k}",
        "sample_hash": digest.hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": prompt, "reference": baseline},
        "output": {"raw": response(one.model)},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": repr(value),
                "extraction_method": "llm_judge",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": value - 1, "is_correct": value > 1.5},
        "metadata": {"baseline": one.baseline, "preference": "1 = baseline, 2 = model"},
    }


def _record(path: Path) -> tuple[str, int, Row]:
    """The board of a record as json, the place of its row there, and the row."""
    try:
        record = msgspec.json.decode(path.read_bytes())
        details = record["source_metadata"]["additional_details"]
        board, place = str(details[_BOARD]), int(details[_PLACE])
        if record["schema_version"] == SCHEMA:
            return board, place, _row(record)
    except (*UNREADABLE, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        pass
    raise InputError(
        f"{path} is no record of Every Eval Ever {SCHEMA} that alignboard wrote; give a folder of those alone."
    )


def _row(record: dict[str, Any]) -> Row:
    model = record["model_info"]
    details = model["additional_details"]
    scores = {
        one["evaluation_result_id"]: msgspec.json.decode(
            one["score_details"]["details"][_COLUMN], type=Score
        )
        for one in record["evaluation_results"]
    }
    scores |= msgspec.json.decode(details[_UNSCORED], type=dict[str, Score])
    found = {
        "model": model["name"],
        "scores": scores,
        "family": details.get("family"),
        "method": details.get("method"),
        "flags": msgspec.json.decode(details["flags"], type=list[str]),
    }
    return msgspec.convert(found, Row)
