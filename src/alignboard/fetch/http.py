"""One HTTP request at a time, its failures sorted into those that may pass and those that will not.

Every address can be answered by a mirror: with ``ALIGNBOARD_MIRROR=http://127.0.0.1:8000`` the request for
``https://HOST/PATH?QUERY`` goes to ``http://127.0.0.1:8000/HOST/PATH?QUERY``.
"""

from __future__ import annotations

import email.utils
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Self

import alignboard
from alignboard.errors import InputError

if TYPE_CHECKING:
    import httpx

MIRROR = "ALIGNBOARD_MIRROR"
GRACE = 30.0
"""seconds, after which a body has to come at `SLOWEST` at least"""
SLOWEST = 1024
"""bytes a second"""


@dataclass(frozen=True)
class Policy:
    """How patient a download is; times in seconds."""

    attempts: int = 6
    """failures in a row without `step` new bytes"""
    step: int = 1 << 16
    backoff: float = 0.5
    """the pause after the n-th failure is uniform between 0 and ``backoff * 2**(n - 1)``"""
    longest: float = 30.0
    longest_asked: float = 120.0
    """the longest that a server's Retry-After is waited for"""
    connect_timeout: float = 10.0
    read_timeout: float = 20.0


class TransientError(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait
        """seconds that the server asked for"""


class FinalError(Exception):
    """A failure that the next attempt would meet again."""


class Http:
    """A client for several threads; a context manager, which imports httpx when it is entered."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._mirror = _mirror()

    def __enter__(self) -> Self:
        import httpx

        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(self._policy.read_timeout, connect=self._policy.connect_timeout),
            # Ranges count the bytes of what is sent, so it must not be sent compressed.
            headers={
                "Accept-Encoding": "identity",
                "User-Agent": f"alignboard/{alignboard.__version__}",
            },
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def address(self, url: str) -> str:
        """Where ``url`` is asked for: itself, or its place on the mirror."""
        return url if self._mirror is None else f"{self._mirror}/{url.removeprefix('https://')}"

    def get(self, url: str, largest: int) -> bytes:
        """The whole content at ``url``."""
        content, started = bytearray(), time.monotonic()
        with self.stream(url) as response:
            for chunk in response.iter_bytes():
                content += chunk
                require_speed(len(content), started)
                if len(content) > largest:
                    raise FinalError(f"it is larger than {largest:,} bytes")
        return bytes(content)

    @contextmanager
    def stream(
        self, url: str, offset: int = 0, etag: str | None = None
    ) -> Iterator[httpx.Response]:
        """A good answer to a request for ``url`` from byte ``offset`` on, its body not yet read.

        Raises `TransientError` or `FinalError`, also for what goes wrong while the caller reads the body. See
        `continues` for where the body of the answer begins.
        """
        import httpx

        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and etag:
            headers["If-Range"] = etag
        try:
            with self._client.stream("GET", self.address(url), headers=headers) as response:
                if not (
                    offset and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                ):
                    _require_success(response)
                yield response
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise FinalError(one_line(error)) from error
        except httpx.RequestError as error:
            raise TransientError(one_line(error)) from error


def require_speed(size: int, started: float) -> None:
    """Raise `TransientError` for a body that comes so slowly that it may never end."""
    passed = time.monotonic() - started
    if passed > GRACE and size < SLOWEST * passed:
        raise TransientError(f"only {size} bytes came in {passed:.0f} s")


def continues(response: httpx.Response, offset: int) -> bool | None:
    """Whether the body goes on at ``offset`` (True), is the whole from its first byte (False), or neither (None)."""
    if response.status_code == HTTPStatus.OK:
        return False
    start = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    plain = response.headers.get("content-encoding", "identity") == "identity"
    if response.status_code == HTTPStatus.PARTIAL_CONTENT and plain and start:
        return True if int(start[1]) == offset else None
    return None


def strong_etag(response: httpx.Response) -> str | None:
    """The validator that If-Range may carry: a weak one may not (RFC 9110, 13.1.5)."""
    etag = response.headers.get("etag")
    return None if etag is None or etag.startswith("W/") else etag


def _require_success(response: httpx.Response) -> None:
    status = response.status_code
    if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return
    reason = f"the server answers {status}{_phrase(status)}"
    if response.headers.get("x-ratelimit-remaining") == "0":
        reason += ", its limit of requests is used up"
    passing = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
    if status in passing or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(reason, retry_after(response.headers.get("retry-after", "")))
    raise FinalError(reason)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def retry_after(value: str) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 where it holds neither."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _mirror() -> str | None:
    mirror = os.environ.get(MIRROR, "").strip().rstrip("/")
    if not mirror:
        return None
    if not re.match(r"https?://[^/?#\s]+", mirror):
        raise InputError(
            f"{MIRROR} is {mirror!r}, which is no address; expected one such as http://127.0.0.1:8000."
        )
    return mirror


def one_line(error: Exception) -> str:
    """Such as ``connect error: connection refused``: httpx's own words, which can be missing or many lines."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    text = " ".join(str(error).split()).rstrip(".")
    return f"{kind}: {text}" if text else kind
