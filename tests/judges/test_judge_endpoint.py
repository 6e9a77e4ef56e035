"""Judges behind endpoints: what is sent, what is read, every fault outlived, no paid reply lost or paid twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from alignboard.engines.openai.format import UnreadableError
from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.served import Limits
from alignboard.errors import InputError, SourceError
from alignboard.fetch.http import Patience
from alignboard.judges.backends.batches import BatchHttp, BatchJudge
from alignboard.judges.backends.chat_format import read_judge_reply, request_body
from alignboard.judges.backends.endpoint import EndpointJudge, endpoint_of
from alignboard.judges.calls import Judge
from alignboard.judges.load import load_judge
from alignboard.judges.rows import Call, Message, Reply
from alignboard.judges.runner import InMemory, judge_pairs
from alignboard.judges.spec import Sampling
from alignboard.models.spec import EndpointOptions
from batch_server import BatchServer
from faulty_endpoint import FaultyEndpoint, body, cut, hang, status
from judging_doubles import pairs, spec, weighted

QUICK = Patience(tries=3, backoff=0.01, longest=0.02, timeout=2, connect_timeout=1)
PAIRS = pairs(8)


@pytest.fixture
def server():
    with FaultyEndpoint() as found:
        found.choice = lambda _: {"message": {"role": "assistant", "content": "[[A]]"}}
        yield found


def judge_at(server, declared=None, **options):
    declared = declared or spec()
    endpoint = endpoint_of(declared, [server.url], Limits(4, patience=QUICK))
    return Judge(declared, EndpointJudge(declared, endpoint, **options))


def call(content="compare"):
    return Call("00", (), (Message("system", "be fair"), Message("user", content)))


# What is sent.


def test_the_body_holds_what_the_judge_declares():
    sent = request_body(
        weighted(sampling=Sampling(1, temperature=1, top_p=0.9, seed=7, top_logprobs=5)), call()
    )
    assert sent == {
        "model": "m",
        "max_tokens": 1,
        "temperature": 1,
        "top_p": 0.9,
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 5,
        "messages": [
            {"role": "system", "content": "be fair"},
            {"role": "user", "content": "compare"},
        ],
    }
    options = EndpointOptions("max_completion_tokens", ["temperature"], {"stop": ["\n"]})
    newer = spec(sampling=Sampling(9), endpoint=options)
    sent = request_body(newer, call())
    assert (sent["max_completion_tokens"], sent["stop"], "max_tokens" in sent) == (9, ["\n"], False)
    assert not {"seed", "temperature"} & set(sent)


def test_alpaca_evals_tools_are_sent_as_they_are_declared():
    declared = load_judge("alpaca_eval_gpt4_turbo_fn")
    sent = request_body(declared, call())  # pyright: ignore[reportArgumentType]
    assert sent["tool_choice"]["function"]["name"] == "make_partial_leaderboard"
    assert sent["tools"][0]["function"]["parameters"]["required"] == ["ordered_models"]
    schema = spec(json_schema={"type": "object"})
    assert request_body(schema, call())["response_format"]["json_schema"]["schema"] == {
        "type": "object"
    }


# What is read.


def choice(**changes: Any) -> bytes:
    found = {"finish_reason": "stop", "message": {"role": "assistant", "content": "x"}} | changes
    return json.dumps(
        {"choices": [found], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    ).encode()


def test_replies_are_read():
    assert read_judge_reply(choice()) == Reply("x", n_prompt=5, n_answer=2)
    tool = {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}], "content": None}
    assert read_judge_reply(choice(message=tool, finish_reason="tool_calls")).text == '{"a": 1}'
    assert read_judge_reply(choice(finish_reason="content_filter")).finish == "refused"
    refusal = read_judge_reply(choice(message={"content": None, "refusal": "I cannot"}))
    assert (refusal.finish, refusal.reason) == ("refused", "I cannot")
    top = [{"token": "A", "logprob": -0.1}, {"token": "B", "logprob": float("-inf")}]
    tokens = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": top}]}
    said = read_judge_reply(choice(logprobs=tokens, finish_reason="length"))
    assert said.tokens[0].top == (("A", -0.1),)
    assert said.finish == "length"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"choices": []}',
        choice(finish_reason=None, message={"content": None}),
        choice(finish_reason="abort"),
        choice(message={"content": None}),
        choice(message=None),
        choice(logprobs={"content": [{"token": "A"}]}),
        choice(
            logprobs={"content": [{"token": "A", "logprob": float("-inf"), "top_logprobs": []}]}
        ),
    ],
)
def test_a_body_that_is_no_reply_is_not_read_as_one(content):
    with pytest.raises(UnreadableError):
        read_judge_reply(content)


# Faults.


def test_every_fault_is_outlived_and_nothing_is_asked_twice(server):
    prompts = [f"question {i}\n" for i in range(8)]
    faults = [
        [status(429, Retry_After="0")],
        [status(500), status(503)],
        [hang()],
        [cut()],
        [body(b"")],
        [body(b"<html>502</html>")],
        [body(b'{"error": {"message": "loading"}}')],
        [],
    ]
    asked, n_faults = judge_at(server, spec(order="given")), sum(map(len, faults))
    for found, fault in zip(PAIRS, faults, strict=True):
        content = f"{found.instruction}\nA: {found.output_1}\nB: {found.output_2}"
        server.faults[content] = fault
    kept = InMemory()
    judged = judge_pairs(asked, PAIRS, kept)
    assert {one.preference for one in judged} == {1.0}
    assert len(kept.rows) == len(prompts)
    n = len(server.requests)
    assert n == 8 + n_faults
    judge_pairs(asked, PAIRS, kept)
    assert len(server.requests) == n


def test_what_stays_unanswered_is_a_failed_verdict_and_is_asked_again(server):
    bad = f"{PAIRS[2].instruction}\nA: {PAIRS[2].output_1}\nB: {PAIRS[2].output_2}"
    server.faults[bad] = [status(500)] * 99
    asked, kept = judge_at(server), InMemory()
    judged = judge_pairs(asked, PAIRS, kept)
    assert [one.status for one in judged].count("failed") == 1
    assert judged[2].reason == "500 Internal Server Error"
    server.faults.clear()
    server.requests.clear()
    assert {one.status for one in judge_pairs(asked, PAIRS, kept)} == {"scored"}
    assert [request.instruction for request in server.requests] == [bad]


def test_what_no_try_can_mend_ends_the_run_in_a_sentence(server):
    server.always = status(404, b'{"error": {"message": "no such model"}}')
    with pytest.raises(SourceError, match="no such model"):
        judge_pairs(judge_at(server), PAIRS)
    keyed = spec(api_key_env="OPENAI_API_KEY", base_url=server.url)
    judge = Judge(keyed, EndpointJudge(keyed, endpoint_of(keyed)))
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        judge_pairs(judge, PAIRS)


def test_price_and_seconds_are_recorded(server):
    server.usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    (one,) = judge_pairs(judge_at(server, spec(order="given"), rate=Rate(2, 8)), PAIRS[:1])
    assert one.replies[0].price == pytest.approx(0.00208)
    assert one.replies[0].seconds is not None


def test_log_probabilities_are_the_verdict(server):
    def choice_of(request):
        sure = [{"token": "A", "logprob": -0.1}, {"token": " B", "logprob": -2.4}]
        token = {"token": "A", "logprob": -0.1, "top_logprobs": sure}
        return {
            "finish_reason": "length",
            "message": {"role": "assistant", "content": "A"},
            "logprobs": {"content": [token]},
        }

    server.choice = choice_of
    (one,) = judge_pairs(judge_at(server, weighted(order="given")), PAIRS[:1])
    assert one.preference == pytest.approx(1 + 1 / (1 + 2.718281828 ** (2.4 - 0.1)))
    assert one.verdicts[0].mass == pytest.approx(2.718281828**-0.1 + 2.718281828**-2.4)


def test_an_endpoint_without_log_probabilities_is_sampled(server):
    """Four replies to each prompt, each with a seed of its own; their mean is the probability."""
    said = iter("AAAB" * 2)
    server.choice = lambda _: {"message": {"role": "assistant", "content": next(said)}}
    declared = weighted(order="given", sampling=Sampling(1, temperature=1, samples=4))
    (one,) = judge_pairs(judge_at(server, declared), PAIRS[:1])
    assert one.preference == pytest.approx(1.25)
    assert sorted(request.body["seed"] for request in server.requests) == [0, 1, 2, 3]


def test_several_addresses_share_the_calls():
    with FaultyEndpoint(0.02) as one, FaultyEndpoint(0.02) as two:
        for server in (one, two):
            server.choice = lambda _: {"message": {"role": "assistant", "content": "[[A]]"}}
        declared = spec()
        endpoint = endpoint_of(declared, [one.url, two.url], Limits(2, patience=QUICK))
        judge_pairs(Judge(declared, EndpointJudge(declared, endpoint)), PAIRS)
        assert len(one.requests) + len(two.requests) == 16
        assert min(len(one.requests), len(two.requests)) >= 4


def test_a_judges_key_is_sent_to_its_own_address_only():
    hosted = spec(api_key_env="THE_KEY", base_url="https://api.example.org/v1")
    assert endpoint_of(hosted).api_key_env == "THE_KEY"
    assert endpoint_of(hosted, ["http://127.0.0.1:1/v1"]).api_key_env is None
    own = endpoint_of(hosted, ["http://127.0.0.1:1/v1"], api_key_env="MINE")
    assert own.api_key_env == "MINE"


def test_identity_is_model_settings_and_address_but_not_patience(server):
    def identity(declared=None, urls=(), **limits):
        declared = declared or spec()
        return EndpointJudge(declared, endpoint_of(declared, urls, Limits(**limits))).identity

    assert identity() == identity(concurrency=3) == identity(spec(name="x", title="y", source="z"))
    others = [identity(urls=[server.url]), identity(spec(model="other"))]
    others.append(identity(spec(sampling=Sampling(9))))
    assert all(other != identity() for other in others)


# Batches.


def batch_judge(server, folder, declared=None):
    declared = declared or spec()
    endpoint = endpoint_of(declared, [server.url], Limits(patience=QUICK))
    return Judge(declared, BatchJudge(declared, endpoint, folder, Rate(1, 4), sleep=lambda _: None))


def test_a_batch_gives_the_replies_of_the_ordinary_interface(server, tmp_path):
    with BatchServer(looks=3) as batches:
        asked, kept = batch_judge(batches, tmp_path), InMemory()
        judged = judge_pairs(asked, PAIRS, kept)
        assert [one.preference for one in judged] == [1.5] * len(PAIRS)
        assert judged[0].replies[0].price == pytest.approx(0.00104)
        assert list(tmp_path.rglob("*.json")) == []
        judge_pairs(asked, PAIRS, kept)
        assert len(batches.batches) == 1
    declared = spec()
    endpoint = endpoint_of(declared, [batches.url])
    ordinary = Judge(declared, EndpointJudge(declared, endpoint))
    assert judge_pairs(ordinary, PAIRS, kept, ask=False) == judged


class Stopped(BaseException):
    """As a kill: nothing is tidied up."""


@pytest.mark.parametrize("moment", ["upload", "create", "batch", "content"])
def test_a_run_that_dies_at_any_moment_pays_for_no_batch_twice(moment, tmp_path, monkeypatch):

    real = getattr(BatchHttp, moment)

    def dying(self, *arguments):
        real(self, *arguments)
        raise Stopped

    with BatchServer() as batches:
        monkeypatch.setattr(BatchHttp, moment, dying)
        kept = InMemory()
        with pytest.raises(Stopped):
            judge_pairs(batch_judge(batches, tmp_path), PAIRS, kept)
        monkeypatch.setattr(BatchHttp, moment, real)
        judged = judge_pairs(batch_judge(batches, tmp_path), PAIRS, kept)
        assert {one.status for one in judged} == {"scored"}
        assert len(batches.batches) == 1


def test_the_answer_to_a_new_batch_may_be_lost_but_not_the_batch(tmp_path):
    with BatchServer() as batches:
        batches.lose_answers, batches.fail_next = 1, 1
        judged = judge_pairs(batch_judge(batches, tmp_path), PAIRS)
        assert {one.status for one in judged} == {"scored"}
        assert len(batches.batches) == 1


def test_what_a_batch_left_is_asked_in_the_next(tmp_path):
    with BatchServer() as batches:
        batches.unanswered, batches.refused = {"question 1"}, {"question 2"}
        kept = InMemory()
        judged = judge_pairs(batch_judge(batches, tmp_path), PAIRS, kept)
        assert Counter(one.status for one in judged) == {"scored": 6, "failed": 2}
        assert judged[1].reason == "the batch batch-0 is expired"
        assert "the content was refused" in judged[2].reason
        batches.unanswered = batches.refused = set()
        again = judge_pairs(batch_judge(batches, tmp_path), PAIRS, kept)
        assert {one.status for one in again} == {"scored"}
        assert len(batches.files[batches.batches["batch-1"]["input_file_id"]].splitlines()) == 4


def test_a_batch_that_is_too_large_is_cut_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("alignboard.judges.backends.batches.MOST_REQUESTS", 5)
    with BatchServer() as batches:
        judge_pairs(batch_judge(batches, tmp_path), PAIRS)
        sizes = [
            len(batches.files[b["input_file_id"]].splitlines()) for b in batches.batches.values()
        ]
        assert sizes == [5, 5, 5, 1]


def test_the_rows_of_a_reply_survive_json(server):
    (one,) = judge_pairs(judge_at(server, spec(order="given")), PAIRS[:1])
    said = one.replies[0]
    assert msgspec.json.decode(msgspec.json.encode(said), type=Reply) == said
