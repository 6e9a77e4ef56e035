"""Rows committed in the background: each as soon as the commit before it has ended, whatever comes next.

A row that was paid for must not wait until the next one arrives, which may take minutes. A commit flushes to the
disk, so rows that arrive during one are committed together; where the disk is slower than they come, whoever hands
them over waits, so that a crash costs no more than twice `_MOST` rows.
"""

from __future__ import annotations

import threading
from typing import Final

from alignboard.results.journal import Journal, JournalRow

_PAUSE: Final = 0.01
"""seconds between two commits, so that rows that arrive by the thousand are committed together"""
_MOST: Final = 32
"""rows that wait for a commit"""


class Commits:
    """Commits rows to ``journal`` from a thread of its own, which lasts from the first `add` to `flush`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._turn = threading.Condition()
        self._waiting: list[JournalRow] = []
        self._ending = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def add(self, row: JournalRow) -> None:
        """Hand over a row, as soon as there is room. Raises what an earlier commit raised."""
        with self._turn:
            self._turn.wait_for(lambda: self._has_room() or self._error is not None)
            if self._error is None:
                self._waiting.append(row)
                # Who commits waits for the first row, or for no more room: a thread woken for each is too much.
                if len(self._waiting) == 1 or not self._has_room():
                    self._turn.notify_all()
        if self._error is not None:
            self.flush()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Return when every row is committed. Raises what a commit raised."""
        if self._thread is None:
            return
        with self._turn:
            self._ending = True
            self._turn.notify_all()
        self._thread.join()
        error, self._error = self._error, None
        self._thread, self._ending, self._waiting = None, False, []
        if error is not None:
            raise error

    def _work(self) -> None:
        try:
            with self._journal.opened_again() as journal:
                while rows := self._next():
                    journal.add(rows)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._turn:
                self._error = error
                self._turn.notify_all()

    def _has_room(self) -> bool:
        return len(self._waiting) < _MOST

    def _next(self) -> list[JournalRow]:
        """What is waiting, as soon as there is something; nothing at the end."""
        with self._turn:
            self._turn.wait_for(lambda: self._ending or not self._has_room(), _PAUSE)
            self._turn.wait_for(lambda: bool(self._waiting) or self._ending)
            rows, self._waiting = self._waiting, []
            self._turn.notify_all()
            return rows
