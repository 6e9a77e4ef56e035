"""A loopback server that speaks OpenAI's format and fails as it is told.

``faults`` by instruction: one per request and then none; ``always``: for every request. Every request is recorded with
the time at which it came and how many were under way.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from loopback import Handler, Loopback

Kind = Literal["status", "hang", "cut", "reset", "body", "finish"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    kind: Kind
    number: int = 0
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def status(code: int, content: bytes = b"", **headers: str) -> Fault:
    return Fault("status", code, content, {k.replace("_", "-"): v for k, v in headers.items()})


def hang() -> Fault:
    """No answer for ten seconds."""
    return Fault("hang")


def cut() -> Fault:
    """The connection ends in the middle of the body."""
    return Fault("cut")


def body(content: bytes) -> Fault:
    """200, with this body."""
    return Fault("body", content=content)


@dataclass
class Request:
    """One request as the server saw it."""

    path: str
    body: dict[str, Any]
    authorization: str | None
    came: float
    under_way: int

    @property
    def instruction(self) -> str:
        if "messages" in self.body:
            return self.body["messages"][-1]["content"]
        prompt = self.body["prompt"]
        return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


class _Handler(Handler):
    owner: FaultyEndpoint

    def do_POST(self) -> None:
        content = json.loads(self.body())
        request = self.owner.arrive(self.path, content, self.headers.get("Authorization"))
        try:
            if self.owner.delay:
                self.owner.wait(self.owner.delay)
            self._serve(request, self.owner.fault(request.instruction))
        finally:
            self.owner.leave()

    def _serve(self, request: Request, fault: Fault | None) -> None:
        good = self._answer(request)
        match fault.kind if fault else None:
            case None:
                self.send(good)
                self.owner.answered.append(request.instruction)
            case "status":
                assert fault is not None
                self.send(fault.content, fault.number, fault.headers)
            case "hang":
                self.owner.wait(10)
                self.close_connection = True
            case "cut":
                self.send(good[: len(good) // 2], promised=len(good))
            case "body":
                assert fault is not None
                self.send(fault.content)

    def _answer(self, request: Request) -> bytes:
        text = f"Answer to {request.instruction}"
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.owner.finish}
        if "messages" in request.body:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if self.owner.choice is not None:
            choice |= self.owner.choice(request)
        usage = choice.pop("usage", self.owner.usage)
        found: dict[str, Any] = {"choices": [choice]}
        if usage is not None:
            found["usage"] = usage
        return json.dumps(found).encode()


class FaultyEndpoint(Loopback):
    """Answers ``Answer to X`` to every X, after ``delay`` seconds."""

    handler = _Handler

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.faults: dict[str, list[Fault]] = {}
        self.always: Fault | None = None
        self.requests: list[Request] = []
        self.answered: list[str] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 7, "completion_tokens": 3}
        self.finish: str | None = "stop"
        self.choice: Callable[[Request], dict[str, Any]] | None = None
        """what a good answer's choice holds, in place of a message that repeats the instruction"""
        self.under_way = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        super().__exit__()

    def arrive(self, path: str, content: dict[str, Any], authorization: str | None) -> Request:
        with self._lock:
            self.under_way += 1
            request = Request(path, content, authorization, time.monotonic(), self.under_way)
            self.requests.append(request)
            return request

    def fault(self, instruction: str) -> Fault | None:
        with self._lock:
            planned = self.faults.get(instruction)
            return planned.pop(0) if planned else self.always

    def leave(self) -> None:
        with self._lock:
            self.under_way -= 1

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)
