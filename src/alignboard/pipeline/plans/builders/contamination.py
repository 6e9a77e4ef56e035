"""Jobs that find what the rows of trainings share with what models are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignboard.pipeline.plans.builders.base import ALL_GROUP, Builder
from alignboard.pipeline.plans.builders.responses import set_hints
from alignboard.pipeline.plans.made import made_here


def contamination(build: Builder, trained: Mapping[str, str], board: dict[str, str]) -> None:
    """What the rows of each training, and of those it starts from, share with what models are asked."""
    needs = {
        role: next((job for job in board.values() if job.startswith(f"{role} ")), None)
        for role in (f"lm-eval {suite.name}" for suite in build.resolved.benchmarks)
    }
    sets = [{"name": one.name, "digest": one.asked.digest} for one in build.resolved.sets]
    if not board or not (sets or any(needs.values())):
        return
    hints = {"sets": [set_hints(one) for one in build.resolved.sets]}
    for model in build.resolved.models:
        for number, data in enumerate(_released_rows(build, trained.get(model.made))):
            board[f"contamination {number} {model.name}"] = build.add(
                f"contamination {data.partition(' ')[2]}",
                "contamination",
                ALL_GROUP,
                {"sets": sets},
                {**needs, "data": data},
                hints,
            )


def _released_rows(build: Builder, job: str | None) -> list[str]:
    """The jobs of the rows that a training, and what it starts from, reads; not of rows that are made here."""
    found: list[str] = []
    while job is not None:
        needs = build.graph.jobs[job].needs
        data = build.graph.jobs[needs["data"]]
        if not data.needs.get("pairs") and not _is_made(data.parameters["data"]):
            found.append(data.name)
        job = needs.get("start")
    return found


def _is_made(data: Any) -> bool:
    return isinstance(data, dict) and made_here(str(data["name"]))
