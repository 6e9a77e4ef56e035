"""Pages on the loopback interface: one that follows a run, and one that takes a person's verdicts.

The address holds a random token, so that another user of the machine, or a page in the browser, cannot guess it; a
request under another name than the loopback address (DNS rebinding) or from another page is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Hashable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import ClassVar, TypeAlias

from alignboard.errors import InputError
from alignboard.text import shown

HOST = "127.0.0.1"
REFRESH_SECONDS = 15
"""after which the browser loads a page that follows a run again"""
_LARGEST_BODY = 65_536
_PATIENCE = 30.0
"""seconds that a connection may say nothing"""
Route: TypeAlias = Callable[[bytes], tuple[str, bytes]]
"""takes a request's body; returns the media type and the content of the reply, or raises `InputError`"""


class Pages:
    """The page of the newest state; ``state`` is cheap and tells whether ``make`` would give another page."""

    def __init__(self, make: Callable[[], str], state: Callable[[], Hashable]) -> None:
        self._make, self._state = make, state
        self._lock = Lock()
        self._of: Hashable = None
        self._page = b""

    def newest(self, _: bytes = b"") -> tuple[str, bytes]:
        """The page; where it cannot be made now, why, and it is tried again."""
        with self._lock:
            now = self._state()
            if not self._page or now != self._of:
                self._page, self._of = self._make().encode(), now
            return "text/html", self._page


class _Handler(BaseHTTPRequestHandler):
    routes: ClassVar[Mapping[tuple[str, str], Route]]
    token: ClassVar[str]
    refresh: ClassVar[int | None]

    def do_GET(self) -> None:
        self._reply("GET")

    def do_POST(self) -> None:
        self._reply("POST")

    def _reply(self, method: str) -> None:
        route = self._route(method)
        stated = self.headers.get("Content-Length") or "0"
        length = int(stated) if re.fullmatch("[0-9]{1,9}", stated) else _LARGEST_BODY + 1
        if route is None or length > _LARGEST_BODY:
            self.send_error(404)
            return
        status = 200
        try:
            kind, content = route(self.rfile.read(length))
        except (InputError, FileNotFoundError) as error:  # of a file that is being written anew
            status, kind, content = 400, "text/plain", f"{shown(str(error))}\n".encode()
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for header, value in (
            headers | ({"Refresh": str(self.refresh)} if self.refresh else {})
        ).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def _route(self, method: str) -> Route | None:
        name, _, own_port = self.headers.get("Host", "").partition(":")
        origin = self.headers.get("Origin")
        if name not in {HOST, "localhost"} or origin not in {None, f"http://{name}:{own_port}"}:
            return None
        given, _, rest = self.path[1:].partition("/")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return None
        return self.routes.get((method, rest))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet: the terminal belongs to the user."""


def server(
    routes: Mapping[tuple[str, str], Route], port: int = 0, *, refresh: int | None = None
) -> tuple[ThreadingHTTPServer, str]:
    """A server that is not running yet, and its address.

    Parameters
    ----------
    routes
        by method and name below the address, such as ``("GET", "")``
    refresh
        seconds after which the browser loads a page again

    Raises
    ------
    InputError
        Where ``port`` is taken; 0 takes a free one.
    """
    token = secrets.token_urlsafe(16)

    try:
        handler = type(
            "Handler",
            (_Handler,),
            {"routes": routes, "token": token, "refresh": refresh, "timeout": _PATIENCE},
        )
        made = ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise InputError(
            f"--port {port} cannot be used: {error.strerror}; leave it out."
        ) from error
    return made, f"http://{HOST}:{made.server_address[1]}/{token}/"
