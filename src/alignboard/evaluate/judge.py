"""Judges: what a judge declares, and pairs of answers in, verdicts out.

A judge is a file ``evaluate/judges/<name>.yaml`` of one of two kinds. ``simulated`` is a rule with noise that needs no
model (`alignboard.evaluate.simulated`); ``logprob`` is a language model of which the probability of a verdict token is
read (`alignboard.evaluate.model_judge`). Both answer one question: of two outputs, is the one shown first the better?

Three statuses, never two: a verdict is *scored*, *unparsed* (the judge said something else) or *failed* (it could not
be asked). Only scored ones have a preference; the others are null in ``annotations.json``, which no mean counts as a
draw or a loss. Identical outputs are a draw without a call.

Order shown: ``coin`` draws one order per instruction as AlpacaEval does (`alignboard.results.order`), so that audits
that recompute the order see the right one; ``both`` asks twice and takes the mean.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import yaml

from alignboard.errors import InputError, nearest
from alignboard.records import Judgment
from alignboard.results.order import is_switched
from alignboard.workspace import declaration

Order = Literal["coin", "both"]
Status = Literal["scored", "unparsed", "failed"]


class SimulatedSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="simulated"
):
    """The simulated annotator: a scoring rule of the demo world, label noise and position bias. No model."""

    name: str
    title: str
    order: Order = "coin"
    seed: int = 0
    label_noise: float = 0.217
    position_bias: float = 0.05


class Verdicts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The spellings that count as a verdict, each one token of the judge's."""

    first: list[str]
    second: list[str]


class LogprobSpec(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="logprob"
):
    """A language model that is asked for one token."""

    name: str
    title: str
    model: str
    """what is loaded: a name that the caller resolves, a folder, or a repository of the hub"""
    prompt: str
    """with {instruction}, {first} and {second}"""
    verdicts: Verdicts
    order: Order = "both"
    chat: bool = False
    """whether the prompt goes through the judge's chat template, as one user turn"""
    weighted: bool = True
    """whether the preference is the probability, or only which of the two is likelier"""
    min_mass: float = 0.5
    """the least probability of all verdict tokens together that counts as a verdict"""


JudgeSpec = SimulatedSpec | LogprobSpec
_KINDS: dict[str, type[SimulatedSpec | LogprobSpec]] = {
    "simulated": SimulatedSpec,
    "logprob": LogprobSpec,
}


class Pair(msgspec.Struct, frozen=True):
    """Two answers to one instruction; ``output_1`` is the baseline's, where there is one."""

    instruction: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str


class Question(msgspec.Struct, frozen=True):
    """A pair in the order in which it is shown."""

    instruction: str
    first: str
    second: str


class Reply(msgspec.Struct, frozen=True):
    """What the judge said to one question."""

    status: Status
    p_first: float | None = None
    """how probable it is that what was shown first is the better; 0, 0.5 or 1 where the judge gives no probability"""
    mass: float | None = None
    """probability of all verdict tokens together, where the judge is a model"""
    reason: str | None = None
    """why there is no verdict"""


class Judged(msgspec.Struct, frozen=True):
    """The verdict on a pair, as the journal keeps it: preference, and every reply under it."""

    key: str
    pair: Pair
    status: Status
    preference: float | None
    """1 = output_1, 2 = output_2, 1.5 = a draw, between = how sure"""
    switched: tuple[bool, ...]
    """for each reply, whether output_2 was shown first; empty where the outputs were identical"""
    replies: tuple[Reply, ...]

    def row(self, annotator: str, dataset: str | None = None) -> Judgment:
        """The row of ``annotations.json``; a verdict that was not scored is null."""
        pair = self.pair
        return Judgment(
            instruction=pair.instruction,
            output_1=pair.output_1,
            generator_1=pair.generator_1,
            output_2=pair.output_2,
            generator_2=pair.generator_2,
            preference=self.preference,
            annotator=annotator,
            dataset=dataset,
        )


class Judge(Protocol):
    """Anything that can be asked which of two outputs is the better."""

    @property
    def spec(self) -> JudgeSpec:
        """What was declared."""
        ...

    @property
    def digest(self) -> str:
        """Identity: two judges that can answer differently have different digests."""
        ...

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """The reply to every question with its place, in any order, as they come."""
        ...


def load_judge(name: str, workspace: Path | None = None) -> JudgeSpec:
    """The judge called ``name``; raises `InputError` that names the file, the key and the nearest valid key."""
    path = declaration("evaluate/judges", name, workspace)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a judge is a mapping of keys to values.")
    kind = content.get("kind")
    if kind not in _KINDS:
        hint = nearest(str(kind), _KINDS)
        raise InputError(
            f"{path}: kind is {kind!r}{hint or '.'} A judge is one of: {', '.join(_KINDS)}."
        )
    known = [*_KINDS[kind].__struct_fields__, "kind"]
    for key in content:
        if key not in known:
            raise InputError(
                f"{path}: a {kind} judge has no field {key!r}{nearest(str(key), known) or '.'}"
            )
    try:
        spec: JudgeSpec = msgspec.convert(content, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}.") from error
    _check(path, spec)
    return spec


