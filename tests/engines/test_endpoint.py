"""The endpoint engine against a server that fails: nothing lost, nothing asked twice, limits held, clear reports."""

import asyncio
import email.utils
import itertools
import logging
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from alignboard.engines.openai.endpoint import EndpointEngine
from alignboard.engines.openai.format import Dialect, UnreadableError, read_reply
from alignboard.engines.openai.limits import Bucket, Clock
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.served import Endpoint, Limits
from alignboard.engines.rows import Answer, Decoding, Failure, Prompt
from alignboard.errors import InputError, SourceError
from alignboard.fetch.http import Patience
from alignboard.fetch.ranges import MIRROR, address_of
from faulty_endpoint import FaultyEndpoint, body, cut, hang, status

QUICK = Patience(tries=4, backoff=0.01, longest=0.05, timeout=0.5, connect_timeout=0.5)
DECODING = Decoding(16)


@pytest.fixture
def server():
    with FaultyEndpoint() as found:
        yield found


def endpoint(*servers, **changes):
    settings = {"dialect": Dialect("tiny"), "patience": QUICK} | changes
    names = ("concurrency", "requests_per_minute", "tokens_per_minute", "patience")
    limits = Limits(**{name: settings.pop(name) for name in names if name in settings})
    urls = tuple(one if isinstance(one, str) else one.url for one in servers)
    return Endpoint(urls, limits=limits, **settings)


def ask(config, instructions, decoding=DECODING, **options) -> list[Any]:
    engine = EndpointEngine(config, **options)
    return list(engine.answers(config.prompts(instructions, decoding), decoding))


def outputs(found):
    return {one.instruction: one.output for one in found if isinstance(one, Answer)}


def test_every_fault_is_outlived(server):
    server.faults = {
        "limited": [status(429, Retry_After="0")],
        "broken": [status(500), status(503)],
        "hanging": [hang()],
        "cut": [cut()],
        "empty": [body(b"")],
        "html": [body(b"<html>502</html>")],
        "list": [body(b"[]")],
        "error": [body(b'{"error": {"message": "loading"}}')],
        "many": [status(500), cut(), body(b"{}")],
    }
    asked = [*server.faults, *(f"plain {i}" for i in range(20))]
    planned = {name: len(faults) for name, faults in server.faults.items()}
    found = ask(endpoint(server, patience=replace(QUICK, tries=8, timeout=1.5)), asked)
    assert outputs(found) == {one: f"Answer to {one}" for one in asked}
    assert Counter(server.answered) == Counter(asked)  # nothing asked again once answered
    sent = Counter(request.instruction for request in server.requests)
    assert all(sent[one] == planned.get(one, 0) + 1 for one in asked)


def test_what_fails_in_the_end_is_reported_and_the_others_are_kept(server):
    server.faults = {"bad": [status(500, b'{"error": {"message": "out of cheese"}}')] * 9}
    found = ask(endpoint(server), ["bad", "good", "fine"])
    failures = [one for one in found if isinstance(one, Failure)]
    assert [(one.instruction, one.kind, one.tries) for one in failures] == [("bad", "error", 4)]
    assert failures[0].reason == "500 Internal Server Error: out of cheese"
    assert set(outputs(found)) == {"good", "fine"}
    assert sum(request.instruction == "bad" for request in server.requests) == 4


@pytest.mark.parametrize(
    ("code", "content", "said"),
    [
        (401, b'{"error": {"message": "Incorrect key secret-key"}}', "refuses the key in TEST_KEY"),
        (404, b'{"detail": "no model tiny"}', "404 Not Found: no model tiny"),
        (405, b'{"error": "no secret-key"}', r"405 Method Not Allowed: no \*\*\*"),
        (429, b'{"error": {"code": "insufficient_quota", "message": "pay"}}', "pay"),
        (302, b"", "302 Found"),
    ],
)
def test_what_no_try_can_mend_ends_at_once(server, monkeypatch, code, content, said):
    monkeypatch.setenv("TEST_KEY", "secret-key")
    server.faults = {"7": [status(code, content)]}
    server.delay = 0.02
    config = endpoint(server, api_key_env="TEST_KEY", concurrency=4)
    asked = [str(i) for i in range(60)]
    found = []
    answers = EndpointEngine(config).answers(config.prompts(asked, DECODING), DECODING)
    with pytest.raises(SourceError, match=said) as caught:
        found.extend(answers)  # keeps those before it raises
    assert "secret-key" not in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert set(outputs(found)) == set(server.answered)  # what was under way was handed over
    assert len(server.requests) < 20


