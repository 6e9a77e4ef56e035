"""Exact limits of a binomial rate."""

from __future__ import annotations

from functools import lru_cache

from alignboard.stats.student import incomplete_beta


def binomial_tail(successes: float, n: int, rate: float) -> float:
    """The probability of at least so many successes among ``n``; counts between whole ones are interpolated.

    >>> round(binomial_tail(2, 3, 0.5), 9)
    0.5
    """
    if successes <= 0:
        return 1.0
    return incomplete_beta(successes, n - successes + 1, rate, 1 - rate)


@lru_cache(maxsize=4096)
def least_rate(successes: float, n: int, tail: float) -> float:
    """The rate at which at least so many ``successes`` (above 0) among ``n`` have the probability ``tail``.

    Clopper and Pearson's lower limit, by bisection; the upper one is 1 less that of the failures.

    >>> round(least_rate(10, 10, 0.025), 6) == round(0.025 ** (1 / 10), 6)
    True

    References: Clopper and Pearson 1934, Biometrika 26.
    """
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in {low, high}:
        if binomial_tail(successes, n, middle) < tail:
            low = middle
        else:
            high = middle
    return high
