"""JSON posted to one address over connections that are kept open, thousands of times a second.

aiohttp opens connections (names, TLS, proxies), pools them and parses what comes (lengths, chunks, compression).
Requests are written here: `ClientSession.post` makes five objects and two tasks of each, and takes 165 microseconds of
processor time where this takes 75 (``benchmarks/scale.py --only generate``). No redirect is followed, no cookie kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from alignboard.fetch.http import (
    Body,
    FinalError,
    Head,
    TransientError,
    UnavailableError,
    one_line,
    with_agent,
)

_ANNOUNCEMENTS: Final = frozenset(range(100, 200)) - {101}
"""statuses after which the answer comes (100 Continue, 103 Early Hints)"""


class Posts:
    """Posts to ``url``, inside one event loop; ``proxy`` is the address of the proxy to go through."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        url: str,
        headers: Mapping[str, str],
        proxy: str | None,
        connect_timeout: float,
        mask: Callable[[str], str],
    ) -> None:
        """``mask`` takes what is secret out of a failure's words. Raises `FinalError` for what is no address."""
        self._connector, self._mask = connector, mask
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        # What connections are opened for, and the headers that every request begins with.
        try:
            self._request = aiohttp.ClientRequest(
                "POST",
                URL(url),
                headers={**with_agent(headers), "Content-Type": "application/json"},
                proxy=None if proxy is None else URL(proxy),
                loop=asyncio.get_running_loop(),
            )
        except ValueError as error:  # of yarl, and aiohttp.InvalidURL
            raise FinalError(mask(one_line(error))) from error
        self._head: bytes | None = None

    async def post(self, sent: bytes, largest: int) -> tuple[Head, bytes]:
        """The answer of any status, with a body of at most ``largest`` bytes, decompressed.

        Raises `TransientError`. Cancel it, and the connection is closed.
        """
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise UnavailableError(
                f"no connection within {self._timeout.sock_connect:g} s"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise UnavailableError(self._mask(one_line(error))) from error
        except aiohttp.ClientError as error:  # of a proxy
            raise TransientError(self._mask(one_line(error))) from error
        try:
            found = await self._exchange(connection, sent, largest)
        except (aiohttp.ClientError, HttpProcessingError) as error:
            connection.close()
            raise TransientError(self._mask(one_line(error))) from error
        except BaseException:
            connection.close()
            raise
        connection.release()
        return found

    async def _exchange(
        self, connection: aiohttp.connector.Connection, sent: bytes, largest: int
    ) -> tuple[Head, bytes]:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(read_until_eof=True)
        if self._head is None:
            self._head = self._written_head()
        transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(sent), sent))
        message, payload = await protocol.read()
        while message.code in _ANNOUNCEMENTS:
            message, payload = await protocol.read()
        body = Body(largest)
        async for piece in payload.iter_any():
            body.add(piece)
        return Head(message.code, message.reason, message.headers), body.content()

    def _written_head(self) -> bytes:
        """A request up to the value of its last header, Content-Length. A proxy's password is there once connected."""
        request = self._request
        # A proxy is asked for the whole address, but for one that it only passes bytes on to.
        whole = request.proxy is not None and not request.is_ssl()
        lines = [f"POST {request.url if whole else request.url.raw_path_qs} HTTP/1.1"]
        lines += [
            f"{name}: {value}"
            for name, value in request.headers.items()
            if name.lower() != "content-length"
        ]
        return "\r\n".join([*lines, "Content-Length: "]).encode()
