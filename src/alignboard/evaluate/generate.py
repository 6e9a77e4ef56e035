"""Asking a model for answers: batched, resumable, and the same whatever the batch.

What this module promises
    An answer depends on the model, the prompt and the decoding parameters, and on nothing else: not on the batch size,
    not on what else is asked. Greedy answers equal those of one prompt at a time (float32; in bfloat16 batching may
    change a rounding). Sampled ones draw from a generator of their own, seeded by the prompt. So the key of an answer
    (`generation_key`) names all that determines it, and a row that a journal knows need not be asked for again.
What it never does
    Truncate a prompt; add a second BOS (transformers, vLLM and llama.cpp all have had it: the text of a template that
    writes BOS was encoded by a tokenizer that adds one); take text of an instruction for a special token.

The loop is ours, because `generate` of transformers neither hands out a row before its whole batch has ended nor can
sample a row independently of its batch. Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.records import Generation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen. Temperature 0 is greedy, and then the seed has no meaning."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


class Answer(msgspec.Struct, frozen=True):
    """One finished answer, as the journal keeps it."""

    key: str
    instruction: str
    output: str
    """without the end token and without white space around it"""
    n_prompt_tokens: int
    n_tokens: int
    """the end token included"""
    finish: Literal["stop", "length"]
    """whether the model ended it, or the limit did"""

    def row(self, generator: str, dataset: str | None = None) -> Generation:
        """The row of ``model_outputs.json``."""
        return Generation(self.instruction, self.output, generator, dataset)


@dataclass(frozen=True)
class Prompt:
    """An instruction as the model reads it."""

    instruction: str
    ids: tuple[int, ...]
    key: str


OnAnswer = Callable[[Answer], None]


def prompts(model: LoadedModel, instructions: Sequence[str], decoding: Decoding) -> list[Prompt]:
    """Every instruction through the chat template in use, with the key of its answer; nothing is generated.

    Raises `InputError` for a prompt that leaves no room for an answer.
    """
    identity = _identity(model, decoding)
    found = []
    for number, instruction in enumerate(instructions, start=1):
        ids = render(model, instruction)
        if len(ids) >= model.context:
            raise InputError(
                f"Instruction {number} has {len(ids)} tokens, but {model.path} takes {model.context} in all."
            )
        found.append(Prompt(instruction, tuple(ids), generation_key(identity, ids)))
    return found


def render(model: LoadedModel, instruction: str) -> list[int]:
    """The token ids of a conversation of one instruction, up to where the answer begins.

    BOS is there once if the tokenizer adds one of its own or the template writes it, and never twice.
    """
    tokenizer: Any = model.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": defused(tokenizer, instruction)}],
        chat_template=model.chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos] and _adds_bos(tokenizer):
        ids = [bos, *ids]
    if bos is not None and bos != tokenizer.eos_token_id:
        expected = 1 if ids[:1] == [bos] else 0
        if ids.count(bos) != expected:
            raise InputError(
                f"{model.path}: the chat template writes BOS {ids.count(bos)} times for one instruction; "
                "it may be there once, at the start."
            )
    return ids


def defused(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """``text`` in which no special token can be read: a space goes after the first character of its spelling.

    What a user or a model wrote is text. Without this, ``</s>`` in an instruction ends the turn.
    """
    for token in sorted(map(str, tokenizer.all_special_tokens), key=len, reverse=True):
        if len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _adds_bos(tokenizer: Any) -> bool:
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


# Identity.


def generation_key(identity: str, ids: Sequence[int]) -> str:
    """The name of an answer: `_identity` of model and decoding, and the ids of the prompt."""
    return hashlib.blake2b(
        f"{identity}\n{' '.join(map(str, ids))}".encode(), digest_size=16
    ).hexdigest()


def _identity(model: LoadedModel, decoding: Decoding) -> str:
    """All that determines an answer except its prompt: weights, adapter, template, decoding, arithmetic, libraries."""
    content = {
        "scheme": "generation-1",
        "weights": model.fingerprint,
        "adapter": model.adapter_fingerprint,
        "template": model.template_hash,
        "max_new_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "seed": decoding.seed if decoding.temperature > 0 else None,
        "end": sorted(_end_tokens(model)),
        "dtype": model.dtype,
        "quantization": model.quantization,
        "device": model.model.device.type,
        "libraries": library_versions("torch", "transformers", "peft"),
    }
    return json.dumps(content, sort_keys=True)


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    return metadata.version(package).partition("+")[0]


def library_versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages that change numbers, without their build."""
    return {package: _version(package) for package in packages}


