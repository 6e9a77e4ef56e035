"""Asking OpenAI-compatible endpoints: one server or several, hosted or on loopback; any request, any reply.

What this module promises
    Every request has one reply or one `FailedRequest` in the end; what may pass (429, 5xx, a timeout, a cut connection,
    an empty or unreadable body) is tried again with full jitter, not before the server's Retry-After. A request whose
    reply was handed over is not sent again. A request that the server refuses (400, 413, 422; 403 by a moderation) has
    no reply. Where every request under way is refused in the same words, which do not speak of the prompt, and none was
    answered, and for what no request can mend (401, 404, a used-up quota), the run ends in one sentence, after the
    replies that were under way have been handed over.
What it never does
    Log or record the key, not even where a reply repeats it; follow a redirect with it; take an error for a reply;
    read a body of more than `LARGEST_BODY` bytes, decompressed.

Connections, failures and retries are those of `alignboard.fetch`: ``openai`` would add its own retries, which neither
pause a server as a whole nor report per request, and takes a second to import. One thread runs an event loop, so that a
run that is stopped closes its connections at once and servers stop generating.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from alignboard.engines.openai.failures import (
    RefusedError,
    require_success,
    without,
    without_key,
)
from alignboard.engines.openai.format import UnreadableError, Usage
from alignboard.engines.openai.limits import Bucket, Clock
from alignboard.engines.openai.requests import AnyReply, FailedRequest, Request, TimedReply
from alignboard.engines.openai.served import Endpoint
from alignboard.errors import SourceError
from alignboard.fetch.http import (
    FinalError,
    TransientError,
    UnavailableError,
    connections,
    proxy_of,
)

if TYPE_CHECKING:
    import aiohttp

    from alignboard.fetch.posts import Posts

LARGEST_BODY = 64 * 2**20
"""bytes of a reply, decompressed; 4,096 tokens with 20 log-probabilities each are 10 MB"""
_ALIKE = 12
"""unreadable replies in the same words, and none that was read: the next would be no other"""
_BREATH = 0.002
"""seconds between two looks at whether replies have been taken"""


class _Server:
    """One address: what it is doing, and when it may be asked again."""

    def __init__(self, url: str, endpoint: Endpoint, clock: Clock, posts: Posts) -> None:
        self.url, self.posts = url, posts
        self.busy = 0
        self.rests_until = clock.now()
        limits = endpoint.limits
        self.requests = Bucket(limits.requests_per_minute, clock)
        self.tokens = Bucket(limits.tokens_per_minute, clock)
        self.is_limited = (limits.requests_per_minute, limits.tokens_per_minute) != (None, None)


class Requester(Generic[AnyReply]):
    """Posts requests to the servers of ``endpoint`` under ``path``.

    ``read`` makes a reply of a body and raises `UnreadableError` for one that is none; ``usage`` says what a reply
    used of the limit of tokens. ``clock`` is for tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        read: Callable[[bytes], AnyReply],
        usage: Callable[[AnyReply], Usage],
        clock: Clock | None = None,
    ) -> None:
        self.endpoint, self.path, self.read, self.usage = endpoint, path, read, usage
        self.clock = clock or Clock()

    def replies(
        self, asked: Sequence[Request]
    ) -> Iterator[tuple[Request, TimedReply[AnyReply] | FailedRequest]]:
        """What came of every request, as soon as it is there, in any order.

        Stop iterating (or close the iterator) and what is under way is given up. Raises `SourceError` for what no try
        can mend.
        """
        run = _Run(self)
        thread = threading.Thread(target=run.work, args=(list(asked),), daemon=True)
        thread.start()
        try:
            while isinstance(found := run.done.get(), list):
                for one in found:
                    run.n_taken += 1
                    yield one
            if isinstance(found, FinalError):
                raise SourceError(str(found))
            if found is not None:
                raise found
        finally:
            run.stop()
            thread.join()


