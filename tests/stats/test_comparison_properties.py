"""What may not change a comparison: other models and prompts, unparsed rows, the order of rows, names of clusters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignboard.records import Annotations
from alignboard.reports.comparison import FamilyOfTests, corrected
from alignboard.reports.comparison_sources import verdict_families
from alignboard.stats.multiplicity import step_down_max_t
from alignboard.stats.paired import paired_difference
from alignboard.stats.rating.battles import Battles, NotRankableError
from alignboard.stats.rating.bradley_terry import bradley_terry

seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


def table(model: str, prompts: np.ndarray, preference: np.ndarray) -> Annotations:
    n = len(prompts)
    ids, lengths = prompts.astype(np.uint64), np.full(n, 10, np.int32)
    return Annotations(
        path=f"{model}.json",
        annotator="judge",
        generator=model,
        baseline="base",
        digest="",
        instruction=ids,
        output_1=ids,
        output_2=ids,
        preference=preference,
        balanced=preference,
        length_1=lengths,
        length_2=lengths,
        switched=np.zeros(n, dtype=np.bool_),
    )


def board(rng: np.random.Generator) -> dict[str, Annotations]:
    """Three models, each on most of 30 prompts, some of their verdicts unparsed."""
    found = {}
    for model in "ABC":
        prompts = np.flatnonzero(rng.random(30) < 0.8)
        preference = 1 + rng.random(len(prompts)).round(1)
        preference[rng.random(len(prompts)) < 0.1] = np.nan
        found[model] = table(model, prompts, preference)
    return found


def rows_of(tables: dict[str, Annotations]) -> dict[tuple[str, str], tuple[float, ...]]:
    (family,) = verdict_families(tables, all_pairs=True)
    return {
        pair: (one.estimate, one.low, one.high, one.p_value, one.n)
        for pair, one in zip(family.pairs, family.found, strict=True)
    }


def same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one == pytest.approx(other, rel=1e-12, nan_ok=True)


@given(seeds)
@few
def test_a_model_on_other_prompts_changes_no_pairs_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = board(rng)
    stranger = table("stranger", np.arange(100, 120), 1 + rng.random(20))
    before, after = rows_of(tables), rows_of(tables | {"stranger": stranger})
    assert all(same(before[pair], after[pair]) for pair in before)
    assert all(math.isnan(after[pair][3]) for pair in after.keys() - before.keys())


@given(seeds)
@few
def test_unparsed_rows_change_no_pair_that_they_are_not_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = board(rng)
    lost = tables["C"].preference.copy()
    lost[rng.random(len(lost)) < 0.5] = np.nan
    changed = tables | {"C": table("C", tables["C"].instruction, lost)}
    before, after = rows_of(tables), rows_of(changed)
    assert same(before["A", "B"], after["A", "B"])


@given(seeds)
@few
def test_names_of_models_and_the_order_of_rows_change_no_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = board(rng)
    order = {model: rng.permutation(len(one)) for model, one in tables.items()}
    renamed = {
        f"x{model}": table(f"x{model}", one.instruction[at], one.preference[at])
        for (model, one), at in zip(tables.items(), order.values(), strict=True)
    }
    before, after = rows_of(tables), rows_of(renamed)
    assert all(same(before[a, b], after[f"x{a}", f"x{b}"]) for a, b in before)


@given(seeds)
@few
def test_merged_prompts_move_errors_and_no_estimate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, prompt = rng.random(60), rng.random(60), np.arange(60)
    apart, merged = (paired_difference(a, b, one) for one in (prompt, prompt // 3))
    assert merged.estimate == pytest.approx(apart.estimate, rel=1e-12)
    assert (apart.n_clusters, merged.n_clusters) == (60, 20)
    battles = random_battles(rng)
    pooled = Battles(battles.first, battles.second, battles.score, battles.cluster // 2)
    one, other = bradley_terry(battles, 5), bradley_terry(pooled, 5)
    assert other.log_strength == pytest.approx(one.log_strength, abs=1e-9)
    assert other.n_clusters < one.n_clusters


@given(seeds)
@few
def test_the_order_of_rows_and_the_names_of_prompts_change_no_rating(seed: int) -> None:
    rng = np.random.default_rng(seed)
    battles = random_battles(rng)
    at, names = rng.permutation(len(battles.score)), rng.permutation(40)
    other = Battles(
        battles.first[at], battles.second[at], battles.score[at], names[battles.cluster[at]]
    )
    one, two = bradley_terry(battles, 5), bradley_terry(other, 5)
    assert two.log_strength == pytest.approx(one.log_strength, abs=1e-9)
    assert two.covariance == pytest.approx(one.covariance, abs=1e-9)


@given(seeds)
@few
def test_max_t_keeps_the_order_of_the_tests_and_is_less_strict_for_fewer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    influence, t = rng.normal(size=(40, 6)), rng.normal(0, 2, 6)
    p = step_down_max_t(influence, t, draws=500, rng=np.random.default_rng(1))
    by_size = p[np.argsort(-np.abs(t))]
    assert (np.diff(by_size) >= 0).all()
    alone = [
        step_down_max_t(influence[:, [k]], t[[k]], draws=500, rng=np.random.default_rng(1))[0]
        for k in range(6)
    ]
    assert (p >= np.array(alone) - 0.1).all()  # other draws: 500 of them err by up to .07


@given(seeds)
@few
def test_a_further_pair_corrects_no_pair_less(seed: int) -> None:
    """By Holm, of two families of which one holds the other's pairs and more."""
    rng = np.random.default_rng(seed)
    (family,) = verdict_families(board(rng), all_pairs=True)
    fewer = FamilyOfTests(family.quantity, family.pairs[:2], family.found[:2], family.units[:2])
    all_rows = corrected([family], "holm").rows
    for row, other in zip(corrected([fewer], "holm").rows, all_rows, strict=False):
        assert row.adjusted_p <= other.adjusted_p


