"""Which output the judge was shown first.

AlpacaEval draws the order from a generator seeded by the instruction alone, so every model of a board is shown
in one and the same order, and the order can be recomputed although no file records it. Upstream:
``processors.py`` (RandomSwitchTwoColumnsProcessor), ``utils.py`` (`random_seeded_choice`), seed 0.
"""

from __future__ import annotations

import random
from functools import lru_cache


@lru_cache(maxsize=65_536)
def is_switched(instruction: str) -> bool:
    """Whether the model's output (``output_2``) was shown to the judge first."""
    rng = random.Random(f"is_switched_outputs{instruction}0".encode("utf-8", "surrogatepass"))
    return rng.choices([False, True], k=1)[0]