def test_a_request_that_the_server_refuses_is_a_failure_of_its_own(server):
    server.faults = {"long": [status(400, b'{"error": "context too long"}')] * 9}
    for _ in range(2):
        found = ask(endpoint(server), ["long", *"abcde"])
        failures = [one for one in found if isinstance(one, Failure)]
        assert [(one.instruction, one.tries) for one in failures] == [("long", 1)]
        assert failures[0].reason.endswith("400 Bad Request: context too long")
        assert set(outputs(found)) == set("abcde")


def test_what_every_request_meets_ends_the_run(server):
    server.always = status(400, b'{"error": "no such field: top_logprobs"}')
    with pytest.raises(SourceError, match="no such field"):
        ask(endpoint(server, concurrency=4), [str(i) for i in range(60)])
    assert len(server.requests) < 20


def test_who_waits_does_not_hold_up_the_end(server):
    server.faults = {"waits": [status(500, Retry_After="60")], "ends": [status(404)]}
    start = time.monotonic()
    with pytest.raises(SourceError, match="404 Not Found"):
        ask(endpoint(server, requests_per_minute=30), ["waits", "ends", "a", "b", "c", "d"])
    assert time.monotonic() - start < 10


def test_nothing_listens():
    with FaultyEndpoint() as gone:
        url = gone.url
    with pytest.raises(
        SourceError, match=f"Nothing answers at {url}: client connector error: Cannot connect"
    ):
        ask(endpoint(url), ["a", "b"])


def test_the_key_is_sent_and_never_logged(server, monkeypatch, caplog):
    monkeypatch.setenv("TEST_KEY", " secret-key\n")
    caplog.set_level(logging.DEBUG)
    config = endpoint(server, api_key_env="TEST_KEY")
    found = ask(config, ["a"])
    assert server.requests[0].authorization == "Bearer secret-key"
    assert "secret-key" not in caplog.text + repr(config) + repr(found)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(InputError, match="TEST_KEY, which is to hold the key, is not set"):
        EndpointEngine(config)


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured(server, date):
    due = int(time.time()) + 2 if date else time.time() + 1
    asked = email.utils.formatdate(due, usegmt=True) if date else "1"
    server.faults = {"a": [status(429, Retry_After=asked)]}
    found = ask(endpoint(server), ["a"])
    assert outputs(found) == {"a": "Answer to a"}
    assert len(server.requests) == 2
    assert due <= time.time() < due + 5


def test_a_resting_server_is_left_alone_and_the_other_one_asked():
    with FaultyEndpoint() as one, FaultyEndpoint() as two:
        one.always = status(429, Retry_After="30")
        start = time.monotonic()
        asked = [str(i) for i in range(40)]
        found = ask(endpoint(one, two, concurrency=4), asked)
        assert time.monotonic() - start < 10
    assert set(outputs(found)) == set(asked)
    assert len(one.requests) <= 4
    assert sorted(two.answered) == sorted(asked)


def test_the_least_busy_server_is_asked_first():
    with FaultyEndpoint(delay=0.01) as quick, FaultyEndpoint(delay=0.2) as slow:
        asked = [str(i) for i in range(60)]
        found = ask(endpoint(slow, quick, concurrency=4), asked)
    assert set(outputs(found)) == set(asked)
    assert len(quick.answered) > 2 * len(slow.answered) > 0
    assert max(request.under_way for one in (quick, slow) for request in one.requests) <= 8


