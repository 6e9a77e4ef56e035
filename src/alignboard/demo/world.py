"""The demo's instruction world: small questions whose answers a program can check.

What this module promises
    Eight task families (copying, looking up, picking) over a vocabulary of a few hundred words, each with several
    phrasings. Every instruction has exactly one right answer, `check` decides whether an output gives it, and every
    answer can be said concisely or padded with filler: the style a preference can be about. Everything is drawn from
    explicit generators, so a seed fixes every corpus. A question's content (not its phrasing) decides by hash whether
    it belongs to SFT, to preference training or to evaluation, and evaluation content never occurs in a training
    text of any kind, the pretraining corpus included.

What it is not
    A benchmark. It measures whether the pipeline works, on models small enough to train in seconds.

Pure Python; no torch, no numpy.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from alignboard.demo.world_words import (
    AFTER,
    CLOSERS,
    FAMILIES,
    FRAME_WORDS,
    NOUN_FACTS,
    OPENERS,
    OPPOSITES,
    PUNCTUATION,
)
from alignboard.errors import InputError, nearest

Split = Literal["sft", "preference", "eval"]
SPLITS: Final[tuple[Split, ...]] = ("sft", "preference", "eval")
_ALL_DRAWN: Final = 10_000
"""questions drawn one after the other that were drawn before, after which there are no others"""


@dataclass(frozen=True)
class WorldTask:
    """A question's content: what is asked, not how it is phrased.

    >>> WorldTask("translate", ("dog", "cat"), "french").answer
    'chien chat'
    """

    family: str
    content: tuple[str, ...]
    option: str = ""

    @property
    def answer(self) -> str:
        """The one right answer, words separated by spaces."""
        words = self.content
        match self.family:
            case "repeat":
                return " ".join(words)
            case "reverse":
                return " ".join(reversed(words))
            case "position":
                return words[0] if self.option == "first" else words[-1]
            case "translate":
                return " ".join(NOUN_FACTS[w][1 if self.option == "french" else 2] for w in words)
            case "opposite":
                return " ".join(OPPOSITES[w] for w in words)
            case "kind":
                return " ".join(NOUN_FACTS[w][0] for w in words)
            case "next":
                return " ".join(AFTER[w] for w in words)
            case "pick":
                return next(w for w in words if NOUN_FACTS[w][0] == self.option)
        raise ValueError(
            f"unknown task family {self.family!r}; expected one of {', '.join(FAMILIES)}"
        )

    @property
    def split(self) -> Split:
        """Which split the content belongs to, by hash: 20% eval, 30% preference, 50% SFT, whatever the phrasing."""
        text = f"alignboard-world-1|{self.family}|{self.option}|{' '.join(self.content)}"
        bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10
        return "eval" if bucket < 2 else "preference" if bucket < 5 else "sft"

    def instruction(self, template: int = 0) -> str:
        """The question in its `template`-th phrasing."""
        family = FAMILIES[self.family]
        slots = dict(zip("abc", self.content, strict=False))
        return family.templates[template % len(family.templates)].format(**slots, o=self.option)


@dataclass(frozen=True)
class Example:
    """An instruction with a reply to it. `correct` says whether the reply was built to be right."""

    instruction: str
    output: str
    correct: bool


def draw_task(rng: random.Random, family: str | None = None) -> WorldTask:
    """Draw a question's content; families are equally likely, content words are distinct."""
    spec = FAMILIES[family or rng.choice(tuple(FAMILIES))]
    option = rng.choice(spec.options)
    if spec.name != "pick":
        return WorldTask(spec.name, tuple(rng.sample(spec.words, spec.n_words)), option)
    # Exactly one word of the asked kind, so that the answer is unique.
    inside = [w for w in spec.words if NOUN_FACTS[w][0] == option]
    outside = [w for w in spec.words if NOUN_FACTS[w][0] != option]
    words = [rng.choice(inside), *rng.sample(outside, spec.n_words - 1)]
    rng.shuffle(words)
    return WorldTask(spec.name, tuple(words), option)


def draw_instruction(rng: random.Random, splits: Sequence[Split]) -> tuple[WorldTask, str]:
    """Draw a question of one of `splits` (rejection by content) in a random phrasing."""
    while True:
        task = draw_task(rng)
        if task.split in splits:
            return task, task.instruction(rng.randrange(len(FAMILIES[task.family].templates)))


def concise(answer: str) -> str:
    """The answer and nothing else."""
    return f"{answer}."


def padded(answer: str, rng: random.Random) -> str:
    """The answer wrapped in filler."""
    return f"{rng.choice(OPENERS)} {answer}. {rng.choice(CLOSERS)}"


def wrong_answer(task: WorldTask, rng: random.Random) -> str:
    """A wrong answer of the right kind and mostly of the right length: another question's answer."""
    while True:
        answer = draw_task(rng, task.family).answer
        if answer != task.answer:
            return answer


def reply(
    task: WorldTask, rng: random.Random, *, p_padded: float, p_wrong: float
) -> tuple[str, bool]:
    """A reply with the given chances of filler and of a wrong answer; (text, whether it is right)."""
    correct = rng.random() >= p_wrong
    answer = task.answer if correct else wrong_answer(task, rng)
    return (padded(answer, rng) if rng.random() < p_padded else concise(answer)), correct


