"""Checks that stop silent wrongness before, during and after a run.

What goes wrong upstream without a word: adapters that match no layer, two beginning-of-text tokens or none, an end
token that is never trained (the model then never stops), a loss that does not start where theory puts it, gradients
that are zero. Each check raises `PreflightError` with what was found and what was expected.

No torch at import; the functions take what a trainer has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from alignboard.errors import AlignboardError
from alignboard.models.prompting import adds_bos
from alignboard.models.turns import end_of_turn

IGNORED: Final = -100
"""the label that the loss leaves out"""
SAVED: Final = 1e-3
"""of the largest logit: how far the written adapter's logits may be from the trained one's"""


class PreflightError(AlignboardError):
    """A run that would have trained something other than what it says."""


@dataclass(frozen=True)
class TokenRow:
    """One training sequence: its token ids and, for each, whether the loss is taken on it."""

    ids: Sequence[int]
    trained: Sequence[bool]
    truncated: bool = False
    """Cut off at max_length, so that its end may be missing for a good reason."""
    side: str = "reply"
    """``chosen`` and ``rejected`` in pairs"""

    def cut(self, max_length: int) -> TokenRow:
        """What training sees of a whole sequence."""
        if len(self.ids) <= max_length:
            return self
        return replace(
            self, ids=self.ids[:max_length], trained=self.trained[:max_length], truncated=True
        )


@dataclass(frozen=True)
class TokenFacts:
    """What the tokenizer says about the special tokens that rows are checked for."""

    bos: int | None
    adds_bos: bool
    """Whether the tokenizer itself begins a text with BOS: then a row without it is wrong."""
    ends: frozenset[int]
    """Tokens that end a reply: EOS, and a template's end of turn."""


def token_facts(tokenizer: Any) -> TokenFacts:
    """Read them off a tokenizer and its template."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    turn = end_of_turn(tokenizer, tokenizer.chat_template) if tokenizer.chat_template else None
    # Phi-2 has one token for both ends of a text: there a BOS cannot be told from an end.
    ends = frozenset({eos, turn} - {None})
    return TokenFacts(bos if bos != eos else None, adds_bos(tokenizer), ends)


def check_rows(rows: Iterable[TokenRow], facts: TokenFacts) -> int:
    """One BOS at the beginning where the model expects one, a trained token and a trained end in every row; rows
    checked.

    BOS is judged where a row begins: later a template may write it anew for every turn (SmolLM2) or exchange
    (Llama 2). A row cut off at max_length may lack its end; all rows of one side may not.
    """
    n = 0
    ended: dict[str, list[bool]] = {}
    for n, row in enumerate(rows, start=1):
        where = f"training row {n}"
        _check_bos(row, facts, where)
        if not any(row.trained):
            raise PreflightError(
                f"{where} has no trained token: prompt longer than max_length, or a wrong mask"
            )
        end = any(t and i in facts.ends for i, t in zip(row.ids, row.trained, strict=True))
        ended.setdefault(row.side, []).append(end)
        if not end and not row.truncated:
            raise PreflightError(
                f"{where} trains no end token, so the model would not learn to stop: the template does not end "
                "the reply, its loss markers ({% generation %}) leave the end out, or it is masked as padding"
            )
    if n == 0:
        raise PreflightError(
            "no training rows are left: every prompt alone fills max_length, so raise it"
        )
    for side, ends in ended.items():
        if not any(ends):
            name = "replies" if side == "reply" else f"{side} replies"
            raise PreflightError(
                f"all of the {len(ends)} {name} looked at are cut off before their end; raise max_length"
            )
    return n


def _check_bos(row: TokenRow, facts: TokenFacts, where: str) -> None:
    if facts.bos is None:
        return
    if list(row.ids[:2]) == [facts.bos, facts.bos]:
        raise PreflightError(
            f"{where} begins with 2 beginning-of-text tokens, expected one: the chat template writes it and "
            "the tokenizer adds another; encode with add_special_tokens=False"
        )
    if facts.adds_bos and row.ids[0] != facts.bos:
        raise PreflightError(
            f"{where} has no beginning-of-text token, but this tokenizer's texts begin with one"
        )


def check_gradients(never: Sequence[str], steps: int) -> None:
    """Every trainable matrix is reached by the loss: ``never`` had no gradient in ``steps`` steps."""
    if never:
        raise PreflightError(
            f"{len(never)} matrices of the adapter got no gradient in {steps} steps, the first is {never[0]}: the loss "
            "does not depend on them; take their layers out of lora.target_modules"
        )


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


def check_loss_at_start(loss: float, expected: float | None) -> None:
    """The loss of one fixed batch before any step is finite, and what theory says where it says."""
    if not math.isfinite(loss):
        raise PreflightError(f"the loss before the first step is {loss}")
    # Relative: reference and policy are two forward passes of one network, equal up to rounding, which 4-bit weights
    # and bfloat16 make larger.
    if expected is not None and not math.isclose(loss, expected, rel_tol=2e-2):
        raise PreflightError(
            f"the loss before the first step is {loss:.6f}, expected {expected:.6f}, its value where policy and "
            "reference are the same: the reference is not the model that training starts from"
        )


def check_reference(found: Iterable[tuple[float, float]]) -> None:
    """The log-probabilities that were computed before are those of the reference: (known, computed anew)."""
    for known, anew in found:
        if not math.isclose(known, anew, rel_tol=2e-2, abs_tol=1e-2):
            raise PreflightError(
                f"the reference gives a reply of the first batch the log-probability {anew:.4f}, and the rows hold "
                f"{known:.4f}: they were made with another base, parent or template"
            )


def check_saved(trained: Any, saved: Any) -> None:
    """The adapter that was written computes what the trained one did; tensors of logits."""
    difference = float((trained.float() - saved.float()).abs().max())
    if not difference <= SAVED * max(1.0, float(trained.float().abs().max())):
        raise PreflightError(
            "the adapter that was written gives other logits than the trained one (largest difference "
            f"{difference:.3g})"
        )


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
    """The first rows as TRL tokenised them, cut as it cuts them.

    Demonstrations are cut when TRL prepares them, and what is trained is in ``labels`` (-100 elsewhere); pairs are cut
    by the collator.
    """
    found: list[TokenRow] = []
    for row in dataset.select(range(min(limit, len(dataset)))):
        if "chosen_ids" in row:
            prompt = row.get("prompt_ids", [])  # a reward model's rows are whole conversations
            for side in ("chosen", "rejected"):
                ids = [*prompt, *row[f"{side}_ids"]]
                trained = [n >= len(prompt) for n in range(len(ids))]
                found.append(TokenRow(ids, trained, side=side).cut(max_length))
        elif "completion_ids" in row:
            ids = [*row["prompt_ids"], *row["completion_ids"]]
            trained = [n >= len(row["prompt_ids"]) for n in range(len(ids))]
            found.append(TokenRow(ids, trained).cut(max_length))
        else:
            ids = row["input_ids"]
            trained = [label != IGNORED for label in row["labels"]]
            found.append(TokenRow(ids, trained, truncated=len(ids) >= max_length))
    return found
