"""Agreement: published values, scikit-learn's kappa, closed forms, invariants, and coverage of the intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import cohen_kappa_score

from alignboard.stats.agreement import (
    Metric,
    Weights,
    agreement_among_humans,
    agreement_with_humans,
    cohen_kappa,
    krippendorff_alpha,
    raw_agreement,
)

NAN = math.nan
METRICS: tuple[Metric, ...] = ("nominal", "ordinal", "interval")

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units.
CANONICAL = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def rows_of(table):
    """Ratings of two raters from a table of counts."""
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return np.array(cells, dtype=float).T


def alpha_of(ratings, metric: Metric = "nominal"):
    return krippendorff_alpha(np.asarray(ratings, float), metric, np.random.default_rng(0), 0).alpha


@pytest.mark.parametrize(
    ("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_of_krippendorffs_example(metric, published):
    found = krippendorff_alpha(CANONICAL, metric, np.random.default_rng(0))
    assert found.alpha == pytest.approx(published, abs=0.0005)
    assert (found.n_units, found.n_ratings) == (11, 40)
    assert found.low < found.alpha <= found.high


def test_alpha_of_two_observers_and_binary_data():
    # Krippendorff 2011, section A: 10 units, alpha = 0.095
    one = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    two = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha_of([one, two]) == pytest.approx(0.095, abs=0.0005)


def test_kappa_of_cohens_table():
    # Cohen 1960, table 1, as counts of 200: agreement .70, kappa .492
    first, second = rows_of([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    kappa = cohen_kappa(first, second)
    assert raw_agreement(first, second).estimate == pytest.approx(0.70)
    assert kappa.estimate == pytest.approx(0.492, abs=0.0005)


def test_the_standard_error_of_fleiss_cohen_and_everitt():
    # Fleiss, Cohen and Everitt 1969 use the same proportions with n = 200: their asymptotic variance, formula 13
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    n = table.sum()
    p = table / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = np.trace(p), rows @ columns
    kappa = (observed - expected) / (1 - expected)
    diagonal = sum(
        p[i, i] * ((1 - expected) - (rows[i] + columns[i]) * (1 - observed)) ** 2 for i in range(3)
    )
    beside = sum(
        p[i, j] * (columns[i] + rows[j]) ** 2 for i in range(3) for j in range(3) if i != j
    )
    variance = (
        diagonal
        + (1 - observed) ** 2 * beside
        - (observed * expected - 2 * expected + observed) ** 2
    ) / (n * (1 - expected) ** 4)
    found = cohen_kappa(*rows_of(table))
    assert found.estimate == pytest.approx(kappa)
    assert found.standard_error == pytest.approx(math.sqrt(variance * n / (n - 1)))


@given(st.data())
def test_kappa_is_scikit_learns(data):
    n = data.draw(st.integers(3, 40))
    ratings = hnp.arrays(float, n, elements=st.sampled_from([0.0, 1.0, 2.0]))
    first, second = data.draw(ratings), data.draw(ratings)
    kinds: tuple[Weights, ...] = ("nominal", "linear", "quadratic")
    for weights in kinds:
        theirs = None if weights == "nominal" else weights
        ours = cohen_kappa(first, second, weights=weights).estimate
        if len(np.unique(np.concatenate([first, second]))) == 1:
            assert math.isnan(ours)
        else:
            assert ours == pytest.approx(cohen_kappa_score(first, second, weights=theirs), abs=1e-9)


@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(2, 4), st.integers(2, 12)),
        elements=st.sampled_from([1, 2, 3, NAN]),
    )
)
def test_alpha_is_its_definition(ratings):
    """Against Krippendorff's coincidence matrix and metrics, cell by cell."""
    for metric in METRICS:
        expected = by_coincidences(ratings, metric)
        found = alpha_of(ratings, metric)
        if math.isnan(expected):
            assert math.isnan(found)
        else:
            assert found == pytest.approx(expected, abs=1e-9)


