"""A loopback server that speaks OpenAI's batch interface: files, batches, and what can go wrong with them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlparse

from loopback import Handler, Loopback


class _Handler(Handler):
    owner: BatchServer

    def do_POST(self) -> None:
        content = self.body()
        server = self.owner
        if server.fail_next:
            server.fail_next -= 1
            self.send({}, 500)
        elif self.path == "/v1/files":
            (part,) = re.findall(rb'name="file".*?\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
            assert b'name="purpose"\r\n\r\nbatch' in content
            self.send(server.add_file(part))
        else:
            batch = server.add_batch(json.loads(content))
            if server.lose_answers:
                server.lose_answers -= 1
                self.close_connection = True
            else:
                self.send(batch)

    def do_GET(self) -> None:
        server, url = self.owner, urlparse(self.path)
        parts = url.path.strip("/").split("/")[1:]
        if server.fail_next:
            server.fail_next -= 1
            self.send({}, 500)
        elif parts == ["batches"]:
            names = sorted(server.batches, reverse=True)
            after = parse_qs(url.query).get("after")
            start = names.index(after[0]) + 1 if after else 0
            page = names[start : start + 1]
            data = [server.batches[name] for name in page]
            self.send({"data": data, "has_more": start + 1 < len(names)})
        elif parts[0] == "batches":
            self.send(server.look(parts[1]))
        else:
            self.send(server.files[parts[1]])


class BatchServer(Loopback):
    """Every request of a batch is answered by ``[[A]]``, after a batch has been looked at ``looks`` times."""

    handler = _Handler

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
