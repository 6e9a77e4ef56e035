"""The demo's two lm-eval tasks, made of the demo world's evaluation split."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from alignboard.demo import world
from alignboard.results.files import write_atomically
from alignboard.workspace import declaration

TASKS: Final = ("demo_choice", "demo_exact")


def write_task_data(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    *,
    seed: int = 0,
    n: int = 150,
    workspace: Path | None = None,
    found_at: Path | None = None,
) -> None:
    """Write those of the demo's two lm-eval tasks that ``tasks`` names, and their documents, to ``folder``.

    Questions are of the evaluation split. The same arguments give the same bytes. The task files name their data by
    the path of ``found_at``, where the folder will be found from where lm-eval is started; without it by an absolute
    path.
    """
    documents = _documents(n, seed)
    for name in tasks:
        data = folder / f"{name}.jsonl"
        write_atomically(data, msgspec.json.Encoder().encode_lines(documents[name]))
        template = declaration("evaluate/tasks", name, workspace).read_text(encoding="utf-8")
        named = json.dumps(str((found_at or folder.resolve()) / data.name), ensure_ascii=False)
        text = template.replace(f"{{test: {data.name}}}", f"{{test: {named}}}")
        write_atomically(folder / f"{name}.yaml", text.encode())


def _documents(n: int, seed: int) -> dict[str, list[dict[str, object]]]:
    """The documents of every task."""
    questions = world.prompts("eval", n, seed)
    rng = random.Random(f"harness|{seed}")
    choice: list[dict[str, object]] = []
    exact: list[dict[str, object]] = []
    for question in questions:
        task = world.parse(question)
        answers = [task.answer, *world.distractors(task, 3, rng)]
        rng.shuffle(answers)
        choices = [world.concise(answer) for answer in answers]
        choice.append(
            {"question": question, "choices": choices, "label": answers.index(task.answer)}
        )
        exact.append({"question": question, "answer": task.answer})
    return dict(zip(TASKS, (choice, exact), strict=True))
