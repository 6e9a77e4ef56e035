"""The endpoint engine against a real server: `transformers serve` with a tiny checkpoint, on loopback and offline."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import tiny_models
from alignboard.demo import world
from alignboard.engines.generate import generate
from alignboard.engines.openai.endpoint import EndpointEngine
from alignboard.engines.openai.format import Dialect
from alignboard.engines.openai.served import Endpoint, Limits
from alignboard.engines.rows import Answer, Decoding
from alignboard.fetch.http import Patience
from alignboard.models.loading import LoadedModel

INSTRUCTIONS = world.prompts("eval", 12, seed=0)
MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"transformers[serving] needs {', '.join(MISSING)}: not installed"
    ),
]


@contextmanager
def serving(path):
    """The address of a server of the checkpoint at ``path``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).parent / "transformers"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [program, "serve", str(path), *options],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url, process):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    pytest.fail("the server does not answer after 120 s")


def test_a_real_server_gives_the_answers_of_the_local_engine():
    path = tiny_models.base("llama")
    decoding = Decoding(16)
    expected = {
        one.instruction: one for one in generate(LoadedModel.load(path), INSTRUCTIONS, decoding)
    }
    with serving(path) as url:
        config = Endpoint(
            (url,),
            Dialect(str(path)),
            limits=Limits(4, patience=Patience(tries=3, timeout=60)),
        )
        found = list(
            EndpointEngine(config).answers(config.prompts(INSTRUCTIONS, decoding), decoding)
        )
    assert len(found) == len(INSTRUCTIONS)
    for one in found:
        assert isinstance(one, Answer), one
        wanted = expected[one.instruction]
        assert one.output == wanted.output
        # The server calls an answer cut whose end token is the last that it may say.
        assert one.finish == ("length" if wanted.n_tokens == 16 else "stop")
        assert one.n_prompt_tokens == wanted.n_prompt_tokens
