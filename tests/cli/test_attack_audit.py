"""Defects of the attack on the first version that no other module holds: slow servers, templates, logs, odd files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignboard.benchmarks.task_files import digests
from alignboard.cli.boundary import guarded
from alignboard.data.instruction_sets import load_set
from alignboard.engines.openai.format import UnreadableError
from alignboard.errors import InputError, SourceError
from alignboard.fetch import download, http, ranges
from alignboard.fetch.http import Patience
from alignboard.judges.backends.chat_format import read_judge_reply
from alignboard.judges.parsing.raw_completions import reply_of_raw
from alignboard.models import prompting
from alignboard.models.registry import load_model
from alignboard.pipeline.executors.logs import end_text
from alignboard.pipeline.judged_outputs import read_fields
from alignboard.pipeline.locks import held, in_use
from alignboard.pipeline.store import WorkspacePaths
from byte_tokenizer import build
from loopback import Handler, Loopback


class _Dripping(Handler):
    """A body that comes byte by byte and never ends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            self.close_connection = True


class _Drip(Loopback):
    handler = _Dripping


@pytest.fixture
def dripping(monkeypatch):
    monkeypatch.setattr(http, "GRACE", 0.2)
    monkeypatch.setattr(
        ranges, "PATIENCE", Patience(tries=2, backoff=0.001, longest=0.002, timeout=9)
    )
    with _Drip() as server:
        yield f"{server.address}/x"


def test_a_listing_that_comes_byte_by_byte_ends_in_a_sentence(dripping):
    with pytest.raises(SourceError, match="bytes came in"):
        download.fetch(dripping, "--from DIR")


def test_a_file_of_a_batch_that_comes_byte_by_byte_ends_in_a_sentence(dripping):
    from alignboard.engines.openai.format import Dialect
    from alignboard.engines.openai.served import Endpoint, Limits
    from alignboard.judges.backends.batches import BatchHttp

    endpoint = Endpoint((dripping,), Dialect("m"), limits=Limits(patience=Patience(tries=1)))
    with BatchHttp(endpoint) as files, pytest.raises(SourceError, match="bytes came in"):
        files.content("file")


# Rows of a wrong kind.


def test_a_reference_that_is_a_list_is_a_sentence(tmp_path):
    path = tmp_path / "fields.jsonl"
    path.write_text('{"instruction": "q", "reference": ["a", "b"]}\n')
    with pytest.raises(InputError, match="row 1: reference is no text"):
        read_fields(path)


@pytest.mark.parametrize("row", ["null", "3", '"text"', "[]"])
def test_a_question_that_is_no_object_is_a_sentence(row, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"question_id": 1, "category": "x", "turns": ["a"]}}\n{row}\n')
    with pytest.raises(InputError, match="row 2 has no column"):
        load_set(str(path), tmp_path)


@pytest.mark.parametrize("place", ["drawn", "listed"])
def test_a_probability_above_one_is_no_reply(place):
    chosen = {"token": "A", "logprob": 0.7 if place == "drawn" else -0.1}
    listed = {"token": "A", "logprob": 0.7 if place == "listed" else -0.1}
    tokens = {"content": [{**chosen, "top_logprobs": [listed]}]}
    message = {"role": "assistant", "content": "A"}
    choice = {"message": message, "finish_reason": "stop", "logprobs": tokens}
    with pytest.raises(UnreadableError, match="above 0"):
        read_judge_reply(json.dumps({"choices": [choice]}).encode())
    with pytest.raises(ValueError, match="above 0"):
        reply_of_raw(choice)
    for token in (chosen, listed):
        token["logprob"] = 1e-6  # as endpoints round
    tokens["content"] = [{**chosen, "top_logprobs": [listed]}]
    assert read_judge_reply(json.dumps({"choices": [choice]}).encode()).tokens
    assert reply_of_raw(choice).tokens


