"""The logistic function."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray


@overload
def expit(z: float) -> float: ...


@overload
def expit(z: NDArray) -> NDArray: ...


def expit(z: float | NDArray) -> float | NDArray:
    """1 / (1 + exp(-z)), of any size of ``z`` and in its precision; a float for a float.

    >>> expit(0.0), float(expit(np.array([-1000.0]))[0])
    (0.5, 0.0)
    """
    if isinstance(z, float):
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, z))))
    with np.errstate(over="ignore"):  # exp may overflow to infinity, which gives the right limit 0
        p = np.asarray(np.exp(-z))
    p += 1
    return np.divide(1, p, out=p)
