"""A loopback server that speaks OpenAI's batch interface: files, batches, and what can go wrong with them."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlparse


class BatchServer:
    """Every request of a batch is answered by ``[[A]]``, after a batch has been looked at ``looks`` times."""

    def __init__(self, looks: int = 1) -> None:
        self.looks = looks
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.unanswered: set[str] = set()
        """contents that a batch leaves without a reply, as one that expired"""
        self.refused: set[str] = set()
        """contents that are answered by an error"""
        self.lose_answers = 0
        """how many answers to POST /batches do not arrive, although the batch is made"""
        self.fail_next = 0
        """how many requests are answered by 500"""

    def __enter__(self) -> Self:
        server = self

        class Handler(_Handler):
            batch_server = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def add_file(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {"id": name}

    def add_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"id": name, "status": "validating", "looks": 0, **body}
        return self.batches[name]

    def look(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["looks"] > self.looks and batch["status"] not in {"completed", "expired"}:
            self._end(batch)
        return batch

    def _end(self, batch: dict[str, Any]) -> None:
        good, bad, expired = [], [], False
        for line in self.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            content = request["body"]["messages"][-1]["content"]
            if any(text in content for text in self.unanswered):
                expired = True
                continue
            row: dict[str, Any] = {"custom_id": request["custom_id"], "error": None}
            if any(text in content for text in self.refused):
                error = {"message": "the content was refused"}
                bad.append(row | {"response": {"status_code": 400, "body": {"error": error}}})
                continue
            message = {"role": "assistant", "content": "[[A]]"}
            body = {
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 10},
            }
            good.append(row | {"response": {"status_code": 200, "body": body}})
        for field, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                content = "".join(json.dumps(row) + "\n" for row in rows).encode()
                batch[field] = self.add_file(content)["id"]
        batch["status"] = "expired" if expired else "completed"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    batch_server: BatchServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.batch_server
        if server.fail_next:
            server.fail_next -= 1
            self._send(500, {})
        elif self.path == "/v1/files":
            (part,) = re.findall(rb'name="file".*?\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
            assert b'name="purpose"\r\n\r\nbatch' in content
            self._send(200, server.add_file(part))
        else:
            batch = server.add_batch(json.loads(content))
            if server.lose_answers:
                server.lose_answers -= 1
                self.close_connection = True
            else:
                self._send(200, batch)

    def do_GET(self) -> None:
        server, url = self.batch_server, urlparse(self.path)
        parts = url.path.strip("/").split("/")[1:]
        if server.fail_next:
            server.fail_next -= 1
            self._send(500, {})
        elif parts == ["batches"]:
            names = sorted(server.batches, reverse=True)
            after = parse_qs(url.query).get("after")
            start = names.index(after[0]) + 1 if after else 0
            page = names[start : start + 1]
            data = [server.batches[name] for name in page]
            self._send(200, {"data": data, "has_more": start + 1 < len(names)})
        elif parts[0] == "batches":
            self._send(200, server.look(parts[1]))
        else:
            self._send(200, server.files[parts[1]])

    def _send(self, code: int, content: bytes | dict[str, Any]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base
        """Keep quiet."""
