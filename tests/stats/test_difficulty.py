"""Joint difficulties: recovery, stationarity of the objective, invariants, and the released models."""

import numpy as np
import pytest
from scipy.stats import rankdata

from alignboard.stats import difficulty
from alignboard.stats.difficulty import difficulties_of_others, fit_difficulty
from alignboard.stats.length_control import length_controlled_win_rate, length_feature
from builders import length_difference, released_annotations, released_calibration


def rank_correlation(one, other):
    return np.corrcoef(rankdata(one), rankdata(other))[0, 1]


def expit(z):
    return 1 / (1 + np.exp(-z))


def board(models, instructions, spread=1.5, seed=0, binary=False):
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, spread, size=instructions)
    bias, slope = rng.normal(-1, 1, size=models), rng.normal(-0.6, 0.2, size=models)
    model = np.repeat(np.arange(models), instructions)
    instruction = np.tile(np.arange(instructions), models)
    t = np.tanh(rng.normal(size=len(model)))
    rate = expit(bias[model] + slope[model] * t + difficulty[instruction])
    score = (rng.random(len(rate)) < rate) * 1.0 if binary else rng.beta(2 * rate, 2 * (1 - rate))
    return (model, instruction, score, t), difficulty, bias


def penalised_loss(theta, rows, models, variance):
    model, instruction, score, t = rows
    bias, slope, gamma = theta[:models], theta[models : 2 * models], theta[2 * models :]
    z = bias[model] + slope[model] * t + gamma[instruction]
    loss = np.sum(np.logaddexp(0, z) - score * z)
    return loss + np.sum(gamma**2) / (2 * variance) + 0.005 * np.sum(theta[: 2 * models] ** 2)


def test_simulated_difficulties_are_recovered():
    rows, difficulty, bias = board(20, 400)
    fit = fit_difficulty(*rows)
    assert rank_correlation(fit.difficulty, difficulty) > 0.93
    assert np.corrcoef(fit.bias, bias)[0, 1] > 0.98
    assert fit.n_rows == 8000


def test_the_spread_of_difficulties_is_recovered_from_binary_verdicts():
    """A little short of it: the fixed point uses each difficulty's mode where its posterior is skewed."""
    rows, difficulty, _ = board(30, 600, binary=True)
    ratio = fit_difficulty(*rows).prior_variance / difficulty.var()
    assert 0.8 < ratio < 1.05


@pytest.mark.parametrize("concentration", [2, 8])
def test_the_spread_of_difficulties_is_recovered_from_soft_verdicts(concentration):
    """Taken for binary draws, soft verdicts have less scatter than chance alone, and the prior variance was 1e-4."""
    (model, instruction, _, t), difficulty, bias = board(8, 600, spread=1.0)
    rate = expit(bias[model] - 0.6 * t + difficulty[instruction])
    draws = np.random.default_rng(3).beta(concentration * rate, concentration * (1 - rate))
    fit = fit_difficulty(model, instruction, draws, t)
    assert fit.dispersion == pytest.approx(1 / (1 + concentration), rel=0.1)
    assert 0.75 < fit.prior_variance / difficulty.var() < 1.1


def test_difficulties_of_others_hold_no_verdict_of_ones_own():
    (model, instruction, score, t), _, _ = board(4, 60)
    found = difficulties_of_others(model, instruction, score, t, 60)
    flipped = np.where(model == 2, 1 - score, score)
    other = difficulties_of_others(model, instruction, flipped, t, 60)
    assert rank_correlation(found[2], other[2]) > 0.98  # only the common prior variance moves
    assert rank_correlation(found[1], other[1]) < 0.9


def test_without_own_verdicts_by_a_step_is_nearly_the_fit_to_the_others(monkeypatch):
    """Within half a percent of the difficulties' spread at 30 models, and nearer with more."""
    errors = []
    for models in (30, 60):
        rows, _, _ = board(models, 80, seed=models, binary=True)
        monkeypatch.setattr(difficulty, "_MOST_LEFT_OUT", 10)
        step = difficulties_of_others(*rows, 80)
        monkeypatch.setattr(difficulty, "_MOST_LEFT_OUT", 100)
        exact = difficulties_of_others(*rows, 80)
        monkeypatch.undo()
        errors.append(np.sqrt(np.mean((step - exact) ** 2)) / exact.std())
    assert errors[1] < errors[0] < 0.005


