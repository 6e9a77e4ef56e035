"""The one HTTP policy: clients, their failures sorted into those that may pass and those that will not, and retries.

Downloads (`fetch.download`) and batches (`judges.backends.batches`) use httpx, endpoints
(`engines.openai.requesting`) aiohttp's connections (`fetch.posts`): with 64 requests at a time httpx's pool takes 19
times the processor time a request of aiohttp's. The clients and tenacity are imported when the first request is made.
"""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import alignboard

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import httpx
    from tenacity import BaseRetrying, RetryCallState

PASSING = frozenset({408, 409, 425, 429})
"""statuses below 500 that another try may not meet"""
GRACE = 30.0
"""seconds, after which a body has to have come at `SLOWEST` at least"""
SLOWEST = 1024
"""bytes a second"""
RESTING = frozenset({429, 503})
"""statuses that speak of the server, not of the request"""


class TransientError(Exception):
    """A failure that may be gone at the next try."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait
        """seconds that the server asked for"""


class UnavailableError(TransientError):
    """A failure of the server as a whole."""

    rested = False
    """whether the server is left alone for a while, so that the request itself need not wait"""


class TooLargeError(TransientError):
    """A body of more bytes than any that is expected."""


class FinalError(Exception):
    """A failure that the next try, and most other requests, would meet again."""


@dataclass(frozen=True)
class Patience:
    """How often and how long something is tried; times in seconds."""

    tries: int = 6
    backoff: float = 0.5
    longest: float = 30.0
    """of the pauses of our own"""
    longest_asked: float = 120.0
    """the longest that a server's Retry-After is waited for"""
    connect_timeout: float = 10.0
    timeout: float = 600.0
    """from the request to its answer; of a download from one piece to the next"""
    step: int = 1 << 16
    """of a download: so many new bytes start the count of tries again"""

    def pause_after(self, failed: int, error: BaseException | None) -> float:
        """`pause` after an error; none where the server rests, and the request goes to another."""
        if isinstance(error, UnavailableError) and error.rested:
            return 0.0
        return self.pause(failed, error.wait if isinstance(error, TransientError) else 0.0)

    def pause(self, failed: int, asked: float, draw: Callable[[], float] = random.random) -> float:
        """Before the next try after ``failed`` ones: what the server asked for, and full jitter.

        Uniform between 0 and ``backoff * 2**(failed - 1)`` (Brooker 2015, aws.amazon.com/blogs/architecture,
        "Exponential Backoff And Jitter").
        """
        own = min(self.longest, self.backoff * 2.0 ** (failed - 1)) * draw()
        return min(asked, self.longest_asked) + own


Retrying = TypeVar("Retrying", bound="BaseRetrying")


def retrying(
    patience: Patience,
    kind: type[Retrying],
    sleep: Callable[[float], Any],
    received: Callable[[], int] = lambda: 0,
) -> Retrying:
    """Calls a function until it raises no `TransientError`, or ``patience`` ends: then the last error is raised.

    A failure after `Patience.step` new bytes, of which ``received`` tells the number so far, starts the count again, so
    that a connection that drops every few megabytes still brings a large file home.
    """
    from tenacity import retry_if_exception_type, stop_after_attempt

    reached = 0

    def restart(state: RetryCallState) -> None:
        nonlocal reached
        if received() >= reached + patience.step:
            state.attempt_number, reached = 1, received()

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return patience.pause_after(state.attempt_number, error)

    return kind(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(patience.tries),
        after=restart,
        wait=pause,
        sleep=sleep,
        reraise=True,
    )


class Body:
    """The bytes of an answer as they come; raises `TooLargeError` beyond ``largest``, decompressed."""

    def __init__(self, largest: int) -> None:
        self._largest, self._content = largest, bytearray()

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        self._content += piece
        if len(self._content) > self._largest:
            size = f"{self._largest / 2**20:g} MiB"
            raise TooLargeError(f"the answer is larger than {size}")

    def content(self) -> bytes:
        """All of them."""
        return bytes(self._content)


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """The body of an answer as it comes; raises `TransientError` where it is so slow that it may never end."""
    size, started = 0, time.monotonic()
    for piece in response.iter_bytes():
        size += len(piece)
        passed = time.monotonic() - started
        if passed > GRACE and size < SLOWEST * passed:
            raise TransientError(f"only {size} bytes came in {passed:.0f} s")
        yield piece


class Http:
    """A client for several threads; a context manager."""

    def __init__(
        self,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        *,
        follow_redirects: bool = False,
        mask: Callable[[str], str] = str,
    ) -> None:
        """``mask`` takes what is secret out of the words of a failure."""
        self._patience, self._follow, self._mask = patience, follow_redirects, mask
        self._headers = with_agent(headers)

    def __enter__(self) -> Self:
        import httpx

        self._client = httpx.Client(
            follow_redirects=self._follow, timeout=_timeouts(self._patience), headers=self._headers
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextmanager
    def open(self, method: str, url: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer of any status, its body not yet read; see `sorted_failures`, also for what reading it meets."""
        with (
            sorted_failures(self._mask),
            self._client.stream(method, url, **options) as response,
        ):
            yield response

    def read(
        self, method: str, url: str, largest: int, **options: Any
    ) -> tuple[httpx.Response, bytes]:
        """An answer of any status, and its whole body."""
        body = Body(largest)
        with self.open(method, url, **options) as response:
            for piece in pieces(response):
                body.add(piece)
        return response, body.content()


def connections(*, encrypted: bool) -> aiohttp.TCPConnector:
    """The connections of one event loop; ``encrypted`` where an address begins with https.

    Trusts the authorities that httpx trusts.
    """
    import aiohttp

    trusted: ssl.SSLContext | bool = True
    if encrypted:
        import httpx

        trusted = httpx.create_ssl_context()
    return aiohttp.TCPConnector(limit=0, ssl=trusted)


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for ``url``, if any."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def with_agent(headers: Mapping[str, str] | None) -> dict[str, str]:
    """``headers`` with the name of this client."""
    return {"User-Agent": f"alignboard/{alignboard.__version__}", **(headers or {})}


def _timeouts(patience: Patience) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(patience.timeout, connect=patience.connect_timeout, pool=None)


@contextmanager
def sorted_failures(mask: Callable[[str], str] = str) -> Iterator[None]:
    """Raise `TransientError` or `FinalError` for what httpx raises."""
    import httpx

    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise FinalError(mask(one_line(error))) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UnavailableError(mask(one_line(error))) from error
    except httpx.RequestError as error:
        raise TransientError(mask(one_line(error))) from error


class Head(NamedTuple):
    """What an answer of either client begins with."""

    status: int
    phrase: str
    headers: Mapping[str, str]


def transient_status(head: Head, reason: str) -> TransientError | None:
    """The failure that a status means, where another try may not meet it."""
    if head.status not in PASSING and head.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    kind = UnavailableError if head.status in RESTING else TransientError
    return kind(reason, retry_after(head.headers.get("retry-after", "")))


def head_of(response: httpx.Response) -> Head:
    """The head of httpx's answer."""
    return Head(response.status_code, response.reason_phrase, response.headers)


def retry_after(value: str) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 where it holds neither."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def one_line(error: Exception) -> str:
    """Such as ``connect error: connection refused``: a client's own words, which can be missing or many lines."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    text = " ".join(str(error).split()).rstrip(".")
    return f"{kind}: {text}" if text else kind