# The loop.


def generate(
    model: LoadedModel,
    instructions: Sequence[str],
    decoding: Decoding | None = None,
    *,
    batch_size: int = 64,
    on_done: OnAnswer | None = None,
) -> list[Answer]:
    """The answers of the adapter in use, in the order of ``instructions``.

    ``on_done`` is given each answer as soon as it ends (rows of one batch end in any order): commit it there. Prompts
    are batched by length, rows that have ended leave their batch.
    """
    decoding = decoding or Decoding()
    asked = prompts(model, instructions, decoding)
    answers: dict[int, Answer] = {}
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i].ids), i))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        for place, answer in _answers(model, [asked[i] for i in rows], decoding):
            answers[rows[place]] = answer
            if on_done is not None:
                on_done(answer)
    return [answers[i] for i in range(len(asked))]


def _answers(
    model: LoadedModel, batch: Sequence[Prompt], decoding: Decoding
) -> Iterator[tuple[int, Answer]]:
    """The answers of one batch with their place in it, as they end."""
    import torch

    end = _end_tokens(model)
    limits = [min(decoding.max_new_tokens, model.context - len(prompt.ids)) for prompt in batch]
    device = model.model.device
    samplers = [_sampler(prompt, decoding) for prompt in batch]
    pad: Any = model.tokenizer.pad_token_id
    ids, mask = _padded_left([prompt.ids for prompt in batch], pad, device)
    living = list(range(len(batch)))
    said: list[list[int]] = [[] for _ in batch]
    past, positions = None, (mask.cumsum(1) - 1).clamp(min=0)
    while living:
        with torch.inference_mode():
            output = model.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
            past = output.past_key_values
            chosen = _choose(output.logits[:, -1], [samplers[i] for i in living], decoding)
        kept = []
        for row, (place, token) in enumerate(zip(living, chosen, strict=True)):
            said[place].append(token)
            if token in end or len(said[place]) == limits[place]:
                yield place, _answer(model, batch[place], said[place], end)
            else:
                kept.append(row)
        if len(kept) < len(living):
            index = torch.tensor(kept, dtype=torch.long, device=device)
            living = [living[row] for row in kept]
            if not living:
                return
            past.batch_select_indices(index)
            mask, positions = mask[index], positions[index]
        ids = torch.tensor([[said[place][-1]] for place in living], device=device)
        mask = torch.cat([mask, mask.new_ones(len(living), 1)], dim=1)
        positions = positions[:, -1:] + 1


def _choose(logits: torch.Tensor, samplers: Sequence[Any], decoding: Decoding) -> list[int]:
    """The next token of every row, from ``logits`` (rows, vocabulary).

    Sampling adds Gumbel noise and takes the largest, which draws from softmax(logits/T) exactly (Maddison et al. 2014,
    arXiv 1411.0030) and lets every row have a generator of its own.
    """
    import torch

    if decoding.temperature > 0:
        uniform = torch.stack([torch.rand(logits.shape[1], generator=rng) for rng in samplers])
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))
        logits = logits.float() / decoding.temperature + noise.to(logits.device)
    return logits.argmax(dim=1).tolist()


def _sampler(prompt: Prompt, decoding: Decoding) -> torch.Generator | None:
    """A generator for one prompt: its key names the seed."""
    import torch

    if decoding.temperature <= 0:
        return None
    return torch.Generator().manual_seed(int(prompt.key[:15], 16))


def _answer(model: LoadedModel, prompt: Prompt, said: Sequence[int], end: frozenset[int]) -> Answer:
    text = model.tokenizer.decode(list(said), skip_special_tokens=True)
    finish = "stop" if said[-1] in end else "length"
    return Answer(
        prompt.key, prompt.instruction, str(text).strip(), len(prompt.ids), len(said), finish
    )


def _end_tokens(model: LoadedModel) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those of the generation configuration.

    Chat models have one for the end of a turn.
    """
    configured: Any = model.model.generation_config.eos_token_id
    own: Any = model.tokenizer.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*found, own) if token is not None)


def _padded_left(
    rows: Sequence[Sequence[int]], pad: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, both (rows, longest)."""
    import torch

    longest = max(map(len, rows))
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