@pytest.mark.parametrize(("models", "instructions"), [(4, 60), (30, 12)])
def test_a_newton_step_solves_the_whole_system(models, instructions):
    """By either side of the Schur complement the step is that of the dense Hessian."""
    (model, instruction, score, t), _, _ = board(models, instructions)
    rows = difficulty._laid_out(model, instruction, score, t, (models, instructions))
    beta, gamma = np.full(2 * models, 0.1), np.linspace(-1, 1, instructions)
    design = np.zeros((len(model), 2 * models + instructions))
    every = np.arange(len(model))
    design[every, model], design[every, models + model] = 1, t
    design[every, 2 * models + instruction] = 1
    p = expit(design @ np.concatenate([beta, gamma]))
    prior = np.concatenate([np.full(2 * models, 0.01), np.full(instructions, 1 / 1.7)])
    hessian = design.T @ ((p * (1 - p))[:, None] * design) + np.diag(prior)
    gradient = design.T @ (score - p) - prior * np.concatenate([beta, gamma])
    step_beta, step_gamma, _ = difficulty._newton_step(rows, beta, gamma, 1.7)
    expected = np.linalg.solve(hessian, gradient)
    assert np.allclose(np.concatenate([step_beta, step_gamma]), expected, rtol=1e-9, atol=1e-12)


def test_the_fit_is_stationary():
    """Central differences of the objective, written out independently, vanish in every coordinate."""
    rows, _, _ = board(4, 30)
    fit = fit_difficulty(*rows)
    theta = np.concatenate([fit.bias, fit.length_weight, fit.difficulty])
    h, ratio = 1e-5, fit.prior_variance / fit.dispersion
    for j in range(len(theta)):
        step = np.zeros(len(theta))
        step[j] = h
        ahead = penalised_loss(theta + step, rows, 4, ratio)
        behind = penalised_loss(theta - step, rows, 4, ratio)
        assert (ahead - behind) / (2 * h) == pytest.approx(0, abs=1e-5)
        assert ahead > penalised_loss(theta, rows, 4, ratio) - 1e-10


def test_the_prior_variance_is_the_fixed_point_of_empirical_bayes():
    rows, _, _ = board(6, 60)
    fit = fit_difficulty(*rows)
    model, instruction, _, t = rows
    p = expit(fit.bias[model] + fit.length_weight[model] * t + fit.difficulty[instruction])
    information = np.bincount(instruction, p * (1 - p))
    posterior = fit.dispersion / (information + fit.dispersion / fit.prior_variance)
    assert np.mean(fit.difficulty**2 + posterior) == pytest.approx(fit.prior_variance, rel=1e-6)


