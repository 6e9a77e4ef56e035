"""What a judge is shown and what it said: the rows of judging.

A *question* is a pair of outputs in the order shown (or one output, for judges that rate). A *call* is one prompt with
one question or several, and its key names all that determines the reply. What comes back is kept as it came (`Reply`),
so that verdicts can be read again without asking again; a `Verdict` is what a parser made of it.

Five statuses, and only one of them has a preference: a verdict is *scored*, *unparsed* (the judge said something
else), *refused*, *truncated* (it was cut off before its verdict) or *failed* (it could not be asked). The others are
never a draw, a loss or an absent row.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Status = Literal["scored", "unparsed", "refused", "truncated", "failed"]
Role = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One turn of a prompt."""

    role: Role
    content: str


class Question(msgspec.Struct, frozen=True):
    """Two outputs in the order shown; ``second`` is None where outputs are rated one by one."""

    instruction: str
    first: str
    second: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    """more that a prompt may show, by name: ``reference``, ``rubric``, ``instruction_2``, ``first_2``, ``second_2``"""

    @property
    def asked(self) -> str:
        """All that the user says: the instruction, and a second turn after it."""
        second = dict(self.fields).get("instruction_2")
        return self.instruction if second is None else f"{self.instruction}\n\n{second}"

    @property
    def turns(self) -> tuple[str, ...]:
        """The first output, turn by turn."""
        second = dict(self.fields).get("first_2")
        return (self.first,) if second is None else (self.first, second)


class Call(msgspec.Struct, frozen=True):
    """One request to a judge."""

    key: str
    """hexadecimal"""
    questions: tuple[Question, ...]
    messages: tuple[Message, ...] = ()
    """the prompt; one ``user`` message for judges that are given plain text, none for those that read the question"""
    sample: int = 0
    """which of several replies to the same prompt"""
    named: tuple[str, ...] = ()
    """what the first and the second output are called in this prompt, where that was drawn"""


ROUNDING: Final = 1e-3
"""the largest log-probability that is still one: endpoints round"""


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token of a reply, with the likeliest tokens at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """(token, natural logarithm of its probability)"""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a judge returned to one call, as it came."""

    text: str = ""
    """of a tool call: its arguments, as JSON"""
    tokens: tuple[Token, ...] = ()
    """where log-probabilities were asked for"""
    scores: tuple[float, ...] = ()
    """of judges that return numbers: (P(the first is better), P(the second is)), or one scalar for one output"""
    reasoning: str = ""
    """what was thought, where that came apart from the text"""
    finish: Literal["stop", "length", "refused", "unknown"] = "stop"
    reason: str | None = None
    """why it refused, where it says; of judges that return numbers what a reader of them should know"""
    n_prompt: int | None = None
    n_answer: int | None = None
    price: float | None = None
    """US dollars"""
    seconds: float | None = None
    """from the request to the reply"""
    served: str | None = None
    """the model that an endpoint says it served"""


class FailedCall(msgspec.Struct, frozen=True):
    """A call that got no reply; it is asked again on the next run."""

    key: str
    reason: str
    tries: int = 1


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reply means for one question."""

    status: Status
    preference: float | None = None
    """of a pair: 1 = the first shown is better, 2 = the second, 1.5 = a draw, between = how sure"""
    score: float | None = None
    """of one output: its rating"""
    mass: float | None = None
    """the probability of all verdict tokens together, where it is known"""
    weight: float = 1.0
    """how often it counts where strong verdicts count more (Arena-Hard)"""
    evidence: str = ""
    """the part of the reply that decided, or why there is no verdict"""
    flags: tuple[str, ...] = ()
    """what a reader should know, such as ``several verdicts``"""
