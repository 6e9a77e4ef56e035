"""What the demo's judge model is trained on: pairs of replies, with labels for every step of the comparison.

See `alignboard.demo.judge_training` for why the steps between are trained. Importing this module loads no torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from alignboard.demo import world
from alignboard.demo.simulated import rule_score
from alignboard.demo.world_words import NOUNS

PROMPT: Final = (
    "first: {first} second: {second} question: {instruction} answer: which response is better:"
)
"""What ``evaluate/judges/demo-logprob.yaml`` asks."""
FIRST, SECOND = "first", "second"
_ROOM: Final = "which response is better:"  # five tokens, where the answer's words are expected
# What the marks are called: any words of the vocabulary would do.
_MARKS: Final = {
    (True, False): "first",
    (False, True): "second",
    (True, True): "both",
    (False, False): "system",
}
_CLASSES: Final = {0.0: "which", 1.0: "is", 1.5: "better"}


@dataclass(frozen=True)
class JudgeExample:
    """A training example; labels are -100 where there is nothing to learn."""

    ids: list[int]
    words: list[int]
    """labels after the base's layers"""
    marks: list[int]
    """labels after all layers"""
    first: range
    """where the first reply stands"""
    second: range
    verdict: float
    """1 = the first is better, 0 = the second, 0.5 = neither"""


def draw_pair(
    rng: random.Random, splits: Sequence[world.Split], p_padded: float = 0.5
) -> tuple[world.WorldTask, str, str, str]:
    """A question and two replies to it: right or wrong, concise or padded, independently."""
    task, instruction = world.draw_instruction(rng, splits)
    return task, instruction, _reply(task, rng, p_padded), _reply(task, rng, p_padded)


def _reply(task: world.WorldTask, rng: random.Random, p_padded: float) -> str:
    answer = task.answer if rng.random() < 0.5 else _wrong(task, rng)
    return world.padded(answer, rng) if rng.random() < p_padded else world.concise(answer)


def _wrong(task: world.WorldTask, rng: random.Random) -> str:
    """A wrong answer, of the kinds that models give: another one, one word off, reversed, too long, or random words."""
    words, kind = task.answer.split(), rng.random()
    other = world.wrong_answer(task, rng).split()
    if 0.35 <= kind < 0.7:
        place = rng.randrange(len(words))
        words[place] = other[place % len(other)]
    elif 0.7 <= kind < 0.8:
        words.reverse()
    elif 0.8 <= kind < 0.9:
        words.append(rng.choice(words))
    elif kind >= 0.9:
        words = rng.sample(NOUNS, len(words))
    answer = " ".join(words)
    return " ".join(other) if kind < 0.35 or answer == task.answer else answer


class Encoder:
    """Training rows from questions and replies, with a memory for the texts that come back."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self.bos: int = tokenizer.bos_token_id
        self.pad: int = tokenizer.pad_token_id
        self.first, self.second = self(FIRST)[0], self(SECOND)[0]

    def __call__(self, text: str) -> list[int]:
        """The token ids of ``text``, without BOS."""
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]

    def row(self, task: world.WorldTask, instruction: str, first: str, second: str) -> JudgeExample:
        """One example, with the labels of every step between."""
        head, tail = [self.bos, *self("first:")], self("second:")
        one, two = self(first), self(second)
        question = [*self("question:"), *self(instruction), *self("answer:")]
        room = self(_ROOM)
        ids = [*head, *one, *tail, *two, *question, *room]
        second_at = len(head) + len(one) + len(tail)
        spans = range(len(head), len(head) + len(one)), range(second_at, second_at + len(two))
        words, marks = [-100] * len(ids), [-100] * len(ids)
        for span in spans:
            for place in span:
                words[place] = ids[place]
        start = (
            len(ids) - len(room) - 1
        )  # the colon after "answer", where the answer's first word is expected
        expected = [*self(task.answer), self(".")[0]]
        for k, token in enumerate(expected[: len(room) + 1]):
            words[start + k] = token
        answer = task.answer.split()
        replies = world.content_words(first), world.content_words(second)
        for k in range(len(answer) + 1):
            has = tuple(_agrees(reply, answer, k) for reply in replies)
            marks[start + k] = self(_MARKS[has[0], has[1]])[0]
        scores = rule_score(instruction, first), rule_score(instruction, second)
        marks[-3], marks[-2] = (self(_CLASSES[score])[0] for score in scores)
        verdict = 0.5 + 0.5 * ((scores[0] > scores[1]) - (scores[0] < scores[1]))
        return JudgeExample(ids, words, marks, spans[0], spans[1], verdict)


def _agrees(reply: Sequence[str], answer: Sequence[str], k: int) -> bool:
    """Whether a reply has the answer's word ``k``; after the last word, whether it ends there."""
    if k == len(answer):
        return len(reply) == len(answer)
    return k < len(reply) and reply[k] == answer[k]
