"""Boards of plans for tests: numbers that differ from each other everywhere, without training anything."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from alignboard.leaderboards.plan_board import (
    JudgeScore,
    PlanBoard,
    PlanRow,
    Rate,
    Rating,
    Sample,
)

METHODS = ("base", "sft", "dpo", "ipo")
HOSTILE = (
    "</script><script>document.documentElement.dataset.hit = 1</script>",
    '<img src=x onerror="document.documentElement.dataset.hit = 2">\'">',
    "</style><style>body { display: none }</style>",
    "</svg></table></textarea><!--",
    "nul\x00 bell\x07 evil\u202egpj.exe",
    "\udcff lone",
    "{{ board }} {% raw %} $\\frac{$ &amp; ]]>",
    "عربي line\u2028sep\ttab\r\nnext",
    "W" * 300,
    "",
)


def rate(value: float, margin: float = 0.05) -> Rate:
    return Rate(value, value - margin, value + margin, margin / 1.96)


def plan_board(
    families: Sequence[str] = ("tiny-phi", "tiny-gemma"),
    methods: Sequence[str] = METHODS,
    judges: Sequence[str] = ("rule", "model judge"),
    benchmarks: Sequence[str] = ("demo_choice acc", "demo_exact exact_match"),
    *,
    rated: bool = True,
    **changes: Any,
) -> PlanBoard:
    """A board of every family and method, the methods against ``sft``."""
    numbers = count()
    rows = []
    for family in families:
        for method in methods:
            k = next(numbers)
            model = family if method == "base" else f"{family}-{method}"
            part = (k * 37 % 100) / 130
            scores = {
                judge: JudgeScore(
                    win_rate=rate(0.1 + part + 0.01 * j),
                    lc_win_rate=rate(0.07 + part),
                    n_wins=100 + k,
                    n_losses=50 - j,
                    n_draws=k % 5,
                    n_unparsed=j,
                )
                for j, judge in enumerate(judges)
                if method != "sft"
            }
            value = 900.0 + k * 53 % 300
            rows.append(
                PlanRow(
                    model=model,
                    family=family,
                    method=method,
                    baseline=f"{family}-sft",
                    n_prompts=200,
                    correct=rate(0.9 - part / 4, 0.03),
                    mean_length=20.0 + k * 7 % 40,
                    judges=scores,
                    benchmarks={
                        name: Rate(0.3 + part * (b + 1) / len(benchmarks) / 2, None, None, 0.03)
                        for b, name in enumerate(benchmarks)
                    },
                    rating=Rating(value, value - 30, value + 30, 1 + k // 2, 3 + k // 2, 99)
                    if rated
                    else None,
                )
            )
    known: dict[str, Any] = {
        "name": "demo",
        "title": "A plan",
        "seed": 0,
        "baseline": "sft",
        "judges": list(judges),
        "benchmarks": list(benchmarks),
        "rating_judge": judges[0] if rated and judges else None,
        "conditions": ["Win rates are against sft.", "Judges are not averaged."],
        "rows": rows,
        "samples": [
            Sample(f"Question {n}?", {row.model: f"{row.model} says {n}." for row in rows})
            for n in range(3)
        ],
    }
    return PlanBoard(**(known | changes))


def hostile_board() -> PlanBoard:
    """Whatever others can write is hostile: names, sentences, prompts and answers."""
    board = plan_board(
        families=HOSTILE[:3],
        methods=("base", "sft", HOSTILE[3]),
        judges=(HOSTILE[0], HOSTILE[5]),
        benchmarks=(HOSTILE[1], HOSTILE[4]),
        title=HOSTILE[0],
        conditions=list(HOSTILE),
    )
    samples = [Sample(text, {row.model: text for row in board.rows}) for text in HOSTILE]
    return replace(board, samples=samples)


def board_with_gaps() -> PlanBoard:
    """Every value that may be unknown is unknown somewhere."""
    board = plan_board()
    nothing = Rate(None, None, None)
    score = JudgeScore(nothing, None, 0, 0, 0, 200)
    rows = list(board.rows)
    changes: list[dict[str, Any]] = [
        {"judges": {}, "rating": None},
        {"correct": None},
        {"judges": {"rule": score}, "mean_length": None},
        {"benchmarks": {}, "rating": Rating(None, None, None, 1, 8, 0)},
        {
            "benchmarks": {
                "demo_choice acc": nothing,
                "demo_exact exact_match": Rate(0.5, None, None),
            }
        },
        {"correct": nothing, "rating": Rating(1000.0, None, None, 1, 1, 5)},
        {"judges": {"rule": JudgeScore(Rate(0.6, None, None), nothing, 3, 2, 0, 0)}},
    ]
    for k, changed in enumerate(changes):
        rows[k] = replace(rows[k], **changed)
    return plan_board(rows=rows)
