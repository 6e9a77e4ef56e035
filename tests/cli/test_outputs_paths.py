"""Where responses go: one file for each decoding of a set, and none that waits for a refused row."""

import json
import sys

import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.results.outputs_paths import outputs_place, without_decoding
from faulty_endpoint import FaultyEndpoint, status

LONGEST = """
kind: program
name: longest
title: The longer response wins
version: "1"
command: [{python}, evaluate/judges/longest.py]
"""
PROGRAM = """
import json, sys
for line in sys.stdin:
    q = json.loads(line)
    p = float(len(q["first"]) > len(q["second"]))
    print(json.dumps({"key": q["key"], "scores": [p, 1 - p]}), flush=True)
"""
FILTERED = json.dumps({"error": {"code": "content_filter", "message": "against our policy"}})
QUESTIONS = [f"question {i}?" for i in range(4)]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    (tmp_path / "evaluate" / "models").mkdir(parents=True)
    (tmp_path / "evaluate" / "models" / "served.yaml").write_text("name: served\nbase: served\n")
    (tmp_path / "evaluate" / "judges").mkdir()
    declared = LONGEST.format(python=sys.executable)
    (tmp_path / "evaluate" / "judges" / "longest.yaml").write_text(declared)
    (tmp_path / "evaluate" / "judges" / "longest.py").write_text(PROGRAM)
    rows = [json.dumps({"instruction": text}) for text in QUESTIONS]
    (tmp_path / "asked.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server():
    with FaultyEndpoint() as endpoint:
        yield endpoint


def generate(server, *options):
    asked = ["generate", "served", "--set", "asked.jsonl", "--engine", server.url, "--api", "chat"]
    return CliRunner().invoke(cli, [*asked, *options])


def written(workspace):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (workspace / "results" / "served").rglob("model_outputs.json")
    }


def test_another_decoding_goes_beside_the_first(workspace, server):
    assert generate(server).exit_code == 0
    first = (workspace / "results/served/asked/model_outputs.json").read_bytes()
    names = ["asked"]
    for options, name in (
        (("--max-new-tokens", "8"), "asked-temperature-0-max_new_tokens-8"),
        (
            ("--temperature", "0.7", "--seed", "3"),
            "asked-temperature-0.7-top_p-1-seed-3-max_new_tokens-512",
        ),
    ):
        done = generate(server, *options)
        assert f"results/served/{name}/model_outputs.json" in done.output
        names.append(name)
        assert generate(server, *options).output.count(name) == 1  # and again, from the store
        assert without_decoding(name) == "asked"
    assert sorted(written(workspace)) == sorted(names)
    assert (workspace / "results/served/asked/model_outputs.json").read_bytes() == first
    assert len(server.requests) == 12
    assert "results/served/asked/model_outputs.json" in generate(server).output


def test_verdicts_of_another_decoding_lie_beside_its_responses(workspace, server):
    generate(server)
    generate(server, "--max-new-tokens", "8")
    there = workspace / "results/served/asked-temperature-0-max_new_tokens-8"
    base = workspace / "results/base/asked/model_outputs.json"
    base.parent.mkdir(parents=True)
    rows = json.loads((there / "model_outputs.json").read_text())
    base.write_text(json.dumps([row | {"output": "Yes.", "generator": "base"} for row in rows]))
    judged = ["judge", "outputs", str(there / "model_outputs.json"), "--judge", "longest"]
    done = CliRunner().invoke(cli, [*judged, "--baseline", "base"])
    assert done.exit_code == 0, done.output
    assert len(json.loads((there / "longest-vs-base" / "annotations.json").read_text())) == 4


