"""The L1 logistic solver: optimality, a general optimiser as reference, and the choice of C."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from alignboard.stats import l1_logistic
from alignboard.stats.length_control import group_folds


def problem(seed, n=None, k=None, hard=None):
    """A random problem, some of them nasty: collinear or constant columns, extreme scales and weights."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 120)) if n is None else n
    k = int(rng.integers(1, 5)) if k is None else k
    x = rng.normal(size=(n, k)) * 10.0 ** rng.uniform(-2, 2, size=k)
    kind = rng.integers(5)
    if kind == 1 and k > 1:
        x[:, -1] = 2 * x[:, 0]
    elif kind == 2:
        x[:, 0] = 1
    elif kind == 3:
        x[:, 0] = 0
    y = rng.random(n)
    if (kind == 4) if hard is None else hard:
        y = (y < 0.4).astype(float)
    weight = 10.0 ** rng.uniform(-3, 3, size=n) if rng.random() < 0.3 else rng.random(n) + 0.01
    return x, y, weight, 10.0 ** rng.uniform(-4, 4)


def objective(w, x, y, weight, C):
    z = x @ w
    return np.abs(w).sum() + C * float(weight @ (np.logaddexp(0, z) - y * z))


def kkt_violation(w, x, y, weight, C):
    """Written out coordinate by coordinate, in the units of `L1Fit.kkt_violation`."""
    worst = 0.0
    for j, wj in enumerate(w):
        slope = sum(
            s * (1 / (1 + np.exp(-np.clip(row @ w, -700, 700))) - label) * row[j]
            for row, label, s in zip(x, y, weight, strict=True)
        )
        miss = abs(slope + np.sign(wj) / C) if wj else max(abs(slope) - 1 / C, 0)
        worst = max(worst, miss)
    return worst / weight.sum()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_every_fit_is_optimal(seed):
    x, y, weight, C = problem(seed)
    fit = l1_logistic.fit(x, y, weight, C)
    assert fit.kkt_violation <= 1e-7
    assert kkt_violation(fit.weights, x, y, weight, C) <= 1e-7


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_no_general_optimiser_finds_a_lower_objective(seed):
    x, y, weight, C = problem(seed)
    k = x.shape[1]
    fit = l1_logistic.fit(x, y, weight, C)
    ours = objective(fit.weights, x, y, weight, C)

    # w = u - v with u, v >= 0 makes the penalty linear.
    def split(uv):
        w = uv[:k] - uv[k:]
        p = 1 / (1 + np.exp(-np.clip(x @ w, -700, 700)))
        slope = C * ((weight * (p - y)) @ x)
        return uv.sum() + C * float(
            weight @ (np.logaddexp(0, x @ w) - y * (x @ w))
        ), np.concatenate([1 + slope, 1 - slope])

    start = np.concatenate([np.maximum(fit.weights, 0), np.maximum(-fit.weights, 0)]) + 0.1
    found = minimize(
        split,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * k),
        options={"maxiter": 2000},
    )
    assert ours <= found.fun + 1e-9 * (1 + abs(found.fun))


def test_weights_agree_with_a_general_optimiser():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 3))
    y = 1 / (1 + np.exp(-(x @ [1.0, -0.5, 0.0])))
    weight = rng.random(200) + 0.5
    fit = l1_logistic.fit(x, y, weight, 0.5)
    found = minimize(
        objective, fit.weights + 0.05, args=(x, y, weight, 0.5), method="Powell", tol=1e-14
    )
    assert fit.weights == pytest.approx(found.x, abs=1e-5)


def test_one_column_has_a_closed_form():
    # n rows x = 1 with mean label m: n (p - m) + sign(w) / C = 0.
    y = np.array([1.0, 1.0, 1.0, 0.0, 0.5])
    fit = l1_logistic.fit(np.ones((5, 1)), y, np.ones(5), C=2.0)
    p = (y.sum() - 0.5) / 5
    assert fit.weights[0] == pytest.approx(np.log(p / (1 - p)), abs=1e-9)


def test_a_small_C_leaves_every_weight_at_zero():
    x, y, weight, _ = problem(11, n=80, k=3, hard=False)
    largest = np.abs((weight * (0.5 - y)) @ x).max()
    assert not l1_logistic.fit(x, y, weight, 0.999 / largest).weights.any()
    assert l1_logistic.fit(x, y, weight, 1.001 / largest).weights.any()


@pytest.mark.parametrize("C", [1e-4, 2.78, 1e4])
def test_separated_labels_have_a_finite_optimum(C):
    x = np.linspace(-2, 2, 40)[:, None]
    y = (x[:, 0] > 0).astype(float)
    fit = l1_logistic.fit(x, y, np.ones(40), C)
    assert np.isfinite(fit.weights).all()
    assert fit.kkt_violation <= 1e-7