class _Run:
    """One call of `Requester.replies`, inside its thread's event loop."""

    def __init__(self, requester: Requester[Any]) -> None:
        self._requester, self._key = requester, requester.endpoint.key()
        self._endpoint, self._clock = requester.endpoint, requester.clock
        self._fatal: FinalError | None = None
        self.done: queue.SimpleQueue[list[Any] | BaseException | None] = queue.SimpleQueue()
        """lists of what came of requests; last None, or what ended the run"""
        self.n_taken = self._n_handed = 0
        self._ready: list[Any] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._reached = self._answered = False
        self._n_workers = 1
        self._refused: dict[str, set[str]] = {}
        self._servers: list[_Server] = []
        self._unreadable: Counter[str] | None = Counter()
        self._ended = asyncio.Event()

    def work(self, asked: list[Request]) -> None:
        """Put everything into `done`."""
        try:
            asyncio.run(self._main(asked))
        except asyncio.CancelledError:
            self.done.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._hand_over()
            self.done.put(error)
        else:
            self._hand_over()
            self.done.put(self._fatal)

    def _hand(self, found: Any) -> None:
        """Hand over what came of a request, with whatever else comes in the same turn of the loop.

        A thread that is woken for each costs more than what it does with it.
        """
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._ready.append(found)
        self._n_handed += 1

    def _hand_over(self) -> None:
        if self._ready:
            self.done.put(self._ready)
            self._ready = []

    def stop(self) -> None:
        """Give up what is under way; called from another thread."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _main(self, asked: list[Request]) -> None:
        with self._lock:
            if self._stopped:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            limits, urls = self._endpoint.limits, self._endpoint.urls
            waiting = iter(asked)
            self._n_workers = min(len(asked), limits.concurrency * len(urls))
            encrypted = any(url.startswith("https:") for url in urls)
            async with connections(encrypted=encrypted) as connector:
                self._servers = [self._server(connector, url) for url in urls]
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._n_workers):
                        group.create_task(self._worker(waiting))
        finally:
            with self._lock:
                self._loop = self._task = None

    def _server(self, connector: aiohttp.BaseConnector, url: str) -> _Server:
        from alignboard.fetch.posts import Posts

        whole = f"{url.rstrip('/')}/{self._requester.path}"
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        posts = Posts(
            connector,
            whole,
            headers,
            proxy_of(whole),
            self._endpoint.limits.patience.connect_timeout,
            lambda text: without(self._key, text),
        )
        return _Server(whole, self._endpoint, self._clock, posts)

    async def _worker(self, waiting: Iterator[Request]) -> None:
        for request in waiting:
            if self._fatal is not None:
                return
            try:
                found = await self._persist(request)
            except FinalError as error:
                self._fatal = self._fatal or error
                self._ended.set()
            else:
                if found is not None:
                    self._hand((request, found))
                    # What waits to be taken is lost in a crash, so no more is asked for than is taken.
                    most = self._endpoint.limits.concurrency
                    while self._n_handed - self.n_taken > most:  # noqa: ASYNC110 - told by a thread
                        await asyncio.sleep(_BREATH)

    async def _persist(self, request: Request) -> TimedReply[Any] | FailedRequest | None:
        """Ask until there is a reply or no try is left; None where the run ended meanwhile."""
        patience = self._endpoint.limits.patience
        tries = 0
        while True:
            tries += 1
            try:
                return await self._try(request, tries)
            except RefusedError as error:
                return self._refuse(request, error, tries)
            except TransientError as error:
                if self._fatal is not None:
                    return None
                if tries >= patience.tries:
                    return self._give_up(error, tries)
                await self._wait(self._clock.sleep(patience.pause_after(tries, error)))

    async def _try(self, request: Request, tries: int) -> TimedReply[Any] | None:
        """Ask one server; one that cannot be reached, or is overloaded, is left alone for a while."""
        server = await self._ready_server()
        if self._fatal is not None:
            return None
        server.busy += 1
        try:
            return await self._ask(server, request)
        except UnavailableError as error:
            pause = self._endpoint.limits.patience.pause(tries, error.wait)
            server.rests_until = max(server.rests_until, self._clock.now() + pause)
            error.rested = True
            raise
        finally:
            server.busy -= 1

    def _give_up(self, error: TransientError, tries: int) -> FailedRequest:
        """The end of one request, or of the run where no server has answered anything."""
        if not self._reached:
            urls = " or ".join(self._endpoint.urls)
            raise FinalError(f"Nothing answers at {urls}: {error}.") from error
        return FailedRequest(str(error), tries)

    def _refuse(self, request: Request, error: RefusedError, tries: int) -> FailedRequest:
        """The end of one request, or of the run where nothing tells this request from the others."""
        reason = str(error)
        same = self._refused.setdefault(reason, set())
        same.add(request.key)
        if not (self._answered or error.of_the_prompt) and len(same) >= max(2, self._n_workers):
            raise FinalError(reason)
        return FailedRequest(reason.rstrip("."), tries, refused=True)

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

    async def _ask(self, server: _Server, request: Request) -> TimedReply[Any]:
        """One try. Raises `TransientError` or `FinalError`."""
        seconds = self._endpoint.limits.patience.timeout
        if server.is_limited:
            await self._wait(server.requests.take(1))
            await self._wait(server.tokens.take(request.n_tokens))
        if self._fatal is not None:
            raise TransientError("the run has ended")
        started, sent = self._clock.now(), msgspec.json.encode(request.body)
        try:
            async with asyncio.timeout(seconds):
                head, content = await server.posts.post(sent, LARGEST_BODY)
        except TimeoutError as error:
            raise TransientError(f"no answer within {seconds:g} s") from error
        self._reached = True
        require_success(head, content, server.url, self._endpoint.api_key_env, self._key)
        try:
            reply = self._requester.read(without_key(self._key, content))
        except UnreadableError as error:
            reason = without(self._key, str(error))
            self._require_hope(server, reason)
            raise TransientError(reason) from error
        self._answered, self._unreadable = True, None
        used = self._requester.usage(reply)
        if used.n_prompt is not None and used.n_answer is not None:
            server.tokens.give_back(request.n_tokens - used.n_prompt - used.n_answer)
        return TimedReply(reply, self._clock.now() - started)

    def _require_hope(self, server: _Server, reason: str) -> None:
        """Raise `FinalError` where the first replies of the run are all unreadable in the same way: each is paid."""
        if self._unreadable is None:
            return
        self._unreadable[reason] += 1
        if self._unreadable[reason] >= _ALIKE:
            raise FinalError(
                f"{server.url} has sent {_ALIKE} replies that cannot be read, and none that can: {reason}."
            )