def _check(path: Path, spec: JudgeSpec) -> None:
    if isinstance(spec, SimulatedSpec):
        limits = {
            "label_noise": (spec.label_noise, 0.5),
            "position_bias": (spec.position_bias, 1.0),
        }
    else:
        limits = {"min_mass": (spec.min_mass, 1.0)}
        missing = [
            slot for slot in ("{instruction}", "{first}", "{second}") if slot not in spec.prompt
        ]
        if missing:
            raise InputError(f"{path}: prompt lacks {' and '.join(missing)}.")
        if not spec.verdicts.first or not spec.verdicts.second:
            raise InputError(
                f"{path}: verdicts.first and verdicts.second each need at least one token."
            )
    for field, (value, most) in limits.items():
        if not 0 <= value <= most:
            raise InputError(f"{path}: {field} is {value}; expected a number from 0 to {most}.")


def spec_digest(spec: JudgeSpec, **more: Any) -> str:
    """A digest of what a judge declares, except its title, and of whatever else determines its replies."""
    content = {key: value for key, value in msgspec.to_builtins(spec).items() if key != "title"}
    text = json.dumps({**content, **more}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def judgment_key(digest: str, pair: Pair, switched: Sequence[bool]) -> str:
    """The name of a verdict: the judge, the texts, and the orders shown. Who wrote the texts has no part in it."""
    parts = (digest, pair.instruction, pair.output_1, pair.output_2, *map(str, switched))
    # The lengths, so that no two lists of texts read the same.
    lengths = " ".join(str(len(part)) for part in parts)
    text = "\x00".join(("judgment-1", lengths, *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def orders(spec: JudgeSpec, pair: Pair) -> tuple[bool, ...]:
    """Whether output_2 is shown first, for every time the judge is asked; none for identical outputs."""
    if pair.output_1 == pair.output_2:
        return ()
    return (False, True) if spec.order == "both" else (is_switched(pair.instruction),)


def judgment_keys(judge: Judge, pairs: Sequence[Pair]) -> list[str]:
    """The key of every pair's verdict, without asking."""
    digest = judge.digest
    return [judgment_key(digest, pair, orders(judge.spec, pair)) for pair in pairs]


def judge_pairs(
    judge: Judge, pairs: Sequence[Pair], on_done: Callable[[Judged], None] | None = None
) -> list[Judged]:
    """The verdict on every pair, in the order of ``pairs``; ``on_done`` is given each as soon as it is complete."""
    shown = [orders(judge.spec, pair) for pair in pairs]
    keys = judgment_keys(judge, pairs)
    owner = [(i, k) for i, order in enumerate(shown) for k in range(len(order))]
    replies: list[dict[int, Reply]] = [{} for _ in pairs]
    done: dict[int, Judged] = {}

    def finish(i: int) -> None:
        complete = tuple(replies[i][k] for k in range(len(shown[i])))
        done[i] = _judged(judge.spec, keys[i], pairs[i], shown[i], complete)
        if on_done is not None:
            on_done(done[i])

    for i, order in enumerate(shown):
        if not order:
            finish(i)
    questions = [_question(pairs[i], switched=shown[i][k]) for i, k in owner]
    for place, reply in judge.ask(questions):
        i, k = owner[place]
        replies[i][k] = reply
        if len(replies[i]) == len(shown[i]):
            finish(i)
    return [done[i] for i in range(len(pairs))]


def _question(pair: Pair, *, switched: bool) -> Question:
    first, second = (pair.output_2, pair.output_1) if switched else (pair.output_1, pair.output_2)
    return Question(pair.instruction, first, second)


def _judged(
    spec: JudgeSpec, key: str, pair: Pair, switched: tuple[bool, ...], replies: tuple[Reply, ...]
) -> Judged:
    if not replies:
        return Judged(key, pair, "scored", 1.5, switched, replies)
    for status in ("failed", "unparsed"):
        if any(reply.status == status for reply in replies):
            return Judged(key, pair, status, None, switched, replies)
    # P(output_2 is better), over the orders shown
    p = statistics.fmean(
        (reply.p_first if turned else 1 - reply.p_first)
        for turned, reply in zip(switched, replies, strict=True)
        if reply.p_first is not None
    )
    if isinstance(spec, LogprobSpec) and not spec.weighted:
        p = 0.5 if math.isclose(p, 0.5) else float(p > 0.5)
    return Judged(key, pair, "scored", 1 + p, switched, replies)