@pytest.mark.parametrize("seed", [607, 1002, 1158])
def test_a_weak_penalty_on_nearly_separated_rows_has_an_optimum(seed):
    """Logits pass 709, where exp overflows: lengths that are all alike go with the constant, as on a demo's board."""
    rng = np.random.default_rng(seed)
    n = 24
    theta = rng.normal(size=n)
    length = np.tanh(-1 + 1e-3 * rng.normal(size=n))
    x = np.stack([theta, length, np.ones(n)], axis=1)
    y = (theta + 0.3 * rng.normal(size=n) > 0).astype(float)
    C, weights = l1_logistic.cross_validated_C(x, y, np.ones(n), np.arange(n) % 4)
    fit = l1_logistic.fit(x, y, np.ones(n), C, weights)
    assert fit.kkt_violation <= 1e-9


def test_the_start_does_not_change_the_optimum():
    rng = np.random.default_rng(5)
    x, y, weight = rng.normal(size=(100, 3)), rng.random(100), rng.random(100)
    from_zero = l1_logistic.fit(x, y, weight, 3.0).weights
    from_afar = l1_logistic.fit(x, y, weight, 3.0, start=np.array([3.0, -4.0, 5.0])).weights
    assert from_afar == pytest.approx(from_zero, abs=1e-7)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.permutations(range(3)))
def test_rows_columns_and_signs_may_be_rearranged(seed, columns):
    rng = np.random.default_rng(seed)
    x, y, weight = rng.normal(size=(50, 3)), rng.random(50), rng.random(50) + 0.1
    rows = rng.permutation(50)
    w = l1_logistic.fit(x, y, weight, 1.5).weights
    assert l1_logistic.fit(x[rows], y[rows], weight[rows], 1.5).weights == pytest.approx(
        w, abs=1e-7
    )
    assert l1_logistic.fit(x[:, columns], y, weight, 1.5).weights == pytest.approx(
        w[columns], abs=1e-7
    )
    assert l1_logistic.fit(-x, y, weight, 1.5).weights == pytest.approx(-w, abs=1e-7)
    assert l1_logistic.fit(x, 1 - y, weight, 1.5).weights == pytest.approx(-w, abs=1e-7)


def test_a_row_of_weight_two_is_two_rows():
    x, y, _, _ = problem(8, n=60, k=2, hard=False)
    twice = l1_logistic.fit(np.vstack([x, x]), np.concatenate([y, y]), np.ones(120), 0.7).weights
    assert l1_logistic.fit(x, y, np.full(60, 2.0), 0.7).weights == pytest.approx(twice, abs=1e-7)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_optimum(value):
    x, y, weight, _ = problem(5, n=20, k=2, hard=False)
    x[3, 1] = value
    with pytest.raises(l1_logistic.ConvergenceError):
        l1_logistic.fit(x, y, weight, 1.0)


def naive_choice(x, y, weight, folds, Cs):
    """One independent fit for every fold and C, and upstream's loss written out."""
    means = []
    for C in Cs:
        losses = []
        for fold in range(folds.max() + 1):
            held = folds == fold
            w = l1_logistic.fit(x[~held], y[~held], weight[~held], C).weights
            p = 1 / (1 + np.exp(-x[held] @ w))
            losses.append(
                -np.mean(weight[held] * (y[held] * np.log(p) + (1 - y[held]) * np.log(1 - p)))
            )
        means.append(np.mean(losses))
    return means


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_choice_of_C_against_a_loop_over_folds(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 150))
    x = np.column_stack([rng.normal(size=(n, 2)), np.ones(n)])
    y = rng.beta(0.5, 0.5, size=n)
    weight = np.where(np.arange(n) < n // 2, 0.1, 1.0)
    folds = group_folds(n)
    C, start = l1_logistic.cross_validated_C(x, y, weight, folds)
    means = naive_choice(x, y, weight, folds, l1_logistic.DEFAULT_CS)
    chosen = l1_logistic.DEFAULT_CS.tolist().index(C)
    assert means[chosen] == pytest.approx(min(means), abs=1e-9)
    per_fold = [l1_logistic.fit(x, y, weight * (folds != fold), C).weights for fold in range(5)]
    assert start == pytest.approx(np.mean(per_fold, axis=0), abs=1e-4)


def test_a_tie_goes_to_the_smallest_C():
    x = np.random.default_rng(0).normal(size=(40, 2))
    C, _ = l1_logistic.cross_validated_C(x, np.full(40, 0.5), np.ones(40), group_folds(40))
    assert l1_logistic.DEFAULT_CS[0] == C


@pytest.mark.parametrize("n", [5, 6, 17, 100, 805, 2412, 2415])
def test_folds_are_dealt_as_scikit_learn_deals_them(n):
    ours = group_folds(n)
    # Upstream's frame: every row twice, grouped by row.
    groups = np.tile(np.arange(n), 2)
    for fold, (_, held) in enumerate(GroupKFold(n_splits=5).split(groups, groups=groups)):
        assert set(groups[held].tolist()) == set(np.flatnonzero(ours == fold).tolist())


def test_folds_are_the_same_on_every_processor(monkeypatch):
    def unstable(keys, **_):
        return np.random.default_rng(0).permutation(len(keys))

    monkeypatch.setattr(np, "argsort", unstable)
    assert group_folds(7).tolist() == [1, 0, 4, 3, 2, 1, 0]
    digest = hashlib.blake2b(group_folds(2415).astype("<i8").tobytes(), digest_size=8)
    assert digest.hexdigest() == "6e2ee7aa672c74e1"
