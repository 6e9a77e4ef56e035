"""`alignboard generate`: the same file whatever happens, nothing asked twice, and every refusal a sentence."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from typing import Any

import msgspec
import pytest
import torch
import yaml
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model

import tiny_models
from alignboard.cli.app import cli
from alignboard.data.instruction_sets import Instruction, InstructionSet, load_set
from alignboard.engines.openai.served import Limits
from alignboard.engines.rows import Decoding
from alignboard.errors import InputError
from alignboard.fetch.http import Patience
from alignboard.models.asked import load_spec
from alignboard.models.loading import loads
from alignboard.models.registry import load_model
from alignboard.models.spec import DecodingDefaults, Number
from alignboard.pipeline.answerers import LocalModels, Served, ServedModel
from alignboard.pipeline.answering import answer_set, decoding_of, outputs_path
from alignboard.pipeline.executors.machine import Machine
from alignboard.pipeline.plans.plan import resolve
from alignboard.pipeline.plans.schema import Plan, PlanModel
from alignboard.pipeline.runner import run_plan, run_resolved
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.results.journal import Journal
from commands import alignboard
from faulty_endpoint import FaultyEndpoint, status

SHORT = {"max_new_tokens": 16}
QUICK = Patience(tries=2, backoff=0.01, longest=0.02, timeout=30, connect_timeout=30)


@pytest.fixture(scope="module")
def spec():
    return msgspec.structs.replace(load_model(str(tiny_models.base("phi"))), name="tiny")


@pytest.fixture(scope="module")
def model(spec):
    with LocalModels().open(spec) as opened:
        yield opened


@pytest.fixture(scope="module")
def asked():
    return load_set("demo-world").first(12)


@pytest.fixture(scope="module")
def adapters(spec, tmp_path_factory):
    """Two adapters with random weights on one base."""
    model, _ = load_spec(spec)
    torch.manual_seed(0)
    paths = []
    for name in ("one", "two"):
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        peft: Any = get_peft_model(copy.deepcopy(model.model), lora)
        paths.append(tmp_path_factory.mktemp("adapters") / name)
        peft.save_pretrained(paths[-1])
    return paths


class Counting:
    """A model that counts what it is asked, and stops being there after ``limit`` answers."""

    def __init__(self, model, limit=None):
        self._model, self._limit, self.asked = model, limit, []
        self.prompts, self.fits, self.decoding = model.prompts, model.fits, model.decoding
        self.own_decoding = model.own_decoding

    @property
    def engine(self):
        return self

    def answers(self, asked, decoding):
        self.asked = [one.instruction for one in asked]
        yield from islice(self._model.engine.answers(asked, decoding), self._limit)
        if self._limit is not None:
            raise KeyboardInterrupt


def run(model, spec, asked, folder, decoding=None):
    with Journal(folder / "results" / ".journal", "test") as journal:
        chosen = decoding or decoding_of(spec, **SHORT)
        return answer_set(model, spec, asked, chosen, journal, folder)


def test_the_file_has_every_row_in_order_and_a_second_run_asks_nothing(
    model, spec, asked, tmp_path
):
    first = run(model, spec, asked, tmp_path)
    rows = json.loads(first.path.read_text())
    assert [row["instruction"] for row in rows] == [one.turns[0] for one in asked.rows]
    assert {row["generator"] for row in rows} == {"tiny"}
    assert (first.n_rows, first.n_known, first.failures) == (12, 0, ())
    assert first.n_tokens > 12
    before = first.path.read_bytes()
    counting = Counting(model)
    again = run(counting, spec, asked, tmp_path)
    assert (again.n_known, counting.asked) == (12, [])
    assert again.path.read_bytes() == before


def test_interrupted_it_asks_only_what_is_missing_and_ends_with_the_same_file(
    model, spec, asked, tmp_path
):
    whole = run(model, spec, asked, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Counting(model, limit=5), spec, asked, tmp_path / "cut")
    assert not list((tmp_path / "cut" / "results").rglob("model_outputs.json"))
    counting = Counting(model)
    found = run(counting, spec, asked, tmp_path / "cut")
    assert (found.n_known, len(counting.asked)) == (5, 7)
    assert found.path.read_bytes() == whole.path.read_bytes()


def test_a_part_of_a_set_never_takes_the_place_of_the_whole(model, spec, asked, tmp_path):
    part = run(model, spec, asked.first(3), tmp_path)
    assert part.path.parent.name == f"{asked.name}-first-3"
    whole = InstructionSet("alpaca-eval", "", asked.rows)
    assert (
        outputs_path(tmp_path, "tiny", whole, Decoding())
        == tmp_path / "results" / "tiny" / "model_outputs.json"
    )
    assert asked.first(99) is asked


def test_other_decoding_is_another_answer(model, spec, asked, tmp_path):
    run(model, spec, asked, tmp_path)
    counting = Counting(model)
    run(counting, spec, asked, tmp_path, Decoding(max_new_tokens=3))
    assert len(counting.asked) == 12
    sampled = decoding_of(spec, temperature=0.7, seed=3, **SHORT)
    assert (sampled.temperature, sampled.seed, sampled.max_new_tokens) == (0.7, 3, 16)


def test_prompts_that_are_too_long_are_an_error_or_left_out_and_said(spec, asked, tmp_path):
    long = Instruction((" ".join(["dog"] * 40),))
    both = InstructionSet("both", "", (asked.rows[0], long))
    narrow = msgspec.structs.replace(spec, context=32)
    with (
        pytest.raises(
            InputError, match=r"Instruction 2 has 4\d tokens as tiny reads it, which takes 32"
        ),
        LocalModels().open(narrow) as opened,
    ):
        run(opened, narrow, both, tmp_path)
    skipping = msgspec.structs.replace(narrow, too_long="skip")
    with LocalModels().open(skipping) as opened:
        found = run(opened, skipping, both, tmp_path)
    assert found.too_long == long.turns
    assert len(json.loads(found.path.read_text())) == 1


def test_the_second_turn_is_asked_with_the_first_answer(model, spec, tmp_path):
    rows = [
        Instruction(("say once more: dog cat.", "reverse the order of: saw hat."), "writing", 81),
        Instruction(("name each kind: cow key.",), "math", 82),
    ]
    two = InstructionSet("two", "", tuple(rows))
    found = run(model, spec, two, tmp_path)
    assert (found.n_rows, found.n_known, found.path.name) == (3, 0, "model_answer.jsonl")
    lines = [json.loads(line) for line in found.path.read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [81, 82]
    first, second = lines[0]["choices"][0]["turns"]
    decoding = model.decoding(decoding_of(spec, **SHORT))
    history = ((rows[0].turns[0], first),)
    (prompt,) = model.prompts([rows[0].turns[1]], decoding, [history])
    (answer,) = model.engine.answers([prompt], decoding)
    assert answer.output == second
    text = " ".join(model.loaded.tokenizer.convert_ids_to_tokens(prompt.ids))
    assert text.index("dog cat") < text.index("assistant") < text.index("saw hat")
    counting = Counting(model)
    assert run(counting, spec, two, tmp_path).n_known == 3
    assert counting.asked == []


def test_a_set_may_ask_for_temperatures_of_its_own(spec, tmp_path):
    rows = [
        Instruction((f"{name}?", "and?"), name, None, temperature)
        for name, temperature in (("writing", 0.7), ("math", 0.0), ("own", None), ("roleplay", 0.7))
    ]
    asked = InstructionSet("four", "", tuple(rows))
    warm = msgspec.structs.replace(
        spec, decoding=DecodingDefaults(temperature=Number(0.4, "a test"))
    )

    def sent(asked, name):
        with FaultyEndpoint() as server:
            served = ServedModel(warm, Served((server.url,), api="chat", name="tiny"))
            (tmp_path / name).mkdir()
            found = run(served, warm, asked, tmp_path / name)
            return found, {
                one.body["messages"][0]["content"]: one.body.get("temperature")
                for one in server.requests
            }

    found, temperatures = sent(asked, "own")
    assert temperatures == {"writing?": 0.7, "math?": 0.0, "own?": 0.4, "roleplay?": 0.7}
    lines = [
        json.loads(line)["choices"][0]["turns"] for line in found.path.read_text().splitlines()
    ]
    assert [turns[0] for turns in lines] == [f"Answer to {row.turns[0]}" for row in rows]
    assert set(sent(asked.at_one_temperature(), "one")[1].values()) == {0.4}


def test_a_chat_endpoint_is_sent_the_turns_before(spec, tmp_path):
    with FaultyEndpoint() as server:
        served = ServedModel(spec, Served((server.url,), api="chat", name="tiny"))
        two = InstructionSet("two", "", (Instruction(("a?", "b?")),))
        run(served, spec, two, tmp_path)
        sent = [(one["role"], one["content"]) for one in server.requests[-1].body["messages"]]
    assert sent == [("user", "a?"), ("assistant", "Answer to a?"), ("user", "b?")]


def test_an_endpoint_is_sent_the_ids_that_the_model_would_read(spec, model, asked, tmp_path):
    with FaultyEndpoint() as server:
        served = ServedModel(spec, Served((server.url,), name="tiny"))
        decoding = decoding_of(spec, **SHORT)
        texts = [one.turns[0] for one in asked.rows]
        local = model.prompts(texts, model.decoding(decoding), [()] * len(texts))
        remote = served.prompts(texts, served.decoding(decoding), [()] * len(texts))
        assert [one.ids for one in remote] == [one.ids for one in local]
        assert run(served, spec, asked, tmp_path).failures == ()


def test_what_an_endpoint_leaves_is_asked_again_and_only_that(spec, asked, tmp_path):
    with FaultyEndpoint() as server:
        bad = asked.rows[4].turns[0]
        server.faults = {bad: [status(500)] * 99}
        served = ServedModel(
            spec, Served((server.url,), api="chat", name="tiny", limits=Limits(patience=QUICK))
        )
        found = run(served, spec, asked, tmp_path)
        assert [one.instruction for one in found.failures] == [bad]
        assert not found.path.exists()
        server.faults = {}
        server.requests.clear()
        again = run(served, spec, asked, tmp_path)
        assert [request.instruction for request in server.requests] == [bad]
        assert again.failures == ()
        assert len(json.loads(again.path.read_text())) == 12


def test_the_command_says_what_it_did_and_what_is_wrong(asked, tmp_path):
    base = str(tiny_models.base("phi"))
    options = ["--set", "demo-world", "--limit", "4", "--max-new-tokens", "8"]
    planned = alignboard(tmp_path, "generate", base, *options, "--dry-run")
    assert "4 instructions" in planned.stdout
    assert "at most 32 new tokens, greedy, engine local" in planned.stdout
    assert not (tmp_path / "results").exists()
    done = alignboard(tmp_path, "generate", base, *options, "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert "4 answered now" in done.stdout
    (told,) = json.loads((tmp_path / "out.json").read_text())
    assert (told["n_rows"], told["failures"]) == (4, [])
    for wrong, said in (
        (["phi-3"], "did you mean 'phi-2'"),
        ([base, "--set", "demo-wrld"], "demo-world"),
        ([base, "--served-as", "x"], "belong to an endpoint"),
    ):
        refused = alignboard(tmp_path, "generate", *wrong, "--dry-run")
        assert refused.returncode == 2
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


def test_adapters_of_one_base_are_swapped_on_one_load(spec, asked, tmp_path, adapters):
    """Each answers as it does alone; entries on one base load it once."""
    ones = [msgspec.structs.replace(spec, name=path.name, adapter=str(path)) for path in adapters]
    other = msgspec.structs.replace(spec, name="other", base=str(tiny_models.base("llama")))
    mixed = [ones[0], spec, ones[1], other]
    before, models, files = len(loads), LocalModels(), []
    for one in mixed:
        with models.open(one) as opened:
            files.append(run(opened, one, asked, tmp_path / "together").path)
    assert len(loads) - before == 2
    for one, path in zip(mixed, files, strict=True):
        with LocalModels().open(one) as opened:
            alone = run(opened, one, asked, tmp_path / "alone" / one.name).path
        assert path.read_bytes() == alone.read_bytes()
    outputs = [[row["output"] for row in json.loads(path.read_text())] for path in files]
    assert len({tuple(one) for one in outputs}) == 4


def test_a_finished_command_is_a_finished_job_of_a_plan(asked, tmp_path, monkeypatch):
    """Its file is written again, and a plan that asks the same of the model under its name has nothing to do."""
    monkeypatch.chdir(tmp_path)
    options = ["--set", "demo-world", "--limit", "4", "--max-new-tokens", "8", "--name", "tiny"]
    command = ["generate", str(tiny_models.base("phi")), *options, "--json", "out.json"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    path = tmp_path / "results/tiny/demo-world-first-4/model_outputs.json"
    content, before = path.read_bytes(), len(loads)
    path.unlink()
    again = CliRunner().invoke(cli, command)
    assert "0 answered now in 0.0 s, 4 known before" in again.stdout
    (told,) = json.loads((tmp_path / "out.json").read_text())
    assert (told["n_rows"], told["n_known"], told["path"]) == (4, 4, str(path))
    assert (path.read_bytes(), len(loads)) == (content, before), "nothing is loaded"
    planned = Plan("mine", {"tiny": PlanModel(source=command[1])}, ["some"])
    suite = "kind: evaluation\nname: some\ntitle: Some\ninstructions: {set: demo-world, limit: 4, max_new_tokens: 8}\n"
    (tmp_path / "evaluate/suites").mkdir(parents=True)
    (tmp_path / "evaluate/suites/some.yaml").write_text(suite)
    found = run_resolved(resolve(planned, tmp_path / "mine.yaml", tmp_path), dry_run=True)
    assert "generate demo-world-first-4 tiny" in found.done_before


def test_fewer_responses_take_the_place_of_more_only_with_replace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results/tiny/demo-world-first-4/model_outputs.json"
    rows = [Generation(f"{n}", "from elsewhere", "tiny") for n in range(6)]
    write_rows(path, rows)
    before = path.read_bytes()
    options = ["--set", "demo-world", "--limit", "4", "--max-new-tokens", "8", "--name", "tiny"]
    command = ["generate", str(tiny_models.base("phi")), *options]
    refused = CliRunner().invoke(cli, command)
    assert "holds 6 scored rows and the new file would hold 4" in str(refused.exception)
    assert path.read_bytes() == before
    assert CliRunner().invoke(cli, [*command, "--replace"]).exit_code == 0
    assert path.with_name("model_outputs.json.1").read_bytes() == before
    assert len(json.loads(path.read_text())) == 4


def test_limits_and_prices_are_said_on_the_command_line(tmp_path):
    base = str(tiny_models.base("phi"))
    options = ["--set", "demo-world", "--limit", "4", "--max-new-tokens", "8", "--api", "chat"]
    with FaultyEndpoint() as server:
        served = ["--engine", server.url, "--served-as", "gpt-4-1106-preview", *options]
        planned = alignboard(tmp_path, "generate", base, *served, "--dry-run")
        assert "US dollars" not in planned.stdout, "this server is not OpenAI's"
        priced = alignboard(tmp_path, "generate", base, *served, "--price", "2", "10", "--dry-run")
        assert "US dollars" in priced.stdout
        assert server.requests == []
        limits = ["--requests-per-minute", "600", "--tokens-per-minute", "1e6"]
        done = alignboard(tmp_path, "generate", base, *served, *limits, "--price", "2", "10")
        assert "0.0002 US dollars" in done.stdout, done.stderr
        assert "gpt-4-1106-preview was switched off on 2026-10-23" in done.stderr
    refused = alignboard(tmp_path, "generate", base, *options, "--price", "2", "10")
    assert (refused.returncode, "belong to an endpoint" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path):
    """A real process, killed while it answers; what it had committed is known to the next."""
    base = str(tiny_models.base("phi"))
    options = ["--set", "demo-world", "--limit", "150", "--max-new-tokens", "24"]
    command = [sys.executable, "-m", "alignboard", "generate", base, *options]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with Journal(tmp_path / "results" / ".journal") as journal:
        while not journal.check().n_rows.get("generation") and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    # Opened anew: a commit whose writer died before it told the others is found when the log is read again.
    with Journal(tmp_path / "results" / ".journal") as journal:
        kept = journal.check().n_rows["generation"]
    assert kept > 0
    done = alignboard(tmp_path, "generate", base, *options)
    assert f"{150 - kept} answered now" in done.stdout
    assert f"{kept} known before" in done.stdout
    with Journal(tmp_path / "results" / ".journal") as journal:
        assert not journal.check().computed_twice


def test_two_instructions_that_are_one_prompt_to_the_model_are_two_rows(spec, tmp_path):
    texts = ("reverse the order of: zzz.", "reverse the order of: qqq.")
    both = InstructionSet("both", "", tuple(Instruction((text,)) for text in texts))
    with LocalModels().open(spec) as opened:
        found = run(opened, spec, both, tmp_path)
    rows = json.loads(found.path.read_text())
    assert [row["instruction"] for row in rows] == list(texts)
    assert rows[0]["output"] == rows[1]["output"]


@pytest.mark.slow
def test_a_judge_on_the_base_of_the_models_shares_their_load(tmp_path):
    base, adapters = str(tiny_models.base("phi")), tiny_models.adapters("phi")
    files = {
        "evaluate/questions.json": json.dumps([{"instruction": f"Say {n}"} for n in range(3)]),
        "evaluate/judges/same.yaml": yaml.safe_dump(
            {
                "kind": "prompted",
                "name": "same",
                "title": "same",
                "engine": "local",
                "model": base,
                "chat": False,
                "prompt": {"text": "{instruction}{first}{second}"},
                "verdict": {"by": "logprob", "first": ["first"], "second": ["second"]},
            }
        ),
        "evaluate/suites/questions.yaml": yaml.safe_dump(
            {
                "kind": "evaluation",
                "name": "questions",
                "title": "questions",
                "instructions": {"set": "evaluate/questions.json", "max_new_tokens": 4},
            }
        ),
        "evaluate/plans/mine.yaml": yaml.safe_dump(
            {
                "name": "mine",
                "models": {
                    "plain": {"source": base},
                    "one": {"source": base, "adapter": str(adapters["one"])},
                    "two": {"source": base, "adapter": str(adapters["two"])},
                },
                "suites": ["questions"],
                "judges": ["same"],
                "baseline": "plain",
            }
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = len(loads)
    run_plan("mine", tmp_path, machine=Machine(executor="in-process"))
    assert len(loads) - before == 1
    verdicts = tmp_path / "results/one/questions/same-vs-plain/annotations.json"
    shared = verdicts.read_bytes()
    for name in ("results", "leaderboards"):
        shutil.rmtree(tmp_path / name)
    # Verdicts on responses of others are a load of their own, and the same.
    plan = yaml.safe_load(files["evaluate/plans/mine.yaml"])
    plan["models"]["two"] = {"source": str(tiny_models.base("mistral"))}
    (tmp_path / "evaluate/plans/mine.yaml").write_text(yaml.safe_dump(plan))
    run_plan("mine", tmp_path, machine=Machine(executor="in-process"))
    assert len(loads) - before == 1 + 3
    assert verdicts.read_bytes() == shared
