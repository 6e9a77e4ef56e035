"""The board's page in headless Chromium: its size, and the time until it can be used, by models and prompts.

Run:  ALIGNBOARD_RELEASED_DATA=<folder> python benchmarks/page.py [--repeats 5] [--json FILE]

``ready`` is from the start of the navigation (a ``file:`` address) until the table is sorted and filtered by the script
and the first prompt stands; ``sort`` and ``search`` are one press of a heading and one search in the table. Boards of
many models repeat the published AlpacaEval 2 board, those of 12 columns have its columns again under other judges'
names; texts are released responses, and verdicts where the baseline is among them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from playwright.sync_api import Browser, sync_playwright

from alignboard.boards.alpaca_eval_rows import WIN
from alignboard.boards.board import Board
from alignboard.boards.examples import Collector, Examples
from alignboard.boards.of_alpaca_eval import published_board
from alignboard.boards.page import to_html
from alignboard.suites import load_suite

JUDGE = "weighted_alpaca_eval_gpt4_turbo"


def board_of(n: int) -> Board:
    """The published board with ``n`` models."""
    published = published_board(load_suite("alpaca-eval-2"))
    rows = [
        msgspec.structs.replace(
            published.rows[k % len(published.rows)],
            model=f"{published.rows[k % len(published.rows)].model}-{k}",
        )
        for k in range(n)
    ]
    return msgspec.structs.replace(published, rows=rows, families={})


def widened(board: Board, n: int) -> Board:
    """``board`` with ``n`` columns: its own again and again, each time by another judge."""
    own = board.columns
    added = {
        f"{column.key} again {k}": msgspec.structs.replace(
            column, key=f"{column.key} again {k}", judge=f"{column.judge} again {k}"
        )
        for k, column in enumerate(itertools.islice(itertools.cycle(own), max(0, n - len(own))))
    }
    rows = [
        msgspec.structs.replace(
            row,
            scores=row.scores
            | {
                key: row.scores[key.partition(" again ")[0]]
                for key in added
                if key.partition(" again ")[0] in row.scores
            },
        )
        for row in board.rows
    ]
    return msgspec.structs.replace(board, columns=[*own, *added.values()], rows=rows)


def judged_models(released: Path) -> list[str]:
    """The released models that have verdicts."""
    return sorted(path.parents[1].name for path in released.glob(f"*/{JUDGE}/annotations.json"))


def examples_of(
    board: Board, released: Path, judged: Sequence[str], *, verdicts: bool = True
) -> tuple[Board, Examples]:
    """``board`` with its first rows named after the models ``judged``, and their 805 prompts.

    With ``verdicts``, the baseline's responses are among the texts.
    """
    collector = Collector()
    for model in judged:
        path = released / model / JUDGE / "annotations.json"
        if verdicts:
            collector.add_verdicts(path, WIN, model, "gpt4_1106_preview", "alpaca-eval")
        else:
            collector.add_responses(released / model / "model_outputs.json", model, "alpaca-eval")
    rows = [
        msgspec.structs.replace(row, model=judged[k]) if k < len(judged) else row
        for k, row in enumerate(board.rows)
    ]
    return msgspec.structs.replace(board, rows=rows), collector.examples()


def pages(released: Path) -> Iterator[tuple[str, str]]:
    """(what it holds, the page)."""
    cases = (
        (230, 12, ()),
        (230, 12, ("gemma-2b-it", "NullModel")),
        (230, 12, ("gemma-2b-it",)),
        (1000, 0, ()),
        (20, 0, judged_models(released)[:20]),
    )
    for n_models, n_columns, judged in cases:
        board, examples = widened(board_of(n_models), n_columns), None
        if judged:
            alone = len(judged) == 2
            board, examples = examples_of(board, released, judged, verdicts=not alone)
        what = f"{n_models} models, {len(board.columns)} columns"
        if examples is not None:
            names = list(examples.lengths)
            named = f" ({', '.join(names)})" if len(names) == 2 else ""
            what += f", {len(names)} x {len(examples)} responses{named}"
        yield what, to_html(board, examples)


def measured(browser: Browser, path: Path) -> dict[str, float]:
    """Milliseconds of one fresh visit."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    started = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
    found = {"ready": 1000 * (time.perf_counter() - started)}
    press = "document.querySelectorAll('#board-table th button:not(.pin)')[2].click()"
    search = "const f = document.getElementById('search'); f.value = 'gpt'; f.dispatchEvent(new Event('input'))"
    for name, action in (("sort", press), ("search", search)):
        laid_out = f"{action}; document.body.offsetHeight; return performance.now() - t;"
        found[name] = page.evaluate(f"() => {{ const t = performance.now(); {laid_out} }}")
    context.close()
    return found


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    released = Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "results"
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for what, page in pages(released):
            path = Path(folder, "page.html")
            path.write_text(page, encoding="utf-8")
            visits = [measured(browser, path) for _ in range(chosen.repeats)]
            row = {name: statistics.median(visit[name] for visit in visits) for name in visits[0]}
            rows.append({"page": what, "megabytes": path.stat().st_size / 1e6} | row)
        browser.close()
    print(f"{'page':<76}{'MB':>7}{'ready ms':>10}{'sort ms':>9}{'search ms':>11}")
    for row in rows:
        print(
            f"{row['page']:<76}{row['megabytes']:>7.2f}{row['ready']:>10.0f}{row['sort']:>9.0f}{row['search']:>11.0f}"
        )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
