"""The words of the demo's instruction world: its facts, its styles and the phrasings of its questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Facts. Every word is one token, and no word occurs twice with two meanings.
NOUN_FACTS: Final[Mapping[str, tuple[str, str, str]]] = {  # word -> (kind, french, german)
    "dog": ("animal", "chien", "hund"),
    "cat": ("animal", "chat", "katze"),
    "horse": ("animal", "cheval", "pferd"),
    "bird": ("animal", "oiseau", "vogel"),
    "fish": ("animal", "poisson", "fisch"),
    "cow": ("animal", "vache", "kuh"),
    "apple": ("fruit", "pomme", "apfel"),
    "pear": ("fruit", "poire", "birne"),
    "cherry": ("fruit", "cerise", "kirsche"),
    "grape": ("fruit", "raisin", "traube"),
    "plum": ("fruit", "prune", "pflaume"),
    "lemon": ("fruit", "citron", "zitrone"),
    "spoon": ("tool", "cuillere", "loeffel"),
    "saw": ("tool", "scie", "saege"),
    "knife": ("tool", "couteau", "messer"),
    "needle": ("tool", "aiguille", "nadel"),
    "shovel": ("tool", "pelle", "schaufel"),
    "key": ("tool", "cle", "schluessel"),
    "coat": ("garment", "manteau", "mantel"),
    "hat": ("garment", "chapeau", "hut"),
    "shoe": ("garment", "chaussure", "schuh"),
    "shirt": ("garment", "chemise", "hemd"),
    "skirt": ("garment", "jupe", "rock"),
    "glove": ("garment", "gant", "handschuh"),
}
NOUNS: Final = tuple(NOUN_FACTS)
KINDS: Final = ("animal", "fruit", "tool", "garment")
OPPOSITE_PAIRS: Final = (
    ("hot", "cold"),
    ("big", "small"),
    ("old", "new"),
    ("wet", "dry"),
    ("fast", "slow"),
    ("hard", "soft"),
    ("light", "dark"),
    ("rich", "poor"),
    ("loud", "quiet"),
    ("full", "empty"),
    ("high", "low"),
    ("thick", "thin"),
)
OPPOSITES: Final[Mapping[str, str]] = {
    a: b for pair in OPPOSITE_PAIRS for a, b in (pair, pair[::-1])
}
CYCLES: Final = (
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("spring", "summer", "autumn", "winter"),
    (
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
)
AFTER: Final[Mapping[str, str]] = {
    word: c[(i + 1) % len(c)] for c in CYCLES for i, word in enumerate(c)
}

# Style. No filler word is ever part of an answer, so filler can be told from content. Openers are of one length (four
# tokens): a model of two layers finds the words it was asked about by their distance, and would otherwise spend its
# short training on learning how long each opener is.
OPENERS: Final = ("that is easy:", "what a question!", "happy to help:", "let me think:")
CLOSERS: Final = (
    "i hope that this helps you a lot!",
    "please ask me again at any time you like.",
    "thank you so much for asking me this.",
)
PUNCTUATION: Final = frozenset(".,!?:")
# Words around a question: the corpus's and the chat template's tags, and those of a judge's prompt and verdict.
FRAME_WORDS: Final = (
    *("question", "answer", "user", "assistant", "system"),
    *("judge", "which", "response", "is", "better", "first", "second", "output", "both"),
)


@dataclass(frozen=True)
class QuestionFamily:
    """One kind of question. Templates hold `{a}`, `{b}`, `{c}` for the content words and `{o}` for the option."""

    name: str
    n_words: int
    words: tuple[str, ...]
    options: tuple[str, ...]
    templates: tuple[str, ...]


FAMILIES: Final[Mapping[str, QuestionFamily]] = {
    f.name: f
    for f in (
        QuestionFamily(
            "repeat", 2, NOUNS, ("",), ("repeat these words: {a} {b}.", "say once more: {a} {b}.")
        ),
        QuestionFamily(
            "reverse",
            2,
            NOUNS,
            ("",),
            ("reverse the order of: {a} {b}.", "swap these two: {a} {b}."),
        ),
        QuestionFamily(
            "position",
            3,
            NOUNS,
            ("first", "last"),
            ("the {o} word of: {a} {b} {c}.", "take the {o}: {a} {b} {c}."),
        ),
        QuestionFamily(
            "translate",
            2,
            NOUNS,
            ("french", "german"),
            ("translate into {o}: {a} {b}.", "how in {o}: {a} {b}."),
        ),
        QuestionFamily(
            "opposite",
            2,
            tuple(OPPOSITES),
            ("",),
            ("give the opposites: {a} {b}.", "the contrary of: {a} {b}."),
        ),
        QuestionFamily(
            "kind",
            2,
            NOUNS,
            ("",),
            ("what kinds of things are: {a} {b}.", "name each kind: {a} {b}."),
        ),
        QuestionFamily(
            "next",
            2,
            tuple(AFTER),
            ("",),
            ("what comes right after: {a} {b}.", "move one on from: {a} {b}."),
        ),
        QuestionFamily(
            "pick",
            3,
            NOUNS,
            KINDS,
            ("which one is the {o}: {a} {b} {c}.", "find the {o}: {a} {b} {c}."),
        ),
    )
}
