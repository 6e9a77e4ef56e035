"""Endpoints with opinions: other words for an end, reasoning apart, fields that they refuse; nothing paid is lost."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import click.testing
import pytest

from alignboard.cli.app import cli
from alignboard.cli.judge.text import summary_text
from alignboard.engines.openai.endpoint import EndpointEngine
from alignboard.engines.openai.failures import RefusedError, require_success
from alignboard.engines.openai.format import Dialect, UnreadableError, read_reply, refused_field
from alignboard.engines.openai.served import Endpoint, Limits
from alignboard.engines.rows import Answer, Decoding, read_answer
from alignboard.errors import InputError, SourceError
from alignboard.fetch.http import Head, Patience
from alignboard.judges.annotations import summarise
from alignboard.judges.calls import Judge
from alignboard.judges.pairs import Judged
from alignboard.judges.rows import Verdict
from alignboard.judges.runner import judge_pairs
from alignboard.models.spec import read_spec
from faulty_endpoint import FaultyEndpoint, body, status
from judging_doubles import pairs, spec

BUGS = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "bugs"
QUICK = Limits(2, patience=Patience(tries=6, backoff=0.001, longest=0.002, timeout=5))


def sent(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": content, **message}}
    return {"choices": [choice | ({} if finish == "missing" else {"finish_reason": finish})]}


def answer_to(found: dict[str, Any]) -> Answer:
    with FaultyEndpoint() as server:
        server.always = body(json.dumps(found).encode())
        endpoint = Endpoint((server.url,), Dialect("m"), limits=QUICK)
        asked = endpoint.prompts(["Which colour?"], Decoding())
        (answer,) = EndpointEngine(endpoint).answers(asked, Decoding())
    return cast("Answer", answer)


@pytest.mark.parametrize(
    ("finish", "means"),
    [
        (None, "unknown"), ("missing", "unknown"), ("", "unknown"), ("STOP", "stop"), ("Eos", "stop"),
        ("COMPLETE", "stop"), ("model_length", "length"), ("MAX_TOKENS", "length"), ("odd", "unknown"),
        (["stop"], "stop"), (7, "unknown"), ({"a": 1}, "unknown"), ({"type": "length"}, "length"),
        ("FinishReason.MAX_TOKENS", "length"), ("token_limit", "length"), ("max_tokens_reached", "length"),
        ("model_context_window_exceeded", "length"), ("max_output_reached", "length"),
        ("truncated", "length"), ("pause_turn", "unknown"),
    ],
)  # fmt: skip
def test_whatever_is_said_of_its_end_the_text_is_kept(finish, means):
    reply = read_reply(json.dumps(sent("Blue.", finish)).encode(), "chat")
    assert (reply.text, reply.finish) == ("Blue.", means)


@pytest.mark.parametrize(
    ("found", "output", "reasoning"),
    [
        (sent("<think>hm</think>\n\nBlue."), "Blue.", "hm"),
        (sent("Blue.", reasoning_content="hm"), "Blue.", "hm"),
        (sent("Blue.", reasoning="hm"), "Blue.", "hm"),
        (sent([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
               {"type": "text", "text": "Blue."}]), "Blue.", "hm"),
        (sent([{"type": "text", "text": "Bl"}, {"type": "text", "text": "ue."}]), "Blue.", ""),
        (sent({"type": "text", "text": "Blue."}), "Blue.", ""),
        (sent('<think>it is "blue"</think>"Blue."'), '"Blue."', 'it is "blue"'),
        (sent(None, "length", reasoning_content="hm"), "", "hm"),
        (sent("", "stop", reasoning_content="hm"), "", "hm"),
        (sent("<think>hm hm", "length"), "", "hm hm"),
    ],
)  # fmt: skip
def test_reasoning_is_kept_apart_from_the_response(found, output, reasoning):
    answer = answer_to(found)
    assert (answer.output, answer.reasoning) == (output, reasoning)


@pytest.mark.parametrize(
    "found",
    [sent(None), sent("", None), sent("Bl", "error"), sent("", "insufficient_system_resource"),
     sent([{"type": "image_url"}]), {"choices": None}],
)  # fmt: skip
def test_what_holds_nothing_is_no_reply(found):
    with pytest.raises(UnreadableError):
        read_reply(json.dumps(found).encode(), "chat")


def test_a_count_of_tokens_beyond_reason_is_none():
    for count, means in ((10**400, None), (-1, None), (True, None), ("5", None), (5.0, 5)):
        found = sent("x") | {"usage": {"prompt_tokens": count, "completion_tokens": 2}}
        assert read_reply(json.dumps(found).encode(), "chat").usage.n_prompt == means


def test_a_dozen_replies_unreadable_alike_end_the_run_in_a_sentence():
    with FaultyEndpoint() as server:
        server.always = body(json.dumps(sent(None)).encode())
        endpoint = Endpoint((server.url,), Dialect("m"), limits=QUICK)
        asked = endpoint.prompts([f"question {n}" for n in range(30)], Decoding())
        with pytest.raises(SourceError, match=r"12 replies that cannot be read.*has no text"):
            list(EndpointEngine(endpoint).answers(asked, Decoding()))
        assert len(server.requests) < 16


def test_after_a_reply_that_was_read_unreadable_ones_cost_only_their_rows():
    with FaultyEndpoint() as server:
        bad = body(json.dumps(sent(None)).encode())
        server.faults = {f"question {n}": [bad] * 9 for n in range(1, 5)}
        limits = Limits(1, patience=QUICK.patience)
        endpoint = Endpoint((server.url,), Dialect("m"), limits=limits)
        asked = endpoint.prompts([f"question {n}" for n in range(6)], Decoding())
        found = list(EndpointEngine(endpoint).answers(asked, Decoding()))
    assert sum(isinstance(one, Answer) for one in found) == 2
    assert len(found) == 6


# Fields that a server refuses.


def test_what_an_entry_says_of_requests_is_followed():
    dialect = Dialect(
        "m", limit_field="max_completion_tokens", omit=("temperature", "stop"), extra={"a": 1}
    )
    endpoint = Endpoint(("http://x/v1",), dialect)
    [prompt] = endpoint.prompts(["Why?"], Decoding())
    assert dialect.body(prompt, Decoding(9, stop=("\n",))) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_completion_tokens": 9,
        "a": 1,
    }


def test_omitted_fields_are_part_of_a_key_and_keys_of_before_stay():
    def key(**changes: Any) -> str:
        return Endpoint(("http://x/v1",), Dialect("m", **changes)).prompts(["a"], Decoding())[0].key

    assert key() == "9108ebf5ef7e6498a57dfa6dcc20df7d"
    assert len({key(), key(omit=("temperature",)), key(omit=("seed",))}) == 3


@pytest.mark.parametrize(
    ("message", "param", "code", "field"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens",
         "unsupported_parameter", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0 with this model.", None, None, "temperature"),
        ("Unrecognized request argument supplied: seed", None, None, "seed"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]",
         None, 400, "seed"),
        ("azure does not support parameters: {'temperature': 0.0}, for model=m", None, None, "temperature"),
        ("temperature: Extra inputs are not permitted", None, None, "temperature"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', None, None, "seed"),
        ("property 'logprobs' is unsupported", None, None, "logprobs"),
        ("Additional properties are not allowed ('stop' was unexpected)", None, None, "stop"),
        ("extraneous key [top_p] is not permitted", None, None, "top_p"),
        ("max_tokens is too large: 100000. This model supports 4096.", "max_tokens", "invalid_value", None),
        ("Invalid value for 'content': expected a string.", None, None, None),
        ("Please stop: this is not allowed.", None, None, None),
        ("This model's maximum context length is 8192 tokens.", "messages", "context_length_exceeded", None),
        ("Your prompt was filtered.", "prompt", "content_filter", None),
    ],
)  # fmt: skip
def test_the_refused_field_is_found(message, param, code, field):
    content = {"error": {"message": message, "param": param, "code": code}}
    assert refused_field(json.dumps(content).encode()) == field


@pytest.mark.parametrize(
    "found", [{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not given"}]},
              [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}]],
)  # fmt: skip
def test_the_refused_field_is_found_in_other_shapes_of_errors(found):
    assert refused_field(json.dumps(found).encode()) == "seed"


@pytest.mark.parametrize(
    "message",
    [
        "temperature: Input should be less than or equal to 2",
        "Input validation error: `max_new_tokens` must be <= 512",
        "max_tokens must be at most 4096",
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        "stop: array too long. Expected an array with maximum length 4",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "tools must not be empty",
    ],
)
def test_a_setting_that_every_request_has_is_not_taken_for_its_prompt(message):
    content = json.dumps({"error": {"message": message}}).encode()
    with pytest.raises(RefusedError) as refused:
        require_success(Head(400, "Bad Request", {}), content, "http://here", None, None)
    assert not refused.value.of_the_prompt


@pytest.mark.parametrize(
    "apart",
    [
        {"reasoning_details": [{"type": "reasoning.text", "text": "Blue or red?"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Blue or red?"}]},
        {"reasoning": {"text": "Blue or red?"}},
    ],
)
def test_reasoning_is_kept_under_the_names_of_gateways(apart):
    reply = read_reply(json.dumps(sent("Blue.", **apart)).encode(), "chat")
    assert (reply.text, reply.reasoning) == ("Blue.", "Blue or red?")


def test_a_refusal_may_be_a_part_and_tokens_may_have_other_names():
    content = sent([{"type": "refusal", "refusal": "I cannot."}])
    usage = {"input_tokens": 3, "output_tokens": 2}
    reply = read_reply(json.dumps(content | {"usage": usage}).encode(), "chat")
    assert (reply.finish, reply.reason) == ("refused", "I cannot.")
    assert (reply.usage.n_prompt, reply.usage.n_answer) == (3, 2)
    assert read_reply(json.dumps(sent("", "sensitive")).encode(), "chat").finish == "refused"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, {"message": "The response was filtered.", "code": "content_filter"}),
        (400, {"message": "Bad.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        (400, {"message": "the request exceeds the available context size", "code": 400}),
        (400, {"message": "x", "type": "exceed_context_size_error"}),
        (400, {"message": "Invalid prompt.", "code": "invalid_prompt"}),
        (403, {"message": "Your input was flagged for violence.", "code": 403}),
        (413, {"message": "Payload Too Large"}),
        (422, {"message": "Input validation error: inputs is too long, 9000 tokens"}),
        (422, {"message": "Input validation error: `inputs` must have less than 1000 tokens. Given: 1900"}),
        (400, {"message": "The input token count (12) exceeds the maximum number of tokens allowed (10)."}),
        (400, {"message": "input length and `max_tokens` exceed context limit: 190 + 8 > 192"}),
        (400, {"message": "The decoder prompt (length 50) is longer than the maximum model length of 40."}),
        (400, {"message": "Request blocked: PROHIBITED_CONTENT"}),
        (400, {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}),
        (400, {"message": "Content Exists Risk", "type": "invalid_request_error"}),
        (400, {"message": "Provider returned error", "metadata": {"raw": '{"message": "content_filter"}'}}),
        (400, {"message": "Your input contains a prohibited word."}),
        (400, {"message": "messages.0: all messages must have non-empty content"}),
        (400, {"message": "Invalid 'messages[0].content': string too long. Expected at most 1048576"}),
        (400, {"message": "The prompt contains an unsupported token <|endoftext|>."}),
    ],
)  # fmt: skip
def test_all_prompts_refused_alike_are_failures_of_their_rows(code, error):
    """What is left of a run that was started again: each prompt is refused in the words of the others."""
    with FaultyEndpoint() as server:
        server.always = status(code, json.dumps({"error": error}).encode())
        endpoint = Endpoint((server.url,), Dialect("m"), limits=QUICK)
        asked = endpoint.prompts(["a", "b", "c"], Decoding())
        found = list(EndpointEngine(endpoint).answers(asked, Decoding()))
        assert len(server.requests) == 3
    assert len(found) == 3
    assert not any(isinstance(one, Answer) for one in found)


def test_a_key_that_is_refused_ends_the_run():
    with FaultyEndpoint() as server:
        server.always = status(403, b'{"error": {"message": "Your key has no access."}}')
        endpoint = Endpoint((server.url,), Dialect("m"), limits=QUICK)
        with pytest.raises(SourceError, match="refuses a request without a key"):
            list(EndpointEngine(endpoint).answers(endpoint.prompts(["a"], Decoding()), Decoding()))


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("max_tokens", r"endpoint: \{limit_field: max_completion_tokens\}"),
        ("temperature", r"endpoint: \{omit: \[temperature\]\}"),
    ],
)
def test_a_refused_field_names_the_line_to_write(field, line):
    error = {"message": f"Unsupported parameter: '{field}'", "code": "unsupported_parameter"}
    with FaultyEndpoint() as server:
        server.always = status(400, json.dumps({"error": error}).encode())
        endpoint = Endpoint((server.url,), Dialect("m"), limits=QUICK)
        asked = endpoint.prompts(["a"], Decoding())
        with pytest.raises(SourceError, match=line):
            list(EndpointEngine(endpoint).answers(asked, Decoding()))


@pytest.mark.parametrize(
    "wrong", ["{omit: [model]}", "{extra: {messages: []}}", "{omit: [max_tokens]}"]
)
def test_what_no_request_can_be_without_stays(tmp_path, wrong):
    path = tmp_path / "m.yaml"
    path.write_text(f"name: m\nbase: m\nendpoint: {wrong}\n")
    with pytest.raises(InputError, match=r"m\.yaml: endpoint"):
        read_spec(path)


# From the command line.


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    (tmp_path / "evaluate" / "models").mkdir(parents=True)
    (tmp_path / "evaluate" / "models" / "thinker.yaml").write_text("name: thinker\nbase: thinker\n")
    rows = [json.dumps({"instruction": f"Question #{n}#?"}) for n in range(3)]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(server: FaultyEndpoint) -> Any:
    command = ["generate", "thinker", "--set", "q.jsonl", "--engine", server.url, "--api", "chat"]
    return click.testing.CliRunner().invoke(cli, command)


def test_thoughts_are_no_answer_and_are_counted(workspace):
    kinds = [
        {"message": {"content": "<think>\nhm\n</think>\n\nBlue."}},
        {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"},
        {"message": {"content": "<think>\nhm hm"}, "finish_reason": "length"},
    ]
    with FaultyEndpoint() as server:
        server.choice = lambda request: kinds[int(request.instruction.split("#")[1])]
        done = generate(server)
        assert done.exit_code == 0, done.output
        assert "BEWARE: 2 of 3 responses are empty, 2 of 3 responses are cut off" in done.output
        [path] = (workspace / "results" / "thinker").rglob("model_outputs.json")
        rows = json.loads(path.read_text())
        assert [row["output"] for row in rows] == ["Blue.", "", ""]
        assert [row.get("finish") for row in rows] == [None, "length", "length"]
        assert [row["reasoning"] for row in rows] == ["hm", "hm", "hm hm"]
        again = generate(server)
        assert "BEWARE: 2 of 3" in again.output
        assert len(server.requests) == 3


def test_a_model_that_only_thinks_is_exit_code_3(workspace):
    with FaultyEndpoint() as server:
        thought = {"message": {"content": "<think>hm"}, "finish_reason": "length"}
        server.choice = lambda _: thought
        assert generate(server).exit_code == 3


def test_an_answer_kept_before_is_divided_when_it_is_read():
    old = {"key": "00", "instruction": "?", "output": "<think>hm</think>Blue.", "n_prompt_tokens": 1,
           "n_tokens": 2, "finish": "stop"}  # fmt: skip
    assert (read_answer(old).output, read_answer(old).reasoning) == ("Blue.", "hm")


@pytest.mark.skipif(not BUGS.is_dir(), reason="ALIGNBOARD_REAL has no bugs")
def test_reported_bodies_give_what_their_reporters_say():
    found = importlib.util.spec_from_file_location("kinds", BUGS / "11-endpoint-replies/kinds.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    wrong = []
    for name, content, wanted in module.K:
        with FaultyEndpoint() as server:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            server.always = body(raw)
            limits = Limits(1, patience=Patience(tries=1, timeout=5))
            endpoint = Endpoint((server.url,), Dialect("m"), limits=limits)
            (one,) = EndpointEngine(endpoint).answers(
                endpoint.prompts(["a"], Decoding()), Decoding()
            )
        output = one.output or None if isinstance(one, Answer) else None
        if output != wanted:
            wrong.append((name, output))
    assert wrong == []


# What a judge's verdicts are worth.


def judged_by(choose: Any) -> list[Judged]:
    class Backend:
        identity: ClassVar = {"scheme": "test"}

        def ask(self, calls):
            from alignboard.judges.rows import Reply

            yield from ((call, Reply(choose(call))) for call in calls)

    return judge_pairs(Judge(spec(order="both"), cast("Any", Backend())), pairs(10))


def test_a_judge_that_takes_the_first_is_not_believed():
    judged = judged_by(lambda _: "[[A]]")
    found = summarise(spec(), judged, "both", Path("annotations.json"))
    assert (found.n_both, found.n_consistent, found.first_share) == (10, 0, 1.0)
    text = summary_text(found, [])
    assert "swap consistency 0 of 10 pairs, first position 100.0 %" in text
    assert "BEWARE of this judge: its verdicts change with the order shown" in text


def test_a_consistent_judge_is_printed_without_doubts():
    judged = judged_by(
        lambda call: "[[A]]" if call.questions[0].first > call.questions[0].second else "[[B]]"
    )
    found = summarise(spec(), judged, "both", Path("annotations.json"))
    assert (found.n_consistent, found.first_share) == (10, 0.5)
    text = summary_text(found, [])
    assert "swap consistency 10 of 10 pairs" in text
    assert "BEWARE" not in text


def test_a_judge_whose_probability_is_elsewhere_is_not_believed():
    pair = pairs(1)[0]
    verdict = Verdict("scored", preference=2.0, mass=0.01)
    judged = [Judged(pair, "scored", 2.0, (False,), (verdict,))]
    found = summarise(cast("Any", SimpleNamespace(name="j")), judged, "given", Path("a.json"))
    text = summary_text(found, [])
    assert "verdict mass 0.01" in text
    assert "BEWARE of this judge: most of its probability" in text
