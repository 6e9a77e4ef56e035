"""AlpacaEval's files in and out: ``model_outputs`` and ``annotations`` as json, jsonl or csv.

Reading is strict: whatever a board could silently get wrong (a duplicate instruction, a missing row, a preference
that is none, another generator, mixed baselines) raises `InputError` that names the file, the row (counted from
1) and the field. Files are UTF-8. Fields that boards do not use, such as the judge's raw completion, are skipped
without being decoded.
"""

from __future__ import annotations

import codecs
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignboard.errors import InputError
from alignboard.records import (
    Annotations,
    Generation,
    Judgment,
    Outputs,
    TextId,
    is_switched,
)
from alignboard.results.files import SUFFIXES, UNREADABLE, read_file, write_atomically
from alignboard.results.raw_rows import merged_rows
from alignboard.results.row_coding import (
    AS_WRITTEN,
    DECODERS,
    ENCODERS,
    Row,
    WrittenJudgment,
    converted,
    narrowed,
    require_utf8,
)
from alignboard.results.shared_texts import SharedTexts, shared_texts, text_ids
from alignboard.strict_json import require_once

_DRAW_OF_OLD_FILES = 0.0
_DRAW: Final = 1.5
_FEW_DRAWS: Final = 0.1
"""the share of old draws above which 0 may mean something else, where there are more than `_FEW_ZEROS`"""
_FEW_ZEROS: Final = 9


def read_outputs(
    path: Path, *, generator: str | None = None, instructions: TextId | None = None
) -> Outputs:
    """The answers of one model.

    ``generator`` and ``instructions``, where given, are what the file must hold: another generator or a missing
    instruction raises `InputError`.
    """
    return outputs_of(path, wide_rows(path, Generation), generator, instructions)


def outputs_of(
    path: Path,
    rows: Sequence[Generation],
    generator: str | None = None,
    instructions: TextId | None = None,
) -> Outputs:
    """As `read_outputs`, of the rows of ``path``."""
    _require_one(path, "generator", [row.generator for row in rows])
    if generator is not None:
        _require_name(path, "generator", rows[0].generator, generator)
    ids = _unique(path, shared_texts([row.instruction for row in rows]))
    if instructions is not None:
        _require_all(path, ids, instructions)
    return Outputs(
        path=str(path),
        generator=rows[0].generator,
        instruction=ids,
        output=text_ids(row.output for row in rows),
        length=np.array([len(row.output) for row in rows], dtype=np.int32),
        blank=np.array([not row.output.strip() for row in rows], dtype=np.bool_),
        cut=np.array([row.finish == "length" for row in rows], dtype=np.bool_),
    )


def read_annotations(
    path: str | Path,
    *,
    generator: str | None = None,
    baseline: str | None = None,
    instructions: TextId | None = None,
) -> Annotations:
    """The verdicts on one model against one baseline.

    A verdict of 0 is a draw in old files and becomes 1.5; null is unparsed and becomes NaN. ``generator``,
    ``baseline`` and ``instructions``, where given, are what the file must hold.
    """
    path = Path(path)
    # Boards read hundreds of megabytes of verdicts: looking for a field that is there twice takes a tenth more.
    rows, instruction, output_1 = _judgments(path)
    _require_one(path, "generator_1", [row.generator_1 for row in rows])
    _require_one(path, "generator_2", [row.generator_2 for row in rows])
    if generator is not None:
        _require_name(path, "generator_2", rows[0].generator_2, generator)
    if baseline is not None:
        _require_name(path, "generator_1", rows[0].generator_1, baseline)
    ids = _unique(path, instruction)
    if instructions is not None:
        _require_all(path, ids, instructions)
    annotators = sorted({row.annotator for row in rows if row.annotator})
    columns = (
        ids,
        output_1.ids.copy(),
        text_ids(row.output_2 for row in rows),
        _preferences(path, [row.preference for row in rows]),
    )
    preference = columns[3]
    drawn = any(row.balanced_preference is not None for row in rows)
    balanced = (
        np.array([row.balanced_preference for row in rows], np.float64) if drawn else preference
    )
    return Annotations(
        path=str(path),
        annotator=" + ".join(annotators) or path.parent.name,
        generator=rows[0].generator_2,
        baseline=rows[0].generator_1,
        digest=_digest(*columns, *([balanced] if drawn else [])),
        instruction=columns[0],
        output_1=columns[1],
        output_2=columns[2],
        preference=preference,
        balanced=balanced,
        length_1=output_1.length.copy(),
        length_2=np.array([len(row.output_2) for row in rows], dtype=np.int32),
        switched=np.array([is_switched(text) for text in instruction.texts], dtype=np.bool_),
    )


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The rows of a file as they are; at least one, and none with a decisive field twice."""
    return narrowed(wide_rows(path, row_type), row_type)


def wide_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """As `read_rows`, of a type below ``row_type``: for what reads fields of many rows and keeps none."""
    content = _content(path)
    rows = _decoded(path, content, row_type)
    if path.suffix != ".csv":
        decisive = "output" if issubclass(row_type, Generation) else "preference"
        require_once(path, content, decisive, len(rows))
    return rows


def _judgments(
    path: Path,
) -> tuple[Sequence[WrittenJudgment | Judgment], SharedTexts, SharedTexts]:
    """The verdicts of a file, their instructions and the baseline's outputs, which most files of a folder share."""
    content = _content(path)
    if path.suffix == ".json":
        try:
            if rows := AS_WRITTEN.decode(content):
                return rows, *_shared_columns(rows)
        except UNREADABLE:
            pass
    rows = _decoded(path, content, Judgment)
    return rows, *_shared_columns(rows)


