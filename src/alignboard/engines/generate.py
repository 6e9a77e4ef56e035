"""Asking a model for answers: batched, resumable, and the same whatever the batch.

What this module promises
    An answer depends on the model, the prompt and the decoding parameters, and on nothing else: not on the batch size,
    not on what else is asked. Greedy answers equal those of one prompt at a time (float32; in bfloat16 batching may
    change a rounding). Sampled ones draw numbers of their own, which follow from seed and prompt (`Prompt.draw`). The
    key of an answer (`generation_key`) names all that determines it, and a row that a journal knows need not be asked
    for again.
What it never does
    Truncate a prompt; add a second BOS (transformers, vLLM and llama.cpp all have had it: the text of a template that
    writes BOS was encoded by a tokenizer that adds one); take text of an instruction for a special token.

The loop is that of `engines.local.engine`. Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from typing import Final

import msgspec

from alignboard.engines.rows import Answer, Decoding, OnAnswer, Prompt
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import History, opens_reasoning, render

__all__ = ["Answer", "Decoding", "OnAnswer", "Prompt", "generate", "generation_key", "prompts"]

SAMPLER: Final = "inverse-cdf-2"
"""how tokens are drawn, in keys of sampled texts; another number where that changes"""


def prompts(
    model: LoadedModel,
    instructions: Sequence[str],
    decoding: Decoding,
    histories: Sequence[History] | None = None,
) -> list[Prompt]:
    """Every instruction through the chat template in use, with the key of its answer; nothing is generated.

    ``histories`` are the turns before each. Raises `InputError` for a prompt that leaves no room for an answer.
    """
    identity = _identity(model, decoding)
    found = []
    before = histories or ((),) * len(instructions)
    for number, (instruction, history) in enumerate(
        zip(instructions, before, strict=True), start=1
    ):
        ids = render(model, instruction, history=history)
        if len(ids) >= model.context:
            raise InputError(
                f"Instruction {number} has {len(ids)} tokens, but {model.path} takes {model.context} in all."
            )
        key = generation_key(identity, ids)
        opened = opens_reasoning(model.tokenizer, ids)
        found.append(Prompt(instruction, tuple(ids), key, opens_reasoning=opened))
    return found


# Identity.


def generation_key(identity: str, ids: Sequence[int]) -> str:
    """The name of an answer: `_identity` of model and decoding, and the ids of the prompt."""
    return hashlib.blake2b(
        f"{identity}\n{' '.join(map(str, ids))}".encode(), digest_size=16
    ).hexdigest()


def _identity(model: LoadedModel, decoding: Decoding) -> str:
    """All that determines an answer except its prompt: weights, adapter, template, decoding, arithmetic, libraries."""
    content = model_identity(model) | {
        "scheme": "generation-1",
        "template": model.template_hash,
        "end": sorted(model.end_tokens | set(decoding.stop_tokens)),
        **model.own_decoding.identity(),
    }
    if decoding.temperature > 0:
        content["sampler"] = SAMPLER
    return json.dumps(content | decoding.identity(), sort_keys=True)


def model_identity(model: LoadedModel) -> dict[str, object]:
    """Weights, adapter, arithmetic and libraries: what determines everything that a model computes."""
    return {
        "weights": model.fingerprint,
        "adapter": model.adapter_fingerprint,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "device": model.model.device.type,
        "attention": model.attention,
        "libraries": library_versions("torch", "transformers", "peft"),
    }


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    return metadata.version(package).partition("+")[0]


def library_versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages that change numbers, without their build."""
    return {package: _version(package) for package in packages}


def generate(
    model: LoadedModel,
    instructions: Sequence[str],
    decoding: Decoding | None = None,
    *,
    batch_size: int | None = None,
    on_done: OnAnswer | None = None,
) -> list[Answer]:
    """The answers of the adapter in use, in the order of ``instructions``.

    ``on_done`` is given each answer as soon as it ends, in any order: commit it there. An instruction that is there
    twice is asked once. ``batch_size`` is how many run at a time; None leaves it to the engine.
    """
    from alignboard.engines.local.engine import LocalEngine

    decoding = decoding or Decoding()
    asked = prompts(model, instructions, decoding)
    answers: dict[str, Answer] = {}
    for answer in LocalEngine(model, slots=batch_size).answers(asked, decoding):
        answers[answer.key] = answer
        if on_done is not None:
            on_done(answer)
    return [
        msgspec.structs.replace(answers[prompt.key], instruction=prompt.instruction)
        for prompt in asked
    ]
