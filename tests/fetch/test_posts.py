"""Posts over connections that are kept: what servers and proxies send, and what is asked of them."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Self

import pytest

from alignboard.fetch.http import FinalError, TransientError, UnavailableError, connections
from alignboard.fetch.posts import Posts

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'
ZIPPED = gzip.compress(b'{"a": 1}', mtime=0)
BOMB = gzip.compress(b"x" * 5_000, mtime=0)
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIGV/ah+jnrKQYijx
YIFcgxfQRKAYoLhvj7R13KJ5YAWhRANCAAQ01DcSWNXbMszdUG79ALPszPa/Q/KS
MlVeb5FpYSpymo0bGDSYQYYfYsLJbyJcsprs2FHR7r7r68Oi2uFsoH0l
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIULpZVnT/lfReOFki3eEOgr13wGe0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyOTExMDgxNloYDzIxMjYxMTA1
MTEwODE2WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQ01DcSWNXbMszdUG79ALPszPa/Q/KSMlVeb5FpYSpymo0bGDSYQYYf
YsLJbyJcsprs2FHR7r7r68Oi2uFsoH0lo2QwYjAdBgNVHQ4EFgQU+lgdqTOHOkFK
uhxczH30jlRFxa4wHwYDVR0jBBgwFoAU+lgdqTOHOkFKuhxczH30jlRFxa4wDwYD
VR0RBAgwBocEfwAAATAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQC
IBX4Gpx2mqjUD8M5lGHCuMPaik9ygg5RdcTI/UjF+YkPAiAvENahM4j68/l/K203
XxmZ2Aps8c6PSZOW0jSmH0zhYg==
-----END CERTIFICATE-----
"""
"""of 127.0.0.1 and its own authority, for a hundred years, with its key"""


class Raw:
    """Sends one of ``answers`` for each request, bytes as they are; keeps requests by connection."""

    def __init__(self, *answers: bytes, encryption: ssl.SSLContext | None = None) -> None:
        self._answers, self._encryption = list(answers), encryption
        self.connections: list[list[bytes]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._encryption)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[bytes] = []
        self.connections.append(requests)
        while self._answers and (head := await _head(reader)):
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            requests.append(head + await reader.readexactly(size))
            answer = self._answers.pop(0)
            writer.write(answer)
            if b"lose" in answer or b"Length" not in answer:
                break
        writer.close()


class Proxy(Raw):
    """Lets bytes through to where CONNECT says."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _head(reader)
        self.connections.append([head])
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        there, to = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass(reader, to), _pass(there, writer))


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(4096):
        writer.write(piece)
    writer.close()


async def post(
    url: str, proxy: str | None = None, n: int = 1, mask: Callable[[str], str] = str
) -> list[tuple[int, bytes]]:
    found = []
    async with connections(encrypted=url.startswith("https:")) as connector:
        posts = Posts(connector, url, {"Authorization": "Bearer k"}, proxy, 5.0, mask)
        for number in range(n):
            head, body = await posts.post(b"%d" % number, 1_000)
            found.append((head.status, body))
    return found


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK,
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5\r\n": 1}\r\n0\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(ZIPPED), ZIPPED),
        b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}',
    ],
)
def test_answers_as_servers_send_them(answer):
    async def main():
        async with Raw(answer) as server:
            assert await post(f"http://127.0.0.1:{server.port}/v1/x") == [(200, b'{"a": 1}')]
            ((sent,),) = server.connections
            head, _, body = sent.partition(b"\r\n\r\n")
            line, *headers = head.split(b"\r\n")
            assert (line, body) == (b"POST /v1/x HTTP/1.1", b"0")
            assert {
                b"Host: 127.0.0.1:%d" % server.port,
                b"Authorization: Bearer k",
                b"Content-Type: application/json",
                b"Content-Length: 1",
            } <= set(headers)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\nContent-Length\r\n", "(?i)bad status line|expected http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\nclose", "not completed"),
        (b"close", "(?i)expected http|disconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5_000, "larger than"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(BOMB), BOMB),
            "larger than",
        ),
    ],
)
def test_what_is_no_answer_may_pass(answer, said):
    async def main():
        async with Raw(answer) as server:
            with pytest.raises(TransientError, match=said):
                await post(f"http://127.0.0.1:{server.port}/v1/x")

    asyncio.run(main())


def test_connections_are_kept_as_long_as_the_server_keeps_them():
    closing = OK.replace(b"Content", b"Connection: close\r\nContent")

    async def main():
        async with Raw(OK, closing, OK, OK) as server:
            assert len(await post(f"http://127.0.0.1:{server.port}/v1/x", n=4)) == 4
            assert [len(requests) for requests in server.connections] == [2, 2]

    asyncio.run(main())


def test_a_proxy_is_asked_for_the_whole_address_with_its_own_password():
    async def main():
        async with Raw(OK, OK) as proxy:
            through = f"http://me:word@127.0.0.1:{proxy.port}"
            assert len(await post("http://models.test/v1/x", through, n=2)) == 2
            ((sent, again),) = proxy.connections
            for one in (sent, again):
                assert one.startswith(b"POST http://models.test/v1/x HTTP/1.1\r\n")
                assert b"\r\nHost: models.test\r\n" in one
                assert b"\r\nProxy-Authorization: Basic " + b64encode(b"me:word") in one

    asyncio.run(main())


def test_encrypted_through_a_proxy_that_sees_neither_key_nor_prompt(tmp_path, monkeypatch):
    path = tmp_path / "pair.pem"
    path.write_text(CERTIFICATE)
    encryption = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    encryption.load_cert_chain(path)

    async def main():
        async with Raw(OK, OK, encryption=encryption) as server, Proxy() as proxy:
            url = f"https://127.0.0.1:{server.port}/v1/x"
            through = f"http://me:word@127.0.0.1:{proxy.port}"
            with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await post(url)
            monkeypatch.setenv("SSL_CERT_FILE", str(path))
            assert await post(url, through, n=2) == [(200, b'{"a": 1}')] * 2
            requests = [one for one in server.connections if one]
            assert [sent.split(b"\r\n")[0] for sent in requests[0]] == [b"POST /v1/x HTTP/1.1"] * 2
            assert b"Proxy-Authorization" not in requests[0][0]
            ((seen,),) = proxy.connections
            assert seen.startswith(b"CONNECT 127.0.0.1:")
            assert b"Bearer" not in seen

    asyncio.run(main())


def test_failures_are_sorted_and_masked():
    def mask(text: str) -> str:
        return text.replace("127.0.0.1", "***")

    async def main():
        async with Raw() as server:
            port = server.port
        with pytest.raises(UnavailableError, match=r"\*\*\*"):
            await post(f"http://127.0.0.1:{port}/v1/x", mask=mask)
        with pytest.raises(FinalError):
            await post("http://:80/v1/x")

    asyncio.run(main())