def _shared_columns(
    rows: Sequence[WrittenJudgment | Judgment],
) -> tuple[SharedTexts, SharedTexts]:
    instructions = shared_texts([row.instruction for row in rows])
    return instructions, shared_texts([row.output_1 for row in rows])


def _content(path: Path) -> bytes:
    """The bytes of a file that holds something."""
    content = read_file(path)
    if not content or content.isspace():
        raise InputError(
            f"{path} is empty; a {'list of rows' if path.suffix == '.json' else 'row'} was expected."
        )
    return content.removeprefix(codecs.BOM_UTF8)


def _decoded(path: Path, content: bytes, row_type: type[Row]) -> list[Row]:
    """The rows of a file, of a type below ``row_type``."""
    decode = DECODERS.get(path.suffix)
    if decode is None:
        raise InputError(f"{path} has none of the formats that are read: {', '.join(SUFFIXES)}.")
    try:
        unnamed = row_type is Generation and b'"generator"' not in content
        rows = None if unnamed and path.suffix != ".csv" else decode(path, content, row_type)
    except (InputError, UnicodeDecodeError):
        require_utf8(path, content)
        raise
    if rows is None:
        rows = converted(path, merged_rows(path), row_type)
    if not rows:
        raise InputError(f"{path} holds no rows.")
    return rows


def write_rows(path: Path, rows: Sequence[Generation] | Sequence[Judgment]) -> None:
    """Write rows as ``path``'s suffix says, atomically: a reader sees the old file or the whole new one."""
    encode = ENCODERS.get(path.suffix)
    if encode is None:
        raise InputError(f"{path} has none of the formats that are written: {', '.join(SUFFIXES)}.")
    write_atomically(path, encode(rows))


# Validation of what was decoded.


def _preferences(path: Path, written: Sequence[float | str | None]) -> NDArray[np.float64]:
    """(n,) `preference_value` of every row.

    Raises `InputError`, too, where 0 is hardly the draw of old files, but a side of another coding (0 and 1, or 0 to
    2). Released files have at most 3 % of such draws, and wins of both sides.
    """
    try:
        preference = np.array(written, dtype=np.float64)
    except ValueError:  # a text that is no number
        preference = np.full(len(written), math.nan)
    zeros = 0
    for row in np.flatnonzero(~((preference >= 1) & (preference <= 2))).tolist():
        value = written[row]
        preference[row] = preference_value(path, row + 1, value)
        zeros += value is not None and float(value) == _DRAW_OF_OLD_FILES
    one_side = not ((preference < _DRAW).any() and (preference > _DRAW).any())
    if zeros > max(_FEW_DRAWS * len(written), _FEW_ZEROS) or (zeros > 1 and one_side):
        raise InputError(
            f"{path}, field 'preference': 0 in {zeros} of {len(written)} rows, a draw in AlpacaEval's old files and a "
            "win of the baseline in others; write 1.5 for a draw, 1 for the baseline's win and 2 for the model's."
        )
    return preference


def preference_value(path: Path, row: int, value: float | str | None) -> float:
    """The preference of a row: NaN where it was not parsed; raises `InputError` for what is none."""
    if value is None:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if number == _DRAW_OF_OLD_FILES:
        return _DRAW
    if not 1 <= number <= 2:
        shown = _short(value) if isinstance(value, str) else repr(value)
        raise InputError(
            f"{path}, row {row}, field 'preference': {shown} is no preference; expected a number from 1 (output_1, the "
            "baseline's) to 2 (output_2, the model's), 0 for an old draw, or null for an unparsed verdict."
        )
    return number


def _unique(path: Path, instructions: SharedTexts) -> TextId:
    texts = instructions.texts
    if len(set(texts)) < len(texts):
        first: dict[str, int] = {}
        for number, text in enumerate(texts, start=1):
            earlier = first.setdefault(text, number)
            if earlier != number:
                raise InputError(
                    f"{path}, row {number}, field 'instruction': the same instruction as in row {earlier} "
                    f"({_short(text)}); remove one of the two."
                )
    return instructions.ids.copy()


def _require_one(path: Path, field: str, values: Sequence[str]) -> None:
    if len(set(values)) < 2:
        return
    for number, value in enumerate(values, start=1):
        if value != values[0]:
            raise InputError(
                f"{path}, row {number}, field {field!r}: {value!r}, but row 1 has {values[0]!r}; "
                "split the file, one model and one baseline each."
            )


def _require_name(path: Path, field: str, found: str, expected: str) -> None:
    if found != expected:
        raise InputError(
            f"{path}, row 1, field {field!r}: {found!r}, but {expected!r} was expected."
        )


def _require_all(path: Path, ids: TextId, expected: TextId) -> None:
    missing = np.flatnonzero(~np.isin(expected, ids))
    if len(missing):
        raise InputError(
            f"{path} lacks {len(missing)} of {len(expected)} instructions, the first is number {missing[0] + 1} of "
            "the reference set; add the missing rows."
        )


def _digest(*columns: np.ndarray) -> str:
    return hashlib.blake2b(
        b"".join(column.tobytes() for column in columns), digest_size=16
    ).hexdigest()


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 3] + "...")