def prompts(split: Split, n: int, seed: int) -> list[str]:
    """`n` instructions of a split, all of different content; evaluation sets use `split="eval"`.

    >>> len(set(prompts("eval", 50, seed=0)))
    50
    """
    if split not in SPLITS:
        raise InputError(
            f"The demo world has no split {split!r}{nearest(split, SPLITS)}; its splits are {', '.join(SPLITS)}."
        )
    rng = random.Random(f"prompts|{split}|{seed}")
    seen: dict[WorldTask, str] = {}
    repeated = 0
    while len(seen) < n:
        before = len(seen)
        seen.setdefault(*draw_instruction(rng, (split,)))
        repeated = repeated + 1 if len(seen) == before else 0
        if repeated > _ALL_DRAWN:
            raise InputError(
                f"The demo world has no {n} questions of the split {split!r}; about {len(seen)} can be had."
            )
    return list(seen.values())


def sft_examples(
    n: int, seed: int, *, p_padded: float = 0.85, p_wrong: float = 0.05
) -> list[Example]:
    """Supervised pairs from the SFT split: mostly right, often padded (what a preference later corrects)."""
    rng = random.Random(f"sft|{seed}")
    rows = []
    for _ in range(n):
        task, instruction = draw_instruction(rng, ("sft",))
        output, correct = reply(task, rng, p_padded=p_padded, p_wrong=p_wrong)
        rows.append(Example(instruction, output, correct))
    return rows


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, as the tokenizer splits them."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


_FILLER: Final = frozenset(w for text in (*OPENERS, *CLOSERS) for w in words_of(text)) - PUNCTUATION


def content_words(output: str) -> list[str]:
    """An output's words without filler and punctuation: the answer it gives, if any."""
    return [w for w in words_of(output) if w not in _FILLER and w not in PUNCTUATION]


def check(instruction: str, output: str) -> bool:
    """Whether the output gives the right answer: its content words are the answer, in order, and nothing more.

    Listing several answers is therefore wrong, and so is repeating the right one.

    >>> check("translate into french: dog cat.", "that is easy: chien chat. i hope that this helps you a lot!")
    True
    >>> check("translate into french: dog cat.", "chien chat hund.")
    False
    """
    return content_words(output) == parse(instruction).answer.split()


def is_concise(instruction: str, output: str) -> bool:
    """Whether the output has no filler: as many words as the right answer has, whatever they are."""
    n_words = sum(w not in PUNCTUATION for w in words_of(output))
    return 0 < n_words <= len(parse(instruction).answer.split())


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(family, pattern with named slots) for every phrasing."""
    found = []
    for family in FAMILIES.values():
        for template in family.templates:
            pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\w+)", re.escape(template))
            found.append((family.name, re.compile(pattern)))
    return tuple(found)


@lru_cache(maxsize=65536)
def parse(instruction: str) -> WorldTask:
    """The question behind an instruction's text; ValueError when it is none of this world's."""
    for name, pattern in _patterns():
        if match := pattern.fullmatch(instruction.strip()):
            slots = match.groupdict()
            content = tuple(slots[s] for s in "abc" if s in slots)
            option, family = slots.get("o", ""), FAMILIES[name]
            if set(content) <= set(family.words) and option in family.options:
                return WorldTask(name, content, option)
    raise ValueError(f"not an instruction of the demo world: {instruction!r}")


def distractors(task: WorldTask, k: int, rng: random.Random) -> list[str]:
    """`k` different wrong answers with the right number of words: the other options of a multiple-choice question."""
    found: dict[str, None] = {}
    while len(found) < k:
        found.setdefault(wrong_answer(task, rng))
    return list(found)


def pretraining_documents(n: int, seed: int, *, p_chat: float = 0.15) -> list[tuple[str, str]]:
    """`n` documents of the base models' corpus, as (what is given, what follows).

    Most are exam sheets, `question: ... answer: ...`, always right: there the facts are learnt. The rest are logs of
    conversations (`user: ... assistant: ...`, the chat template's own form) in which three of four replies are none
    but one more question, and the others are more often wrong than right. So a base model knows the facts, and what
    it does in a chat is poor; eliciting the one from the other is what SFT is for.
    """
    rng = random.Random(f"pretraining|{seed}")
    documents = []
    for _ in range(n):
        task, instruction = draw_instruction(rng, ("sft", "preference"))
        if rng.random() >= p_chat:
            text, _ = reply(task, rng, p_padded=0.3, p_wrong=0.0)
            documents.append((f"question: {instruction} answer:", text))
        elif rng.random() < 0.25:
            text, _ = reply(task, rng, p_padded=0.7, p_wrong=0.6)
            documents.append((f"user: {instruction} assistant:", text))
        else:
            _, another = draw_instruction(rng, ("sft", "preference"))
            documents.append((f"user: {instruction} assistant:", another))
    return documents


def vocabulary() -> list[str]:
    """Every word and mark that occurs in this world, in a fixed order: a word-level tokenizer's vocabulary."""
    words: dict[str, None] = dict.fromkeys(sorted(PUNCTUATION))
    for family in FAMILIES.values():
        for template in family.templates:
            words.update(dict.fromkeys(words_of(re.sub(r"\{\w\}", " ", template))))
        words.update(dict.fromkeys(family.words))
        words.update(dict.fromkeys(o for o in family.options if o))
    for kind, french, german in NOUN_FACTS.values():
        words.update(dict.fromkeys((kind, french, german)))
    words.update(dict.fromkeys(w for text in (*OPENERS, *CLOSERS) for w in words_of(text)))
    words.update(dict.fromkeys(FRAME_WORDS))
    return list(words)


def chat_rows(examples: Sequence[Example]) -> list[dict[str, list[dict[str, str]]]]:
    """Examples as TRL's conversational prompt-completion rows."""
    return [
        {
            "prompt": [{"role": "user", "content": e.instruction}],
            "completion": [{"role": "assistant", "content": e.output}],
        }
        for e in examples
    ]
