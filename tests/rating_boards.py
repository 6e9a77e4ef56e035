"""Boards of comparisons that several tests of ratings share."""

import itertools

import numpy as np

from alignboard.stats.rating.battles import Battles


def arithmetic():
    """4 models, 30 prompts: i wins where (7p + 3i + 5j + pij) mod 11 < 5, draws at 5 and 6."""
    rows = [
        (i, j, 1.0 if h < 5 else 0.5 if h < 7 else 0.0, p)
        for p in range(30)
        for i, j in itertools.combinations(range(4), 2)
        for h in [(7 * p + 3 * i + 5 * j + p * i * j) % 11]
    ]
    first, second, score, prompt = zip(*rows, strict=True)
    return Battles(np.array(first), np.array(second), np.array(score), np.array(prompt))
