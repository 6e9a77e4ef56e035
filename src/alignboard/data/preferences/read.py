"""From a source to canonical rows, with a report of what was kept, dropped and conspicuous.

What makes a loss meaningless is an error: no usable rows, more than half of them unusable, one row repeated through
more than half of the data. The rest is in the report.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from alignboard.data.preferences.messages import DroppedError, FaultyError
from alignboard.data.preferences.schemas import Kind, Reading, Schema, find_schema
from alignboard.data.preferences.sources import PreferenceSource, open_source
from alignboard.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

LARGEST_LOSS: Final = 0.5
"""the share of rows that may be dropped, or be repetitions"""


@dataclass
class DataReport:
    """What is in a data set."""

    source: str
    schema: str
    kind: Kind
    rows: int = 0
    kept: int = 0
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    """reason -> (how many, the first such row, from 1)"""
    repeated: int = 0
    """rows that an earlier one equals"""
    longer_chosen: int = 0
    """pairs whose chosen reply has more characters"""
    margins: int = 0
    """pairs that have a margin, the difference of two scores"""
    negative_margins: int = 0
    """pairs whose rejected reply has the higher score: the columns may be swapped"""

    @property
    def warnings(self) -> list[str]:
        """What is conspicuous, in sentences."""
        found = [
            f"{count} of {self.rows} rows were left out: {reason} (first: row {row})."
            for reason, (count, row) in self.dropped.items()
        ]
        if self.repeated:
            found.append(f"{self.repeated} of {self.kept} rows repeat an earlier one.")
        if self.negative_margins:
            found.append(
                f"In {self.negative_margins} of {self.margins} pairs the rejected reply has the higher score."
            )
        if self.kind == "pair" and self.kept and not 0.1 <= self.longer_chosen / self.kept <= 0.9:
            share = self.longer_chosen / self.kept
            found.append(f"The chosen reply is the longer one in {share:.0%} of the pairs.")
        return found

    def to_json(self) -> dict[str, Any]:
        """The report as a mapping."""
        return {
            "source": self.source,
            "schema": self.schema,
            "kind": self.kind,
            "rows": self.rows,
            "kept": self.kept,
            "dropped": {
                reason: {"rows": count, "first": row}
                for reason, (count, row) in self.dropped.items()
            },
            "repeated": self.repeated,
            "longer_chosen": self.longer_chosen if self.kind == "pair" else None,
            "margins": self.margins,
            "negative_margins": self.negative_margins,
            "warnings": self.warnings,
        }


def read_rows(
    source: PreferenceSource, kind: Kind | None = None, seed: int = 0
) -> tuple[Dataset, DataReport]:
    """The rows of ``source`` in canonical form, on disk, and the report about them.

    Parameters
    ----------
    source
        the data set.
    kind
        what training needs: pairs, demonstrations or rated replies; None takes what is there.
    seed
        of what is drawn: UltraFeedback's rejected replies.

    Raises
    ------
    InputError
        names the file, the row and the column of what cannot be read, and what to do.
    """
    raw = open_source(source)
    # Pairs hold rated replies, too.
    wanted = None if kind == "rated" else kind
    schema = find_schema(raw.column_names, kind=wanted, name=source.schema, source=source.name)
    if kind == "rated" and schema.kind == "demonstration":
        raise InputError(
            f"{source.name}: the schema {schema.name} holds demonstrations; rated replies (prompt, completion, label) "
            "or pairs were expected."
        )
    report = DataReport(source.name, schema.name, schema.kind, rows=len(raw))
    reading, seen = Reading(seed), set[bytes]()

    def convert(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        rows = (
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        )
        kept = list(_kept(zip(numbers, rows, strict=True), schema, reading, report, seen))
        return {name: [row[name] for row in kept] for name in schema.trained}

    try:
        converted = raw.map(
            convert,
            batched=True,
            with_indices=True,
            remove_columns=raw.column_names,
            features=_features(schema),
            load_from_cache_file=False,
            new_fingerprint=_fingerprint(raw, source, schema, seed),
        )
    except UnicodeDecodeError as error:  # Arrow looks at no text
        raise InputError(
            f"{source.name} holds texts that are not UTF-8 ({error.reason}); write it again as UTF-8."
        ) from error
    _require_use(report)
    if source.share < 1:
        converted = _drawn(converted, max(1, round(source.share * len(converted))), seed)
    if kind == "rated" and schema.kind == "pair":
        converted = unpaired(converted)
    return converted, report


def read_all(
    sources: Sequence[PreferenceSource], kind: Kind, seed: int = 0
) -> tuple[Dataset, list[DataReport]]:
    """The rows of several sources, one after another, and the report of each; see `read_rows`."""
    import datasets

    found = [read_rows(one, kind, seed) for one in sources]
    first, others = found[0][0], [rows for rows, _ in found[1:]]
    for rows, report in found[1:]:
        if rows.column_names != first.column_names:
            raise InputError(
                f"{report.source} has the columns {', '.join(rows.column_names)}, and {found[0][1].source} "
                f"{', '.join(first.column_names)}; rows of one form can be put together."
            )
    rows = datasets.concatenate_datasets([first, *others]) if others else first
    return rows, [report for _, report in found]


def split(rows: Any, n: int, seed: int) -> tuple[Any, Any]:
    """(rows to train on, ``n`` held-out rows), drawn by the seed; a list or a data set."""
    if n >= len(rows):
        raise InputError(f"held_out: {n} of {len(rows)} rows would leave none to train on.")
    out = set(random.Random(seed).sample(range(len(rows)), n))
    places = [i for i in range(len(rows)) if i not in out], sorted(out)
    if isinstance(rows, list):
        return [rows[i] for i in places[0]], [rows[i] for i in places[1]]
    return rows.select(places[0]), rows.select(places[1])


def _drawn(rows: Dataset, n: int, seed: int) -> Dataset:
    return rows.select(sorted(random.Random(seed).sample(range(len(rows)), n)))


def unpaired(pairs: Dataset) -> Dataset:
    """The two replies of every pair, rated: the chosen one good, the rejected one not."""

    def both(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        replies = zip(batch["chosen"], batch["rejected"], strict=True)
        return {
            "prompt": [prompt for prompt in batch["prompt"] for _ in range(2)],
            "completion": [reply for two in replies for reply in two],
            "label": [True, False] * len(batch["prompt"]),
        }

    return pairs.map(both, batched=True, remove_columns=pairs.column_names)


def _kept(
    rows: Iterator[tuple[int, dict[str, Any]]],
    schema: Schema,
    reading: Reading,
    report: DataReport,
    seen: set[bytes],
) -> Iterator[dict[str, Any]]:
    """The canonical rows of a batch, each noted in the report."""
    for number, row in rows:
        try:
            found = schema.read(row, number, reading)
        except FaultyError as error:
            raise InputError(
                f"{report.source}, row {number + 1}: the column {error.column} {error.reason}; "
                f"it was read as {schema.name} (another schema: schema: NAME, other columns: columns: {{...}})."
            ) from error
        except DroppedError as error:
            count, first = report.dropped.get(error.reason, (0, number + 1))
            report.dropped[error.reason] = (count + 1, first)
            continue
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise InputError(
                f"{report.source}, row {number + 1}: a value is of another type than {schema.name} has in its place "
                f"({error})."
            ) from error
        _note(found, report, seen)
        yield found


def _note(row: dict[str, Any], report: DataReport, seen: set[bytes]) -> None:
    report.kept += 1
    digest = hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=16).digest()
    report.repeated += digest in seen
    seen.add(digest)
    if report.kind == "pair":
        won, lost = row["chosen"][-1]["content"], row["rejected"][-1]["content"]
        report.longer_chosen += len(won) > len(lost)
        if row["margin"] is not None:
            report.margins += 1
            report.negative_margins += row["margin"] < 0


def _features(schema: Schema) -> Any:
    """The types of the canonical columns; inferred ones would be null where a batch keeps no row."""
    import datasets

    message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    types = {name: datasets.List(message) for name in schema.trained}
    return datasets.Features(
        types | ({"label": datasets.Value("bool")} if "label" in types else {})
    )


def _fingerprint(raw: Any, source: PreferenceSource, schema: Schema, seed: int) -> str:
    text = json.dumps([raw._fingerprint, source.columns, schema.name, seed])  # noqa: SLF001 - datasets' own name for it
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _require_use(report: DataReport) -> None:
    """Refuse data on which a loss means nothing."""
    if report.rows - report.kept > LARGEST_LOSS * report.rows:
        reason, (count, row) = max(report.dropped.items(), key=lambda item: item[1][0])
        raise InputError(
            f"{report.source}: {report.rows - report.kept} of {report.rows} rows cannot be used; in {count} of them "
            f"{reason} (first: row {row})."
        )
    if report.kept > 1 and report.repeated > LARGEST_LOSS * report.kept:
        raise InputError(
            f"{report.source}: {report.repeated} of {report.kept} rows repeat an earlier row; remove the repetitions."
        )
    if report.margins and report.negative_margins > LARGEST_LOSS * report.margins:
        raise InputError(
            f"{report.source}: in {report.negative_margins} of {report.margins} pairs the rejected reply has the "
            "higher score; chosen and rejected are swapped: columns: {chosen: rejected, rejected: chosen}."
        )
