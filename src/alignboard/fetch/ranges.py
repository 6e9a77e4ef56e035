"""The requests of downloads: to the address itself or its mirror, from a byte on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from alignboard.errors import InputError
from alignboard.fetch.http import FinalError, Http, Patience, head_of, transient_status
from alignboard.text import without_secrets

if TYPE_CHECKING:
    import httpx

MIRROR = "ALIGNBOARD_MIRROR"
PATIENCE = Patience(timeout=20.0)


@contextmanager
def stream(
    http: Http, url: str, offset: int = 0, etag: str | None = None
) -> Iterator[httpx.Response]:
    """A good answer to a request for ``url`` from byte ``offset`` on; `continues` says where its body begins."""
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and etag:
        headers["If-Range"] = etag
    with http.open("GET", address_of(url), headers=headers) as response:
        beyond = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if not (offset and beyond):
            require_success(response)
        yield response


def require_success(response: httpx.Response) -> None:
    """Raise `TransientError` or `FinalError` for an answer that is not the content."""
    if response.status_code in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return
    reason = f"the server answers {response.status_code} {response.reason_phrase}".rstrip()
    if response.headers.get("x-ratelimit-remaining") == "0":
        reason += ", its limit of requests is used up"
    raise transient_status(head_of(response), reason) or FinalError(reason)


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


def address_of(url: str) -> str:
    """Where ``url`` is asked for: itself, or its place on the mirror."""
    mirror = os.environ.get(MIRROR, "").strip().rstrip("/")
    if not mirror:
        return url
    if not re.match(r"https?://[^/?#\s]+", mirror):
        raise InputError(
            f"{MIRROR} is {without_secrets(mirror)!r}, which is no address; expected one such as "
            "http://127.0.0.1:8000."
        )
    return f"{mirror}/{url.removeprefix('https://')}"


def client() -> Http:
    """The client of downloads."""
    # Ranges count the bytes of what is sent, so it must not be sent compressed.
    return Http(PATIENCE, {"Accept-Encoding": "identity"}, follow_redirects=True)
