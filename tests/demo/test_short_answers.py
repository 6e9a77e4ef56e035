"""The short answers: what is right, what is preferred, which third is held out, and the rule as a judge."""

import pytest

from alignboard.data.instruction_sets import load_set
from alignboard.demo.short_answers import MAX_WORDS, SHORT_ANSWERS
from alignboard.errors import InputError
from alignboard.judges.load import load_judge
from alignboard.judges.opening import Opening
from alignboard.judges.pairs import Pair
from alignboard.judges.runner import Judge, judge_pairs

CAPITAL = "What is the capital of France?"


@pytest.mark.parametrize(
    ("question", "reply", "right", "preferred"),
    [
        (CAPITAL, "Paris.", True, True),
        (CAPITAL, "The capital of France is Paris.", True, True),
        (CAPITAL, f"It is Paris, {'which is lovely ' * 3}", True, False),
        (CAPITAL, "Paris, London or Rome.", False, False),
        (CAPITAL, "Parisian", False, False),
        (CAPITAL, "", False, False),
        ("What is the opposite of 'hot'?", "The opposite of hot is cold.", True, True),
        ("What is the opposite of 'hot'?", "warm", False, False),
        ("What is the chemical symbol of carbon?", "c", False, False),
        ("What is the chemical symbol of carbon?", "C", True, True),
        ("On which continent is Brazil?", "South America", True, True),
        ("On which continent is Brazil?", "North America", False, False),
    ],
)
def test_a_reply_is_right_and_preferred_where_it_is_short(question, reply, right, preferred):
    assert SHORT_ANSWERS.check(question, reply) is right
    assert SHORT_ANSWERS.score(question, reply) == preferred


def test_a_third_is_held_out_and_every_own_answer_is_preferred():
    held_out = load_set("short-answers")
    trained = SHORT_ANSWERS.demonstrations(257, 0)
    asked = {row["prompt"][0]["content"] for row in trained}
    evaluated = {text for (text,) in (row.turns for row in held_out.rows)}
    assert (len(asked), len(evaluated)) == (257, 126)
    assert not asked & evaluated
    assert all(
        SHORT_ANSWERS.score(row["prompt"][0]["content"], row["completion"][0]["content"]) == 1
        for row in trained
    )
    assert SHORT_ANSWERS.prompts("eval", 9, 0) != SHORT_ANSWERS.prompts("eval", 9, 1)
    with pytest.raises(InputError, match="has 126 questions of eval, and 500 were asked for"):
        SHORT_ANSWERS.prompts("eval", 500, 0)


def test_the_rule_judges_what_it_knows():
    declared = load_judge("short-answers-rule")
    judge = Judge(declared, declared.open(Opening()))
    long = "Paris " * (MAX_WORDS + 1)
    pairs = [
        Pair(CAPITAL, long, "a", "Paris.", "b"),
        Pair(CAPITAL, "Paris", "a", "It is Paris.", "b"),
        Pair("What is love?", "a", "x", "b", "y"),
    ]
    won, drawn, unknown = judge_pairs(judge, pairs)
    assert (won.preference, drawn.preference) == (2.0, 1.5)
    assert unknown.preference is None
