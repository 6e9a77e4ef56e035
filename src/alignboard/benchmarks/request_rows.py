"""Results of lm-eval's requests, a journal row each, under a key of all that determines one.

lm-eval's own cache (``use_cache``) keys a result by its request alone, so that one adapter's answers are read as
another's. Here the key names weights, adapter, template, dtype and libraries, too.

Importing this module loads no framework.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from alignboard.results.commits import Commits
from alignboard.results.journal import Journal, JournalRow

KIND: Final = "benchmark-request"
ANSWERS: Final = "generate_until without reasoning"
"""the kind of generations whose reasoning is removed"""
_SHOW_SECONDS: Final = 0.2

OnProgress = Callable[[int, int], None]
"""is given the documents that are done, and of how many"""


class Sharing(Protocol):
    """Other processes that compute a part of the requests; their results are rows of the journal."""

    def give(self, kind: str, requests: Sequence[Any], *, is_chat: bool) -> list[int]:
        """Give every process its part; returns the numbers of what is left for this one."""
        ...

    def wait(self, on_pause: Callable[[], None]) -> None:
        """Return when the others are done; ``on_pause`` is called now and then. Raises what went wrong there."""
        ...


@dataclass(frozen=True)
class KeyedRequest:
    """One request of lm-eval: its arguments, and the document that it belongs to."""

    key: bytes
    arguments: tuple[Any, ...]
    document: tuple[str, int]
    """task and number"""


class RequestRows:
    """The requests of one model; ``identity`` is all that determines a result but the request itself."""

    def __init__(
        self,
        identity: Mapping[str, Any],
        journal: Journal | None,
        on_progress: OnProgress,
        sharing: Sharing | None = None,
    ) -> None:
        self._identity = json.dumps(identity, sort_keys=True)
        self._journal = journal
        self._commits = None if journal is None else Commits(journal)
        self._on_progress = on_progress
        self.sharing = sharing
        self.cut: Counter[str] = Counter()
        """tokens that were cut off on the left, by task"""
        self.n_cut: Counter[str] = Counter()
        """requests that were cut, by task"""
        self.n_asked = 0
        """requests that were computed, and not read from the journal"""

    def requests(self, kind: str, instances: Sequence[Any]) -> list[KeyedRequest]:
        """lm-eval's instances with their keys; the same request again (a repeat) counts up."""
        seen: Counter[str] = Counter()
        found = []
        for one in instances:
            text = json.dumps([kind, *one.args], sort_keys=True)
            repeat = 0
            if kind in {"generate_until", ANSWERS} and one.args[1].get("do_sample"):
                repeat, seen[text] = seen[text], seen[text] + 1
            content = f"{self._identity}\n{text}\n{repeat}".encode()
            key = hashlib.blake2b(content, digest_size=16).digest()
            found.append(KeyedRequest(key, tuple(one.args), (one.task_name, one.doc_id)))
        return found

    def open(self, kind: str, instances: Sequence[Any]) -> OpenRequests:
        """The requests of one call of lm-eval."""
        requests = self.requests(kind, instances)
        known = self.known(dict.fromkeys(one.key for one in requests))
        return OpenRequests(self, requests, known, self._on_progress)

    def known(self, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """The results that the journal has, whoever computed them."""
        return {} if self._journal is None else self._journal.get(list(keys))

    def commit(self, key: bytes, payload: Mapping[str, Any]) -> None:
        """Keep a result; JSON has no word for an infinite log-probability, which is computed again in the next run."""
        self.n_asked += 1
        value = payload["value"]
        numbers = value if isinstance(value, list) else [value]
        finite = all(math.isfinite(n) for n in numbers if isinstance(n, float))
        if self._commits is not None and finite:
            self._commits.add(JournalRow(key, KIND, payload))

    def flush(self) -> None:
        """Return when every result is committed."""
        if self._commits is not None:
            self._commits.flush()


class OpenRequests:
    """The requests of one call, and what is known of them. It is lm-eval's cache hook: `add_partial` takes results."""

    def __init__(
        self,
        rows: RequestRows,
        requests: Sequence[KeyedRequest],
        known: Mapping[bytes, Any],
        on_progress: OnProgress,
    ) -> None:
        self._rows, self._requests, self._on_progress = rows, requests, on_progress
        self._known: dict[bytes, Any] = dict(known)
        self._cuts: dict[str, int] = {}
        self._waiting: defaultdict[str, list[KeyedRequest]] = defaultdict(list)
        self._documents: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
        for one in requests:
            if one.key not in self._known and one.key not in self._documents:
                self._waiting[_name(one.arguments)].append(one)
            self._documents[one.key].append(one.document)
        self._left = Counter(one.document for one in requests if one.key not in self._known)
        self._total = len({one.document for one in requests})
        self._shown = 0.0

    @property
    def missing(self) -> list[int]:
        """The numbers of the instances that are to be computed, each request once."""
        found: dict[bytes, int] = {}
        for number, one in enumerate(self._requests):
            if one.key not in self._known:
                found.setdefault(one.key, number)
        return list(found.values())

    def note_cut(self, arguments: Sequence[Any], tokens: int) -> None:
        """Remember that a request lost ``tokens`` on its left."""
        if tokens > 0:
            self._cuts[_name(arguments)] = tokens

    def add_partial(self, kind: str, arguments: Sequence[Any], value: Any) -> None:  # noqa: ARG002 - lm-eval's name for it
        """Take a result."""
        name = _name(arguments)
        request = self._waiting[name].pop(0)
        payload: dict[str, Any] = {"value": list(value) if isinstance(value, tuple) else value}
        if name in self._cuts:
            payload["cut"] = self._cuts[name]
        self._rows.commit(request.key, payload)
        self._take(request.key, payload)
        if time.monotonic() - self._shown > _SHOW_SECONDS:
            self.show()

    def look(self) -> None:
        """Take what other processes have computed."""
        missing = {one.key: one for one in (self._requests[number] for number in self.missing)}
        for key, payload in self._rows.known(missing).items():
            self._waiting[_name(missing[key].arguments)].remove(missing[key])
            self._take(key, payload)
        self.show()

    def _take(self, key: bytes, payload: Any) -> None:
        self._known[key] = payload
        for document in self._documents[key]:
            self._left[document] -= 1
            if not self._left[document]:
                del self._left[document]

    def show(self) -> None:
        """Report how many documents are done."""
        self._shown = time.monotonic()
        self._on_progress(self._total - len(self._left), self._total)

    def values(self) -> Iterator[Any]:
        """The result of every instance, in order; what was cut is counted."""
        for one in self._requests:
            payload = self._known[one.key]
            if cut := payload.get("cut", 0):
                self._rows.cut[one.document[0]] += cut
                self._rows.n_cut[one.document[0]] += 1
            value = payload["value"]
            yield tuple(value) if isinstance(value, list) else value


def _name(arguments: Sequence[Any]) -> str:
    return json.dumps(list(arguments), sort_keys=True)
