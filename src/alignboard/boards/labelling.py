"""A person's verdicts: two responses in random order, taken by keys and kept as any judge's annotations.

The person sees neither names nor which response is whose; the order of the responses, and that of the prompts, is drawn
by annotator and prompt, so that a second sitting goes on where the first ended. Every verdict is on disk before the
next pair is shown. Identical responses are a draw, as for every judge: nobody is asked, in their turn.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import msgspec

from alignboard.boards.page import PARTS, template
from alignboard.errors import InputError
from alignboard.records import Judgment
from alignboard.results.files import UNREADABLE
from alignboard.results.formats import read_rows
from alignboard.results.verdict_paths import annotation_file

ANNOTATIONS = "annotations.jsonl"
_PREFERENCE = {"first": 1.0, "second": 2.0, "draw": 1.5}


class Label(Judgment, gc=False, omit_defaults=True):
    """A row of `ANNOTATIONS`."""

    switched: tuple[bool, ...] = ()
    """whether output_2 was shown first"""


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    pair: int
    verdict: Literal["first", "second", "draw"]


class Labels:
    """The pairs of one sitting, of which those that have a verdict in ``folder`` are done.

    Raises
    ------
    InputError
        Where ``folder`` holds annotations that are not a person's.
    """

    def __init__(self, pairs: Sequence[Judgment], folder: Path, annotator: str) -> None:
        self._annotator = annotator
        self._pairs = list(pairs)
        self._path = folder / ANNOTATIONS
        self._lock = Lock()
        there = annotation_file(folder)
        if there is not None and there != self._path:
            raise InputError(
                f"{there} holds verdicts already; label under another name: --annotator."
            )
        self._size = _size(self._path)
        rows = read_rows(there, Judgment) if there is not None else []
        stranger = next((row for row in rows if row.annotator != annotator), None)
        if stranger is not None:
            raise InputError(f"{there} is by {stranger.annotator!r}, not by {annotator!r}.")
        known = {(row.instruction, row.output_1, row.output_2) for row in rows}
        # Whatever is done when the person stops is a random sample of the prompts (`stats.calibrated` needs one).
        self._todo = sorted(
            (
                k
                for k, pair in enumerate(self._pairs)
                if (pair.instruction, pair.output_1, pair.output_2) not in known
            ),
            key=lambda k: self._drawn(self._pairs[k], 8),
        )

    @property
    def path(self) -> Path:
        """The file of verdicts."""
        return self._path

    def counts(self) -> tuple[int, int]:
        """(done, all)."""
        return len(self._pairs) - len(self._todo), len(self._pairs)

    def page(self, _: bytes = b"") -> tuple[str, bytes]:
        """The page."""
        from markupsafe import Markup

        script = (PARTS / "label.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        made = template("label.html").render(
            script=Markup(script),  # noqa: S704 - plain text that this package wrote
            script_hash=digest,
        )
        return "text/html", made.encode()

    def next_pair(self, _: bytes = b"") -> tuple[str, bytes]:
        """The next pair without a verdict, or none."""
        with self._lock:
            # In their turn, not before: what is done stays a random sample of the prompts.
            while self._todo and _identical(self._pairs[self._todo[0]]):
                self._append(self._pairs[self._todo.pop(0)], "draw")
        done, n = self.counts()
        found: dict[str, object] = {"done": done, "n": n}
        if self._todo:
            k = self._todo[0]
            pair = self._pairs[k]
            shown = [pair.output_1, pair.output_2]
            if self._switched(pair):
                shown.reverse()
            found |= {"pair": k, "instruction": pair.instruction, "responses": shown}
        return "application/json", msgspec.json.encode(found)

    def take(self, body: bytes) -> tuple[str, bytes]:
        """Keep the verdict in ``body`` and give the next pair; one that was taken before is not taken twice."""
        try:
            given = msgspec.json.decode(body, type=_Given)
        except UNREADABLE as error:
            raise InputError(f"This is no verdict: {error}.") from error
        with self._lock:
            if given.pair in self._todo:
                self._append(self._pairs[given.pair], given.verdict)
                self._todo.remove(given.pair)
        return self.next_pair()

    def _switched(self, pair: Judgment) -> bool:
        return bool(self._drawn(pair, 1)[0] & 1)

    def _drawn(self, pair: Judgment, n_bytes: int) -> bytes:
        text = f"{self._annotator}\0{pair.instruction}"
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=n_bytes).digest()

    def _append(self, pair: Judgment, verdict: str) -> None:
        switched, value = self._switched(pair), _PREFERENCE[verdict]
        row = Label(
            instruction=pair.instruction,
            output_1=pair.output_1,
            generator_1=pair.generator_1,
            output_2=pair.output_2,
            generator_2=pair.generator_2,
            preference=3 - value if switched else value,
            annotator=self._annotator,
            dataset=pair.dataset,
            switched=(switched,),
        )
        try:
            self._write(msgspec.json.encode(row) + b"\n")
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written: {error.strerror}; this verdict is not kept, those before it are."
            ) from error

    def _write(self, line: bytes) -> None:
        """Append ``line`` as a whole, or nothing; and nothing where somebody else wrote since."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _size(self._path) != self._size:
                raise InputError(
                    f"{self._path} has changed since this command began, by another one that labels as "
                    f"{self._annotator!r} perhaps: end this one and start it again."
                )
            try:
                left = memoryview(line)
                while left:  # a full disk takes a part, and refuses the rest
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._size)
                raise
            self._size += len(line)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _identical(pair: Judgment) -> bool:
    return pair.output_1 == pair.output_2