def test_results_of_before_and_from_elsewhere_are_read_and_keep_the_simple_name(tmp_path):
    greedy = {"max_new_tokens": 64, "temperature": 0.0}
    folder = tmp_path / "results/m/s"
    folder.mkdir(parents=True)
    own = folder.relative_to(tmp_path)
    assert outputs_place(tmp_path, "m", "s", greedy) == own
    (folder / "model_outputs.json").write_text("[]")
    assert outputs_place(tmp_path, "m", "s", greedy) == own
    (folder / "decoding.json").write_text(json.dumps(greedy | {"max_new_tokens": 8}))
    assert outputs_place(tmp_path, "m", "s", greedy) != own
    assert outputs_place(tmp_path, "m", "s", greedy | {"max_new_tokens": 8}) == own
    (folder / "model_outputs.json").unlink()
    assert outputs_place(tmp_path, "m", "s", greedy) == own
    (folder / "model_outputs.json").write_text("[]")
    (folder / "decoding.json").write_text("{")
    with pytest.raises(InputError, match=r"decoding\.json cannot be read"):
        outputs_place(tmp_path, "m", "s", greedy)


def test_a_refused_row_is_left_out_listed_and_asked_again(workspace, server):
    server.faults[QUESTIONS[2]] = [status(400, FILTERED.encode())] * 2
    for _ in range(2):
        done = generate(server, "--json", "found.json")
        assert done.exit_code == 3
        assert f"no answer to '{QUESTIONS[2]}'" in done.output
        rows = written(workspace)["asked"]
        assert [row["instruction"] for row in rows] == [*QUESTIONS[:2], QUESTIONS[3]]
        (found,) = json.loads((workspace / "found.json").read_text())
        assert found["path"].endswith("asked/model_outputs.json")
        assert [one["kind"] for one in found["failures"]] == ["refused"]
    assert len(server.requests) == 5
    assert generate(server).exit_code == 0
    assert [row["instruction"] for row in written(workspace)["asked"]] == QUESTIONS
    assert len(server.requests) == 6


def test_a_row_that_may_still_be_answered_keeps_the_file_from_being_written(workspace, server):
    server.faults[QUESTIONS[2]] = [status(500)] * 9
    done = generate(server)
    assert done.exit_code == 3
    assert "1 to ask again, no file written" in done.output
    assert written(workspace) == {}


PLAN = """\
name: refused
models: {{served: {{source: served, engine: {url}, api: chat}}, base: {{source: base, engine: {url}, api: chat}}}}
baseline: base
judges: [longest]
suites: [asked]
"""


def test_a_plan_goes_on_without_a_refused_prompt_and_its_board_says_so(workspace, server):
    (workspace / "evaluate/models/base.yaml").write_text("name: base\nbase: base\n")
    (workspace / "evaluate/suites").mkdir()
    (workspace / "evaluate/suites/asked.yaml").write_text(
        "kind: evaluation\nname: asked\ntitle: asked\ninstructions: {set: asked.jsonl}\n"
    )
    (workspace / "plan.yaml").write_text(PLAN.format(url=server.url))
    server.faults[QUESTIONS[2]] = [status(400, FILTERED.encode())]
    done = CliRunner().invoke(cli, ["run", "plan.yaml", "--trust-code"])
    assert done.exit_code == 0, (done.output, done.exception)
    board = json.loads((workspace / "leaderboards/refused.json").read_text())
    flags = [flag for row in board["rows"] for flag in row.get("flags", ())]
    assert "1 of 4 prompts without a response" in flags
    n = len(server.requests)
    CliRunner().invoke(cli, ["run", "plan.yaml", "--trust-code"])
    assert len(server.requests) == n


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("seed", 20241129, 20241130),
        ("seed", 1, 2**53),
        ("temperature", 0.7, 0.7000001),
        ("top_p", 0.9, 0.9000000000000001),
        ("max_new_tokens", 1234567, 1234568),
    ],
)
def test_two_decodings_that_are_nearly_equal_have_two_places(field, one, other, tmp_path):
    first = {"max_new_tokens": 64, "temperature": 0.5, "top_p": 0.5, "seed": 1}
    folder = tmp_path / "results/m/s"
    folder.mkdir(parents=True)
    (folder / "model_outputs.json").write_text("[]")
    (folder / "decoding.json").write_text(json.dumps(first | {"max_new_tokens": 8}))
    places = {outputs_place(tmp_path, "m", "s", first | {field: value}) for value in (one, other)}
    assert len(places) == 2
    assert {without_decoding(place.name) for place in places} == {"s"}
