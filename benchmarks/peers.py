"""Figures of arena-rank, leaderbot and ppi-python on data that arithmetic makes.

Run ``PYTHON benchmarks/peers.py > tests/stats/peers.json``, where PYTHON is an interpreter of its own with arena-rank
0.1.1, leaderbot 0.4.3 and ppi-python 0.2.3: arena-rank pins versions of jax and numpy that the suite does not have.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import itertools
import json
from importlib.metadata import version
from typing import Any

import numpy as np

MODELS, PROMPTS = 4, 30


def board() -> list[tuple[int, int, str]]:
    """Model i, model j and who won, as in the rating goldens of the tests."""
    return [
        (i, j, "model_a" if h < 5 else "tie" if h < 7 else "model_b")
        for p in range(PROMPTS)
        for i, j in itertools.combinations(range(MODELS), 2)
        for h in [(7 * p + 3 * i + 5 * j + p * i * j) % 11]
    ]


def by_arena_rank() -> dict[str, Any]:
    """Log-strengths, and row-level variances with the least ridge at which its inverse is stable."""
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    rows = [(f"model {i}", f"model {j}", winner) for i, j, winner in board()]
    data = PairDataset.from_pandas(pd.DataFrame(rows, columns=["model_a", "model_b", "winner"]))
    model = BradleyTerry(MODELS, hessian_reg=1e-7, ftol=0, gtol=1e-13, max_iter=10_000)
    found = model.compute_ratings_and_cis(data)
    return {
        "log_strength": np.asarray(model.params["ratings"]).tolist(),
        "variance": (np.asarray(found["variances"]) / model.alpha**2).tolist(),
    }


def by_leaderbot() -> dict[str, Any]:
    """Scores of its models without covariances and, of those with draws, the tie parameter."""
    from leaderbot.models import BradleyTerry, Davidson, RaoKupper

    outcomes = ("model_a", "model_b", "tie")
    counts: dict[tuple[int, int], list[int]] = {}
    for i, j, winner in board():
        counts.setdefault((i, j), [0, 0, 0])[outcomes.index(winner)] += 1
    data = {
        "X": np.array(list(counts)),
        "Y": np.array(list(counts.values())),
        "models": [f"model {k}" for k in range(MODELS)],
    }
    found = {}
    plain = BradleyTerry(data, k_cov=None)
    plain.train(max_iter=10_000, tol=1e-14)
    found["bradley-terry"] = plain.param.tolist()
    for name, kind in (("davidson", Davidson), ("rao-kupper", RaoKupper)):
        model = kind(data, k_cov=None, k_tie=0)
        model.train(max_iter=10_000, tol=1e-14)
        found[name] = model.param.tolist()
    return found


def by_ppi_python() -> dict[str, Any]:
    """The tuned estimate of a mean from 60 labels and 200 verdicts, its 95 % limits."""
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

    i = np.arange(200)
    judge = 37 * i % 101 / 100
    human = (judge + 53 * i % 97 / 97 > 1).astype(np.float64)
    known = 29 * i % 10 < 3
    columns = (human[known], judge[known], judge[~known])
    low, high = ppi_mean_ci(*columns, alpha=0.05)
    return {
        "mean": float(np.squeeze(ppi_mean_pointestimate(*columns))),
        "limits": [float(np.squeeze(low)), float(np.squeeze(high))],
    }


if __name__ == "__main__":
    found = {
        f"arena-rank {version('arena-rank')}": by_arena_rank(),
        f"leaderbot {version('leaderbot')}": by_leaderbot(),
        f"ppi-python {version('ppi-python')}": by_ppi_python(),
    }
    print(json.dumps(found, indent=1))