def random_battles(rng: np.random.Generator) -> Battles:
    """Scores strictly inside of 0 and 1: every pair that met has beaten each other."""
    first = rng.integers(5, size=120)
    second = (first + rng.integers(1, 5, size=120)) % 5
    return Battles(first, second, rng.uniform(0.1, 0.9, 120), rng.integers(40, size=120))


def battles(rows: str, scores: list[float], weight: list[float] | None = None) -> Battles:
    """``ab`` is a comparison of the models 0 and 1."""
    first, second = ([ord(pair[k]) - ord("a") for pair in rows.split()] for k in (0, 1))
    n = len(first)
    return Battles(
        np.array(first, dtype=np.intp),
        np.array(second, dtype=np.intp),
        np.array(scores, dtype=np.float64),
        np.arange(n),
        None if weight is None else np.array(weight),
    )


@pytest.mark.parametrize(
    ("rows", "scores", "words"),
    [
        ("ab ab bc cb", [1, 1, 1, 1], "never lost a point"),  # undefeated
        ("bc cb ab ab", [1, 1, 0, 0], "never lost a point"),  # winless
        ("ab ba cd dc", [1, 1, 1, 1], "never compared"),  # two groups
    ],
)
def test_boards_without_a_rating_are_not_rankable(rows: str, scores: list, words: str) -> None:
    with pytest.raises(NotRankableError, match=words):
        bradley_terry(battles(rows, scores), 1 + ord(max(rows)) - ord("a"))


@pytest.mark.parametrize(
    ("rows", "scores", "weight", "words"),
    [
        ("aa", [1], None, "itself"),
        ("ab", [math.nan], None, "scores must lie"),
        ("ab", [1], [0.0], "above 0"),
        ("ab", [1], [-1.0], "above 0"),
        ("ab", [1], [math.nan], "above 0"),
    ],
)
def test_what_is_no_comparison_is_refused(
    rows: str, scores: list, weight: list | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        battles(rows, scores, weight)


def test_draws_alone_are_equal_models_without_limits() -> None:
    fit = bradley_terry(battles("ab ab ab", [0.5, 0.5, 0.5]), 2)
    assert fit.log_strength == pytest.approx([0, 0], abs=1e-12)
    assert np.isnan(fit.standard_error).all()
    assert np.isnan(fit.p_values()[0, 1])


def test_one_model_has_no_strength() -> None:
    fit = bradley_terry(battles("", []), 1)
    assert np.isnan([*fit.log_strength, *fit.standard_error]).all()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_comparisons_have_no_error_or_no_rating(n: int) -> None:
    few_battles = battles(" ".join(["ab", "ba"][:n]), [1.0, 1.0][:n])
    if n < 2:
        with pytest.raises(NotRankableError):
            bradley_terry(few_battles, 2)
        return
    fit = bradley_terry(few_battles, 2)
    assert fit.log_strength == pytest.approx([0, 0], abs=1e-12)
    assert fit.n_clusters == 2
