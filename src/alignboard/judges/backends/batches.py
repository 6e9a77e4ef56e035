"""Judges through OpenAI's batch interface, at half the price: a file of requests goes up, replies come within a day.

What this module promises
    A batch that was paid for is not lost: what is sent is written down before it is sent, and the batch's id as soon
    as there is one. A run that was stopped, in whatever moment, finds its batches again and waits for them; where the
    id did not arrive, it asks the server which batch was made of its file. Requests that a batch left without a reply
    (it expired, or they failed) are failed calls, which the next run asks again.

References: OpenAI, "Batch API" (files with purpose ``batch``; statuses of a batch; output and error files).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from alignboard.engines.openai.failures import require_success, without, without_key
from alignboard.engines.openai.format import UnreadableError, read_body, shortened
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.served import Endpoint
from alignboard.errors import InputError, SourceError
from alignboard.fetch.http import FinalError, Http, TransientError, head_of, retrying
from alignboard.judges.backends.chat_format import reply_of, request_body, used
from alignboard.judges.backends.endpoint import endpoint_identity
from alignboard.judges.rows import Call, FailedCall, Reply
from alignboard.judges.spec import PromptedSpec
from alignboard.results.files import UNREADABLE, write_atomically

MOST_REQUESTS: Final = 50_000
MOST_BYTES: Final = 190_000_000
"""OpenAI takes 200 MB a file"""
PATH: Final = "/v1/chat/completions"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_UNDER_WAY: Final = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_PAUSES: Final = (1.0, 60.0)
"""seconds between two looks at a batch: the first, and the longest"""


class _Note(msgspec.Struct):
    """What is known of one batch; a file until all of its replies are kept."""

    keys: list[str]
    file: str | None = None
    """of the requests, as the server calls it"""
    batch: str | None = None


class BatchJudge:
    """A judge that is asked in batches; see `Backend`. Replies are those of `EndpointJudge`, under the same keys."""

    def __init__(
        self,
        spec: PromptedSpec,
        endpoint: Endpoint,
        folder: Path,
        rate: Rate | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spec, self._endpoint, self._rate, self._sleep = spec, endpoint, rate, sleep
        self.identity: Mapping[str, Any] = endpoint_identity(spec, endpoint)
        name = hashlib.blake2b(json.dumps(self.identity, sort_keys=True).encode(), digest_size=8)
        self._folder = folder / name.hexdigest()
        self._given: list[Path] = []
        """notes of batches whose replies have all been given"""

    def ask(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Replies when their batch has ended, those of earlier runs first."""
        waiting = {call.key: call for call in calls}
        with BatchHttp(self._endpoint) as http:
            for path in sorted(self._folder.glob("*.json")):
                note = _noted(path)
                if waiting.keys() & set(note.keys):
                    yield from self._finish(http, path, note, waiting)
            notes = [self._send(http, part) for part in self._parts(list(waiting.values()))]
            for path, note in notes:
                yield from self._finish(http, path, note, waiting)

    def settle(self) -> None:
        """See `Settling`: drop the notes, without which a batch would be paid again."""
        for path in self._given:
            path.unlink(missing_ok=True)
        self._given.clear()

    def _parts(self, calls: Sequence[Call]) -> Iterator[list[tuple[str, bytes]]]:
        """(key, line) of the requests, no more in a part than a batch may have."""
        part: list[tuple[str, bytes]] = []
        size = 0
        for call in calls:
            request = {"custom_id": call.key, "method": "POST", "url": PATH}
            line = json.dumps(request | {"body": request_body(self._spec, call)}).encode() + b"\n"
            if part and (len(part) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append((call.key, line))
            size += len(line)
        if part:
            yield part

    def _send(self, http: BatchHttp, part: Sequence[tuple[str, bytes]]) -> tuple[Path, _Note]:
        note = _Note([key for key, _ in part])
        name = hashlib.blake2b("".join(note.keys).encode(), digest_size=8).hexdigest()
        path = self._folder / f"{name}.json"
        note.file = http.upload(b"".join(line for _, line in part), f"{name}.jsonl")
        self._keep(path, note)
        note.batch = http.create(note.file, PATH)
        self._keep(path, note)
        return path, note

    def _finish(
        self, http: BatchHttp, path: Path, note: _Note, waiting: dict[str, Call]
    ) -> Iterator[tuple[Call, Reply | FailedCall]]:
        """Wait for a batch; its note is kept until its replies are."""
        if note.batch is None and note.file is not None:
            note.batch = http.find(note.file) or http.create(note.file, PATH)
            self._keep(path, note)
        batch = self._wait(http, str(note.batch))
        reason = f"the batch {note.batch} is {batch['status']}{_errors(batch)}"
        replies = dict(self._replies(http, batch))
        for key in note.keys:
            if key in waiting:
                yield waiting.pop(key), replies.get(key) or FailedCall(key, reason)
        self._given.append(path)

    def _wait(self, http: BatchHttp, name: str) -> dict[str, Any]:
        pause = _PAUSES[0]
        while True:
            batch = http.batch(name)
            if batch["status"] in _ENDED:
                return batch
            if batch["status"] not in _UNDER_WAY:
                raise SourceError(
                    f"The batch {name} has the status {shortened(batch['status'])!r}, which is none of OpenAI's; look "
                    "at it in the account, and start again when it has ended."
                )
            self._sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _replies(
        self, http: BatchHttp, batch: Mapping[str, Any]
    ) -> Iterator[tuple[str, Reply | FailedCall]]:
        for field in ("output_file_id", "error_file_id"):
            if batch.get(field):
                for line in http.content(str(batch[field])).split(b"\n"):
                    try:
                        row = read_body(line)
                    except UnreadableError:
                        continue  # the call of this line is one without a reply
                    yield self._reply(row)

    def _reply(self, row: Mapping[str, Any]) -> tuple[str, Reply | FailedCall]:
        key, response = str(row.get("custom_id")), row.get("response") or {}
        body = response.get("body") if isinstance(response, dict) else None
        if row.get("error") or not isinstance(body, dict) or response.get("status_code") != 200:
            error = (
                row.get("error") or (body.get("error") if isinstance(body, dict) else body) or {}
            )
            reason = error.get("message") if isinstance(error, dict) else str(error)
            return key, FailedCall(key, f"the batch answers: {reason or 'nothing'}")
        try:
            reply = reply_of(body)
        except UnreadableError as error:
            return key, FailedCall(key, str(error))
        price = None if self._rate is None else self._rate.of(used(reply))
        # Zero: it came over the network and was paid for, and nobody waited for it alone.
        return key, msgspec.structs.replace(reply, price=price, seconds=0.0)

    @staticmethod
    def _keep(path: Path, note: _Note) -> None:
        write_atomically(path, msgspec.json.encode(note))


def _noted(path: Path) -> _Note:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, *UNREADABLE) as error:
        raise InputError(
            f"{path}, the note of a batch, cannot be read ({error}); look in the account whether one is under way, and "
            "remove the note to ask anew."
        ) from error