@pytest.mark.parametrize("models", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("binary", [True, False])
def test_few_models_and_flat_difficulties_settle(models, spread, binary):
    rows, difficulty, _ = board(models, 300, spread=spread, seed=models, binary=binary)
    fit = fit_difficulty(*rows)
    assert np.isfinite(fit.difficulty).all()
    assert 1e-4 * (1 - 1e-9) <= fit.prior_variance / fit.dispersion <= 100
    if spread == 1.0 and models == 5:
        assert rank_correlation(fit.difficulty, difficulty) > (0.5 if binary else 0.75)


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_models_that_all_win_all_draw_or_all_lose_settle(score):
    (model, instruction, scores, t), _, _ = board(3, 40)
    fit = fit_difficulty(model, instruction, np.full_like(scores, score), t)
    assert np.isfinite(fit.difficulty).all()
    assert np.abs(fit.difficulty).max() < 0.1


def test_the_names_of_models_and_instructions_do_not_matter():
    (model, instruction, score, t), _, _ = board(6, 80)
    one = fit_difficulty(model, instruction, score, t)
    rng = np.random.default_rng(1)
    new_model, new_instruction = rng.permutation(6), rng.permutation(80)
    order = rng.permutation(len(score))
    other = fit_difficulty(
        new_model[model][order], new_instruction[instruction][order], score[order], t[order]
    )
    assert other.difficulty[new_instruction] == pytest.approx(one.difficulty, abs=1e-6)
    assert other.bias[new_model] == pytest.approx(one.bias, abs=1e-6)


def test_swapping_the_roles_changes_every_sign():
    (model, instruction, score, t), _, _ = board(5, 60)
    one = fit_difficulty(model, instruction, score, t)
    other = fit_difficulty(model, instruction, 1 - score, -t)
    assert other.difficulty == pytest.approx(-one.difficulty, abs=1e-6)
    assert other.length_weight == pytest.approx(one.length_weight, abs=1e-6)


def test_unparsed_rows_are_left_out():
    (model, instruction, score, t), _, _ = board(4, 50)
    holes = np.random.default_rng(0).random(len(score)) < 0.1
    with_holes = np.where(holes, np.nan, score)
    one = fit_difficulty(model, instruction, with_holes, t)
    other = fit_difficulty(model[~holes], instruction[~holes], score[~holes], t[~holes])
    assert one.difficulty == pytest.approx(other.difficulty, abs=1e-9)
    assert one.n_rows == int((~holes).sum())


def test_an_instruction_without_verdicts_is_average():
    (model, instruction, score, t), _, _ = board(4, 50)
    fit = fit_difficulty(model, instruction, np.where(instruction == 7, np.nan, score), t)
    assert fit.difficulty[7] == 0


@pytest.mark.parametrize("hidden", [False, True])
def test_one_model_is_not_enough(hidden):
    (model, instruction, score, t), _, _ = board(2, 50)
    score = np.where(model == 1, np.nan, score)
    kept = slice(None) if hidden else model == 0
    with pytest.raises(ValueError, match="at least two models"):
        fit_difficulty(model[kept], instruction[kept], score[kept], t[kept])


def test_joint_difficulties_give_nearly_the_calibrated_rates_on_the_released_models(released):
    """AlpacaEval's own difficulties come from other models, and without calibration rows nothing holds the length
    effect; the two readings still agree to a median of 0.7 points and in order. `gpt4_gamed`, whose answers are all
    far shorter than the baseline's, is the one model that cannot be length-controlled without calibration rows."""
    calibrated, gamed = released_calibration(released)
    tables = {
        name: table
        for name, table in released_annotations(released, "weighted_alpaca_eval_gpt4_turbo").items()
        if table.generator != table.baseline
    }
    instructions = np.unique(np.concatenate([table.instruction for table in tables.values()]))
    where = {
        name: np.searchsorted(instructions, table.instruction) for name, table in tables.items()
    }
    fit = fit_difficulty(
        np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()]),
        np.concatenate(list(where.values())),
        np.concatenate([table.preference - 1 for table in tables.values()]),
        np.concatenate([length_feature(length_difference(table))[0] for table in tables.values()]),
    )
    # The reference order of the calibrated difficulties is that of the complete files.
    complete = tables["phi-2-sft"].instruction
    own = fit.difficulty[np.searchsorted(instructions, complete)]
    assert rank_correlation(own, calibrated) > 0.75
    position = {int(instruction): number for number, instruction in enumerate(complete)}
    joint, known = {}, {}
    for name, table in tables.items():
        length, place = length_difference(table), [position[int(i)] for i in table.instruction]
        joint[name] = (
            100
            * length_controlled_win_rate(
                table.preference, length, fit.difficulty[where[name]], None
            ).win_rate
        )
        known[name] = (
            100
            * length_controlled_win_rate(
                table.preference, length, calibrated[place], gamed
            ).win_rate
        )
    gaps = {name: abs(joint[name] - known[name]) for name in tables}
    assert np.median(list(gaps.values())) < 1.0
    assert {name for name, gap in gaps.items() if gap > 5} == {"gpt4_gamed"}
    assert (
        rank_correlation([joint[name] for name in tables], [known[name] for name in tables]) > 0.95
    )