# Templates and files of checkpoints.


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 15 }}",
    ],
)
@pytest.mark.parametrize("thread", ["main", "another"])
def test_a_template_without_an_end_is_a_sentence(thread, template, monkeypatch):
    if thread == "another":
        with ThreadPoolExecutor(1) as pool:
            pool.submit(require_end, template, monkeypatch).result()
            assert pool.submit(
                prompting.prompt_text, build(), "{{ messages }}", "a", source="x"
            ).result()
    else:
        require_end(template, monkeypatch)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def require_end(template, monkeypatch):
    monkeypatch.setattr(prompting, "RENDERING_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(InputError, match="the chat template does not take"):
        prompting.prompt_text(build(), template, "hello", source="here")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", [b"{", b"[]", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16, b""])
@pytest.mark.parametrize("name", ["adapter_config.json", "generation_config.json", "model.gguf"])
def test_a_truncated_file_of_a_checkpoint_is_a_sentence(name, content, tmp_path):
    from alignboard.models.checks.report import check_model

    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["L"]}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        check_model(load_model(str(tmp_path / name if name == "model.gguf" else tmp_path)), "hi")


class _Runs:
    """What a pickle of somebody else would do when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_for_an_adapter_is_a_sentence_and_runs_nothing(tmp_path):
    import torch

    from alignboard.models.adapters import _weights

    torch.save({"weight": _Runs(tmp_path / "escaped")}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="the adapter's weights cannot be read"):
        _weights(tmp_path)
    assert not (tmp_path / "escaped").exists()


# Printed text, the logs of workers, and locks.


@pytest.mark.parametrize("option", ["--dry-run", "--reparse"])
def test_what_asks_nobody_needs_no_lock(option, tmp_path):
    rows = [{"instruction": "q", "output": "a", "generator": "m"}]
    for name in ("m", "base"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "model_outputs.json").write_text(json.dumps([rows[0] | {"generator": name}]))
    judging = ["judge", "results/m/model_outputs.json", "--baseline", "base"]
    paths = WorkspacePaths(tmp_path)
    with in_use(paths), held(paths, "results/m/demo-simulated-vs-base"):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "alignboard", *judging, "--judge", "demo-simulated", option],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "Another command" not in done.stderr
    assert done.returncode in {0, 3}, done.stderr
    assert time.monotonic() - started < 60


def test_no_control_character_reaches_the_terminal(capsys):
    guarded(lambda: sys.stdout.write("a\x1b[2J\x07\x9b1m\tb\nc\r\u202e\n"))
    assert capsys.readouterr().out == "a\\x1b[2J\\x07\\x9b1m\tb\nc\\x0d\\u202e\n"


def test_a_killed_worker_has_no_last_words(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("first\npip install kernels\n")
    assert end_text(-9, log) == (f"by signal 9 (was there enough memory?); its log is {log}")
    assert end_text(1, log).endswith("pip install kernels")


# Data of tasks.


@pytest.mark.parametrize(
    "data", ["/proc/*/m*", "/proc/**", "/dev/zero", "pipe", "/proc/self/environ"]
)
def test_data_without_an_end_are_refused(data, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / "evaluate" / "tasks"
    folder.mkdir(parents=True)
    content = {"task": "odd", "dataset_path": "json", "dataset_kwargs": {"data_files": data}}
    (folder / "odd.yaml").write_text(json.dumps(content))
    code = (
        "import sys, pathlib; from alignboard.benchmarks.task_files import digests\n"
        "from alignboard.errors import InputError\n"
        "try: digests(['odd'], pathlib.Path(sys.argv[1]))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "odd.yaml: " in done.stdout, done.stderr


def test_a_folder_of_data_is_read_whole(tmp_path):
    folder = tmp_path / "evaluate" / "tasks"
    (tmp_path / "data" / "inner").mkdir(parents=True)
    folder.mkdir(parents=True)
    for name in ("data/one.json", "data/inner/two.json"):
        (tmp_path / name).write_text("[]")
    (folder / "kept.yaml").write_text(json.dumps({"task": "kept", "dataset_path": "data"}))
    assert digests(["kept"], tmp_path).keys() == {
        *("data/one.json", "data/inner/two.json", "evaluate/tasks/kept.yaml")
    }
