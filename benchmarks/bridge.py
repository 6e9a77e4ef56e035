"""The bridge on the published boards: every shared model estimated from the others, beside the new judge's own number.

Run:  python benchmarks/bridge.py [--json FILE] [--others]

Four judges, each towards AlpacaEval 2's own board, its win rate and its length-controlled one (lc). A board with fewer
than eight shared models is validated here for the record, with folds of five anchors; `alignboard bridge` refuses it.
``--others`` adds three more boards of the wheel; the last of them was never looked at while the method was made.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from alignboard.published.bridge.boards import new_board, official_board
from alignboard.published.bridge.material import Material
from alignboard.published.bridge.report import quality_json
from alignboard.published.bridge.text import QUALITY_HEADER, quality_cells
from alignboard.results.files import write_atomically
from alignboard.stats.bridge.bridge import MIN_ANCHORS
from alignboard.suites import load_suite
from alignboard.text import table

JUDGES = (
    "alpaca_eval_gpt4",
    "claude",
    "alpaca_eval_cot_gpt4_turbo_fn",
    "claude_3_opus_ranking",
)
OTHERS = ("chatgpt_fn", "alpaca_eval_gpt4_turbo_fn", "mistral-large-2402_ranking")
METRICS: tuple[Literal["win_rate", "lc"], ...] = ("win_rate", "lc")
FEWEST = 6


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    judges = JUDGES + (OTHERS if arguments.others else ())
    measured = [one_judge(judge, metric) for judge in judges for metric in METRICS]
    _print(measured)
    if arguments.json is not None:
        content = [{k: v for k, v in one.items() if k != "cells"} for one in measured]
        write_atomically(arguments.json, (json.dumps(content, indent=1) + "\n").encode())


def one_judge(judge: str, metric: Literal["win_rate", "lc"]) -> dict:
    """The validation of one judge towards one figure of the official board."""
    suites = [load_suite("alpaca-eval-2"), load_suite("alpaca-eval-1")]
    board = new_board(judge, suites, None, suites[0].n_instructions)
    material = Material.of(board, official_board(suites[0], None), metric)
    n = len(material.names)
    validation = material.validate(min_anchors=min(MIN_ANCHORS, max(FEWEST, n)))
    inside = validation.estimates.inside
    qualities = {
        "within_range": validation.quality(material.own, inside),
        "all_shared": validation.quality(material.own, np.ones(n, dtype=np.bool_)),
    }
    covered = (validation.estimates.low <= validation.official) & (
        validation.official <= validation.estimates.high
    )
    return {
        "judge": judge,
        "metric": metric,
        "refused": n < MIN_ANCHORS,
        "naive": material.naive,
        **{name: quality_json(asdict(quality)) for name, quality in qualities.items()},
        "not_covered": [
            name for name, held in zip(material.names, covered, strict=True) if not held
        ],
        "cells": {name: quality_cells(quality) for name, quality in qualities.items()},
    }


def _print(measured: list[dict]) -> None:
    for name, title in (
        ("within_range", "Models within the range of the others, which a bridge estimates"),
        ("all_shared", "All shared models, extrapolated ones too"),
    ):
        rows = [
            [
                one["judge"] + (" (refused: fewer than 8)" if one["refused"] else ""),
                one["metric"],
                *one["cells"][name],
            ]
            for one in measured
        ]
        print(f"{title}:\n{table(('judge', 'target', *QUALITY_HEADER), rows, left=(0, 1))}\n")
        carried = [one[name] for one in measured if not one["refused"]]
        held, n = sum(one["n_covered"] for one in carried), sum(one["n"] for one in carried)
        print(f"Together, without what is refused: {held} of {n} covered ({held / n:.1%}).\n")
    print("Width and mean absolute error (MAE) in points; the 95 % prediction intervals are meant.")


if __name__ == "__main__":
    main()
