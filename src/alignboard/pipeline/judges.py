"""Who judges: from a declaration to somebody who can be asked, and the verdicts of pools and juries."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from alignboard.engines.openai.keys import require_consent
from alignboard.engines.openai.prices import Prices, Rate, load_prices
from alignboard.errors import InputError
from alignboard.judges.annotations import JudgeSource
from alignboard.judges.backends.endpoint import OPENAI
from alignboard.judges.calls import Judge, Prompter, Trial, first_questions
from alignboard.judges.load import load_judge
from alignboard.judges.opening import Access, Opening
from alignboard.judges.pairs import Backend, Judged, Pair
from alignboard.judges.pricing import Cost, cost_of
from alignboard.judges.runner import Counts, OnProgress, Replies, judge_pairs
from alignboard.judges.spec import JudgeSpec
from alignboard.models.loading import LoadedModel
from alignboard.models.spec import ModelSpec, Notes

if TYPE_CHECKING:
    from alignboard.models.asked import HeldBase


class Judges:
    """The judges of this process: each is opened once, and its model is loaded when it is first asked."""

    def __init__(self, access: Access, workspace: Path | None = None, *, secret: str = "") -> None:
        self._access, self._workspace, self.secret = access, workspace, secret
        self._opened: dict[str, Backend] = {}
        self._loaded: dict[str, tuple[LoadedModel, str | None]] = {}
        self._prices: Prices | None = None
        self._trials: dict[str, Trial] = {}
        self.models: dict[str, ModelSpec] = {}
        """see `Opening`"""
        self.base: HeldBase | None = None
        """the base of the models that are judged, which serves a judge on it, too"""
        self.repeat = 0
        """which of several askings this is"""

    def repeated(self, repeat: int) -> Judges:
        """The same judges with the same models in memory, asked anew: replies of other repeats are not theirs."""
        other = copy.copy(self)
        other.repeat = repeat
        return other

    @property
    def prices(self) -> Prices:
        """The table of prices, read once."""
        if self._prices is None:
            self._prices = load_prices(self._workspace)
        return self._prices

    def shares(
        self, declared: JudgeSpec, pairs: Sequence[Pair]
    ) -> list[tuple[JudgeSpec, list[Pair]]]:
        """Every judge that ``declared`` asks, of a pool or a jury all of theirs, with the pairs that it judges."""
        parts = declared.parts([pair.asked for pair in pairs], self._declaration)
        if not parts:
            return [(declared, list(pairs))]
        return [
            share
            for one, indices in parts
            for share in self.shares(one, [pairs[index] for index in indices])
        ]

    def whole_costs(self, declared: JudgeSpec, pairs: Sequence[Pair]) -> list[Cost]:
        """What verdicts on ``pairs`` cost by judge, whether or not they are there; nobody is asked."""
        return [
            cost_of(
                self.prompter(spec, opened=False),
                first_questions(spec, own),
                None,
                self.rate(spec),
            )
            for spec, own in self.shares(declared, pairs)
        ]

    def members(self, declared: JudgeSpec) -> list[JudgeSpec]:
        """Every judge that ``declared`` asks."""
        return [spec for spec, _ in self.shares(declared, [])]

    def _declaration(self, name: str) -> JudgeSpec:
        return load_judge(name, self._workspace)

    def rate(self, spec: JudgeSpec) -> Rate | None:
        """What ``spec`` costs; None where it is asked here or at somebody's own address, or nobody says."""
        asked = spec.prompted
        if asked is None or not spec.hosted:
            return None
        if self._access.rate is not None:
            return self._access.rate
        urls = self._access.urls or (asked.base_url or OPENAI,)
        return self.prices.of(asked.model, batch=self._access.batch_folder is not None, urls=urls)

    def sources(self, declared: JudgeSpec) -> list[JudgeSource]:
        """Which model every judge of ``declared`` is, and at which addresses it is asked."""
        return [
            JudgeSource(
                judge=spec.name,
                model=self._named(getattr(spec, "model", None)),
                addresses=sorted(self._access.urls or (spec.prompted.base_url or OPENAI,))
                if spec.prompted is not None and spec.hosted
                else [],
            )
            for spec in self.members(declared)
        ]

    def _named(self, model: str | None) -> str | None:
        """A model in the workspace by its path there: what is kept holds no place of one machine."""
        if model is None or self._workspace is None or not Path(model).is_absolute():
            return model
        root = self._workspace.resolve()
        path = Path(model)
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else model

    def warnings(self, declared: JudgeSpec, today: dt.date) -> list[str]:
        """Of models that have been or will be switched off, and of keys that are not to be sent to them."""
        found = []
        try:
            self.require_key_consent(declared)
        except InputError as error:
            found.append(str(error).rstrip("."))
        for spec in self.members(declared):
            asked = spec.prompted
            if asked is not None and self._at_home(spec):
                ends = self.prices.retirement(asked.model, today) or asked.retired
                if ends is not None:
                    found.append(f"judge {spec.name}: {ends}")
        return list(dict.fromkeys(found))

    def require_key_consent(self, declared: JudgeSpec) -> None:
        """Raises `InputError` where a judge's file would have a key sent where it does not belong."""
        allowed = self._access.allowed_keys
        if allowed is None:
            return
        for spec in self.members(declared):
            asked = spec.prompted
            if asked is not None and self._at_home(spec):
                variable = self._access.api_key_env or asked.api_key_env
                require_consent(f"Judge {spec.name}", variable, [asked.base_url or OPENAI], allowed)

    def require_supported(self, declared: JudgeSpec, today: dt.date | None) -> None:
        """Raises `InputError` for a judge that cannot be asked, before any other is.

        With ``today`` also for one that has been switched off, and for keys that are not to be sent to it.
        """
        if today is not None:
            self.require_key_consent(declared)
        for spec in self.members(declared):
            reason = getattr(spec, "unsupported", None)
            if reason is not None:
                raise InputError(f"Judge {spec.name} cannot be asked here: {reason.rstrip('.')}.")
            asked = spec.prompted
            if today is not None and asked is not None and self._at_home(spec):
                ended = self.prices.retired(asked.model, today) or asked.retired
                if ended is not None:
                    raise InputError(
                        f"Judge {spec.name}: {ended.rstrip('.')}; name another judge (`alignboard judge list`), whose "
                        "scores `alignboard bridge` translates, or give --judge-engine URL where this one is served."
                    )

    def _at_home(self, spec: JudgeSpec) -> bool:
        """Whether it is asked at its own address."""
        return spec.hosted and not self._access.urls

    def open(self, spec: JudgeSpec) -> Backend:
        """Whoever answers for ``spec``."""
        declared = json.dumps(msgspec.to_builtins(spec, str_keys=True), sort_keys=True)
        if declared not in self._opened:
            self._opened[declared] = self._open(spec)
        return self._opened[declared]

    def require_ready(self, spec: JudgeSpec) -> None:
        """Raise `InputError` where a judge's key, model or program is missing; nothing is loaded, nobody is asked."""
        spec.require_ready(self._opening(spec))

    def _open(self, spec: JudgeSpec) -> Backend:
        return spec.open(self._opening(spec))

    def _opening(self, spec: JudgeSpec) -> Opening:
        asked = replace(self._access, rate=self.rate(spec))
        return Opening(
            **vars(asked), load=self._load, workspace=self._workspace, models=self.models
        )

    def _load(self, entry: ModelSpec) -> tuple[LoadedModel, str | None]:
        """The model of ``entry``; judges that differ by their adapters only share one."""
        from alignboard.models.asked import ask_as, load_base

        if self.base is not None and self.base.holds(entry):
            return self.base.load(entry)
        shared = msgspec.structs.replace(entry, name="", adapter=None, notes=Notes(), aliases=[])
        base = json.dumps(msgspec.to_builtins(shared), sort_keys=True)
        if base not in self._loaded:
            model = load_base(entry)
            self._loaded[base] = model, model.base_chat_template
        model, own = self._loaded[base]
        return model, ask_as(model, entry, own)

    def of(self, spec: JudgeSpec) -> Judge:
        """``spec``, ready to judge."""
        trial = self._trials.setdefault(spec.name, Trial())
        return Judge(spec, self.open(spec), self.secret, trial, self.repeat)

    def prompter(self, spec: JudgeSpec, *, opened: bool) -> Prompter:
        """How ``spec`` is asked; one that is not ``opened`` has no identity of its own in the keys."""
        identity = self.open(spec).identity if opened else {}
        return Prompter(spec, identity, self.secret, self.repeat)

    def judge(
        self,
        declared: JudgeSpec,
        pairs: Sequence[Pair],
        replies: Replies,
        on_progress: OnProgress | None = None,
        *,
        ask: bool = True,
    ) -> list[Judged]:
        """The verdicts of ``declared``, in the order of ``pairs``; of a pool each pair is judged by one member."""
        parts = declared.parts([pair.asked for pair in pairs], self._declaration)
        if not parts:
            return judge_pairs(self.of(declared), pairs, replies, on_progress, ask=ask)
        progress = _Sum(on_progress)
        judged = [
            self.judge(one, [pairs[index] for index in indices], replies, progress.part(), ask=ask)
            if indices
            else []
            for one, indices in parts
        ]
        return declared.combine(parts, judged)


class _Sum:
    """The progress of several judges as one."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress, self._parts = on_progress, []

    def part(self) -> Callable[[Counts], None] | None:
        if self._on_progress is None:
            return None
        on_progress, place = self._on_progress, len(self._parts)
        self._parts.append(Counts(0, 0, 0))

        def show(now: Counts) -> None:
            self._parts[place] = now
            on_progress(
                Counts(
                    *(
                        sum(getattr(one, name) for one in self._parts)
                        for name in ("known", "asked", "total")
                    )
                )
            )

        return show


def renamed(declared: JudgeSpec, name: str) -> JudgeSpec:
    """``declared`` under another name: its column on a board."""
    return msgspec.structs.replace(declared, name=name)
