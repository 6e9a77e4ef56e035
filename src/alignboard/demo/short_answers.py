"""Short answers: 383 questions that have one known short answer, for pretrained models. Pure Python.

A response is right where it names the answer and no other answer of the same kind; for opposites and verbs, whose
answers are everyday words, naming the answer is enough. The rule of preference pairs (`score`) wants a response that is
right and has at most eight words. Every third question of a kind is held out (`eval`); the others are for `preference`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from alignboard.errors import InputError

MAX_WORDS: Final = 8
"""of a response that is preferred"""


@dataclass(frozen=True)
class _Kind:
    """Questions of one form."""

    question: str
    answers: str
    """``asked answer, asked answer, ...``; an underscore is a space"""
    names: bool = True
    """whether the answers are names, so that another one in a response makes it wrong"""


_KINDS: Final = (
    _Kind(
        "What is the capital of {}?",
        "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Portugal Lisbon, Austria Vienna, Hungary Budapest, "
        "Poland Warsaw, Greece Athens, Turkey Ankara, Egypt Cairo, Japan Tokyo, China Beijing, Russia Moscow, "
        "Sweden Stockholm, Norway Oslo, Finland Helsinki, Denmark Copenhagen, Ireland Dublin, England London, "
        "Scotland Edinburgh, Belgium Brussels, Netherlands Amsterdam, Romania Bucharest, Bulgaria Sofia, Serbia "
        "Belgrade, Croatia Zagreb, Slovenia Ljubljana, Slovakia Bratislava, Ukraine Kyiv, Estonia Tallinn, Latvia "
        "Riga, Lithuania Vilnius, Albania Tirana, Cyprus Nicosia, Malta Valletta, Iceland Reykjavik, Canada Ottawa, "
        "Cuba Havana, Jamaica Kingston, Peru Lima, Chile Santiago, Colombia Bogota, Ecuador Quito, Venezuela Caracas, "
        "Uruguay Montevideo, Paraguay Asuncion, Argentina Buenos_Aires, Brazil Brasilia, Kenya Nairobi, Ghana Accra, "
        "Nigeria Abuja, Senegal Dakar, Ethiopia Addis_Ababa, Uganda Kampala, Rwanda Kigali, Zambia Lusaka, Zimbabwe "
        "Harare, Angola Luanda, Namibia Windhoek, Botswana Gaborone, Morocco Rabat, Tunisia Tunis, Libya Tripoli, "
        "Sudan Khartoum, Somalia Mogadishu, Mali Bamako, Israel Jerusalem, Lebanon Beirut, Syria Damascus, Jordan "
        "Amman, Iraq Baghdad, Iran Tehran, Qatar Doha, Oman Muscat, Yemen Sanaa, Afghanistan Kabul, Pakistan "
        "Islamabad, India New_Delhi, Nepal Kathmandu, Bhutan Thimphu, Bangladesh Dhaka, Thailand Bangkok, Vietnam "
        "Hanoi, Cambodia Phnom_Penh, Laos Vientiane, Malaysia Kuala_Lumpur, Indonesia Jakarta, Philippines Manila, "
        "Mongolia Ulaanbaatar, Australia Canberra, New_Zealand Wellington, Fiji Suva, Armenia Yerevan, Georgia "
        "Tbilisi, Azerbaijan Baku, Saudi_Arabia Riyadh, South_Korea Seoul, Switzerland Bern, Haiti Port-au-Prince, "
        "Honduras Tegucigalpa, Nicaragua Managua, Costa_Rica San_Jose, Bolivia La_Paz",
    ),
    _Kind(
        "What is the opposite of '{}'?",
        "hot cold, big small, tall short, fast slow, happy sad, light dark, old new, rich poor, hard soft, wet dry, "
        "full empty, open closed, strong weak, early late, high low, thick thin, heavy light, loud quiet, clean "
        "dirty, sweet sour, good bad, long short, near far, wide narrow, deep shallow, sharp dull, rough smooth, up "
        "down, left right, in out, on off, front back, top bottom, first last, inside outside, above below, over "
        "under, before after, always never, everything nothing, day night, summer winter, north south, east west, "
        "black white, love hate, war peace, life death, friend enemy, win lose, buy sell, push pull, start stop, "
        "begin end, give take, laugh cry, arrive depart, increase decrease, remember forget, accept reject, ask "
        "answer, lend borrow, attack defend, float sink, build destroy, create destroy, enter exit, expand contract, "
        "freeze melt, teach learn, true false, right wrong, young old, alive dead, awake asleep, brave cowardly, "
        "cheap expensive, common rare, correct incorrect, cruel kind, easy difficult, guilty innocent, male female, "
        "maximum minimum, modern ancient, possible impossible, public private, safe dangerous, simple complex, "
        "success failure, tight loose, victory defeat, visible invisible, positive negative, major minor, odd even, "
        "internal external, vertical horizontal, optimist pessimist, import export",
        names=False,
    ),
    _Kind(
        "What is the past tense of the verb '{}'?",
        "go went, eat ate, see saw, take took, give gave, come came, run ran, write wrote, speak spoke, break broke, "
        "drive drove, ride rode, rise rose, choose chose, freeze froze, steal stole, wake woke, wear wore, tear tore, "
        "swear swore, bear bore, drink drank, sing sang, ring rang, swim swam, sink sank, begin began, sit sat, find "
        "found, think thought, bring brought, buy bought, catch caught, teach taught, fight fought, seek sought, "
        "sleep slept, keep kept, feel felt, leave left, meet met, send sent, spend spent, build built, lend lent, "
        "lose lost, tell told, sell sold, hold held, stand stood, understand understood, know knew, grow grew, throw "
        "threw, blow blew, fly flew, draw drew, fall fell, forget forgot, get got, win won, dig dug, shoot shot, "
        "lead led, feed fed, hear heard, make made, say said, pay paid, hide hid, bite bit, shake shook, become became",
        names=False,
    ),
    _Kind(
        "What is the chemical symbol of {}?",
        "hydrogen H, helium He, lithium Li, carbon C, nitrogen N, oxygen O, fluorine F, neon Ne, sodium Na, magnesium "
        "Mg, aluminum Al, silicon Si, phosphorus P, sulfur S, chlorine Cl, argon Ar, potassium K, calcium Ca, "
        "titanium Ti, chromium Cr, manganese Mn, iron Fe, cobalt Co, nickel Ni, copper Cu, zinc Zn, bromine Br, "
        "silver Ag, tin Sn, gold Au, mercury Hg, lead Pb, uranium U, platinum Pt",
    ),
    _Kind(
        "What is the plural of '{}'?",
        "child children, man men, woman women, foot feet, tooth teeth, goose geese, mouse mice, ox oxen, person "
        "people, leaf leaves, knife knives, wife wives, life lives, wolf wolves, shelf shelves, loaf loaves, half "
        "halves, city cities, baby babies, story stories, party parties, country countries, box boxes, church "
        "churches, bus buses, dish dishes, tomato tomatoes, potato potatoes, hero heroes, cactus cacti, crisis "
        "crises, analysis analyses, criterion criteria, phenomenon phenomena, medium media, index indices",
    ),
    _Kind(
        "On which continent is {}?",
        "Brazil South_America, Kenya Africa, Japan Asia, France Europe, Canada North_America, Egypt Africa, India "
        "Asia, Peru South_America, Sweden Europe, Mexico North_America, Nigeria Africa, Vietnam Asia, Poland Europe, "
        "Chile South_America, Morocco Africa, Mongolia Asia, Portugal Europe, Cuba North_America, Ghana Africa, "
        "Thailand Asia, Norway Europe, Bolivia South_America, Ethiopia Africa, Nepal Asia, Greece Europe, Colombia "
        "South_America, Tanzania Africa, Iraq Asia, Ireland Europe, Panama North_America, Senegal Africa, Laos Asia, "
        "Austria Europe, Uruguay South_America, Angola Africa, Pakistan Asia",
    ),
)


@dataclass(frozen=True)
class _Question:
    answer: str
    others: frozenset[str]
    """the answers that make a response wrong"""
    split: str


@cache
def _questions() -> dict[str, _Question]:
    """Every question by its text, kind by kind."""
    found = {}
    for kind in _KINDS:
        entries = [entry.strip().replace("_", " ~") for entry in kind.answers.split(",")]
        pairs = [_pair(entry) for entry in entries]
        answers = {answer for _, answer in pairs}
        for number, (asked, answer) in enumerate(pairs):
            others = frozenset(answers - {answer}) if kind.names else frozenset[str]()
            split = "eval" if number % 3 == 2 else "preference"
            found[kind.question.format(asked)] = _Question(answer, others, split)
    return found


def _pair(entry: str) -> tuple[str, str]:
    """``New ~Zealand Wellington`` as (``New Zealand``, ``Wellington``)."""
    asked, answer = re.split(r" (?!~)", entry, maxsplit=1)
    return asked.replace(" ~", " "), answer.replace(" ~", " ")


def _names(output: str, answer: str) -> bool:
    """Whether ``output`` has ``answer`` as words of its own; symbols of one or two letters keep their case."""
    flags = re.IGNORECASE if len(answer) > 2 else 0
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", output, flags) is not None


class ShortAnswers:
    """The questions as a generated set (`alignboard.data.generated.GeneratedSet`)."""

    splits: tuple[str, ...] = ("preference", "eval")

    def prompts(self, split: str, n: int, seed: int) -> list[str]:
        """``n`` questions of a split in an order drawn by the seed."""
        known = [text for text, one in _questions().items() if one.split == split]
        if n > len(known):
            raise InputError(
                f"short-answers has {len(known)} questions of {split}, and {n} were asked for."
            )
        random.Random(f"short answers|{split}|{seed}").shuffle(known)
        return known[:n]

    def check(self, instruction: str, output: str) -> bool:
        """Whether ``output`` names the answer, and no other one where answers are names."""
        one = _questions()[instruction]
        asked = {other for other in one.others if _names(instruction, other)}
        named = any(
            _names(output, other) for other in one.others - asked if other not in one.answer
        )
        return _names(output, one.answer) and not named

    def score(self, instruction: str, output: str) -> float:
        """1 for a right response of at most eight words, else 0."""
        return float(len(output.split()) <= MAX_WORDS and self.check(instruction, output))

    def demonstrations(self, n: int, seed: int) -> list[dict[str, Any]]:
        """Questions of the split ``preference`` with their answers alone."""
        return [
            {
                "prompt": [{"role": "user", "content": text}],
                "completion": [{"role": "assistant", "content": f"{_questions()[text].answer}."}],
            }
            for text in self.prompts("preference", n, seed)
        ]


SHORT_ANSWERS: Final = ShortAnswers()
