"""A page on the loopback interface that follows a run: it is made again when its sources have changed.

Read-only. The address holds a random token, so that another user of the machine, or a page in the browser, cannot guess
it; a request under another name than the loopback address is refused (DNS rebinding).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import ClassVar

from alignboard.errors import InputError
from alignboard.text import shown

HOST = "127.0.0.1"
REFRESH_SECONDS = 15
"""after which the browser loads the page again"""


class Pages:
    """The page of the newest state; ``state`` is cheap and tells whether ``make`` would give another page."""

    def __init__(self, make: Callable[[], str], state: Callable[[], Hashable]) -> None:
        self._make, self._state = make, state
        self._lock = Lock()
        self._of: Hashable = None
        self._page = b""

    def newest(self) -> bytes:
        """The page; a board that cannot be made now says why, and is tried again."""
        with self._lock:
            now = self._state()
            if not self._page or now != self._of:
                try:
                    self._page, self._of = self._make().encode(), now
                except InputError as error:
                    return f"{shown(str(error))}\n".encode()
            return self._page


def server(pages: Pages, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server that is not running yet, and the address of its page.

    Raises
    ------
    InputError
        Where ``port`` is taken; 0 takes a free one.
    """
    token = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        path_of_page: ClassVar[str] = f"/{token}/"

        def do_GET(self) -> None:
            name, _, _ = self.headers.get("Host", "").partition(":")
            if name not in {HOST, "localhost"} or not secrets.compare_digest(
                self.path.encode(), self.path_of_page.encode()
            ):
                self.send_error(404)
                return
            content = pages.newest()
            kind = "html" if content.startswith(b"<") else "plain"
            self.send_response(200)
            for header, value in (
                ("Content-Type", f"text/{kind}; charset=utf-8"),
                ("Content-Length", str(len(content))),
                ("Refresh", str(REFRESH_SECONDS)),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Quiet: the terminal belongs to the user."""

    try:
        made = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise InputError(
            f"--port {port} cannot be used: {error.strerror}; leave it out."
        ) from error
    return made, f"http://{HOST}:{made.server_address[1]}/{token}/"
