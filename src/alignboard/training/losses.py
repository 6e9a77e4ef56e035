"""Preference losses as pure functions of sequence log-probabilities.

Symbols, as in the papers: x a prompt, y_w and y_l the chosen and the rejected completion, pi the policy, pi_ref the
reference, h_w = log pi(y_w|x)/pi_ref(y_w|x) and h_l likewise. Every function maps a batch of pairs to one loss per
pair, shape (pairs,); the trainer takes the mean. Its keywords are the parameters that a recipe may set, and
`alignboard.training.methods` declares their ranges and defaults.

Imports torch and nothing of ours. test_losses holds every loss to a worked value, to finite differences, and
to TRL's own value where TRL has the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


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


def log_ratios(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """h_w and h_l."""
    if logps.ref_chosen is None or logps.ref_rejected is None:
        raise ValueError("this loss needs the reference's log-probabilities")
    return logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected


def means(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """log pi(y_w|x)/|y_w| and log pi(y_l|x)/|y_l|."""
    return logps.chosen / _lengths(logps)[0], logps.rejected / _lengths(logps)[1]


def _lengths(logps: PairLogps) -> tuple[Tensor, Tensor]:
    return logps.chosen_tokens.clamp(min=1), logps.rejected_tokens.clamp(min=1)


_LARGEST = 80.0
"""Exponents are cut here: exp(88) is the last that float32 holds."""


def link(h: Tensor, divergence: str, alpha: float) -> Tensor:
    """f'(pi/pi_ref) as a function of h, up to a constant that cancels in a difference.

    References: Wang et al. 2023, arXiv 2309.16240, table 1. `alpha_divergence` is (u^(alpha-1) - 1)/(alpha-1), as in
    TRL, with reverse KL as its limit at alpha = 1.
    """
    if divergence == "forward_kl":
        return 1 - torch.exp((-h).clamp(max=_LARGEST))
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(h)
    if divergence == "alpha_divergence" and abs(alpha - 1) > 1e-6:
        return torch.expm1(((alpha - 1) * h).clamp(max=_LARGEST)) / (alpha - 1)
    return h


def margin(logps: PairLogps, divergence: str = "reverse_kl", alpha: float = 1.0) -> Tensor:
    """f'(u_w) - f'(u_l); h_w - h_l for the reverse KL of DPO."""
    h_w, h_l = log_ratios(logps)
    return link(h_w, divergence, alpha) - link(h_l, divergence, alpha)


def dpo(
    logps: PairLogps,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    divergence: str = "reverse_kl",
    alpha: float = 1.0,
) -> Tensor:
    """DPO: -log sigma(beta (h_w - h_l)); cDPO with label_smoothing; f-DPO with another divergence.

    References: Rafailov et al. 2023, arXiv 2305.18290, eq. 7; label smoothing: Mitchell 2023, "A note on DPO with
    noisy preferences"; divergences: Wang et al. 2023, arXiv 2309.16240, eq. 8.
    """
    return _smoothed(beta * margin(logps, divergence, alpha), label_smoothing)


def _smoothed(logits: Tensor, eps: float) -> Tensor:
    return -(1 - eps) * logsigmoid(logits) - eps * logsigmoid(-logits)


def robust_dpo(
    logps: PairLogps,
    *,
    beta: float,
    label_smoothing: float,
    divergence: str = "reverse_kl",
    alpha: float = 1.0,
) -> Tensor:
    """Robust DPO: ((1-eps) l(z) - eps l(-z)) / (1 - 2 eps), with l(z) = -log sigma(z) and eps = label_smoothing.

    References: Chowdhury et al. 2024, arXiv 2403.00409, eq. 11: unbiased where a share eps of the labels is flipped.
    """
    logits, eps = beta * margin(logps, divergence, alpha), label_smoothing
    return (-(1 - eps) * logsigmoid(logits) + eps * logsigmoid(-logits)) / (1 - 2 * eps)


def ipo(logps: PairLogps, *, beta: float) -> Tensor:
    """IPO, averaged: (h_w/|y_w| - h_l/|y_l| - 1/(2 tau))^2 with tau = beta.

    References: Azar et al. 2023, arXiv 2310.12036, eq. 17. Differs from the paper: log-ratios are averaged over
    tokens, as in TRL (whose authors confirmed it with the paper's); the sum would make tau depend on length.
    """
    (h_w, h_l), (n_w, n_l) = log_ratios(logps), _lengths(logps)
    return (h_w / n_w - h_l / n_l - 1 / (2 * beta)) ** 2


def ipo_sum(logps: PairLogps, *, beta: float) -> Tensor:
    """IPO as in the paper: (h_w - h_l - 1/(2 tau))^2 with tau = beta.

    References: Azar et al. 2023, arXiv 2310.12036, eq. 17.
    """
    return (margin(logps) - 1 / (2 * beta)) ** 2


def hinge(
    logps: PairLogps, *, beta: float, divergence: str = "reverse_kl", alpha: float = 1.0
) -> Tensor:
    """Hinge: max(0, 1 - beta (h_w - h_l)).

    References: SLiC, Zhao et al. 2023, arXiv 2305.10425; with the reference inside, as in RSO, Liu et al. 2023,
    arXiv 2309.06657, eq. 10.
    """
    return relu(1 - beta * margin(logps, divergence, alpha))


def gpo_exponential(logps: PairLogps, *, beta: float) -> Tensor:
    """GPO, exponential: exp(-beta (h_w - h_l)).

    References: Tang et al. 2024, arXiv 2402.05749, table 1. The exponent is cut at 80, where float32 ends.
    """
    return torch.exp((-beta * margin(logps)).clamp(max=_LARGEST))


def gpo_truncated(logps: PairLogps, *, beta: float) -> Tensor:
    """GPO, truncated quadratic: max(0, 1 - beta (h_w - h_l))^2. References: arXiv 2402.05749, table 1."""
    return relu(1 - beta * margin(logps)) ** 2


def gpo_savage(logps: PairLogps, *, beta: float) -> Tensor:
    """GPO, Savage: 1/(1 + exp(beta (h_w - h_l)))^2. References: arXiv 2402.05749, table 1."""
    return torch.sigmoid(-beta * margin(logps)) ** 2


def gpo_squared(logps: PairLogps, *, beta: float) -> Tensor:
    """GPO, squared: (beta (h_w - h_l) - 1)^2. References: arXiv 2402.05749, table 1.

    Equals beta^2 times the paper's IPO at tau = beta/2.
    """
    return (beta * margin(logps) - 1) ** 2


def dpo_norm(logps: PairLogps, *, beta: float) -> Tensor:
    """Length-normalised DPO: -log sigma(beta (h_w/|y_w| - h_l/|y_l|)).

    References: Lambert et al. 2024 (Tulu 3), arXiv 2411.15124, eq. 6. TRL calls it `sigmoid_norm`; RSO's sigmoid-norm
    is another loss (plain DPO's form).
    """
    (h_w, h_l), (n_w, n_l) = log_ratios(logps), _lengths(logps)
    return -logsigmoid(beta * (h_w / n_w - h_l / n_l))


def r_dpo(logps: PairLogps, *, beta: float, length_penalty: float) -> Tensor:
    """R-DPO: -log sigma(beta (h_w - h_l) + alpha (|y_w| - |y_l|)) with alpha = length_penalty.

    References: Park et al. 2024, arXiv 2403.19159, eq. 9.
    """
    return -logsigmoid(
        beta * margin(logps) + length_penalty * (logps.chosen_tokens - logps.rejected_tokens)
    )


def simpo(logps: PairLogps, *, beta: float, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """SimPO: -log sigma(beta (log pi(y_w|x)/|y_w| - log pi(y_l|x)/|y_l|) - gamma).

    Uses no reference. `gamma` is the margin itself; published configurations state gamma/beta.

    References: Meng et al. 2024, arXiv 2405.14734, eq. 6.
    """
    won, lost = means(logps)
    return _smoothed(beta * (won - lost) - gamma, label_smoothing)


def cpo(logps: PairLogps, *, beta: float, nll_weight: float = 1.0) -> Tensor:
    """CPO: -log sigma(beta (log pi(y_w|x) - log pi(y_l|x))) + nll_weight NLL(y_w).

    References: Xu et al. 2024, arXiv 2401.08417, eq. 6. The NLL is the mean per sequence (TRL takes the token mean of
    the micro-batch), so that the layout of the batch stays without effect.
    """
    return -logsigmoid(beta * (logps.chosen - logps.rejected)) - nll_weight * means(logps)[0]


def orpo(logps: PairLogps, *, beta: float) -> Tensor:
    """ORPO: NLL(y_w) - lambda log sigma(log odds(y_w|x)/odds(y_l|x)), lambda = beta, P the mean over tokens.

    References: Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7. The NLL is the mean per sequence over the reply (TRL's
    runs over prompt and reply of the micro-batch).
    """
    won, lost = means(logps)
    log_odds = won - lost - (_log1mexp(won) - _log1mexp(lost))
    return -won - beta * logsigmoid(log_odds)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0; x is kept 1e-6 below 0, where the odds would be infinite."""
    return torch.log(-torch.expm1(x.clamp(max=-1e-6)))


def exo(
    logps: PairLogps,
    *,
    beta: float,
    label_smoothing: float = 1e-3,
    divergence: str = "reverse_kl",
    alpha: float = 1.0,
) -> Tensor:
    """EXO for pairs: KL(p_theta || p_h), p_theta = (sigma(z), sigma(-z)), p_h = (1 - eps, eps), z = beta (h_w - h_l).

    References: Ji et al. 2024, arXiv 2402.00856, eq. 16; eps = label_smoothing has to be above 0.
    """
    z, eps = beta * margin(logps, divergence, alpha), label_smoothing
    won = torch.sigmoid(z) * (logsigmoid(z) - math.log1p(-eps))
    return won + torch.sigmoid(-z) * (logsigmoid(-z) - math.log(eps))


def nca(logps: PairLogps, *, beta: float) -> Tensor:
    """NCA for pairs: -log sigma(beta h_w) - (log sigma(-beta h_w) + log sigma(-beta h_l))/2.

    References: Chen et al. 2024, arXiv 2402.05369, eq. 13 with K = 2.
    """
    h_w, h_l = (beta * h for h in log_ratios(logps))
    return -logsigmoid(h_w) - 0.5 * logsigmoid(-h_w) - 0.5 * logsigmoid(-h_l)


def sppo(logps: PairLogps, *, beta: float) -> Tensor:
    """SPPO with hard labels: (h_w - 1/(2 beta))^2 + (h_l + 1/(2 beta))^2.

    References: Wu et al. 2024, arXiv 2405.00675, eq. 4.7 with P = 1 for the winner, where eta = 1/beta.
    """
    h_w, h_l = log_ratios(logps)
    return (h_w - 0.5 / beta) ** 2 + (h_l + 0.5 / beta) ** 2


def apo_zero(logps: PairLogps, *, beta: float) -> Tensor:
    """APO-zero (anchored): 1 - sigma(beta h_w) + sigma(beta h_l). References: arXiv 2408.06266, eq. 7."""
    h_w, h_l = log_ratios(logps)
    return torch.sigmoid(-beta * h_w) + torch.sigmoid(beta * h_l)


def apo_down(logps: PairLogps, *, beta: float) -> Tensor:
    """APO-down (anchored): sigma(beta h_w) + 1 - sigma(beta (h_w - h_l)). References: arXiv 2408.06266, eq. 8."""
    h_w, h_l = log_ratios(logps)
    return torch.sigmoid(beta * h_w) + torch.sigmoid(-beta * (h_w - h_l))


def bco(logps: PairLogps, *, beta: float) -> Tensor:
    """BCO for pairs: -log sigma(beta h_w) - log sigma(-beta h_l).

    References: Jung et al. 2024, arXiv 2404.04656, eq. 8. Differs from the paper: no reward shift delta, which would
    depend on the micro-batch; as TRL's `bco_pair`.
    """
    h_w, h_l = log_ratios(logps)
    return -logsigmoid(beta * h_w) - logsigmoid(-beta * h_l)


def discopop(
    logps: PairLogps,
    *,
    beta: float,
    tau: float = 0.05,
    divergence: str = "reverse_kl",
    alpha: float = 1.0,
) -> Tensor:
    """DiscoPOP (LRML): (1 - s) log(1 + e^-z) + s e^-z with s = sigma(z/tau), z = beta (h_w - h_l).

    References: Lu et al. 2024, arXiv 2406.08414, eq. 5.
    """
    z = beta * margin(logps, divergence, alpha)
    mix = torch.sigmoid(z / tau)
    return -logsigmoid(z) * (1 - mix) + torch.exp((-z).clamp(max=_LARGEST)) * mix