def test_concurrency_is_reached_and_held(server):
    server.delay = 0.1
    ask(endpoint(server, concurrency=8), [str(i) for i in range(40)])
    assert max(request.under_way for request in server.requests) == 8


def test_stopping_closes_connections_and_asks_no_more(server):
    server.faults = {str(i): [hang()] for i in range(1, 30)}
    config = endpoint(server, concurrency=4, patience=Patience(timeout=60))
    asked = [str(i) for i in range(30)]
    start = time.monotonic()
    for one in EndpointEngine(config).answers(config.prompts(asked, DECODING), DECODING):
        assert one.instruction == "0"
        break
    assert time.monotonic() - start < 5
    assert len(server.requests) <= 5


class FakeClock(Clock):
    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds
        await asyncio.sleep(0)


def test_a_bucket_holds_its_rate_within_the_minute_and_over_it():
    clock = FakeClock()
    bucket = Bucket(120, clock)
    times = []

    async def take():
        await bucket.take(1)
        times.append(clock.now())

    async def everything():
        await asyncio.gather(*(take() for _ in range(300)))

    asyncio.run(everything())
    assert times[-1] == pytest.approx(149, abs=1)
    for start, end in itertools.pairwise(range(0, 150, 10)):
        assert sum(start <= one < end for one in times) <= 22


def test_a_bucket_pays_for_what_is_larger_than_it_and_takes_back_what_was_not_used():
    clock = FakeClock()
    bucket = Bucket(600, clock)

    async def everything():
        await bucket.take(100)  # ten seconds' worth
        assert clock.now() == 0
        await bucket.take(1)
        assert clock.now() == pytest.approx(9.1)
        bucket.give_back(5)
        await bucket.take(5)
        assert clock.now() == pytest.approx(9.1)

    asyncio.run(everything())


@pytest.mark.parametrize("limits", [{"requests_per_minute": 60}, {"tokens_per_minute": 600}])
def test_limits_are_held_across_workers(server, limits):
    clock = FakeClock()
    # tokens: 7 + 3 are used by each, so 600 a minute are one request a second as well
    found = ask(endpoint(server, concurrency=8, **limits), list("abcdefghij"), clock=clock)
    assert len(outputs(found)) == 10
    assert clock.now() >= 8


def test_backoff_has_full_jitter_and_bounds():
    patience = Patience(backoff=1, longest=10, longest_asked=20)
    assert [patience.pause(n, 0, lambda: 1.0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert patience.pause(3, 0, lambda: 0.0) == 0
    assert patience.pause(1, 7, lambda: 0.5) == 7.5
    assert patience.pause(1, 1000, lambda: 0.0) == 20


def test_what_is_sent(server):
    sampled = Decoding(
        9, temperature=0.7, seed=5, top_p=0.9, stop=("\nInstruct:",), stop_tokens=(4,)
    )
    chat = Dialect("tiny", system="Be brief.", extra={"min_p": 0.1})
    ask(endpoint(server, dialect=chat), ["hello"], sampled)
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
        ],
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "stop": ["\nInstruct:"],
        "stop_token_ids": [4],
        "min_p": 0.1,
    }
    config = endpoint(server, dialect=Dialect("tiny", "completions"))
    prompts = config.prompts(["hello"], DECODING, render=lambda _: [1, 5, 6])
    list(EndpointEngine(config).answers(prompts, DECODING))
    assert server.requests[1].path == "/v1/completions"
    assert server.requests[1].body["prompt"] == [1, 5, 6]
    assert server.requests[1].body["temperature"] == 0
    with pytest.raises(InputError, match="a prompt has none"):
        ask(config, ["hello"])
    text = endpoint(server, dialect=Dialect("tiny", "completions", "text"))
    list(EndpointEngine(text).answers([Prompt("hello", (), "k", "<s>hello")], DECODING))
    assert server.requests[2].body["prompt"] == "<s>hello"
    assert len(server.requests) == 3