def by_coincidences(ratings, metric):
    units = [column[~np.isnan(column)] for column in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    o = np.zeros((len(values), len(values)))
    for unit in units:
        for i, one in enumerate(unit):
            for j, two in enumerate(unit):
                if i != j:
                    o[values.index(one), values.index(two)] += 1 / (len(unit) - 1)
    n = o.sum(axis=1)

    def delta(c, k):
        if metric == "nominal":
            return float(c != k)
        if metric == "interval":
            return (values[c] - values[k]) ** 2
        low, high = min(c, k), max(c, k)
        return (n[low : high + 1].sum() - (n[c] + n[k]) / 2) ** 2

    cells = [(c, k, delta(c, k)) for c in range(len(values)) for k in range(len(values))]
    among = sum(n[c] * n[k] * d for c, k, d in cells)
    if among == 0:
        return NAN
    return 1 - (n.sum() - 1) * sum(o[c, k] * d for c, k, d in cells) / among


pairs = hnp.arrays(
    float, st.tuples(st.just(2), st.integers(4, 30)), elements=st.sampled_from([1.0, 1.5, 2.0])
)


@given(pairs)
def test_kappa_and_alpha_do_not_depend_on_who_is_first_or_on_the_order_of_rows(ratings):
    first, second = ratings
    there, back = cohen_kappa(first, second), cohen_kappa(second[::-1], first[::-1])
    np.testing.assert_allclose(
        [there.estimate, there.low, there.high], [back.estimate, back.low, back.high], atol=1e-9
    )
    for metric in METRICS:
        np.testing.assert_allclose(
            alpha_of(ratings, metric), alpha_of(ratings[::-1, ::-1], metric), atol=1e-9
        )


@given(pairs)
def test_names_of_categories_do_not_matter_to_nominal_agreement(ratings):
    renamed = np.select([ratings == 1, ratings == 1.5], [7.0, -3.0], 5.0)
    for found, other in (
        (cohen_kappa(*ratings).estimate, cohen_kappa(*renamed).estimate),
        (alpha_of(ratings), alpha_of(renamed)),
    ):
        np.testing.assert_allclose(found, other, atol=1e-9)


@given(pairs)
def test_rows_twice_in_one_cluster_change_nothing(ratings):
    clusters = np.arange(ratings.shape[1])
    once = cohen_kappa(*ratings, clusters=clusters)
    twice = cohen_kappa(*np.tile(ratings, 2), clusters=np.tile(clusters, 2))
    np.testing.assert_allclose(
        [once.estimate, once.standard_error], [twice.estimate, twice.standard_error], atol=1e-9
    )


def test_what_cannot_be_known_is_not_shown_as_known():
    same = cohen_kappa(np.ones(5), np.ones(5))
    assert math.isnan(same.estimate)
    assert math.isnan(same.low)
    perfect = cohen_kappa(np.array([1.0, 2.0, 1.0]), np.array([1.0, 2.0, 1.0]))
    assert perfect.estimate == 1
    assert math.isnan(perfect.standard_error)
    # three agreements leave any agreement open; two hundred do not
    assert (perfect.low, perfect.high) == (pytest.approx(1 - (1 - 0.025 ** (1 / 3)) * 9 / 4), 1)
    many = np.tile([1.0, 2.0], 100)
    assert cohen_kappa(many, many).low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 200)))
    agreed = np.array([[1.0, 2, 1, 2], [1, 2, 1, 2]])
    unanimous = krippendorff_alpha(agreed, "nominal", np.random.default_rng(0))
    assert unanimous.alpha == 1
    assert math.isnan(unanimous.low)
    assert math.isnan(alpha_of(np.ones((2, 4))))
    assert math.isnan(alpha_of([[1, NAN], [NAN, 2]]))
    assert math.isnan(raw_agreement(np.array([NAN]), np.array([1.0])).estimate)
    with pytest.raises(ValueError, match="raters have 2 and 3 rows"):
        raw_agreement(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="dimensions"):
        alpha_of(np.ones(3))


def test_agreement_with_humans_is_alpaca_evals():
    # the example in the docstring of upstream's `agreement_of_annotations`: 1 against 3 gives 0.875
    humans = [[1.0, 1, 1, 1], [2.0, 2, 2, 1]]
    assert agreement_among_humans(humans).estimate == pytest.approx(0.875)
    # a weighted verdict is half wrong where it is half sure
    assert agreement_with_humans(np.array([1.25, NAN]), humans).estimate == pytest.approx(0.75)
    # an even split: whatever mode upstream draws, half of it
    assert agreement_with_humans(np.array([1.0]), [[1.0, 2.0]]).estimate == pytest.approx(0.5)
    # weighted humans: their median
    assert agreement_with_humans(np.array([1.0]), [[1.2, 1.4, 2.0]]).estimate == pytest.approx(0.6)


def test_agreement_with_humans_against_upstreams_own_rule():
    pd = pytest.importorskip("pandas")
    helpers = pytest.importorskip("alpaca_eval.metrics.helpers", exc_type=ImportError)
    rng = np.random.default_rng(0)
    humans = rng.choice([1.0, 2.0], size=(50, 3)).tolist()  # three votes for two answers: no split
    judge = 1 + rng.random(50)
    rule = helpers.AbsoluteScoringRule()
    majority = [rule.bayes_estimator(pd.Series(votes)) for votes in humans]
    expected = rule.score(judge, majority)
    assert agreement_with_humans(judge, humans).estimate == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "runs"),
    [("kappa", 300), ("alpha", 100), pytest.param("alpha", 600, marks=pytest.mark.slow)],
)
def test_intervals_cover(kind, runs):
    """Two judges that copy a hidden verdict with probability 0.8: both coefficients are 0.64 in truth."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(runs):
        truth = rng.integers(2, size=200)
        ratings = np.where(rng.random((2, 200)) < 0.8, truth, rng.integers(2, size=(2, 200)))
        ratings = ratings.astype(float)
        if kind == "kappa":
            found = cohen_kappa(*ratings)
        else:
            found = krippendorff_alpha(ratings, "nominal", rng, n_resamples=200)
        hits += found.low <= 0.64 <= found.high
    assert abs(hits / runs - 0.945) < 3 * math.sqrt(0.945 * 0.055 / runs)
