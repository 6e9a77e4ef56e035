"""The requests of OpenAI's batch interface, each tried again as `alignboard.fetch.http` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from alignboard.engines.openai.failures import require_success, without, without_key
from alignboard.engines.openai.format import UnreadableError, read_body
from alignboard.engines.openai.served import Endpoint
from alignboard.errors import SourceError
from alignboard.fetch.http import FinalError, Http, TransientError, head_of, retrying

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.__exit__(kind, error, trace)

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
