"""What a suite declares: ``evaluate/suites/<name>.yaml``, validated.

A suite says what models are asked: an instruction set whose responses are judged, and lm-eval tasks. A suite of ``kind:
published`` (the default) is a benchmark that others have run: it also says against whom, which judges' columns it has,
which published boards they are held to, and where the released files come from.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from alignboard.errors import InputError, nearest
from alignboard.guarded_yaml import SAFE_LOADER, parse_yaml
from alignboard.workspace import declaration

Declared = TypeVar("Declared", bound=msgspec.Struct)


class PublishedBoard(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A board inside the installed ``alpaca-eval`` wheel: which file, and which judge made it."""

    annotator: str
    file: str
    """path inside the package ``alpaca_eval``"""


class CalibrationFiles(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The calibration files of the length-controlled GLM on the hub, with their checksums."""

    repository: str
    revision: str
    sha256: dict[str, str]


class ReleasedResults(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A repository of released results at a pinned commit."""

    repository: str
    commit: str
    folder: str


class Instructions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What models respond to, and how they decode; what is null is the model's own default."""

    set: str
    """a set of ``evaluate/sets``, or a file of instructions, relative to the workspace"""
    limit: int | None = None
    """only the first ones"""
    max_new_tokens: int | None = None
    temperature: float | None = None
    """given, it replaces the set's own temperatures, too"""
    top_p: float | None = None
    seed: int | None = None


class Benchmark(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One lm-eval task and the metric that a board shows of it."""

    task: str
    metric: str | None = None
    """as in lm-eval's results: ``acc,none``; None = every one that the task reports"""
    num_fewshot: int | None = None
    """None = as the task says"""
    data: str | None = None
    """documents in place of those that the task names: a file, relative to the workspace, or ``package:NAME/FILE``"""
    limit: int | None = None
    """only the first documents, of every task of a group"""
    split: str | None = None
    """whose documents are asked, in place of the task's own; None = as the task says"""
    part: str | None = None
    """benchmarks of one part are averaged with each other first, and then with the other parts"""
    chance: float | None = None
    """the metric of guessing, a fraction: 0 on a rescaled board"""

    def parameters(self) -> dict[str, Any]:
        """What of it is part of a job's key; the digest of ``data`` is among the job's files."""
        shown = self.shown()
        return {key: value for key, value in shown.items() if key not in {"part", "chance"}}

    def shown(self) -> dict[str, Any]:
        """What of it a board shows."""
        content = msgspec.to_builtins(self)
        always = {"task", "metric", "num_fewshot"}
        return {key: value for key, value in content.items() if value is not None or key in always}


class EvaluationSuite(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a plan asks of its models. At least one of ``instructions`` and ``benchmarks`` is given."""

    name: str
    title: str
    kind: Literal["evaluation", "published"] = "evaluation"
    instructions: Instructions | None = None
    baseline: str | None = None
    """whose responses the models' are compared with: a model of the plan or of the workspace, a file, or the baseline
    of a published suite; null: the plan says"""
    annotator: str | None = None
    """the judge of plans that name none"""
    benchmarks: list[Benchmark] = []
    n_documents: int = 150
    """of each benchmark whose documents are generated here: demo_choice, demo_exact"""
    apply_chat_template: bool = True
    """whether benchmarks are asked in the model's chat template, their examples as turns"""
    average: Literal["mean", "rescaled mean"] | None = None
    """``mean``: the board also shows the unweighted mean of the benchmarks' metrics, part by part; ``rescaled mean``:
    of how far each lies between chance (0) and all (100)"""
    source: str | None = None
    """where the tasks, their examples and their average are taken from"""
    lacks: str | None = None
    """what of the source lm-eval does not have, or does otherwise"""
    data_root: str | None = None
    """a mirror of the hub's data sets: a folder, relative to the workspace, or ``package:NAME``"""
    revisions: dict[str, str] = {}
    """by data set of the hub: the commit that its documents are of"""


class Suite(EvaluationSuite, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A suite that others have run: it says what to ask like any other, and which published boards there are of it.

    ``annotator`` is the judge whose column the suite is known by.
    """

    kind: Literal["evaluation", "published"] = "published"
    # Required here, by keyword: msgspec allows that.
    baseline: str  # pyright: ignore[reportGeneralTypeIssues]
    annotator: str  # pyright: ignore[reportGeneralTypeIssues]
    n_instructions: int
    boards: list[PublishedBoard]
    tolerance: float
    """largest difference of win rate, standard error and discrete win rate to the board that counts as agreement,
    in percentage points"""
    lc_tolerance: float
    """the same for the length-controlled win rate at the C that the published fit used"""
    released: ReleasedResults
    calibration: CalibrationFiles
    families: dict[str, list[str]] = {}
    """named groups of models that a board compares with each other"""

    @property
    def board(self) -> PublishedBoard:
        """The published board of the suite's own annotator."""
        return next(board for board in self.boards if board.annotator == self.annotator)


def load_suite(name: str, workspace: Path | None = None) -> Suite:
    """The published suite called ``name``; raises `InputError` that names the file and the field."""
    path = declaration("evaluate/suites", name, workspace)
    content = read_yaml(path)
    if content.get("kind", "published") != "published":
        raise InputError(
            f"{name} has no published board; its benchmarks are run by a plan: write `suites: [{name}]` into a plan's "
            "file, then `alignboard run PLAN`."
        )
    suite = convert(path, content, Suite, "a suite")
    if all(board.annotator != suite.annotator for board in suite.boards):
        raise InputError(
            f"{path}: boards has none of the suite's own annotator {suite.annotator!r}."
        )
    return suite


def load_evaluation(name: str, workspace: Path | None = None) -> EvaluationSuite:
    """The suite called ``name`` as a plan asks it, published or not; raises `InputError` that names file and field."""
    path = declaration("evaluate/suites", name, workspace)
    content = read_yaml(path)
    if content.get("kind", "published") == "published":
        return load_suite(name, workspace)
    suite = convert(path, content, EvaluationSuite, "a suite")
    if suite.instructions is None and not suite.benchmarks:
        raise InputError(f"{path}: the suite asks nothing; give instructions or benchmarks.")
    return suite


def read_yaml(path: Path, loader: Any = SAFE_LOADER, tags: Collection[str] = ()) -> dict[str, Any]:
    """A declaration's mapping of keys to values; raises `InputError` that names the file."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), loader, tags)
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path} is not readable YAML: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: a mapping of names to values was expected.")
    return content


def convert(
    path: Path | str, content: dict[str, Any], schema: type[Declared], what: str
) -> Declared:
    """``content`` as ``schema`` says; raises `InputError` that names the file, the key and the nearest known one."""
    unknown = _unknown_key(content, schema, "")
    if unknown is not None:
        key, known = unknown
        hint = nearest(key.rpartition(".")[2], known)
        raise InputError(f"{path}: {what} has no field {key!r}{hint or '.'}")
    try:
        return msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}{_values_at(schema, str(error))}.") from error


def _values_at(schema: Any, message: str) -> str:
    """The words that may stand where msgspec found another one; empty for any other fault."""
    _, _, place = message.partition("`$")
    if not message.startswith("Invalid enum value"):
        return ""
    inside = [schema]
    for name, _ in re.findall(r"\.(\w+)|\[([^\]]*)\]", place):
        inside = [inner for one in inside for inner in _inside(one, name)]
    words = [str(value) for one in inside for value in _literals(one)]
    return f"; it takes {', '.join(words)}" if words else ""


def _literals(schema: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of those in a union."""
    arguments = get_args(schema)
    if get_origin(schema) is Literal:
        return arguments
    if get_origin(schema) in {Annotated, Union, types.UnionType}:
        return tuple(value for one in arguments for value in _literals(one))
    return ()


def _inside(schema: Any, name: str) -> list[Any]:
    """What a field of a mapping, or where ``name`` is empty an item of a list or mapping, may be."""
    arguments = get_args(schema)
    if get_origin(schema) in {Annotated, Union, types.UnionType}:
        return [inner for one in arguments for inner in _inside(one, name)]
    if name and isinstance(schema, type) and issubclass(schema, msgspec.Struct):
        fields = dict(zip(schema.__struct_encode_fields__, schema.__struct_fields__, strict=True))
        return [get_type_hints(schema, include_extras=True)[fields[name]]] if name in fields else []
    return [arguments[-1]] if not name and get_origin(schema) in {list, dict} else []


@cache
def _hints(schema: Any) -> dict[str, Any]:
    """The types of a schema's fields, which are evaluated from text."""
    return get_type_hints(schema)


def _may_be(value: Any, schema: Any) -> bool:
    """Whether a mapping or a list is what this part of a union describes."""
    if isinstance(value, list):
        return get_origin(schema) is list
    is_struct = isinstance(schema, type) and issubclass(schema, msgspec.Struct)
    return isinstance(value, dict) and (is_struct or get_origin(schema) is dict)


def _unknown_key(value: Any, schema: Any, where: str) -> tuple[str, tuple[str, ...]] | None:
    """The first key of ``value`` that ``schema`` does not know, with the keys that it knows there."""
    arguments = get_args(schema)
    if get_origin(schema) in {Union, types.UnionType}:
        fitting = [one for one in arguments if _may_be(value, one)]
        return _unknown_key(value, fitting[0], where) if fitting else None
    if get_origin(schema) is list and isinstance(value, list):
        items: list[tuple[Any, Any, str]] = [
            (item, arguments[0], f"{where}[{n}]") for n, item in enumerate(value)
        ]
    elif get_origin(schema) is dict and isinstance(value, dict):
        items = [(item, arguments[1], f"{where}.{key}") for key, item in value.items()]
    elif (
        isinstance(schema, type) and issubclass(schema, msgspec.Struct) and isinstance(value, dict)
    ):
        known = schema.__struct_encode_fields__
        for key in value:
            if key not in known:
                return f"{where}.{key}".lstrip("."), known
        hints = _hints(schema)
        fields = dict(zip(known, schema.__struct_fields__, strict=True))
        items = [(item, hints[fields[key]], f"{where}.{key}") for key, item in value.items()]
    else:
        return None
    found = (_unknown_key(item, inner, place) for item, inner, place in items)
    return next((one for one in found if one is not None), None)
