"""From an instruction to the token ids that a model reads, and which tokens and strings end its reply.

What this module promises
    BOS is counted on token ids, never on strings: a template that writes BOS, read by a tokenizer that adds one, is
    how transformers, vLLM and llama.cpp have all sent two. Text of an instruction is never taken for a control token.
    An adapter is asked in the prompt it was trained with, or the user has said otherwise.

Nothing heavy is imported: the functions take the tokenizer that somebody has loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignboard.errors import InputError, nearest
from alignboard.models.adapters import saved_template
from alignboard.models.reasoning import opens
from alignboard.results.files import read_json_object

if TYPE_CHECKING:
    from alignboard.models.loading import LoadedModel

BosPolicy = Literal["auto", "once", "never"]
"""auto: once if the tokenizer adds one of its own or the template writes it; once: always; never: not at all."""
History = tuple[tuple[str, str], ...]
"""(what the user said, what was answered), turn by turn, before the instruction"""


RENDERING_SECONDS = 10.0
"""the longest that a template, which is a program of the checkpoint's, may take for one prompt"""
_ROLES = ("user", "assistant")
_TAIL = 24
"""tokens at a prompt's end, in which a mark is spelled at its longest"""


def render(
    model: LoadedModel, instruction: str, bos: BosPolicy = "auto", history: History = ()
) -> list[int]:
    """The token ids of a conversation that ends with ``instruction``, up to where the answer begins.

    Raises `InputError` where the template cannot render it or BOS is not there as often as ``bos`` says.
    """
    template, source = model.chat_template, str(model.path)
    return prompt_ids(
        model.tokenizer, template, instruction, bos=bos, source=source, history=history
    )


def prompt_ids(
    tokenizer: Any,
    template: str,
    instruction: str,
    *,
    bos: BosPolicy = "auto",
    source: str,
    history: History = (),
) -> list[int]:
    """As `render`, from a tokenizer and a template; ``source`` names the checkpoint in errors."""
    turns = [(role, text) for pair in history for role, text in zip(_ROLES, pair, strict=True)]
    text = conversation_text(
        tokenizer,
        template,
        [
            (role, defused(tokenizer, said, template))
            for role, said in (*turns, ("user", instruction))
        ],
        source=source,
        generation_prompt=True,
    )
    ids = encode(tokenizer, text, bos)
    wrong = bos_fault(tokenizer, ids, bos, template)
    if wrong is not None:
        raise InputError(f"{source}: {wrong}")
    return ids


def prompt_text(tokenizer: Any, template: str, instruction: str, *, source: str) -> str:
    """The text that ``template`` makes of one instruction; `InputError` where it raises."""
    return conversation_text(
        tokenizer, template, [("user", instruction)], source=source, generation_prompt=True
    )


def conversation_text(
    tokenizer: Any,
    template: str,
    turns: Iterable[tuple[str, str]],
    *,
    source: str,
    generation_prompt: bool = False,
) -> str:
    """The text that ``template`` makes of (role, content) turns; `InputError` where it raises."""
    from jinja2 import TemplateError

    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        with _time_limit(RENDERING_SECONDS):
            return tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                add_generation_prompt=generation_prompt,
                tokenize=False,
            )
    except (
        *(TimeoutError, MemoryError),
        *(TemplateError, TypeError, ValueError, ArithmeticError),
        *(LookupError, AttributeError, RecursionError),
    ) as error:  # a template is a program of the checkpoint's, and raises what it likes
        roles = ", ".join(message["role"] for message in messages)
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{source}: the chat template does not take the turns {roles}: {reason}."
        ) from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer, whichever thread does it."""
    in_main = threading.current_thread() is threading.main_thread()
    try:
        with _alarm(seconds) if in_main else _raised_in_thread(seconds):
            yield
    except TimeoutError as error:
        raise TimeoutError(f"it takes more than {seconds:g} s") from error


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """The limit of the main thread, which alone gets signals."""

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _raised_in_thread(seconds: float) -> Iterator[None]:
    """The limit of any other thread: the interpreter raises what another thread hands to it."""
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), threading.Event()

    def end() -> None:
        with lock:
            if not over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeoutError))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)


def encode(tokenizer: Any, text: str, bos: BosPolicy) -> list[int]:
    """The ids of a rendered prompt, with a BOS in front where the policy wants one and the text has none."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    first = tokenizer.bos_token_id
    if first is None or bos == "never" or ids[:1] == [first]:
        return ids
    return [first, *ids] if bos == "once" or adds_bos(tokenizer) else ids


