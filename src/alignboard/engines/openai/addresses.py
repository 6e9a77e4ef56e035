"""Addresses of endpoints: what is one, and its parts."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from alignboard.errors import InputError
from alignboard.text import without_secrets


def require_address(url: str) -> None:
    """Raise `InputError` where ``url`` is no http address whose host and port are what they can be."""
    if not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", url) or not _is_parsed(url):
        raise InputError(
            f"{without_secrets(url)!r} is no address of an endpoint; expected one such as http://127.0.0.1:8000/v1."
        )


def split_address(url: str) -> SplitResult:
    """The parts of an address; raises `InputError` as `require_address` does."""
    require_address(url)
    return urlsplit(url)


def _is_parsed(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