def _errors(batch: Mapping[str, Any]) -> str:
    """What the server says of a batch that it did not take; nothing where it says nothing."""
    errors = batch.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    message = first.get("message") if isinstance(first, dict) else None
    return f": {shortened(str(message))}" if message else ""


LARGEST_FILE = 2**30
"""bytes of a file of replies, decompressed; a file of requests has at most 200 MB"""

Found = TypeVar("Found")


class BatchHttp:
    """Files and batches of an account; a context manager. Raises `SourceError` for what no try can mend."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
        self._url = endpoint.urls[0].rstrip("/")
        self._endpoint, self._sleep = endpoint, sleep
        self._key = endpoint.key()
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        patience = endpoint.limits.patience
        self._http = Http(patience, headers, mask=lambda text: without(self._key, text))

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.__exit__()

    def upload(self, content: bytes, name: str) -> str:
        """The id of a file of requests. A second try makes a second file, which costs nothing."""
        form = {"data": {"purpose": "batch"}, "files": {"file": (name, content)}}
        return str(self._object("POST", "files", "id", **form)["id"])

    def create(self, file: str, path: str) -> str:
        """The id of the batch of ``file``.

        After a try whose answer did not arrive the server is asked first whether there is one: a second batch would be
        paid as well.
        """
        body = {"input_file_id": file, "endpoint": path, "completion_window": "24h"}
        sent = False

        def attempt() -> str:
            nonlocal sent
            known = self.find(file) if sent else None
            sent = True
            return known or str(_read(self._once("POST", "batches", json=body), "id")["id"])

        return self._try(attempt)

    def find(self, file: str) -> str | None:
        """The id of the batch of ``file``, among those of the account; None where there is none."""
        after: dict[str, str] = {}
        while True:
            page = self._object("GET", "batches", params={"limit": 100, **after})
            listed = page.get("data")
            batches = [one for one in listed or () if isinstance(one, dict) and one.get("id")]
            for batch in batches:
                if batch.get("input_file_id") == file:
                    return str(batch["id"])
            if not page.get("has_more") or not batches:
                return None
            after = {"after": str(batches[-1]["id"])}

    def batch(self, name: str) -> dict[str, Any]:
        """How far a batch is."""
        return self._object("GET", f"batches/{name}", "status")

    def content(self, file: str) -> bytes:
        """The content of a file."""
        return self._try(lambda: self._once("GET", f"files/{file}/content"))

    def _object(
        self, method: str, path: str, needed: str | None = None, **options: Any
    ) -> dict[str, Any]:
        return self._try(lambda: _read(self._once(method, path, **options), needed))

    def _once(self, method: str, path: str, **options: Any) -> bytes:
        url = f"{self._url}/{path}"
        response, content = self._http.read(method, url, LARGEST_FILE, **options)
        require_success(head_of(response), content, url, self._endpoint.api_key_env, self._key)
        return without_key(self._key, content)

    def _try(self, attempt: Callable[[], Found]) -> Found:
        from tenacity import Retrying

        try:
            return retrying(self._endpoint.limits.patience, Retrying, self._sleep)(attempt)
        except FinalError as error:
            raise SourceError(str(error)) from error
        except TransientError as error:
            raise SourceError(f"{self._url} gives no good answer: {error}.") from error


def _read(content: bytes, needed: str | None) -> dict[str, Any]:
    """The object in a body, with a text under ``needed``."""
    try:
        found = read_body(content)
    except UnreadableError as error:
        raise TransientError(str(error)) from error
    if needed is not None and not isinstance(found.get(needed), str):
        raise TransientError(f"the answer has no {needed}")
    return found
