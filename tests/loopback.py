"""Servers on 127.0.0.1, of tests and benchmarks: how one begins and ends, and how its handler reads and writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self


class Handler(BaseHTTPRequestHandler):
    """Quiet, with connections that are used again; ``owner`` is the server whose requests it answers."""

    protocol_version = "HTTP/1.1"
    owner: Any

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(
        self,
        content: bytes | Mapping[str, Any],
        code: int = 200,
        headers: Mapping[str, str] | None = None,
        promised: int | None = None,
    ) -> None:
        """A reply; one that ``promised`` more bytes than it has ends the connection."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        length = len(body) if promised is None else promised
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if len(body) < length:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base
        """Keep quiet."""


class Loopback:
    """Serves by ``handler`` while it is entered."""

    handler: ClassVar[type[Handler]]

    def __enter__(self) -> Self:
        handler = type("Handler", (self.handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Where OpenAI's interface is."""
        return f"{self.address}/v1"
