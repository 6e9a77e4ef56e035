"""From outputs to judged outputs in one workspace: which judge, what it costs, and where it all goes."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from alignboard.errors import InputError
from alignboard.judges.annotations import Summary
from alignboard.judges.backends.endpoint import OPENAI, judge_suffix
from alignboard.judges.calls import (
    PairQuestion,
    Prompter,
    first_questions,
    shows_second_turns,
    single_questions,
    views,
)
from alignboard.judges.load import load_judge, require_own_name
from alignboard.judges.opening import Access
from alignboard.judges.pairs import Judged, Pair, Rated
from alignboard.judges.pricing import Cost, cost_of
from alignboard.judges.rows import Call
from alignboard.judges.runner import OnProgress, rate_outputs
from alignboard.judges.spec import JudgeSpec, Order
from alignboard.pipeline.judged_outputs import Answers, PairedOutputs
from alignboard.pipeline.judges import Judges, renamed
from alignboard.pipeline.judging import JournalReplies, verdict_path, write_judged
from alignboard.pipeline.replacing import n_preferences, n_ratings, require_no_loss
from alignboard.pipeline.single_ratings import RatingSummary, rating_path, write_rated
from alignboard.results.files import place_once, require_writable, write_atomically
from alignboard.results.journal import Journal


def declared_judge(
    name: str,
    workspace: Path,
    order: Order | None = None,
    *,
    hardened: bool = False,
    urls: Sequence[str] = (),
) -> JudgeSpec:
    """The judge ``name``. One that is asked otherwise than it declares is another judge, with a name that says so."""
    declared = load_judge(name, workspace)
    require_own_name(declared, name)
    if order is not None:
        if declared.order_fixed is not None:
            raise InputError(
                f"Judge {name} is {declared.order_fixed}, which has no order of its own to change."
            )
        if order != declared.shown_order:
            declared = msgspec.structs.replace(
                declared, order=order, name=f"{declared.name}-{order}"
            )
    if hardened:
        declared = declared.prompted
        if declared is None:
            raise InputError(f"Judge {name} has no prompt that could be hardened.")
        if not declared.hardened:
            if declared.prompt.batch > 1:
                raise InputError(
                    f"Judge {name} shows several pairs in a prompt, which cannot be hardened."
                )
            new = f"{declared.name}-hardened"
            declared = msgspec.structs.replace(declared, hardened=True, name=new)
    return _elsewhere(declared, workspace, urls) if urls else declared


def _elsewhere(declared: JudgeSpec, workspace: Path, urls: Sequence[str]) -> JudgeSpec:
    """The judge under its name at ``urls``; raises `InputError` where none of it is asked at an endpoint."""
    homes = {
        (spec.prompted.base_url or OPENAI).rstrip("/")
        for spec in Judges(Access(), workspace).members(declared)
        if spec.prompted is not None and spec.hosted
    }
    if not homes:
        raise InputError(
            f"Judge {declared.name} is not asked at an endpoint, so --judge-engine does not concern it."
        )
    if homes == {url.rstrip("/") for url in urls}:
        return declared
    return renamed(declared, f"{declared.name}{judge_suffix(urls)}")


class Evaluation:
    """Judging in one workspace: a judge, its replies in the journal, its files beside the outputs."""

    def __init__(
        self, judges: Judges, journal: Journal, *, replace: bool = False, root: Path = Path()
    ) -> None:
        """``replace`` allows a file with fewer scored rows to take the place of one with more.

        Verdicts are written below ``root``.
        """
        self._judges, self._replace, self._root = judges, replace, root
        self.journal = journal
        """where replies are kept, and answers may be"""
        self._replies = JournalReplies(journal)

    def judge(
        self,
        declared: JudgeSpec,
        compared: PairedOutputs,
        on_progress: OnProgress | None = None,
        *,
        ask: bool = True,
    ) -> tuple[Summary, list[Judged]]:
        """Ask what is missing, write the model's files, and say what they come to."""
        self._require_turns(declared, [pair.turns[1] for pair in compared.pairs])
        asked = self._judges.sources(declared)
        verdict_path(declared.name, compared, asked, self._root)  # refuses before anything is paid
        judged = self._judges.judge(declared, compared.pairs, self._replies, on_progress, ask=ask)
        summary = write_judged(
            declared,
            judged,
            compared,
            declared.order_name,
            asked,
            replace=self._replace,
            root=self._root,
        )
        return summary, judged

    def judge_pairs(self, declared: JudgeSpec, pairs: Sequence[Pair]) -> list[Judged]:
        """The verdicts on any pairs, through the journal; no file is written."""
        return self._judges.judge(declared, pairs, self._replies)

    def rate(
        self,
        declared: JudgeSpec,
        answers: Answers,
        on_progress: OnProgress | None = None,
        *,
        ask: bool = True,
    ) -> tuple[RatingSummary, list[Rated]]:
        """The same of outputs that are rated by themselves; raises `InputError` for a judge that compares."""
        spec = self._rater(declared, answers)
        rated = rate_outputs(
            self._judges.of(spec), answers.questions, self._replies, on_progress, ask=ask
        )
        asked = self._judges.sources(declared)
        summary = write_rated(spec.name, answers, rated, asked, replace=self._replace)
        return summary, rated

    def require_ready(
        self,
        declared: JudgeSpec,
        judged: Sequence[PairedOutputs | Answers],
        missing: Sequence[PairedOutputs | Answers],
    ) -> None:
        """Raise `InputError` for what judging any of ``judged`` would meet; nothing is loaded, nobody is asked.

        A key or a model is demanded only where a reply is missing, of those of ``judged`` that are not done.
        """
        ready: set[str] = set()
        asked = [share for one in missing for share in self._asked(declared, one)]
        for one in judged:
            self._require_place(declared, one)
        for spec, questions in asked:
            n_known, calls = self._known(spec, questions)
            if spec.name not in ready and n_known < len(calls):
                self._judges.require_ready(spec)
                ready.add(spec.name)

    def _require_place(self, declared: JudgeSpec, judged: PairedOutputs | Answers) -> None:
        """Whether the files can be written, and take nothing's place that has more."""
        if isinstance(judged, Answers):
            path, n, counted = rating_path(declared.name, judged), len(judged.questions), n_ratings
        else:
            place = verdict_path(declared.name, judged, self._judges.sources(declared), self._root)
            path, n, counted = self._root / place, len(judged.pairs), n_preferences
        require_writable(path.parent)
        if not self._replace:
            require_no_loss(path, n, counted)

    def _asked(
        self, declared: JudgeSpec, judged: PairedOutputs | Answers
    ) -> list[tuple[JudgeSpec, list[PairQuestion]]]:
        """Every judge that is asked, and what; raises `InputError` where it cannot be shown all turns."""
        if isinstance(judged, Answers):
            return [(self._rater(declared, judged), single_questions(judged.questions))]
        self._require_turns(declared, [pair.turns[1] for pair in judged.pairs])
        return self._pairs_asked(declared, judged.pairs)

    def _pairs_asked(
        self, declared: JudgeSpec, pairs: Sequence[Pair]
    ) -> list[tuple[JudgeSpec, list[PairQuestion]]]:
        shares = self._judges.shares(declared, pairs)
        return [(spec, first_questions(spec, own)) for spec, own in shares]

    def _known(
        self, spec: JudgeSpec, questions: Sequence[PairQuestion]
    ) -> tuple[int, dict[str, Call]]:
        """How many replies are there, as far as that is known without weights; and all calls, by key."""
        prompter = self._judges.prompter(spec, opened=not spec.needs_weights)
        calls = {call.key: call for view in views(prompter, questions) for call, _ in view.calls}
        return 0 if spec.needs_weights else len(self._replies.known(list(calls))), calls

    def costs(
        self, declared: JudgeSpec, judged: PairedOutputs | Answers, *, is_done: bool = False
    ) -> list[Cost]:
        """What is missing, and what it costs, by judge; nobody is asked."""
        found = [self._cost(spec, questions) for spec, questions in self._asked(declared, judged)]
        if not is_done:
            return found
        nothing = {"n_calls": 0, "n_prompt": 0, "n_answer": 0}
        return [
            replace(one, n_known=one.n_calls, **nothing) if one.n_known is None else one
            for one in found
        ]

    def pair_costs(self, declared: JudgeSpec, pairs: Sequence[Pair]) -> list[Cost]:
        """The same of pairs by themselves."""
        shares = self._pairs_asked(declared, pairs)
        return [self._cost(spec, questions) for spec, questions in shares]

    def _cost(self, spec: JudgeSpec, asked: Sequence[PairQuestion]) -> Cost:
        if spec.needs_weights:
            # Only the weights could tell whose replies are known.
            return cost_of(Prompter(spec, {}), asked, None, None)
        prompter = self._judges.prompter(spec, opened=True)
        return cost_of(prompter, asked, self._replies, self._judges.rate(spec))

    def _rater(self, declared: JudgeSpec, answers: Answers) -> JudgeSpec:
        if not declared.is_rating:
            raise InputError(
                f"Judge {declared.name} compares two outputs; one that rates single ones says rates: true, or is "
                "a reward model (such as mt-bench-single, skywork-reward)."
            )
        self._require_turns(declared, [one.turns for one in answers.questions])
        return declared

    def _require_turns(self, declared: JudgeSpec, answers: Sequence[Sequence[str]]) -> None:
        """Raises `InputError` where there are second turns and a judge would be shown the first alone."""
        if any(len(turns) > 1 for turns in answers):
            for spec in self._judges.members(declared):
                require_second_turns(spec)


def require_second_turns(spec: JudgeSpec) -> None:
    """Raise `InputError` for a judge that would be shown the first turns alone."""
    if not shows_second_turns(spec):
        raise InputError(
            f"Judge {spec.name} is shown the first turn only, and these answers have two; its prompt needs "
            "{instruction_2} and {first_2}, as those of mt-bench-pair and mt-bench-single have them."
        )


def hardening_secret(journal: Path) -> str:
    """What hardened prompts of this workspace draw their marks from: made once, and never shown."""
    path = journal / "hardened-secret"
    if not path.exists():
        temporary = path.with_name(f"{path.name}-{os.getpid()}")
        write_atomically(temporary, secrets.token_hex(32).encode(), mode=0o600)
        place_once(temporary, path)
    secret = path.read_text().strip()
    if not re.fullmatch(r"[0-9a-f]{64}", secret):
        raise InputError(
            f"{path} holds no secret (a full disk leaves it empty); remove it, and hardened judges ask anew."
        )
    return secret
