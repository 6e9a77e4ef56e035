"""The sums by cluster and pair in one pass over the rows, compiled by numba where it is installed (extra ``fast``).

Measured by benchmarks/rating.py: numpy takes three passes for the same sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Kernel = Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]]


@lru_cache(maxsize=1)
def fast_sums() -> Kernel | None:
    """``(cluster, first, second, score, n_models, n_codes) -> won, played``, compiled; None without numba."""
    if find_spec("numba") is None:
        return None
    import numba  # noqa: PLC0415 - half a second, and only large inputs need it

    return numba.njit(cache=True, nogil=True)(_sums)


def _sums(
    cluster: Any, first: Any, second: Any, score: Any, n_models: int, n_codes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = n_models * n_models
    both = np.zeros((n_codes * pairs, 2))  # side by side, so that a row touches one cache line
    for row in range(len(score)):
        cell = cluster[row] * pairs + first[row] * n_models + second[row]
        both[cell, 0] += score[row]
        both[cell, 1] += 1.0
    won = both[:, 0].copy().reshape((n_codes, pairs))
    return won, both[:, 1].copy().reshape((n_codes, pairs))
