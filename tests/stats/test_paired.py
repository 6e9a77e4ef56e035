"""Paired differences, corrections for many tests, and rank sets: published values, closed forms, invariants."""

import itertools
import math
import random as rnd
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alignboard.published.calibration import Calibration, read_calibration
from alignboard.published.scores import aligned_length_control
from alignboard.records import Annotations
from alignboard.results.folder import ResultsFolder
from alignboard.stats.multiplicity import benjamini_hochberg, holm, step_down_max_t
from alignboard.stats.paired import (
    PairedDifference,
    equivalence_p_value,
    influence_difference,
    mcnemar,
    paired_difference,
    sign_flip_p_value,
)
from alignboard.stats.ranks import paired_rank_sets, probability_of_best, rank_sets, tie_groups
from alignboard.stats.student import student_p_value, student_p_values, student_quantile

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "gpt4_1106_preview"
NULL, FUSE = "NullModel", "FuseChat-Llama-3.1-8B-Instruct"
MIXTRAL = "Mixtral-8x7B-Instruct-v0.1_concise"
TURBO = "gpt-3.5-turbo-1106"

Tables = dict[str, Annotations]


@pytest.fixture(scope="module")
def tables(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    with ResultsFolder(released / "results") as folder:
        models = [m for m in folder.annotated_models(JUDGE) if m != BASELINE]
        return folder.tables(models, JUDGE)


@pytest.fixture(scope="module")
def calibration(released: Path) -> Calibration:
    return read_calibration(released / "length_control")


def align(a: list[int], b: list[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions in ``a`` and in ``b`` of the keys that both hold, in the order of ``a``."""
    place = {key: index for index, key in enumerate(b)}
    pairs = [(index, place[key]) for index, key in enumerate(a) if key in place]
    columns = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def compared(a: Annotations, b: Annotations) -> PairedDifference:
    in_a, in_b = align(a.instruction.tolist(), b.instruction.tolist())
    return paired_difference(a.preference[in_a] - 1, b.preference[in_b] - 1)


RAW = [
    (NULL, FUSE, 805, 0.13588208880099378, 0.016079158299716394, 1.3494383938e-16),
    ("claude-2.1", MIXTRAL, 805, 0.01989466581614906, 0.01113678515488289, 0.07441250142799494),
    (
        TURBO,
        f"{TURBO}_concise",
        805,
        0.01762099584335404,
        0.006642138683666323,
        0.00813753785829859,
    ),
    ("phi-2-sft", "phi-2", 803, 0.016368024314321297, 0.00601865320793687, 0.00667847123201487),
    ("alpaca-7b", "phi-2", 803, 0.0024751387120797055, 0.004779242988524145, 0.6046754290698452),
]


@pytest.mark.parametrize(("a", "b", "n", "difference", "error", "p"), RAW)
def test_raw_differences_of_released_models(
    tables: Tables, a: str, b: str, n: int, difference: float, error: float, p: float
) -> None:
    found = compared(tables[a], tables[b])
    assert found.n == n
    assert found.estimate == pytest.approx(difference, rel=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.p_value == pytest.approx(p, rel=1e-9)
    assert (found.low > 0 or found.high < 0) == (p < 0.05)


LENGTH_CONTROLLED = [
    (NULL, FUSE, 0.21073732625743635, 0.01589780155945873, 2.0451427816e-36),
    ("claude-2.1", MIXTRAL, 0.022906200229862228, 0.019831205197412605, 0.2484096767269893),
    (TURBO, f"{TURBO}_concise", 0.03449035423925073, 0.014204106457859305, 0.015392557880704334),
    ("phi-2-sft", "phi-2", 0.019652123607425916, 0.00930143164400627, 0.034925010547754175),
    ("alpaca-7b", "phi-2", 0.01986516910458916, 0.009136412230010374, 0.029974677094169483),
]


@pytest.mark.parametrize(("a", "b", "difference", "error", "p"), LENGTH_CONTROLLED)
def test_length_controlled_differences_of_released_models(
    tables: Tables,
    calibration: Calibration,
    a: str,
    b: str,
    difference: float,
    error: float,
    p: float,
) -> None:
    reference = tables[NULL].instruction
    fits = [aligned_length_control(tables[m], reference, calibration) for m in (a, b)]
    influence = [np.full(len(reference), np.nan) for _ in fits]
    for m, fit, column in zip((a, b), fits, influence, strict=True):
        mine, theirs = align(tables[m].instruction.tolist(), reference.tolist())
        column[theirs] = fit.influence[mine]
    found = influence_difference(fits[0].win_rate, fits[1].win_rate, *influence)
    assert found.n == 805
    assert found.estimate == pytest.approx(difference, rel=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.p_value == pytest.approx(p, rel=1e-9)


def test_counts_and_rank_sets_of_the_released_board(tables: Tables) -> None:
    models = sorted(tables, key=lambda m: -np.nanmean(tables[m].preference))
    assert len(models) == 23
    k = len(models)
    p, difference = np.full((k, k), np.nan), np.zeros((k, k))
    for i, j in itertools.combinations(range(k), 2):
        found = compared(tables[models[i]], tables[models[j]])
        p[i, j] = found.p_value
        difference[i, j], difference[j, i] = found.estimate, -found.estimate
    upper = np.triu_indices(k, 1)
    adjacent = np.diagonal(p, 1)
    assert ((adjacent < 0.05).sum(), (holm(adjacent) < 0.05).sum()) == (5, 2)
    adjusted = holm(p[upper])
    found_by = [
        (column < 0.05).sum() for column in (p[upper], adjusted, benjamini_hochberg(p[upper]))
    ]
    assert found_by == [207, 175, 206]
    corrected = np.full((k, k), np.nan)
    corrected[upper] = adjusted
    corrected.T[upper] = adjusted
    sets = dict(
        zip(
            models,
            zip(*(s.tolist() for s in rank_sets(difference, corrected)), strict=True),
            strict=True,
        )
    )
    assert sets["claude-2.1"] == (3, 5)
    assert sets[MIXTRAL] == (3, 6)
    assert sets["OpenHermes-2.5-Mistral-7B"] == (4, 9)
    assert sets["vicuna-7b-v1.3"] == (10, 18)
    assert sets["text_davinci_003"] == (15, 23)


def test_rank_sets_of_scores_are_those_of_the_pairs(tables: Tables) -> None:
    prompts = np.unique(np.concatenate([t.instruction for t in tables.values()]))
    score = np.full((len(prompts), len(tables)), np.nan)
    for column, table in enumerate(tables.values()):
        score[np.searchsorted(prompts, table.instruction), column] = table.preference
    low, high = paired_rank_sets(score)
    sets = dict(zip(tables, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    assert sets["claude-2.1"] == (3, 5)
    assert sets[MIXTRAL] == (3, 6)
    assert sets["OpenHermes-2.5-Mistral-7B"] == (4, 9)
    assert sets["text_davinci_003"] == (15, 23)
    # A model with the scores of another, and one without any, are separated from nobody that these are not from.
    more = np.column_stack([score, score[:, 0], np.full(len(score), np.nan)])
    low, high = paired_rank_sets(more)
    assert (low[-1], high[-1]) == (1, more.shape[1])
    assert (low[0], high[0]) == (low[-2], high[-2])


def test_step_down_max_t_of_the_released_board(tables: Tables) -> None:
    shared = set.intersection(
        *(
            {
                i
                for i, p in zip(t.instruction.tolist(), t.preference, strict=True)
                if not math.isnan(p)
            }
            for t in tables.values()
        )
    )
    assert len(shared) == 798
    order = sorted(shared)
    scores = []
    for table in tables.values():
        place = {key: row for row, key in enumerate(table.instruction.tolist())}
        scores.append(table.preference[[place[key] for key in order]] - 1)
    found = [paired_difference(a, b) for a, b in itertools.combinations(scores, 2)]
    influence = np.column_stack([f.influence for f in found])
    t = np.array([f.t for f in found])
    adjusted = step_down_max_t(influence, t, draws=20_000, rng=np.random.default_rng(0))
    assert 173 <= (adjusted < 0.05).sum() <= 176
    # In a single step every statistic is held against the largest of all; Holm ignores how they depend.
    spread = np.sqrt((influence**2).sum(axis=0))
    drawn = np.random.default_rng(0).standard_normal((20_000, len(influence)))
    largest = np.concatenate(
        [np.abs(part @ influence / spread).max(axis=1) for part in np.split(drawn, 20)]
    )
    assert (np.abs(t) > np.quantile(largest, 0.95)).sum() == 169
    assert (holm(np.array([f.p_value for f in found])) < 0.05).sum() == 172


def test_holm_is_the_published_step_down() -> None:
    # Holm (1979): compare p(i) with level / (k - i + 1), in order, and stop at the first that is larger.
    p = np.array([0.02, 0.001, 0.04, 0.3])
    assert holm(p).tolist() == pytest.approx([0.06, 0.004, 0.08, 0.3])
    assert holm(np.array([])).tolist() == []


def test_mcnemar_published() -> None:
    found = mcnemar(15, 4)
    assert found.exact == pytest.approx(0.01921081543, abs=1e-11)
    assert found.mid_p == pytest.approx(0.01181793213, abs=1e-11)
    assert mcnemar(3, 3).exact == mcnemar(3, 3).mid_p == 1
    assert mcnemar(0, 0).exact == 1


def test_student_against_scipy() -> None:
    t = pytest.importorskip("scipy.stats").t
    for v, x in itertools.product((1, 2, 3, 7.5, 29, 804, 1e5), (1e-6, 0.3, 1, 2.5, 9, 40)):
        assert student_p_value(x, v) == pytest.approx(2 * t.sf(x, v), rel=1e-9)
        many = student_p_values(np.array([x, -x, np.nan, np.inf]), np.array([v, v, v, v]))
        expected = [student_p_value(x, v)] * 2 + [np.nan, 0.0]
        assert many == pytest.approx(expected, rel=1e-9, nan_ok=True)
    for v, q in itertools.product((0.7, 1, 2, 3, 3.6, 10, 804, 1e5), (0.025, 0.6, 0.975, 0.99987)):
        assert student_quantile(q, v) == pytest.approx(t.ppf(q, v), rel=1e-10)


def test_clusters_make_the_error_that_of_their_means() -> None:
    rng = np.random.default_rng(1)
    one = rng.random((2, 30))
    alone = paired_difference(one[0], one[1])
    a, b = np.repeat(one, 3, axis=1)
    tripled = paired_difference(a, b, np.repeat(np.arange(30), 3))
    assert tripled.n == 90
    assert tripled.n_clusters == 30
    assert tripled.standard_error == pytest.approx(alone.standard_error, rel=1e-12)


def test_a_dominant_cluster_leaves_few_degrees_of_freedom() -> None:
    # One conversation holds half of the rows: t with 19 degrees held the truth in 73 of 100 boards.
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(20), [190] + [10] * 19)
    held, boards = 0, 600
    for _ in range(boards):
        shift = rng.normal(0, 0.1, 20)[clusters]
        score = np.clip(rng.normal(0.5 + shift, 0.1), 0, 1)
        found = paired_difference(score, np.full(len(score), 0.5), clusters)
        held += found.low <= 0 <= found.high
        assert found.n_effective == pytest.approx(4.6, abs=0.1)
    assert held / boards >= 0.92


def test_one_model_against_itself_is_identical_and_no_test() -> None:
    score = np.linspace(0, 1, 9)
    found = paired_difference(score, score)
    assert found.identical
    assert found.estimate == 0
    assert math.isnan(found.p_value)
    assert math.isnan(found.standard_error)
    # Nine prompts without a difference: a share of 1 - .025^(1/9) of differences may have been missed.
    assert (found.low, found.high) == pytest.approx((-0.33627, 0.33627), abs=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_have_no_interval(n: int) -> None:
    found = paired_difference(np.ones(n), np.zeros(n))
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)
    assert not found.identical


def test_scores_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="score_b"):
        paired_difference(np.array([0.5]), np.array([1.5]))


def test_few_discordant_prompts_do_not_shrink_the_interval() -> None:
    # One small difference among twenty: t alone would give [-0.0005, 0.0016].
    a = np.zeros(20)
    a[0] = 0.01
    found = paired_difference(a, np.zeros(20))
    assert found.high > 0.15
    assert found.low < -0.15


scores = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1)) | st.tuples(st.just(math.nan), st.floats(0, 1)),
    min_size=3,
    max_size=40,
).map(lambda rows: np.array(rows).T)


@given(scores, st.randoms())
def test_swap_order_and_strangers(rows: NDArray, random: rnd.Random) -> None:
    a, b = rows
    found, swapped = paired_difference(a, b), paired_difference(b, a)
    assert found.estimate == pytest.approx(-swapped.estimate, nan_ok=True)
    assert found.low == pytest.approx(-swapped.high, nan_ok=True)
    assert found.p_value == pytest.approx(swapped.p_value, nan_ok=True)
    order = list(range(len(a)))
    random.shuffle(order)
    assert paired_difference(a[order], b[order]).estimate == pytest.approx(
        found.estimate, nan_ok=True
    )
    longer = [np.append(a, math.nan), np.append(b, 0.3)]
    assert paired_difference(*longer).estimate == pytest.approx(found.estimate, nan_ok=True)
    assert paired_difference(*longer).only_b == found.only_b + 1


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=30))
def test_corrections_only_raise_p_and_keep_its_order(values: list[float]) -> None:
    p = np.array(values)
    known = ~np.isnan(p)
    for correct in (holm, benjamini_hochberg):
        q = correct(p)
        assert np.array_equal(np.isnan(q), ~known)
        assert (q[known] >= p[known]).all()
        assert (np.diff(q[known][np.argsort(p[known], kind="stable")]) >= 0).all()
    assert (holm(p)[known] >= benjamini_hochberg(p)[known]).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 999))
def test_rank_sets_hold_the_rank_and_shrink_with_alpha(values: list[float], seed: int) -> None:
    score = np.array(values)
    p = np.random.default_rng(seed).random((len(score), len(score)))
    p = np.minimum(p, p.T)
    difference = score[:, None] - score
    low, high = rank_sets(difference, p, 0.05)
    wider_low, wider_high = rank_sets(difference, p, 0.01)
    rank = 1 + (difference < 0).sum(axis=1)
    assert ((low <= rank) & (rank <= high)).all()
    assert ((wider_low <= low) & (wider_high >= high)).all()
    covered = set(itertools.chain.from_iterable(tie_groups(score, p)))
    assert covered == set(range(len(score)))


def test_tie_groups_overlap_where_separation_is_not_transitive() -> None:
    p = np.ones((3, 3))
    p[0, 2] = p[2, 0] = 0.001
    assert tie_groups(np.array([0.9, 0.5, 0.1]), p) == [[0, 1], [1, 2]]


def test_sign_flips_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert sign_flip_p_value(np.array([1.0, 1, 1, 1, 1]), rng=rng) == 2 / 32
    many = rng.normal(0.3, 1, 60)
    t = many.mean() / (many.std(ddof=1) / 60**0.5)
    assert sign_flip_p_value(many, rng=rng) == pytest.approx(student_p_value(t, 59), abs=0.02)
    assert math.isnan(sign_flip_p_value(np.zeros(4), rng=rng))


@pytest.mark.parametrize("values", [(0.25, 0.5, 1.0), (0.1, 0.2, 0.3), ()])
def test_sign_flips_are_all_patterns_of_signs(values: tuple[float, ...]) -> None:
    """Values with ties, with ties that floats round apart, and without."""
    rng = np.random.default_rng(7)
    for n in (1, 2, 3, 12):
        delta = rng.choice(values, n) if values else rng.random(n)
        delta = delta * rng.choice([-1, 1], n)
        signs = np.array(list(itertools.product([-1, 1], repeat=n)))
        counted = (np.abs(signs @ delta) >= abs(delta.sum()) - 1e-12).mean()
        assert sign_flip_p_value(delta, rng=rng) == pytest.approx(counted, rel=1e-12)


def test_sign_flips_of_binary_values_are_mcnemars_exact_test() -> None:
    delta = np.repeat([1.0, -1.0], [28, 11])
    found = sign_flip_p_value(delta, rng=np.random.default_rng(0))
    assert found == pytest.approx(mcnemar(28, 11).exact, rel=1e-12)


def test_equivalence_is_two_one_sided_tests() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 400))
    found = paired_difference(a, b)
    tails = pytest.importorskip("scipy.stats").ttest_1samp
    upper = tails(a - b, 0.1, alternative="less").pvalue
    lower = tails(a - b, -0.1, alternative="greater").pvalue
    assert equivalence_p_value(found, 0.1) == pytest.approx(max(upper, lower), rel=1e-9)
    assert equivalence_p_value(found, 1e-6) > 0.4


def test_probability_of_being_best() -> None:
    rng = np.random.default_rng(3)
    score = rng.random((500, 3))
    score[:, 2] -= 0.5
    influence = (score - score.mean(axis=0)) / len(score)
    means = score.mean(axis=0)
    found = probability_of_best(means, influence, draws=20_000, rng=rng)
    gap = (score[:, 0] - score[:, 1]).mean() / ((score[:, 0] - score[:, 1]).std() / 500**0.5)
    normal = pytest.importorskip("scipy.stats").norm
    assert found[0] == pytest.approx(normal.cdf(gap), abs=0.015)
    assert found[2] == 0
    same = probability_of_best(means[[0, 0]], influence[:, [0, 0]], draws=100, rng=rng)
    assert same.tolist() == [0.5, 0.5]


@pytest.mark.slow
def test_paired_interval_of_released_pairs_covers_at_twenty_prompts(tables: Tables) -> None:
    rng = np.random.default_rng(11)
    worst = 1.0
    for a, b in itertools.pairwise(sorted(tables, key=lambda m: -np.nanmean(tables[m].preference))):
        in_a, in_b = align(tables[a].instruction.tolist(), tables[b].instruction.tolist())
        one, two = tables[a].preference[in_a] - 1, tables[b].preference[in_b] - 1
        both = ~np.isnan(one - two)
        one, two = one[both], two[both]
        truth = (one - two).mean()
        held = 0
        for _ in range(300):
            rows = rng.integers(0, len(one), 20)
            found = paired_difference(one[rows], two[rows])
            held += found.low <= truth <= found.high
        worst = min(worst, held / 300)
    assert worst >= 0.91  # 0.93 less 1.5 Monte-Carlo errors


def test_max_t_of_few_models_has_the_law_of_a_multiplier_for_every_unit() -> None:
    rng = np.random.default_rng(2)
    models = rng.standard_normal((60, 4)) / 60
    one, other = np.triu_indices(4, 1)
    influence = models[:, one] - models[:, other]
    spread = np.sqrt((influence**2).sum(axis=0))
    t = np.array([3.0, 0.5, 2.4, -2.6, 1.0, -3.1])
    found = step_down_max_t(influence, t, draws=20_000, rng=np.random.default_rng(0))
    drawn = np.abs(rng.standard_normal((20_000, 60)) @ (influence / spread))
    order = np.argsort(-np.abs(t))
    direct = [(drawn[:, order[k:]].max(axis=1) >= abs(t[order[k]])).mean() for k in range(6)]
    assert found[order] == pytest.approx(np.maximum.accumulate(direct), abs=0.015)
