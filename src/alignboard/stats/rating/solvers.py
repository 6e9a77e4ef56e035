"""Solvers of likelihood equations: Newton's method for all models; Newman's iteration and rescaled MM for strengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Derivatives = Callable[[Array], tuple[float, Array, Array]]
"""parameters -> log-likelihood, its gradient, and the information (the negative Hessian) with all gauges fixed"""

_MAX_STEPS = 100
_MAX_ITERATIONS = 100_000
_TOLERANCE = 1e-10
_SETTLED = 1e-13


def maximise(
    derivatives: Derivatives, start: Array, tolerance: float = _TOLERANCE
) -> tuple[Array, Array, int]:
    """The parameters of highest likelihood, the information there, and the number of Newton's steps.

    The last step is below ``tolerance``. Raises `ArithmeticError` where they do not settle.
    """
    x = start
    value, gradient, information = derivatives(x)
    for step in range(1, _MAX_STEPS + 1):
        move = np.asarray(np.linalg.solve(information, gradient), np.float64)
        if np.max(np.abs(move), initial=0.0) < tolerance:
            return x, information, step
        x, value, gradient, information = _climb(derivatives, x, move, value)
    raise ArithmeticError(f"The likelihood did not settle within {_MAX_STEPS} steps.")


def _climb(
    derivatives: Derivatives, x: Array, move: Array, value: float
) -> tuple[Array, float, Array, Array]:
    """A step along ``move`` that does not lower the log-likelihood; halved where it would."""
    for halvings in range(30):
        candidate = x + move / 2**halvings
        found = derivatives(candidate)
        if found[0] >= value - 1e-12 * abs(value):
            return candidate, *found
    raise ArithmeticError("No step along Newton's direction raises the likelihood.")


def newman(wins: Array, fixed: Array) -> tuple[Array, int]:
    """Log-strengths by Newman's iteration, and the number of iterations.

    ``fixed`` (models, models) gives the mean of each model's component, which is held at 0.
    References: Newman 2023, JMLR 24, eq. 26 (synchronous).
    """

    def step(strength: Array) -> Array:
        both = strength[:, None] + strength
        return (wins * strength / both).sum(axis=1) / (wins.T / both).sum(axis=1)

    return _iterate(step, fixed)


def minorise(wins: Array, fixed: Array) -> tuple[Array, int]:
    """Log-strengths by Zermelo's iteration (MM), rescaled after every step; and the number of iterations.

    References: Hunter 2004, Annals of Statistics 32; Caron and Doucet 2012; arXiv 1901.00150 (rescaling).
    """
    games, won = wins + wins.T, wins.sum(axis=1)

    def step(strength: Array) -> Array:
        return won / (games / (strength[:, None] + strength)).sum(axis=1)

    return _iterate(step, fixed)


def _iterate(step: Callable[[Array], Array], fixed: Array) -> tuple[Array, int]:
    theta = np.zeros(len(fixed))
    for iteration in range(1, _MAX_ITERATIONS + 1):
        new = np.log(step(np.exp(theta)))
        new -= fixed @ new
        moved = float(np.abs(new - theta).max(initial=0.0))
        theta = new
        if moved < _SETTLED * max(1.0, float(np.abs(theta).max(initial=0.0))):
            return theta, iteration
    raise ArithmeticError(
        f"The log-strengths did not settle within {_MAX_ITERATIONS} iterations; use the solver newton."
    )
