"""Models are judged: replies in the journal, ``annotations.json`` in AlpacaEval's format, and what it comes to.

The product is ``<judge>/annotations.json`` beside the outputs (`alignboard.results.verdict_paths`), which upstream's
tools read, with columns of ours beside theirs, and ``judging.json`` next to it: the win rate with its interval, the
counts of every status, calls and price, and which model was asked where. A verdict that was not scored is null in the
file; it is asked again on the next run where nobody could be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.judges.annotations import JudgeSource, Summary, annotation_rows, summarise
from alignboard.judges.pairs import Judged
from alignboard.judges.rows import Call, Reply
from alignboard.judges.spec import JudgeSpec
from alignboard.pipeline.judged_outputs import PairedOutputs
from alignboard.pipeline.replacing import n_preferences, require_no_loss
from alignboard.records import text_id
from alignboard.results.commits import Commits
from alignboard.results.files import UNREADABLE, write_json
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal, JournalRow
from alignboard.results.verdict_paths import judge_folder

REPLY = "judge-reply"
ANNOTATIONS = "annotations.json"
SUMMARY = "judging.json"


class JournalReplies:
    """Replies as rows of a journal, each committed as soon as it comes."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._commits = journal, Commits(journal)

    def known(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """See `Replies`."""
        found = self._journal.get([bytes.fromhex(key) for key in keys])
        return {key.hex(): msgspec.convert(row["said"], Reply) for key, row in found.items()}

    def keep(self, call: Call, reply: Reply) -> None:
        """See `Replies`. The row says what was shown where, by the identity of the texts."""
        shown = [
            [text_id(one.first), None if one.second is None else text_id(one.second)]
            for one in call.questions
        ]
        payload = {"shown": shown, "said": msgspec.to_builtins(reply)}
        self._commits.add(JournalRow(bytes.fromhex(call.key), REPLY, payload))

    def flush(self) -> None:
        """See `Replies`."""
        self._commits.flush()

    def claim(self, keys: Sequence[str]) -> set[str]:
        """See `Replies`."""
        return self._journal.claim(keys)

    def release(self, keys: Collection[str]) -> None:
        """See `Replies`."""
        self._journal.release(keys)


class _Record(msgspec.Struct):
    """What an earlier `Summary` says of who judged; files from before `asked` was written have none."""

    judge: str
    model: str
    baseline: str
    asked: list[JudgeSource] = []


def verdict_path(
    judge: str, compared: PairedOutputs, asked: Sequence[JudgeSource], root: Path = Path()
) -> Path:
    """Where the verdicts go below ``root``; raises `InputError` where those of somebody else lie there."""
    path = compared.place / judge_folder(judge, compared.baseline) / ANNOTATIONS
    record = (root / path).with_name(SUMMARY)
    if not record.is_file():
        return path
    try:
        there = msgspec.json.decode(record.read_bytes(), type=_Record)
    except (*UNREADABLE, OSError) as error:
        raise InputError(f"{record} cannot be read: {error}; remove the folder.") from error
    now = _Record(judge, compared.model, compared.baseline, list(asked))
    for what, old, new in (
        ("judge", there.judge, now.judge),
        ("model", there.model, now.model),
        ("baseline", there.baseline, now.baseline),
        ("judge's model and address", there.asked, now.asked),
    ):
        if old and old != new:
            raise InputError(
                f"{record} is of another {what} ({_shown(old)}, now {_shown(new)}): give this judge another name, or "
                "remove that folder."
            )
    return path


def _shown(value: str | list[JudgeSource]) -> str:
    if isinstance(value, str):
        return repr(value)
    return ", ".join(f"{one.model} at {','.join(one.addresses) or 'this machine'}" for one in value)


def write_judged(
    judge: JudgeSpec,
    judged: Sequence[Judged],
    compared: PairedOutputs,
    order: str,
    asked: Sequence[JudgeSource] = (),
    *,
    replace: bool = False,
    root: Path = Path(),
) -> Summary:
    """Write the model's files below ``root`` and return what they come to.

    ``replace`` allows fewer scored rows than the file there has; see `require_no_loss`.
    """
    place = verdict_path(judge.name, compared, asked, root)
    path = root / place
    n_scored = sum(one.preference is not None for one in judged)
    reasons = [one.reason for one in judged if one.preference is None]
    require_no_loss(path, n_scored, n_preferences, reasons, replace=replace)
    write_rows(path, annotation_rows(judge, judged, compared.datasets, asked))
    summary = summarise(judge, judged, order, place, asked)
    write_json(path.with_name(SUMMARY), summary)
    return summary