def bos_fault(
    tokenizer: Any, ids: Sequence[int], bos: BosPolicy, template: str | None = None
) -> str | None:
    """What is wrong with the BOS of a prompt, as a sentence; None where it is as the policy says.

    BOS is judged where the prompt begins. Later it may stand where it is the EOS, too (Phi-2), and where ``template``
    writes it anew for every turn (SmolLM2's ``<|im_start|>``) or every exchange (Llama 2).
    """
    first = tokenizer.bos_token_id
    if first is None:
        return (
            "bos is 'once', but the tokenizer has no BOS; say 'auto' or 'never'."
            if bos == "once"
            else None
        )
    if bos == "never" and ids[:1] == [first]:
        return "the chat template writes BOS, but bos is 'never'; say 'auto' or 'once'."
    marks_turns = first == tokenizer.eos_token_id or (
        template is not None and _writes_bos_by_turn(tokenizer, template)
    )
    count = list(ids[:2] if marks_turns else ids).count(first)
    if count > (1 if ids[:1] == [first] else 0):
        return (
            f"the chat template writes BOS {count} times for one instruction; "
            "it may be there once, at the start."
        )
    return None


@lru_cache(maxsize=64)
def _writes_bos_by_turn(tokenizer: Any, template: str) -> bool:
    """Whether a conversation of two exchanges holds more BOS than one of one exchange."""
    one = [("user", "a"), ("assistant", "b")]
    try:
        counts = [
            encode(
                tokenizer, conversation_text(tokenizer, template, turns, source=""), "auto"
            ).count(tokenizer.bos_token_id)
            for turns in (one, one + one)
        ]
    except InputError:
        return False  # a text for one instruction
    return counts[1] > counts[0]


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself begins a text with BOS."""
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def defused(tokenizer: Any, text: str, template: str = "") -> str:
    """``text`` in which no control token can be read: a space goes after the first character of its spelling.

    What a user or a model wrote is text. Without this, ``</s>`` in an instruction ends the turn. Control tokens are the
    special ones, and those that ``template`` spells (some tokenizers have ``<|im_end|>`` as an ordinary added token;
    Phi-2's runs of spaces are ordinary ones, too, and stay).
    """
    for token in sorted(control_tokens(tokenizer, template), key=len, reverse=True):
        if len(token) > 1 and token in text:
            # The rest is only looked at, so that spellings which overlap each other are all broken.
            text = re.sub(f"{re.escape(token[0])}(?={re.escape(token[1:])})", f"{token[0]} ", text)
    return text


def control_tokens(tokenizer: Any, template: str = "") -> frozenset[str]:
    """The spellings of all special tokens, and of the added ones that ``template`` writes."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {
        token.content
        for token in added
        if token.special or (token.content.strip() and token.content in template)
    }
    return frozenset(found | set(map(str, tokenizer.all_special_tokens)))


def opens_reasoning(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether a prompt ends inside a block of reasoning, which its template has opened."""
    return opens(str(tokenizer.decode(list(ids[-_TAIL:]), skip_special_tokens=False)))


# Where a reply ends.


def stop_token_ids(tokenizer: Any, spellings: Collection[str], *, source: str) -> frozenset[int]:
    """The ids of tokens given by their spelling; `InputError` for one that the tokenizer reads as several."""
    if not spellings:
        return frozenset()
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    found = set()
    for spelling in spellings:
        if spelling not in vocabulary:
            pieces = len(tokenizer.encode(spelling, add_special_tokens=False))
            known = [token for token in control_tokens(tokenizer) if token.strip()]
            raise InputError(
                f"{source}: stop_tokens has {spelling!r}, which the tokenizer reads as {pieces} tokens"
                f"{nearest(spelling, known) or ','} give it under stop, as text."
            )
        found.add(vocabulary[spelling])
    return frozenset(found)


# The template that travels with an adapter.


def template_digest(template: str) -> str:
    """What `train` records as ``template_digest`` in an adapter's ``training.json``."""
    return hashlib.sha256(template.encode()).hexdigest()[:16]


def training_digest(adapter: Path) -> str | None:
    """The digest of the template that an adapter was trained with; None where its folder does not say."""
    card = adapter / "training.json"
    if card.is_file():
        recorded = read_json_object(card).get("template_digest")
        if isinstance(recorded, str):
            return recorded
    template = saved_template(adapter)
    return None if template is None else template_digest(template)


def require_training_template(
    adapter: Path, tokenizer: Any, template: str, *, bos: BosPolicy = "auto"
) -> None:
    """Raise `InputError` where ``template`` asks an adapter otherwise than it was trained.

    Templates of other text pass where they make the same ids of an instruction: one may have the loss's markers, or
    write the BOS that the other leaves to the tokenizer. The caller does not ask where the user has said
    ``template_mismatch: allow``.
    """
    digest = training_digest(adapter)
    if digest is None or digest == template_digest(template):
        return
    trained = saved_template(adapter)
    if trained is not None and template_digest(trained) == digest:
        own, given = (
            prompt_ids(tokenizer, one, "What is this?", bos=bos, source=str(adapter))
            for one in (trained, template)
        )
        if own == given:
            return
    raise InputError(
        f"{adapter} was trained with another prompt (template {digest}) than it would be asked with "
        f"({template_digest(template)}); use its own (prompt: {{chat: own}}), or say template_mismatch: allow."
    )
