"""`alignboard run PLAN --gpus 0,1`: a whole plan, whose workers see a GPU each. Its jobs only read which one."""

import json
import os
import subprocess
import sys

import yaml

from alignboard.boards.board import read_board
from alignboard.records import Generation
from alignboard.results.formats import write_rows

JUDGES = ("first", "second")
PROGRAM = """
import json, os, pathlib, sys, time
time.sleep(2)  # the other worker has its judge meanwhile
place = pathlib.Path("seen", sys.argv[1], str(os.getppid()))
place.parent.mkdir(parents=True, exist_ok=True)
place.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
for line in sys.stdin:
    print(json.dumps({"key": json.loads(line)["key"], "scores": [0.4, 0.6]}), flush=True)
"""


def test_a_plan_on_two_gpus_has_two_workers_that_see_one_each(tmp_path):
    (tmp_path / "judge.py").write_text(PROGRAM)
    rooms = tmp_path / "evaluate"
    questions = [f"Name kind {n}." for n in range(4)]
    declared = {
        **{
            f"judges/{name}.yaml": {
                "kind": "program",
                "name": name,
                "title": name,
                "version": "1",
                "command": [sys.executable, "judge.py", name],
            }
            for name in JUDGES
        },
        "suites/some.yaml": {
            "kind": "evaluation",
            "name": "some",
            "title": "Some",
            "instructions": {"set": "questions.json"},
        },
        "plans/mine.yaml": {
            "name": "mine",
            "models": {name: {"outputs": f"downloaded/{name}"} for name in ("a", "b")},
            "suites": ["some"],
            "judges": list(JUDGES),
            "baseline": "a",
        },
    }
    for name, content in declared.items():
        path = rooms / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    (tmp_path / "questions.json").write_text(json.dumps([{"instruction": q} for q in questions]))
    for name in ("a", "b"):
        rows = [Generation(q, f"{name} on {q}", name) for q in questions]
        write_rows(tmp_path / "downloaded" / name / "model_outputs.json", rows)
    command = [sys.executable, "-m", "alignboard", "run", "mine", "--gpus", "0,GPU-1f"]
    done = subprocess.run(
        [*command, "--trust-code"],
        cwd=tmp_path,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = {path.name: path.read_text() for path in tmp_path.glob("seen/*/*")}
    assert len(seen) == 2, "a process for each"
    assert set(seen.values()) == {"0", "GPU-1f"}
    board = read_board(tmp_path / "leaderboards/mine.json")
    judges = {column.judge for column in board.columns if column.kind == "win rate"}
    assert judges == set(JUDGES)
