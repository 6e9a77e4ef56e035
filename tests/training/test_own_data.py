"""The lines of docs/training.md that lead from own pairs to a board, run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignboard.boards.board import read_board
from alignboard.demo import world

DOCS = Path(__file__).parents[2] / "docs/training.md"


@pytest.mark.slow
def test_own_pairs_lead_to_a_board_in_ten_lines(tmp_path: Path) -> None:
    block = re.search(r"test_own_data.py -->\n```console\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert block is not None
    lines = block[1]
    assert len(lines.splitlines()) <= 10
    pairs = [
        {"prompt": prompt, "chosen": f"{world.parse(prompt).answer}.", "rejected": "that is easy."}
        for prompt in world.prompts("preference", 200, 0)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-ec", lines], cwd=tmp_path, env={**os.environ, "PATH": paths}, check=True
    )
    board = read_board(tmp_path / "study/leaderboards/mine.json")
    made = {row.method for row in board.rows}
    assert {"dpo-beta0.1", "dpo-beta0.5", "ipo-beta0.1", "ipo-beta0.5", "sft"} <= made
    rate = board.of_kind("win rate")[0]
    swept = [row for row in board.rows if row.method and "beta" in row.method]
    assert all((board.score(row, rate).note or "").startswith("2 seeds") for row in swept)
    assert any("chosen among 2 settings of dpo" in flag for row in swept for flag in row.flags)
    assert (tmp_path / "study/win-rate-against-kl.svg").stat().st_size > 1000
    assert "model-index" in (tmp_path / "study/merged/README.md").read_text()
