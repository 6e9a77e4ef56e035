"""Preference losses as pure functions of sequence log-probabilities.

Symbols, as in the papers: x a prompt, y_w and y_l the chosen and the rejected completion, pi the policy, pi_ref the
reference. Every function maps a batch of pairs to one loss per pair, shape (pairs,); the trainer takes the mean.

Imports torch and nothing of ours. Plugged into TRL's DPO trainer by `alignboard.train.trainer`, and held to TRL's
own values by tests/test_losses.py where TRL has the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities of completions, each of shape (pairs,), and their lengths in tokens.

    The reference's are None for a loss that uses none.
    """

    chosen: Tensor
    """log pi(y_w | x)"""
    rejected: Tensor
    """log pi(y_l | x)"""
    chosen_tokens: Tensor
    """|y_w|, the end token included"""
    rejected_tokens: Tensor
    """|y_l|"""
    ref_chosen: Tensor | None = None
    """log pi_ref(y_w | x)"""
    ref_rejected: Tensor | None = None
    """log pi_ref(y_l | x)"""


@dataclass(frozen=True)
class LossSettings:
    """The numbers a loss may read; which ones it reads is in its docstring."""

    beta: float
    gamma: float = 0.0
    label_smoothing: float = 0.0


def log_ratios(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """h_w = log pi(y_w|x)/pi_ref(y_w|x) and h_l likewise."""
    if logps.ref_chosen is None or logps.ref_rejected is None:
        raise ValueError("this loss needs the reference's log-probabilities")
    return logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected


def dpo(logps: PairLogps, settings: LossSettings) -> Tensor:
    """DPO: -log sigma(beta (h_w - h_l)). Reads beta and label_smoothing (cDPO).

    Equals ln 2 wherever policy and reference agree, whatever beta.

    References: Rafailov et al. 2023, arXiv 2305.18290, eq. 7; label smoothing: Mitchell 2023, "A note on DPO with
    noisy preferences".
    """
    h_w, h_l = log_ratios(logps)
    logits = settings.beta * (h_w - h_l)
    eps = settings.label_smoothing
    return -(1 - eps) * logsigmoid(logits) - eps * logsigmoid(-logits)


def ipo(logps: PairLogps, settings: LossSettings) -> Tensor:
    """IPO: (h_w/|y_w| - h_l/|y_l| - 1/(2 tau))^2 with tau = beta. Reads beta.

    Equals 1/(4 tau^2) where policy and reference agree.

    References: Azar et al. 2023, arXiv 2310.12036, eq. 17. Differs from the paper: log-ratios are averaged over
    tokens, as in TRL (whose authors confirmed it with the paper's); the sum would make tau depend on length.
    """
    h_w, h_l = log_ratios(logps)
    gap = h_w / logps.chosen_tokens.clamp(min=1) - h_l / logps.rejected_tokens.clamp(min=1)
    return (gap - 1 / (2 * settings.beta)) ** 2


def simpo(logps: PairLogps, settings: LossSettings) -> Tensor:
    """SimPO: -log sigma(beta (log pi(y_w|x)/|y_w| - log pi(y_l|x)/|y_l|) - gamma). Reads beta, gamma, label_smoothing.

    Uses no reference. `gamma` is the margin itself; published configurations state gamma/beta.

    References: Meng et al. 2024, arXiv 2405.14734, eq. 6.
    """
    gap = logps.chosen / logps.chosen_tokens.clamp(
        min=1
    ) - logps.rejected / logps.rejected_tokens.clamp(min=1)
    logits = settings.beta * gap - settings.gamma
    eps = settings.label_smoothing
    return -(1 - eps) * logsigmoid(logits) - eps * logsigmoid(-logits)


Loss = Callable[[PairLogps, LossSettings], Tensor]


@dataclass(frozen=True)
class LossSpec:
    """A loss with what the trainer must know about it."""

    function: Loss
    uses_reference: bool
    trl_name: str | None
    """TRL's own name for the same loss, when its stable trainer has it."""


LOSSES: Final[Mapping[str, LossSpec]] = {
    "dpo": LossSpec(dpo, uses_reference=True, trl_name="sigmoid"),
    "ipo": LossSpec(ipo, uses_reference=True, trl_name="ipo"),
    "simpo": LossSpec(simpo, uses_reference=False, trl_name=None),
}


def loss_at_start(name: str, settings: LossSettings) -> float | None:
    """The loss before the first update, where policy = reference fixes it; None where it depends on the data.

    >>> loss_at_start("ipo", LossSettings(beta=0.1))
    25.0
    """
    if name == "dpo":
        return math.log(2)
    if name == "ipo":
        return (1 / (2 * settings.beta)) ** 2
    return None


def sequence_logps(token_logps: Tensor, completion_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over completions, and their lengths, both (sequences,), from (sequences, length) each."""
    mask = completion_mask.to(token_logps.dtype)
    return torch.sum(token_logps * mask, dim=1), mask.sum(dim=1)
