"""The engine of OpenAI-compatible endpoints: one server or several, hosted or on loopback.

What this module promises
    Every prompt has one answer or one failure in the end; what may pass (429, 5xx, a timeout, a cut connection, an
    empty or unreadable body) is tried again with full jitter, not before the server's Retry-After. A prompt whose
    answer was handed over is not asked again. What no try can mend (400, 401, 404, a used-up quota) ends the run in
    one sentence, after the answers that were under way have been handed over.
What it never does
    Log or record the key; follow a redirect with it; take an error, or an answer without text, for an empty answer.

The client is httpx, which is a dependency already (downloads use it): ``openai`` would add its own retries, which
neither pause a server as a whole nor report per prompt, and takes a second to import. httpx is imported when the
first request is made. One thread runs an event loop, so that a run that is stopped closes its connections at once and
servers stop generating.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from alignboard.errors import SourceError
from alignboard.evaluate.engines.ending import cut
from alignboard.evaluate.engines.limits import Bucket, Clock
from alignboard.evaluate.engines.openai_format import (
    Reply,
    UnreadableError,
    error_message,
    read_reply,
)
from alignboard.evaluate.engines.rows import Answer, Decoding, Failure, Prompt
from alignboard.evaluate.engines.served import Endpoint, Prices
from alignboard.results.http import TransientError, one_line, retry_after

if TYPE_CHECKING:
    import httpx

_PASSING = frozenset({408, 409, 425, 429})
_RESTING = frozenset({429, 503})
"""statuses that speak of the server, not of the prompt"""


class FatalError(Exception):
    """What every other prompt would meet as well; the message is a whole sentence."""


class _Server:
    """One address: what it is doing, and when it may be asked again."""

    def __init__(self, url: str, endpoint: Endpoint, clock: Clock) -> None:
        path = "chat/completions" if endpoint.dialect.api == "chat" else "completions"
        self.url = f"{url.rstrip('/')}/{path}"
        self.busy = 0
        self.rests_until = clock.now()
        self.requests = Bucket(endpoint.requests_per_minute, clock)
        self.tokens = Bucket(endpoint.tokens_per_minute, clock)


class EndpointEngine:
    """Answers of a served model; see `Engine`. ``clock`` is for tests."""

    def __init__(
        self, endpoint: Endpoint, prices: Prices | None = None, clock: Clock | None = None
    ) -> None:
        self._endpoint, self._prices, self._clock = endpoint, prices, clock or Clock()
        self._key = endpoint.key()

    def answers(self, asked: Sequence[Prompt], decoding: Decoding) -> Iterator[Answer | Failure]:
        """See `Engine`. Raises `SourceError` for what no try can mend."""
        done: queue.SimpleQueue[Answer | Failure | BaseException | None] = queue.SimpleQueue()
        run = _Run(self._endpoint, self._key, self._prices, self._clock, decoding)
        unique = {prompt.key: prompt for prompt in asked}
        for prompt in unique.values():
            self._endpoint.dialect.body(prompt, decoding)  # raises here, before anything is sent
        thread = threading.Thread(target=run.work, args=(list(unique.values()), done), daemon=True)
        thread.start()
        try:
            while (found := done.get()) is not None:
                if isinstance(found, FatalError):
                    raise SourceError(str(found))
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            run.stop()
            thread.join()


class _Run:
    """One call of `EndpointEngine.answers`, inside its thread's event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str | None,
        prices: Prices | None,
        clock: Clock,
        decoding: Decoding,
    ) -> None:
        self._endpoint, self._prices, self._clock = endpoint, prices, clock
        self._key, self._decoding = key, decoding
        self._fatal: FatalError | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._reached = False
        self._servers: list[_Server] = []
        self._ended = asyncio.Event()

    def work(
        self,
        asked: list[Prompt],
        done: queue.SimpleQueue[Answer | Failure | BaseException | None],
    ) -> None:
        """Answer everything into ``done``; last comes None, or what ended the run."""
        try:
            asyncio.run(self._main(asked, done.put))
        except asyncio.CancelledError:
            done.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            done.put(error)
        else:
            done.put(self._fatal)

    def stop(self) -> None:
        """Give up what is under way; called from another thread."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _main(self, asked: list[Prompt], hand: Callable[[Answer | Failure], None]) -> None:
        import httpx

        with self._lock:
            if self._stopped:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            endpoint, patience = self._endpoint, self._endpoint.patience
            self._servers = [_Server(url, endpoint, self._clock) for url in endpoint.urls]
            waiting = iter(asked)
            n = min(len(asked), endpoint.concurrency * len(endpoint.urls))
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=n)
            timeout = httpx.Timeout(patience.timeout, connect=patience.connect_timeout, pool=None)
            headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
            async with (
                httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers) as client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(n):
                    group.create_task(self._worker(client, waiting, hand))
        finally:
            with self._lock:
                self._loop = self._task = None

    async def _worker(
        self,
        client: httpx.AsyncClient,
        waiting: Iterator[Prompt],
        hand: Callable[[Answer | Failure], None],
    ) -> None:
        for prompt in waiting:
            if self._fatal is not None:
                return
            try:
                found = await self._persist(client, prompt)
            except FatalError as error:
                self._fatal = self._fatal or error
                self._ended.set()
            else:
                if found is not None:
                    hand(found)

    async def _persist(self, client: httpx.AsyncClient, prompt: Prompt) -> Answer | Failure | None:
        """Ask until there is an answer or no try is left; None where the run ended meanwhile."""
        patience, reason = self._endpoint.patience, ""
        for failed in range(1, patience.tries + 1):
            server = await self._ready_server()
            if self._fatal is not None:
                return None
            server.busy += 1
            try:
                return self._answer(prompt, await self._ask(client, server, prompt))
            except TransientError as error:
                reason, pause = str(error), patience.pause(failed, error.wait)
                rests = isinstance(error, _UnavailableError)
            finally:
                server.busy -= 1
            if rests:
                server.rests_until = max(server.rests_until, self._clock.now() + pause)
            if self._fatal is not None:
                return None
            if failed < patience.tries:
                others = rests and len(self._servers) > 1
                await self._wait(self._clock.sleep(0 if others else pause))
        if not self._reached:
            raise FatalError(f"Nothing answers at {' or '.join(self._endpoint.urls)}: {reason}.")
        return Failure(prompt.key, prompt.instruction, "error", reason, patience.tries)

    async def _ready_server(self) -> _Server:
        """The least busy server that does not rest; waits for one where all do."""
        while True:
            now = self._clock.now()
            ready = [server for server in self._servers if server.rests_until <= now]
            if ready:
                return min(ready, key=lambda server: server.busy)
            if self._fatal is not None:
                return self._servers[0]
            until = min(server.rests_until for server in self._servers)
            await self._wait(self._clock.sleep(until - now))

    async def _wait(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait, but not beyond the end of the run."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, client: httpx.AsyncClient, server: _Server, prompt: Prompt) -> Reply:
        """One request. Raises `TransientError` or `FatalError`."""
        import httpx

        dialect, seconds = self._endpoint.dialect, self._endpoint.patience.timeout
        body = dialect.body(prompt, self._decoding)
        # Four bytes a token is the usual guess; the difference to what was used is given back.
        guess = len(prompt.ids) or len(prompt.instruction.encode()) // 4 + 1
        taken = guess + prompt.limit(self._decoding)
        await self._wait(server.requests.take(1))
        await self._wait(server.tokens.take(taken))
        if self._fatal is not None:
            raise TransientError("the run has ended")
        try:
            async with asyncio.timeout(seconds):
                response = await client.post(server.url, json=body)
        except TimeoutError as error:
            raise TransientError(f"no answer within {seconds:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _UnavailableError(one_line(error)) from error
        except httpx.RequestError as error:
            raise TransientError(one_line(error)) from error
        self._reached = True
        _require_success(response, server.url, self._endpoint.api_key_env, self._key)
        try:
            reply = read_reply(response.content, dialect.api)
        except UnreadableError as error:
            raise TransientError(str(error)) from error
        used = (reply.usage.n_prompt, reply.usage.n_answer)
        if used[0] is not None and used[1] is not None:
            server.tokens.give_back(taken - used[0] - used[1])
        return reply

    def _answer(self, prompt: Prompt, reply: Reply) -> Answer | Failure:
        if reply.finish == "refused":
            reason = "the endpoint's content filter took the answer away"
            return Failure(prompt.key, prompt.instruction, "refused", reason, 1)
        # Servers leave the stop out; one that does not must not change the answer.
        text, stopped = cut(reply.text, self._decoding.stop)
        usage = reply.usage
        price = (
            None if self._prices is None else self._prices.of(self._endpoint.dialect.model, usage)
        )
        return Answer(
            prompt.key,
            prompt.instruction,
            text.strip(),
            usage.n_prompt,
            usage.n_answer,
            "stop" if stopped else reply.finish,
            price,
        )


class _UnavailableError(TransientError):
    """A failure of the server as a whole: it is left alone for a while."""


def _require_success(
    response: httpx.Response, url: str, key_env: str | None, key: str | None
) -> None:
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    message, code = error_message(response.content)
    if key:
        message = message.replace(key, "***")
    phrase = f"{status} {response.reason_phrase}".strip()
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if passing and code != "insufficient_quota":
        kind = _UnavailableError if status in _RESTING else TransientError
        reason = f"{phrase}: {message}" if message else phrase
        raise kind(reason, retry_after(response.headers.get("retry-after", "")))
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        given = f"the key in {key_env}" if key_env else "a request without a key (set api_key_env)"
        raise FatalError(f"{url} refuses {given}: {phrase}.")
    raise FatalError(f"{url} answers {phrase}{f': {message}' if message else ''}".rstrip(".") + ".")
