"""Reasoning and response: where a reply is divided, and what that means for answers and for verdicts."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignboard.judges.parsing.alpaca_eval_parsers import UpstreamRule
from alignboard.judges.parsing.marked_forms import (
    BracketRule,
    FiveWayRule,
    RatingRule,
    ScorePairRule,
)
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.parsing.reply_forms import parse
from alignboard.judges.parsing.spelled_forms import JsonRule
from alignboard.judges.rows import Reply, Token
from alignboard.models.reasoning import Parts, opens, split

BUGS = Path(os.environ.get("ALIGNBOARD_REAL", "missing")) / "bugs" / "08-judge-thinks"
ARENA = FiveWayRule(slight=1.0)
ARENA3 = FiveWayRule(slight=1.0, strong_weight=3)
FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "response", "reasoning"),
    [
        ("Blue.", "Blue.", ""),
        ("<think>hm</think>\n\nBlue.", "Blue.", "hm"),
        ("\n<think>\nhm\n</think>Blue.", "Blue.", "hm"),
        ("<think>a</think><think>b</think>Blue.", "Blue.", "a\n\nb"),
        ("<think></think>\n\nBlue.", "Blue.", "…"),
        ("<think>hm hm", "", "hm hm"),
        ("hm\n</think>\n\nBlue.", "Blue.", "hm"),
        ("<think>a <think> b</think> c</think>Blue.", "Blue.", "a <think> b\n\nc"),
        ("[THINK]hm[/THINK]Blue.", "Blue.", "hm"),
        ("◁think▷hm◁/think▷Blue.", "Blue.", "hm"),
        (f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant{FINAL}Blue.", "Blue.", "hm"),
        (f"hm<|end|><|start|>assistant{FINAL}Blue.<|return|>", "Blue.", "hm"),
        ("<|channel|>analysis<|message|>hm hm", "", "hm hm"),
        ("analysisWe need a colour.assistantfinalBlue.", "Blue.", "We need a colour."),
        # Quotes beside a mark that are not around it.
        ('<think>He said "hi"</think>Blue.', "Blue.", 'He said "hi"'),
        ('<think>hm</think>"Blue" is it.', '"Blue" is it.', "hm"),
        ("<think>x = `a`</think>`Blue`", "`Blue`", "x = `a`"),
        ("<think>the mark `</think>` ends it</think>Blue.", "Blue.", "the mark `</think>` ends it"),
        # A closing mark alone, on no line of its own.
        ("So it is blue.</think>Blue.", "Blue.", "So it is blue."),
        ("So it is blue. </think> Blue.", "Blue.", "So it is blue."),
        ("</think>Blue.", "Blue.", "…"),
        # Tags of a longer name, and marks that are no pair of tags.
        ("<mm:think>hm</mm:think>Blue.", "Blue.", "hm"),
        ("</mm:think>\n\nBlue.", "Blue.", "…"),
        ("<mm:think>hm hm", "", "hm hm"),
        ("<longcat_think>hm</longcat_think>\nBlue.", "Blue.", "hm"),
        ("<think:fast>hm</think:fast>Blue.", "Blue.", "hm"),
        ("hm\n</think:opensource>\nBlue.", "Blue.", "hm"),
        (
            "A <rethink> and </rethink> are no marks.",
            "A <rethink> and </rethink> are no marks.",
            "",
        ),
        (
            "<|think|>hm<|end|><|begin|>assistant<|content|>Blue.",
            "Blue.",
            "hm<|end|><|begin|>assistant",
        ),
        ("Here are my reasoning steps:\nhm\n[BEGIN FINAL RESPONSE]\nBlue.", "Blue.", "hm"),
        (
            "Here are my reasoning steps:\nhm\n[BEGIN FINAL RESPONSE]\nBlue.\n[END FINAL RESPONSE]",
            *("Blue.", "hm"),
        ),
        ("Here are my reasoning steps:\nhm", "", "hm"),
        # Other spellings of the same.
        ("<|channel>thought\nhm<channel|>Blue.", "Blue.", "hm"),
        ("<unused94>thought\nhm<unused95>Blue.", "Blue.", "hm"),
        ("Here is my thought process: hm\nHere is my response: Blue.", "Blue.", "hm"),
        ("analysisWe need a colour, say", "", "We need a colour, say"),
        # Texts about such marks.
        ("Write it last. </think> closes the block.", None, ""),
        ('x = ["<think>", "</think>"]', None, ""),
        ("analysisResults = run()", None, ""),
        ("Close the block with </think>, then go on.", None, ""),
        ("Write `<think>` first.", None, ""),
        ("```xml\n<think>hm</think>\n```", None, ""),
        ("The form is:\n<reasoning>why</reasoning>", None, ""),
        ("analysis of the sample, by an assistant", None, ""),
    ],
)
def test_an_answer_is_divided(text, response, reasoning):
    assert split(text) == Parts(text if response is None else response, reasoning)


def test_a_block_that_the_template_has_opened():
    assert opens("<|assistant|>\n<think>\n")
    assert opens("<|start|>assistant<|channel|>analysis<|message|>")
    assert not opens("<think>\n\n</think>\n\n")
    assert opens("]~b]ai\n<mm:think>")
    assert not opens("]~b]ai\n</mm:think>")
    assert opens("<|begin_assistant|>\nHere are my reasoning steps:\n")
    assert split("hm hm", opened=True) == Parts("", "hm hm")
    assert split("hm</think>Blue.", opened=True) == Parts("Blue.", "hm")


@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<|channel|>",
                "final",
                "<|message|>",
                "<|end|>",
                "a",
                "`",
                "\n",
            ]
        ),
        max_size=12,
    ).map("".join),
    st.booleans(),
    st.booleans(),
)
def test_a_response_divided_stays_part_of_the_text(text, opened, judging):
    parts = split(text, opened=opened, judging=judging)
    assert judging or parts.response in text
    assert len(parts.response) <= len(text)
    if not parts.reasoning:
        assert parts.response == text


def test_hostile_replies_cost_time_in_proportion():
    started = time.perf_counter()
    for piece in (
        "<think>",
        "</think>",
        "`</think>",
        "<|channel|>",
        "analysis x",
        "<think>\n",
        "\n",
    ):
        split(piece * 20_000, judging=True)
        parse(RatingRule(), Reply(piece * 20_000))
        parse(ARENA, Reply(piece * 20_000))
    assert time.perf_counter() - started < 20


# Verdicts.


def meaning(rule, text, finish: Any = "stop", **more):
    [verdict] = parse(rule, Reply(text, finish=finish, **more))
    return verdict.status, verdict.preference if verdict.score is None else verdict.score


@pytest.mark.parametrize(
    ("rule", "text", "finish", "wanted"),
    [
        (BracketRule(), "<think>[[A]]?</think>B is right.\n\n[[B]]", "stop", 2),
        (BracketRule(), "<think>[[A]] or [[B]]</think>B is better.", "stop", "unparsed"),
        (BracketRule(), "<think>[[A]] or [[B]]", "length", "truncated"),
        (BracketRule(), "<think>[[A]] or [[B]]", "stop", "truncated"),
        (BracketRule(), "Well. <think>[[A]]</think>Neither.", "stop", "unparsed"),
        (BracketRule(), "<reasoning>[[A]]</reasoning>[[B]]", "stop", 2),
        (BracketRule(), "So [[A]]? But wait", "length", "truncated"),
        (BracketRule(), "I have to end with [[A]]", "length", "truncated"),
        (BracketRule(), "A errs.\n[[B]]\n", "length", 2),
        (BracketRule(), r"\[\[B\]\]", "stop", 2),
        (BracketRule(), "[[Tie]]", "stop", 1.5),
        (BracketRule(), "[[draw]]", "stop", 1.5),
        (BracketRule(), "[[Assistant A]]", "stop", 1),
        (BracketRule(), "[[Response B]]", "stop", 2),
        (BracketRule(), "【【B】】", "stop", 2),
        (BracketRule(), '<think>so "B"</think>"[[B]]"', "stop", 2),
        (BracketRule(), "Final verdict: [B]", "stop", 2),
        (BracketRule(), "Verdict: option [B] of list [A] is the better one", "stop", "unparsed"),
        (BracketRule(), '"[[A]]" if A is better, "[[B]]" if B is, "[[C]]" for a tie', "stop", "unparsed"),
        (BracketRule(), "one of [[A]], [[B]] and [[C]]", "stop", "unparsed"),
        (BracketRule(), "[[B]], not [[A]]", "stop", 2),
        (BracketRule(), "[[A]] if I had to choose", "stop", 1),
        (BracketRule(), "It is neither [[A]] nor [[B]].", "stop", "unparsed"),
        (BracketRule(), "I choose [[B]] over [[A]].", "stop", 2),
        (BracketRule(), "[[B]] is better than [[A]].", "stop", 2),
        (BracketRule(), "Verdict: [[A]] or [[B]]", "stop", "unparsed"),
        (BracketRule(), "[[A]] if that counts more; otherwise [[B]].", "stop", "unparsed"),
        (BracketRule(), "[[B]]. Had style counted, I would have chosen [[A]].", "stop", 2),
        (BracketRule(), "Perhaps it could be [[A]].", "stop", 1),
        (BracketRule(), "<scratchpad>[[A]]?</scratchpad>No verdict.", "stop", "unparsed"),
        (BracketRule(), "[[B]] <explanation>Some might say [[A]].</explanation>", "stop", 2),
        (BracketRule(), "Style: [[A]]\nFacts: [[B]]\nOverall: [[C]]", "stop", 1.5),
        (ARENA3, "A much better: [[A>>B]]\nA better: [[A>B]]\nTie: [[A=B]]\nB better: [[B>A]]", "stop", "unparsed"),
        (RatingRule(), "Rating: [[7]] to [[8]]", "stop", "unparsed"),
        (RatingRule(), "[[6]]. A [[10]] would need sources.", "stop", 6),
        (ARENA, "[[A\u226bB]]", "stop", 1),
        (ARENA, "[[Assistant B>Assistant A]]", "stop", 2),
        (ARENA, r"[[A\>\>B]]", "stop", 1),
        (RatingRule(), "[[8]] rather than [[3]]", "stop", 8),
        (RatingRule(), "Sources:\n[1]\n[2]", "stop", "unparsed"),
        (BracketRule(), "[[Assistant C]] wins", "stop", 1.5),
        (ARENA, "My final verdict is: **A>B**", "stop", 1),
        (ARENA, "**B>>A**", "stop", 2),
        (ARENA, "if **A>B** held in line 3, then", "stop", "unparsed"),
        (ARENA, "the array [A>B] is a mask", "stop", "unparsed"),
        (ARENA, "[[A≈B]]", "stop", 1.5),
        (ARENA, "[[A&gt;&gt;B]]", "stop", 1),
        (ARENA, "My final verdict is: [[A>>B]] because", "length", "truncated"),
        (RatingRule(), "[[rating: 8]]", "stop", 8),
        (RatingRule(), "[[7,5]]", "stop", 7.5),
        (RatingRule(), "sources [1] and [3].\n\n**Rating:** 9/10", "stop", 9),
        (RatingRule(), "returns [4].\nRating: [2]", "stop", 2),
        (RatingRule(), "[[7-8]]", "stop", "unparsed"),
        (RatingRule(), "Rating: 7-8", "stop", "unparsed"),
        (RatingRule(), "lists [1], [2] and", "length", "truncated"),
        (RatingRule(), "A rating of 5 is mediocre, and", "stop", "unparsed"),
        (ScorePairRule(), "8 7\nAssistant 1 is", "length", 1),
        (JsonRule("best", ["A"], ["B"]), '{"best": "A", "why": "it', "length", "truncated"),
        (JsonRule("best", ["A"], ["B"]), '{"best": "A"}', "length", 1),
        (UpstreamRule("regex_parser", {"outputs_to_match": {1: "(a)"}}), "(a) if", "length", "truncated"),
    ],
)  # fmt: skip
def test_only_the_response_holds_a_verdict(rule, text, finish, wanted):
    status, value = meaning(rule, text, finish)
    assert (status, value) == ((wanted, None) if isinstance(wanted, str) else ("scored", wanted))


def test_reasoning_that_came_apart_is_no_verdict():
    assert meaning(BracketRule(), "", reasoning="so [[A]]") == ("truncated", None)
    assert meaning(BracketRule(), "[[B]]", reasoning="so [[A]]") == ("scored", 2)


def test_the_first_token_of_the_response_decides():
    top = (("m", math.log(0.9)), ("M", math.log(0.1)))
    told = [Token("<think>", 0.0), Token("M", 0.0), Token("</think>", 0.0), Token("\n\n", 0.0)]
    said = Reply("<think>M</think>\n\nm", (*told, Token("m", -0.1, top)))
    [verdict] = parse(LogprobRule(["m"], ["M"]), said)
    assert verdict.preference == pytest.approx(1.1)
    cut = Reply("<think>M", tuple(told[:2]), finish="length")
    assert parse(LogprobRule(["m"], ["M"]), cut)[0].status == "truncated"


@pytest.mark.skipif(not BUGS.is_dir(), reason="ALIGNBOARD_REAL has no bugs/08-judge-thinks")
@pytest.mark.parametrize(
    ("name", "rule"), [("replies", BracketRule()), ("five", ARENA), ("rating", RatingRule())]
)
def test_reported_replies_mean_what_their_reporters_say(name, rule):
    found = importlib.util.spec_from_file_location(name, BUGS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert len(module.R) > 5
    wrong = [
        (case, value)
        for case, text, finish, wanted in module.R
        if (value := meaning(rule, text, finish)[1]) != wanted
    ]
    assert wrong == []
