"""Checks that stop silent wrongness before and at the first step of a run.

What goes wrong upstream without a word: adapters that match no layer, two beginning-of-text tokens or none, an end
token that is never trained (the model then never stops), a loss that does not start where theory puts it, gradients
that are zero. Each check raises `PreflightError` with what was found and what was expected.

No torch at import; the functions take what a trainer has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alignboard.errors import AlignboardError


class PreflightError(AlignboardError):
    """A run that would have trained something other than what it says."""


@dataclass(frozen=True)
class TokenRow:
    """One training sequence: its token ids and, for each, whether the loss is taken on it."""

    ids: Sequence[int]
    trained: Sequence[bool]
    truncated: bool = False
    """Cut off at max_length, so that its end may be missing for a good reason."""


@dataclass(frozen=True)
class TokenFacts:
    """What the tokenizer says about the special tokens that rows are checked for."""

    bos: int | None
    adds_bos: bool
    """Whether the tokenizer itself begins a text with BOS: then a row without it is wrong."""
    ends: frozenset[int]
    """Tokens that end a reply: EOS, and a template's end of turn."""


END_OF_TURN = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>")


def token_facts(tokenizer: Any) -> TokenFacts:
    """Read them off a tokenizer."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    vocab = tokenizer.get_vocab()
    ends = {vocab[token] for token in END_OF_TURN if token in vocab} | ({eos} - {None})
    first = tokenizer("a")["input_ids"][:1]
    # Phi-2 has one token for both ends of a text: there a BOS cannot be told from an end.
    return TokenFacts(bos if bos != eos else None, first == [bos], frozenset(ends))


def check_rows(rows: Iterable[TokenRow], facts: TokenFacts) -> int:
    """Exactly one BOS where the model expects one, at least one trained token and one trained end; rows checked.

    A row cut off at max_length may lack its end; all of them may not.
    """
    n = n_ended = 0
    for n, row in enumerate(rows, start=1):
        where = f"training row {n}"
        n_bos = sum(i == facts.bos for i in row.ids) if facts.bos is not None else None
        if n_bos is not None and n_bos > 1:
            raise PreflightError(
                f"{where} has {n_bos} beginning-of-text tokens, expected one: the chat template writes it and "
                "the tokenizer adds another; encode with add_special_tokens=False"
            )
        if n_bos == 0 and facts.adds_bos:
            raise PreflightError(
                f"{where} has no beginning-of-text token, but this tokenizer's texts begin with one"
            )
        if not any(row.trained):
            raise PreflightError(
                f"{where} has no trained token: prompt longer than max_length, or a wrong mask"
            )
        ended = any(t and i in facts.ends for i, t in zip(row.ids, row.trained, strict=True))
        n_ended += ended
        if not ended and not row.truncated:
            raise PreflightError(
                f"{where} trains no end token, so the model would not learn to stop: the template does not end "
                "the reply, or its end is masked as padding"
            )
    if n == 0:
        raise PreflightError(
            "no training rows are left: every prompt alone fills max_length, so raise it"
        )
    if n_ended == 0:
        raise PreflightError(
            f"all of the {n} rows looked at are cut off before their end; raise max_length"
        )
    return n


def check_targets(model: Any, target_modules: Sequence[str]) -> None:
    """Every LoRA target names at least one layer (PEFT is silent as long as any of them does)."""
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing := [target for target in target_modules if target not in names]:
        linear = sorted(
            {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if "Linear" in type(m).__name__}
        )
        raise PreflightError(
            f"lora.target_modules {', '.join(missing)}: no such layer in {type(model).__name__}; its linear "
            f"layers are {', '.join(linear)}"
        )


def count_trainable(model: Any) -> int:
    """Trainable parameters; PreflightError when there are none."""
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if count == 0:
        raise PreflightError("no parameter is trainable: the adapter is missing or frozen")
    return count


def check_first_step(loss: float, grad_norm: float | None, expected_loss: float | None) -> None:
    """The first step's loss is what theory says (where it says), finite, and the gradient is not zero."""
    if not math.isfinite(loss):
        raise PreflightError(f"the loss of the first step is {loss}")
    # Relative: reference and policy are two forward passes of one network, equal up to rounding, which 4-bit weights
    # and bfloat16 make larger.
    if expected_loss is not None and not math.isclose(loss, expected_loss, rel_tol=2e-2):
        raise PreflightError(
            f"the loss of the first step is {loss:.6f}, expected {expected_loss:.6f}, its value where policy and "
            "reference are the same: the reference is not the model that training starts from"
        )
    if grad_norm is not None and not grad_norm > 0:
        raise PreflightError("the gradient of the first step is zero: nothing would be learnt")


def template_digest(tokenizer: Any) -> str | None:
    """Digest of the chat template, for the run card: evaluation must use the same."""
    if not tokenizer.chat_template:
        return None
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]


def show_row(row: TokenRow, tokenizer: Any) -> str:
    """A row as text, the trained part in brackets: what a person looks at first when a run goes wrong."""
    parts, open_ = [], False
    for i, trained in zip(row.ids, row.trained, strict=True):
        if trained != open_:
            parts.append("[" if trained else "]")
            open_ = trained
        parts.append(tokenizer.convert_ids_to_tokens(i))
    return " ".join([*parts, "]"] if open_ else parts)


def token_rows(dataset: Any, max_length: int, limit: int) -> list[TokenRow]:
    """The first rows as TRL tokenised them, truncated as its collators will."""
    found = []

    def add(ids: list[int], trained: list[bool]) -> None:
        cut = len(ids) > max_length
        found.append(TokenRow(ids[:max_length], trained[:max_length], truncated=cut))

    for row in dataset.select(range(min(limit, len(dataset)))):
        if "chosen_ids" in row:
            prompt = row["prompt_ids"]
            for completion in (row["chosen_ids"], row["rejected_ids"]):
                add([*prompt, *completion], [False] * len(prompt) + [True] * len(completion))
        else:
            mask = (
                row.get("assistant_masks")
                or row.get("completion_mask")
                or [1] * len(row["input_ids"])
            )
            add(row["input_ids"], [bool(m) for m in mask])
    return found
