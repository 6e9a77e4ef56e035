"""Properties of the losses for any log-probabilities: swapped sides, shifted log-ratios, limits in beta and alpha."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from alignboard.training.losses import PairLogps
from alignboard.training.methods import loss_spec
from test_losses import NEEDED, value

MARGIN = (
    "dpo",
    "robust-dpo",
    "hinge",
    "ipo-sum",
    "exo",
    "discopop",
    "gpo-exponential",
    "gpo-savage",
    "gpo-squared",
    "gpo-truncated",
)
"""functions of the difference of the two log-ratios alone, at the reverse KL link"""
ABSOLUTE = ("nca", "sppo", "apo-zero", "apo-down", "bco")
"""functions of each log-ratio by itself"""
LOGPS = st.floats(-30.0, -0.1)
BETAS = st.floats(0.01, 2.0)
NEAR: dict[str, Any] = {"rel": 1e-9, "abs": 1e-9}


@st.composite
def pairs(draw: st.DrawFn) -> PairLogps:
    numbers = [draw(LOGPS) for _ in range(4)]
    tokens = [float(draw(st.integers(1, 40))) for _ in range(2)]
    chosen, rejected, *reference = numbers
    columns = (chosen, rejected, *tokens, *reference)
    return PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in columns))


def swapped(logps: PairLogps) -> PairLogps:
    """The pair with the other reply chosen."""
    return PairLogps(
        logps.rejected,
        logps.chosen,
        logps.rejected_tokens,
        logps.chosen_tokens,
        logps.ref_rejected,
        logps.ref_chosen,
    )


def shifted(logps: PairLogps, by: float) -> PairLogps:
    """Both log-ratios raised by a number."""
    return replace(logps, chosen=logps.chosen + by, rejected=logps.rejected + by)


def margin(logps: PairLogps) -> float:
    assert logps.ref_chosen is not None
    assert logps.ref_rejected is not None
    ours = logps.chosen - logps.ref_chosen - logps.rejected + logps.ref_rejected
    return ours.item()


@pytest.mark.parametrize("name", MARGIN)
@given(logps=pairs(), beta=BETAS)
def test_swapping_the_sides_is_swapping_policy_and_reference(
    name: str, logps: PairLogps, beta: float
) -> None:
    assert logps.ref_chosen is not None
    assert logps.ref_rejected is not None
    turned = replace(
        logps,
        chosen=logps.ref_chosen,
        rejected=logps.ref_rejected,
        ref_chosen=logps.chosen,
        ref_rejected=logps.rejected,
    )
    one, other = value(name, swapped(logps), beta).item(), value(name, turned, beta).item()
    assert one == pytest.approx(other, **NEAR)


@given(logps=pairs(), beta=BETAS)
def test_the_losses_of_a_pair_and_its_swap_differ_by_the_margin(
    logps: PairLogps, beta: float
) -> None:
    one, other = (value("dpo", each, beta).item() for each in (logps, swapped(logps)))
    assert other - one == pytest.approx(beta * margin(logps), **NEAR)
    smoothed = value("dpo", logps, beta, label_smoothing=0.2).item()
    assert smoothed == pytest.approx(0.8 * one + 0.2 * other, **NEAR)


@pytest.mark.parametrize("name", MARGIN)
@given(logps=pairs(), beta=BETAS, by=st.floats(-10, 10))
def test_a_shift_of_both_log_ratios_changes_no_loss_of_their_difference(
    name: str, logps: PairLogps, beta: float, by: float
) -> None:
    one, other = (value(name, each, beta).item() for each in (logps, shifted(logps, by)))
    assert one == pytest.approx(other, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", ABSOLUTE)
def test_a_shift_changes_losses_of_each_log_ratio(name: str) -> None:
    numbers = (-4.0, -8.0, 4.0, 8.0, -5.0, -6.0)
    logps = PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in numbers))
    one, other = (value(name, each).item() for each in (logps, shifted(logps, 3.0)))
    assert abs(one - other) > 1e-3


@pytest.mark.parametrize("name", MARGIN)
@given(logps=pairs())
def test_where_beta_goes_to_0_the_loss_is_that_of_the_start(name: str, logps: PairLogps) -> None:
    spec = loss_spec(name)
    if spec.at_start is None or name == "ipo-sum":  # its target is 1 / (2 beta)
        return
    beta = 1e-7
    expected = spec.at_start(spec.complete(name, {"beta": beta, **NEEDED.get(name, {})}))
    assert value(name, logps, beta).item() == pytest.approx(expected, rel=1e-4)


@given(logps=pairs())
def test_where_beta_grows_dpo_is_a_hinge_without_margin(logps: PairLogps) -> None:
    for beta in (10.0, 1000.0):
        scaled = value("dpo", logps, beta).item() / beta
        assert abs(scaled - max(0.0, -margin(logps))) <= math.log(2) / beta + 1e-12


@given(logps=pairs(), beta=st.floats(0.01, 0.5))
def test_the_links_of_alpha_divergence_lie_between_the_two_kl(
    logps: PairLogps, beta: float
) -> None:
    near = replace(logps, ref_chosen=logps.chosen - 0.3, ref_rejected=logps.rejected + 0.2)
    for alpha, limit in ((1 - 1e-6, "reverse_kl"), (1e-6, "forward_kl")):
        link = value("dpo", near, beta, divergence="alpha_divergence", alpha=alpha).item()
        assert link == pytest.approx(value("dpo", near, beta, divergence=limit).item(), rel=1e-4)