def test_usage_is_recorded_and_priced(server):
    rate = Rate(prompt=2.0, answer=10.0)
    (answer,) = ask(endpoint(server), ["a"], rate=rate)
    assert (answer.n_prompt_tokens, answer.n_tokens) == (7, 3)
    assert answer.price == pytest.approx(44e-6)
    server.usage = None
    (answer,) = ask(endpoint(server), ["a"], rate=rate)
    assert (answer.n_prompt_tokens, answer.n_tokens, answer.price) == (None, None, None)


def test_how_an_answer_ends(server):
    for said, finish in (("stop", "stop"), ("length", "length"), ("max_tokens", "length")):
        server.finish = said
        assert ask(endpoint(server), ["a"])[0].finish == finish
    (answer,) = ask(endpoint(server), ["one two"], Decoding(16, stop=("two", "to ")))
    assert (answer.output, answer.finish) == ("Answer", "stop")
    server.finish = "content_filter"
    (failure,) = ask(endpoint(server), ["a"])
    assert failure.kind == "refused"
    server.finish = "abort"
    (failure,) = ask(endpoint(server), ["a"])
    assert failure.reason == "the answer ended with finish_reason 'abort'"


def test_an_answer_without_text_is_no_empty_answer():
    message = b'{"choices": [{"message": {"content": %s}, "finish_reason": "%s"}]}'
    with pytest.raises(UnreadableError, match="no text"):
        read_reply(message % (b"null", b"stop"), "chat")
    assert read_reply(message % (b'""', b"stop"), "chat").text == ""
    assert read_reply(message % (b"null", b"length"), "chat").text == ""


def test_a_prompt_that_is_there_twice_is_asked_once(server):
    assert len(ask(endpoint(server), ["a", "a", "b"])) == 2
    assert len(server.requests) == 2


def test_keys_name_what_determines_an_answer():
    def key(decoding=DECODING, url="http://a/v1", render=None, text="x", **changes):
        return endpoint(url, **changes).prompts([text], decoding, render)[0].key

    assert key() == key(concurrency=3, patience=Patience()) == key(Decoding(16, seed=4))
    assert key(weights="r1") == key(weights="r1", url="http://b/v1")
    different = {
        key(),
        key(Decoding(17)),
        key(Decoding(16, stop=("a",))),
        key(Decoding(16, temperature=1)),
        key(Decoding(16, temperature=1, seed=1)),
        key(Decoding(16, temperature=1, top_p=0.5)),
        key(url="http://b/v1"),
        key(weights="r1"),
        key(dialect=Dialect("other")),
        key(dialect=Dialect("tiny", system="s")),
        key(dialect=Dialect("tiny", extra={"a": 1})),
        key(render=lambda _: [1]),
        key(text="y"),
    }
    assert len(different) == 13


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a/v1", "http://user:word@a/v1", "http://a?b"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(InputError, match="is no address of an endpoint"):
        endpoint(url)


@pytest.mark.parametrize(
    "url", ["http://user:s3cret@a/v1", "http://a/v1?key=s3cret", "ftp://s3cret@a#s3cret"]
)
def test_the_sentence_about_an_address_masks_what_is_secret_in_it(url, monkeypatch):
    with pytest.raises(InputError, match=r"\*\*\*") as at_endpoint:
        endpoint(url)
    monkeypatch.setenv(MIRROR, url.replace("http", "file"))
    with pytest.raises(InputError, match=r"\*\*\*") as at_mirror:
        address_of("https://host/file")
    assert "s3cret" not in f"{at_endpoint.value} {at_mirror.value}"


def test_importing_loads_neither_client_nor_framework():
    engines = "alignboard.engines.openai.endpoint, alignboard.engines.local.engine"
    heavy = {"aiohttp", "httpx", "torch", "transformers", "peft"}
    script = f"import sys, {engines}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
