"""Boards for tests: numbers that differ from each other everywhere, without training anything."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from alignboard.boards.board import Board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.scoring import BASELINE, benchmark_column, judged_columns, length_column

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


CORRECT = Column(key="correct", name="correct", kind="accuracy", unit="%", source="responses")


def rate(value: float, margin: float = 5.0, **changes: Any) -> Score:
    return Score(value, value - margin, value + margin, margin / 1.96, **changes)


def ratings(judge: str) -> tuple[Column, Column]:
    rating = Column(
        key="rating",
        name="rating",
        kind="rating",
        unit="Elo",
        judge=judge,
        source="round robin",
        digits=0,
    )
    return rating, replace(rating, key="place", name="place", kind="place", unit="", better="low")


def plan_board(
    families: Sequence[str] = ("tiny-phi", "tiny-gemma"),
    methods: Sequence[str] = METHODS,
    judges: Sequence[str] = ("rule", "model judge"),
    benchmarks: Sequence[str] = ("demo_choice acc", "demo_exact exact_match"),
    *,
    rated: bool = True,
    **changes: Any,
) -> Board:
    """A board of every family and method, the methods against ``sft``."""
    pairs = [judged_columns(judge, "sft", None) for judge in judges]
    tasks = [benchmark_column(*name.rsplit(" ", 1)) for name in benchmarks]
    robin = ratings(judges[0]) if rated and judges else ()
    numbers = count()
    rows = []
    for family in families:
        for method in methods:
            k = next(numbers)
            part = (k * 37 % 100) / 1.3
            scores = {
                "correct": rate(90 - part / 4, 3.0),
                "length": Score(20.0 + k * 7 % 40),
            }
            for j, (raw, lc) in enumerate(pairs):
                counts = {"won": 100 + k, "drawn": k % 5, "lost": 50 - j}
                scores[raw.key] = (
                    BASELINE
                    if method == "sft"
                    else rate(10 + part + j, n=200, unparsed=j, counts=counts)
                )
                scores[lc.key] = BASELINE if method == "sft" else rate(7 + part)
            for b, column in enumerate(tasks):
                scores[column.key] = Score(30 + part * (b + 1) / len(tasks) / 2, standard_error=3.0)
            if robin:
                value = 900.0 + k * 53 % 300
                scores["rating"] = Score(value, value - 30, value + 30)
                scores["place"] = Score(1 + k // 2, 1 + k // 2, 3 + k // 2)
            model = family if method == "base" else f"{family}-{method}"
            rows.append(Row(model, scores, family, method))
    known: dict[str, Any] = {
        "name": "demo",
        "title": "A plan",
        "columns": [CORRECT, length_column(), *(c for pair in pairs for c in pair), *tasks, *robin],
        "summary": f"{len(rows)} models; seed 0.",
        "notes": ["Win rates are against sft.", "Judges are not averaged."],
        "rows": rows,
    }
    return Board(**(known | changes))


def hostile_board() -> Board:
    """Whatever others can write is hostile: names, sentences, prompts, responses and flags."""
    board = plan_board(
        families=HOSTILE[:3],
        methods=("base", "sft", HOSTILE[3]),
        judges=(HOSTILE[0], HOSTILE[5]),
        benchmarks=(f"{HOSTILE[1]} acc", f"{HOSTILE[4]} acc"),
        title=HOSTILE[0],
        summary=HOSTILE[1],
        notes=list(HOSTILE),
        provenance={HOSTILE[0]: HOSTILE[4]},
    )
    rows = [replace(row, flags=list(HOSTILE)) for row in board.rows]
    return replace(board, rows=rows)


def board_with_gaps() -> Board:
    """Every value that may be unknown is unknown somewhere."""
    board = plan_board()
    raw, lc = (board.columns[k].key for k in (2, 3))
    rows = []
    for k, row in enumerate(board.rows):
        scores = dict(row.scores)
        if k == 0:
            scores = {"length": scores["length"]}
        elif k == 1:
            scores["correct"] = Score()
        elif k == 2:
            scores[raw] = Score(n=0, unparsed=200, reason="no scored verdict")
            del scores["length"]
        elif k == 4:
            scores[lc] = Score()
        elif k == 6:
            scores[raw] = Score(60.0)
        rows.append(replace(row, scores=scores))
    return replace(board, rows=rows)
