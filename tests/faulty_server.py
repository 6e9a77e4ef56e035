"""A loopback HTTP server that serves files as `wget -x` lays them out, and fails as it is told.

It answers Range and If-Range, gives ETags, records every request, and plays the faults of a path one per request.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Literal

from loopback import Handler, Loopback

Kind = Literal["cut", "status", "content", "whole", "hang up", "overlong", "elsewhere", "gzip"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    kind: Kind
    number: int = 0
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def cut(after: int) -> Fault:
    """The connection ends after so many bytes of the body."""
    return Fault("cut", after)


def overlong() -> Fault:
    """Content-Length promises ten bytes more than the body has."""
    return Fault("overlong")


def status(code: int, **headers: str) -> Fault:
    """An answer with this status; underscores in the names of headers stand for hyphens."""
    return Fault(
        "status", code, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def content(replacement: bytes) -> Fault:
    """Other content than the file has."""
    return Fault("content", content=replacement)


def ignore_range() -> Fault:
    """The whole file, whatever was asked for."""
    return Fault("whole")


def elsewhere() -> Fault:
    """A range that begins one byte after the one asked for."""
    return Fault("elsewhere")


def compressed() -> Fault:
    """The content compressed, although nobody asked for that."""
    return Fault("gzip")


def hang_up() -> Fault:
    """The connection is reset before the first byte of an answer."""
    return Fault("hang up")


@dataclass(frozen=True)
class Request:
    """One request as the server saw it, and how it answered (0 = not at all)."""

    path: str
    range: str | None
    if_range: str | None
    accept_encoding: str | None
    status: int
    sent: int


class _Handler(Handler):
    owner: FaultyServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        fault = self.owner.take_fault(path)
        body = self.owner.files.get(path)
        if fault and fault.kind == "hang up":
            self._log(0, 0)
            # Linger 0: a reset instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault and fault.kind == "status":
            self._answer(fault.number, b"", fault.headers)
        elif body is None:
            self._answer(404, b"no such file")
        else:
            self._serve(fault.content if fault and fault.kind == "content" else body, fault)

    def _serve(self, body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": etag} if self.owner.etags else {}
        if kind == "gzip":
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        start = None if kind == "whole" else self._start(etag)
        if start is None:
            self._answer(200, body, headers, fault)
        elif start >= len(body):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        else:
            start += kind == "elsewhere"
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._answer(206, body[start:], headers, fault)

    def _start(self, etag: str) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", etag)
        return int(asked[1]) if asked and condition == etag else None

    def _answer(
        self,
        code: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        promised = len(body) + 10 * (fault is not None and fault.kind == "overlong")
        sent = body[: fault.number] if fault and fault.kind == "cut" else body
        self._log(code, len(sent))
        self.send(sent, code, headers, promised)

    def _log(self, code: int, sent: int) -> None:
        path = self.path.partition("?")[0]
        asked = [self.headers.get(name) for name in ("Range", "If-Range", "Accept-Encoding")]
        self.owner.record(Request(path, *asked, status=code, sent=sent))


class FaultyServer(Loopback):
    """``files`` by path (``/HOST/PATH``, without query); ``faults`` by path, one per request and then none.

    ``always`` by path: a fault for every request that has none of its own.
    """

    handler = _Handler

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.etags = True
        self._lock = threading.Lock()

    def requests_of(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            planned = self.faults.get(path)
            return planned.pop(0) if planned else self.always.get(path)

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
