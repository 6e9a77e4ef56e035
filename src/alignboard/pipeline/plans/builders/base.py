"""What the builders of a plan's jobs share: the plan, the graph so far, and what a job is expected to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alignboard.judges.opening import Access
from alignboard.pipeline.graph import Graph
from alignboard.pipeline.judges import Judges
from alignboard.pipeline.kinds import job_kind
from alignboard.pipeline.plans.made import judge_trained_here
from alignboard.pipeline.plans.resolved import ResolvedPlan
from alignboard.pipeline.plans.schema import Plan

ALL_GROUP: Final = "all models"


@dataclass(frozen=True)
class Builder:
    """A plan on its way to a graph."""

    resolved: ResolvedPlan
    graph: Graph = field(default_factory=Graph)
    judges: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    """by name: its part of the parameters and of the hints of every job that it judges"""

    @property
    def plan(self) -> Plan:
        """The plan as it is declared."""
        return self.resolved.plan

    def add(
        self,
        name: str,
        kind: str,
        group: str,
        parameters: Mapping[str, Any],
        needs: Mapping[str, str | None] | None = None,
        hints: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a job, once; returns its name."""
        entry = self.resolved.entries.get(group)
        # The estimates are for tiny models, and for judges that are as quick.
        large = entry is not None and not entry.is_tiny
        slow = "judge" in parameters and self.is_slow(parameters["judge"])
        seconds = None if large or slow else job_kind(kind).seconds
        return self.graph.add(name, kind, group, parameters, needs, seconds=seconds, hints=hints)

    def is_slow(self, judge: str) -> bool:
        """Whether a judge is loaded or paid for; the tiny one that is trained here is not counted."""
        declared = self.resolved.judges[judge].declared
        members = Judges(Access(), self.resolved.workspace).members(declared)
        trained = judge_trained_here(declared) is not None
        return not trained and any(one.hosted or one.needs_weights for one in members)
