"""Sums over comparisons in one pass, compiled by numba where it is installed (the extra ``fast``).

benchmarks/rating.py measures them: numpy takes several passes, over sums by cluster and pair that leave the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below so many rows importing numba takes longer than what it saves.
_WORTH_IT = 500_000


@dataclass(frozen=True)
class Kernels:
    """Compiled functions of first, second and score (n,)."""

    by_pair: Callable[..., NDArray[np.float64]]
    """``(first, second, score, models) -> (models x models, 2)`` points of the first, comparisons"""
    by_cluster: Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]]
    """``(cluster, first, second, score, p, models, clusters) -> (clusters, models)`` residuals from ``p`` (pairs,), and
    (clusters,) rows"""


def kernels_for(n_rows: int) -> Kernels | None:
    """The compiled functions, where numba is installed and ``n_rows`` is worth its import."""
    return _compiled() if n_rows >= _WORTH_IT else None


@lru_cache(maxsize=1)
def _compiled() -> Kernels | None:
    if find_spec("numba") is None:
        return None
    import numba  # noqa: PLC0415 - half a second, and only large inputs need it

    compiled = numba.njit(cache=True, nogil=True)
    return Kernels(compiled(_by_pair), compiled(_by_cluster))


def _by_pair(first: Any, second: Any, score: Any, models: int) -> NDArray[np.float64]:
    sums = np.zeros((models * models, 2))
    for row in range(len(score)):
        pair = first[row] * models + second[row]
        sums[pair, 0] += score[row]
        sums[pair, 1] += 1.0
    return sums


def _by_cluster(
    cluster: Any, first: Any, second: Any, score: Any, p: Any, models: int, clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums, rows = np.zeros((clusters, models)), np.zeros(clusters)
    for row in range(len(score)):
        one, two = first[row], second[row]
        residual = score[row] - p[one * models + two]
        rows[cluster[row]] += 1.0
        sums[cluster[row], one] += residual
        sums[cluster[row], two] -= residual
    return sums, rows
