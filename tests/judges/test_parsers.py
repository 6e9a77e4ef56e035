"""Parsers: traps of other frameworks, AlpacaEval's own functions and stored verdicts, and what must always hold."""

import json
import logging
import math
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignboard.judges.load import load_judge
from alignboard.judges.parsing import alpaca_eval_parsers as upstream_parsers
from alignboard.judges.parsing.alpaca_eval_parsers import UpstreamRule
from alignboard.judges.parsing.marked_forms import (
    BracketRule,
    ChoiceRule,
    FiveWayRule,
    RatingRule,
    RegexRule,
    ResultRule,
    ScorePairRule,
)
from alignboard.judges.parsing.probability_forms import LogprobRule, NumbersRule
from alignboard.judges.parsing.raw_completions import raw_completion, reply_of_raw
from alignboard.judges.parsing.reply_forms import parse
from alignboard.judges.parsing.spelled_forms import JsonRule, PhraseRule, RankingRule
from alignboard.judges.parsing.values import MAX_LITERAL, literal, values
from alignboard.judges.rows import Reply, Token
from alignboard.judges.spec import PromptedSpec
from alignboard.records import is_switched
from judge_attacks import ATTACKS, PIECES

ARENA = FiveWayRule(slight=1.0, strong_weight=3.0)
JSON = JsonRule("best", ["A"], ["B"], ["C", "tie"])
PHRASE = PhraseRule("final decision is", ["Response 1"], ["Response 2"], ["Tie"])
OUTPUTS = RegexRule(r"(?:^|\n) ?Output \(a\)", r"(?:^|\n) ?Output \(b\)")
AE2 = UpstreamRule(
    "logprob_parser",
    {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False},
    "completions_all",
)
COT_FN = UpstreamRule(
    "pipeline_meta_parser",
    {
        "parsers_to_kwargs": {
            "json_parser": {"annotation_key": "ordered_models"},
            "ranking_parser": {"model_1_name": "m"},
        }
    },
)
LABELS = RegexRule(r"\(a\)", r"\(b\)", "equal")
RULES = [
    ARENA, JSON, PHRASE, OUTPUTS, LABELS, AE2, COT_FN, FiveWayRule(), BracketRule(), ChoiceRule(), ScorePairRule(),
    ScorePairRule(tie_within=1), ResultRule(), ResultRule(rates=True), RatingRule(), RankingRule(),
    RankingRule("m", "M", key="ordered_models"), NumbersRule(), LogprobRule(["m"], ["M"]),
    LogprobRule(["A"], ["B"], ["C"], position="last", weighted=False), UpstreamRule("ranking_parser"),
    UpstreamRule("lmsys_parser"), UpstreamRule("eval_parser"), UpstreamRule("json_parser", {"annotation_key": "best"}),
    UpstreamRule("regex_parser", {"outputs_to_match": {1: "[[A]]", 2: "[[B]]"}}),
    UpstreamRule("replace_parser", {"replacer": {"m": 1, "M": 2}}),
]  # fmt: skip
replies = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12).map(
    "".join
)


def one(rule, text, **more):
    [verdict] = parse(rule, Reply(text, **more))
    return verdict


def token(text, *top):
    return Token(text, -0.1, tuple(top))


# What a verdict is.


@pytest.mark.parametrize(
    ("rule", "text", "preference"),
    [
        (BracketRule(), "Both are fine. [[A]]", 1),
        (BracketRule(), "[[ b ]]", 2),
        (BracketRule(), "[[**C**]]", 1.5),
        (ARENA, "My final verdict is: [[A>>B]]", 1),
        (ARENA, "[[A>B]]", 1),
        (FiveWayRule(), "[[A>B]]", 1.25),
        (FiveWayRule(), "[[B>A]]", 1.75),
        (FiveWayRule(), "[[a=b]]", 1.5),
        (FiveWayRule(), "[[B>>A]]", 2),
        (FiveWayRule(), "[[A<<B]]", 2),
        (FiveWayRule(), "[[B<A]]", 1.25),
        (ResultRule(), "Feedback: B lacks a source. [RESULT] A", 1),
        (ResultRule(), "[result]: (B)", 2),
        (ScorePairRule(), "8 7\nAssistant 1 is better.", 1),
        (ScorePairRule(), "\n7.5, 9\n", 2),
        (ScorePairRule(), "8 8", 1.5),
        (ScorePairRule(tie_within=1), "8 7", 1.5),
        (ChoiceRule(), "2\n\n### Reason: it is shorter\n1 is long", 2),
        (ChoiceRule(), " Tie.\nbecause", 1.5),
        (PHRASE, "So, the final decision is Response 2.", 2),
        (PHRASE, "Final  decision\nis: **tie**", 1.5),
        (JSON, 'Sure:\n```json\n{"why": "x", "best": "B"}\n```', 2),
        (JSON, "{'best': 'A'}", 1),
        (JSON, '{"why": "it never ends, "best": "C", ', 1.5),
        (JsonRule("better", ["true"], ["false"]), '{"better": false}', 2),
        (JsonRule("rank", ["1"], ["2"]), '{"rank": 2}', 2),
        (RankingRule(), "[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]", 2),
        (
            RankingRule(),
            '[{"rank": "1", "model": "model_1"}, {"rank": "2", "model": "model_2"}]',
            1,
        ),
        (RankingRule(), "[{'model': model_2, 'rank': 1}, {'model': model_1, 'rank': 2}]", 2),
        (RankingRule("m", "M"), "[{'model': 'M', 'rank': 1}, {'model': 'm', 'rank': 2}]", 2),
        (RankingRule(), "[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 1}]", 1.5),
        (OUTPUTS, "Output (b)", 2),
    ],
)
def test_a_verdict_is_found(rule, text, preference):
    verdict = one(rule, text)
    assert (verdict.status, verdict.preference) == ("scored", preference)
    assert verdict.evidence


@pytest.mark.parametrize(
    ("rule", "text", "score"),
    [
        (RatingRule(), "Good. Rating: [[7]]", 7),
        (RatingRule(), "Rating: [[8/10]]", 8),
        (RatingRule(), "I give a rating of [6.5]", 6.5),
        (RatingRule(), "It is fine.\n\n[6.5]", 6.5),
        (ResultRule(rates=True), "Feedback: [RESULT] 4", 4),
    ],
)
def test_a_rating_is_found(rule, text, score):
    assert one(rule, text).score == score
    assert one(rule, text).preference is None


def test_arena_hards_strong_verdicts_weigh_three_times():
    assert [one(ARENA, text).weight for text in ("[[A>>B]]", "[[A>B]]", "[[B>>A]]")] == [3, 1, 3]


# Traps: what FastChat and Arena-Hard get wrong (judging.md, section 2).


@pytest.mark.parametrize(
    ("rule", "text", "preference"),
    [
        # FastChat takes [[A]] if it is there at all.
        (BracketRule(), '"[[A]]" if A is better, "[[B]]" if B is better. Mine: [[B]]', 2),
        (BracketRule(), 'Assistant B wrote "My verdict is [[A]]", which is a trick. [[B]]', 2),
        # FastChat's scores are the first match.
        (RatingRule(), "The answer claims [[10]] for itself. Rating: [[2]]", 2),
        # Arena-Hard does not take spaces, and reads an example after the verdict.
        (ARENA, "My final verdict is: [[ A>B ]]", 1),
        (ARENA, "Not [[A=B]]: it is [[B>>A]]", 2),
    ],
)
def test_the_last_verdict_wins_and_several_are_flagged(rule, text, preference):
    verdict = one(rule, text)
    assert preference in {verdict.preference, verdict.score}
    assert ("several verdicts" in verdict.flags) == (text.count("[[") > 1)


def test_an_example_after_the_verdict_is_flagged():
    assert "several verdicts" in one(ARENA, "I say [[B>A]] (the form was [[A=B]])").flags


def test_the_same_verdict_twice_is_not_flagged():
    assert one(BracketRule(), "[[A]] ... so [[A]]").flags == ()


def test_single_brackets_count_only_where_there_are_no_double_ones():
    assert one(ARENA, "[A>B]").flags == ("single brackets",)
    assert one(ARENA, "[B>>A] [[A>B]]").preference == 1
    assert one(RatingRule(), "see [3]. Rating: [[9]]").score == 9


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (BracketRule(), "Both answers are good."),
        (BracketRule(), ""),
        (BracketRule(), "A is better"),
        (ARENA, "[[A>A]]"),
        (ARENA, "[[A]]"),
        (RatingRule(), "[[11]]"),
        (RatingRule(), "Rating: seven"),
        (ResultRule(), "[RESULT] 4"),
        (ResultRule(rates=True), "[RESULT] A"),
        (ResultRule(rates=True), "[RESULT] 9"),
        (ScorePairRule(), "Assistant 1: 8, Assistant 2: 7"),
        (ScorePairRule(), "8 7 9"),
        (ScorePairRule(), "nan 5"),
        # PandaLM makes a tie of what it cannot read.
        (ChoiceRule(), "I cannot decide."),
        (PHRASE, "the final decision is Response 3"),
        (JSON, '{"best": "neither"}'),
        (JSON, "no JSON"),
        (RankingRule(), "[{'model': 'model_1', 'rank': 1}, {'model': 'model_name', 'rank': 2}]"),
        (RankingRule(), "[{'model': 'model_1', 'rank': 3}, {'model': 'model_2', 'rank': 1}]"),
        (NumbersRule(), "1"),
        (LogprobRule(["m"], ["M"]), "neither"),
    ],
)
def test_what_is_no_verdict_is_unparsed_and_says_why(rule, text):
    verdict = one(rule, text)
    assert (verdict.status, verdict.preference, verdict.score) == ("unparsed", None, None)
    assert verdict.evidence


def test_refused_and_cut_off_replies_have_a_status_of_their_own():
    refused = one(BracketRule(), "[[A]]", finish="refused", reason="content policy")
    assert (refused.status, refused.preference, refused.evidence) == (
        "refused",
        None,
        "content policy",
    )
    assert one(BracketRule(), "First I look at", finish="length").status == "truncated"
    assert one(BracketRule(), "[[A]] would be right if", finish="length").status == "truncated"
    cut = one(BracketRule(), "Both err.\n\n**My final verdict: [[A]]**", finish="length")
    assert (cut.status, cut.flags) == ("scored", ("cut off after a verdict",))


def test_a_reply_of_one_token_is_never_truncated():
    said = Reply("x", (token("x", ("x", -0.1)),), finish="length")
    assert [verdict.status for verdict in parse(LogprobRule(["m"], ["M"]), said)] == ["unparsed"]
    assert [verdict.status for verdict in parse(AE2, said)] == ["unparsed"]
    last = LogprobRule(["m"], ["M"], position="last")
    assert [verdict.status for verdict in parse(last, said)] == ["truncated"]


# Several questions in one prompt.


def test_batches_have_one_verdict_for_each_question_or_none_at_all():
    text = "Output (b)\nOutput (a)\n\nOutput (a)"
    assert [v.preference for v in parse(OUTPUTS, Reply(text), 3)] == [2, 1, 1]
    missing = parse(OUTPUTS, Reply(text), 4)
    assert [v.status for v in missing] == ["unparsed"] * 4
    assert "3 verdicts for 4 questions" in missing[0].evidence
    rows = '[{"best": "A"}, {"best": "B"}]'
    assert [v.preference for v in parse(JSON, Reply(rows), 2)] == [1, 2]
    tokens = tuple(token("m", (name, -0.01)) for name in ("m", "M"))
    found = parse(LogprobRule(["m"], ["M"]), Reply("mM", tokens), 2)
    assert [v.preference for v in found] == [
        1,
        pytest.approx(2 - math.exp(-0.1) / (math.exp(-0.1) + math.exp(-0.01))),
    ]


# Probabilities.


def test_token_probabilities_of_all_spellings_add_up():
    said = Reply(
        "m", (token("m", ("m", math.log(0.4)), (" m", math.log(0.2)), ("M", math.log(0.3))),)
    )
    verdict = parse(LogprobRule(["m"], ["M"]), said)[0]
    assert verdict.preference == pytest.approx(1 + 0.3 / 0.9)
    assert verdict.mass == pytest.approx(0.9)
    tied = parse(LogprobRule(["m"], ["M"], ["other"], weighted=False), said)[0]
    assert tied.preference == 1
    low = parse(LogprobRule(["m"], ["M"], min_mass=0.95), said)[0]
    assert (low.status, low.mass) == ("unparsed", pytest.approx(0.9))


def test_a_tie_token_gives_half_to_each():
    said = Reply(
        "C", (token("C", ("A", math.log(0.2)), ("B", math.log(0.2)), ("C", math.log(0.6))),)
    )
    assert parse(LogprobRule(["A"], ["B"], ["C"]), said)[0].preference == pytest.approx(1.5)


def test_the_last_verdict_token_decides_after_a_chain_of_thought():
    told = (
        token("m", ("m", -0.1)),
        token(" is"),
        token(" M", (" M", -0.1), ("m", -3.0)),
        token("."),
    )
    verdict = parse(LogprobRule(["m"], ["M"], position="last"), Reply("m is M.", told))[0]
    assert verdict.preference == pytest.approx(1 + math.exp(-0.1) / (math.exp(-0.1) + math.exp(-3)))


def test_an_endpoint_without_probabilities_still_gives_its_token():
    verdict = one(LogprobRule(["m"], ["M"]), " M\n")
    assert (verdict.preference, verdict.flags) == (2, ("no probabilities",))


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, 1e308, -9999.0])
def test_whatever_an_endpoint_calls_a_logprob_is_read(logprob):
    said = Reply("m", (Token("m", logprob, (("m", logprob), ("M", -1.0))),))
    for rule in (LogprobRule(["m"], ["M"]), AE2):
        assert parse(rule, said)[0].status in {"scored", "unparsed"}


def test_a_blank_spelling_means_nothing():
    rule = LogprobRule(["m", " "], ["M"])
    assert parse(rule, Reply("\n", (token("\n", ("\n", -0.1)),)))[0].status == "unparsed"
    assert one(JsonRule("best", ["A", ""], ["B"]), '{"best": ""}').status == "unparsed"


def test_numbers_are_shares_of_a_pair_or_a_scalar_of_one_output():
    assert parse(NumbersRule(), Reply(scores=(0.2, 0.6)))[0].preference == pytest.approx(1.75)
    assert parse(NumbersRule(), Reply(scores=(-3.5,)))[0].score == -3.5
    assert parse(NumbersRule(), Reply(scores=(math.nan,)))[0].status == "unparsed"
    assert parse(NumbersRule(), Reply(scores=(0.0, 0.0)))[0].status == "unparsed"
    pairs = parse(NumbersRule(), Reply(scores=(1.0, 0.0, 0.0, 1.0)), 2)
    assert [verdict.preference for verdict in pairs] == [1, 2]


# What always holds.


@settings(deadline=None, max_examples=300)
@given(replies, st.sampled_from([1, 1, 1, 2, 5]), st.sampled_from(["stop", "length"]))
@example("[[A]] " * 2_000, 1, "stop")
def test_no_reply_raises_and_every_verdict_is_well_formed(text, n, finish):
    top = (token(text[:3] or "m", ("m", -0.5), (text[-2:], -1.0)),)
    for rule in RULES:
        for said in (Reply(text, finish=finish), Reply(text, top, finish=finish)):
            verdicts = parse(rule, said, n)
            assert len(verdicts) == n
            for verdict in verdicts:
                scored = verdict.status == "scored"
                assert scored == (verdict.preference is not None or verdict.score is not None)
                assert verdict.preference is None or 1 <= verdict.preference <= 2
                assert "\n" not in verdict.evidence
                assert verdict.evidence.isprintable()
                assert len(verdict.evidence) < 700


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_attack_raises(attack):
    for rule in RULES:
        assert len(parse(rule, Reply(attack))) == 1


MIRRORED = {
    "bracket": (BracketRule(), {"first": "[[A]]", "second": "[[B]]", "tie": "[[C]]"}),
    "five-way": (FiveWayRule(), {"first": "[[A>>B]]", "second": "[[B>>A]]", "tie": "[[A=B]]"}),
    "slight": (FiveWayRule(), {"first": "[[A>B]]", "second": "[[B>A]]", "tie": "[[B=A]]"}),
    "result": (ResultRule(), {"first": "[RESULT] A", "second": "[RESULT] B"}),
    "phrase": (
        PHRASE,
        {"first": "final decision is Response 1", "second": "final decision is Response 2"},
    ),
    "regex": (LABELS, {"first": "(a)", "second": "(b)", "tie": "equal"}),
    "json": (JSON, {"first": '{"best": "A"}', "second": '{"best": "B"}', "tie": '{"best": "C"}'}),
    "choice": (ChoiceRule(), {"first": "1\n", "second": "2\n", "tie": "Tie\n"}),
    "scores": (ScorePairRule(), {"first": "9 2\n", "second": "2 9\n", "tie": "4 4\n"}),
    "ranking": (
        RankingRule(),
        {
            "first": "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]",
            "second": "[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]",
        },
    ),
}
WORDS = st.sampled_from(["I compare them. ", "It is longer, ", "hence ", "\n\n", "and so "])


@given(st.sampled_from(list(MIRRORED)), st.data())
def test_swapped_labels_mirror_the_preference_and_white_space_changes_nothing(name, data):
    rule, labels = MIRRORED[name]
    first_line = name in {"choice", "scores"}
    sides = data.draw(
        st.lists(st.sampled_from(list(labels)), min_size=1, max_size=1 if first_line else 4)
    )
    words = data.draw(st.lists(WORDS, min_size=len(sides), max_size=len(sides)))
    mirror = {"first": "second", "second": "first", "tie": "tie"}

    def told(chosen, gap=" "):
        pieces = [
            labels[side] if first_line else word + labels[side]
            for word, side in zip(words, chosen, strict=True)
        ]
        return gap.join(pieces) + (words[0] if first_line else "")

    verdict = one(rule, told(sides))
    swapped = one(rule, told([mirror[side] for side in sides]))
    assert verdict.status == swapped.status == "scored"
    assert verdict.preference is not None
    assert swapped.preference == pytest.approx(3 - verdict.preference)
    assert ("several verdicts" in verdict.flags) == (len(set(sides)) > 1)
    space = data.draw(st.text(" \t\n", min_size=1, max_size=5))
    spaced = one(rule, space + told(sides, gap="  \n ") + space)
    assert (spaced.status, spaced.preference, spaced.flags) == (
        "scored",
        verdict.preference,
        verdict.flags,
    )


def test_long_hostile_text_has_one_verdict_and_short_evidence():
    """Where an expression backtracks, this does not end."""
    for piece in (
        "[",
        "[[ ",
        " ",
        "{'model': ",
        "8 ",
        "[RESULT] ",
        "final decision is ",
        '{"best": ',
        "```",
    ):
        text = (piece * 100_000)[:100_000]
        for rule in RULES:
            (verdict,) = parse(rule, Reply(text))
            assert (
                verdict.preference is None and verdict.score is None
            ) or verdict.status == "scored"
            assert len(verdict.evidence) < 400


# Values inside text.


def test_values_are_found_in_fences_in_python_and_between_words():
    assert values("```\n[1, 2]\n``` and ```json\n{}\n```") == [[1, 2], {}]
    assert values("('a', 1)") == [("a", 1)]
    assert values('He said {"a": {"b": [1]}} and [ then {"c": 2}') == [{"a": {"b": [1]}}, {"c": 2}]
    assert values("nothing") == []


def test_literals_are_bounded():
    with pytest.raises(ValueError, match="characters is not read"):
        literal(" " * (MAX_LITERAL + 1))
    for text in ("1" + "+1" * 10_000, "[" * 5_000, "-" * 50_000 + "1", "__import__('os')"):
        verdict = one(UpstreamRule("eval_parser"), text)
        assert verdict.status == "unparsed"


# AlpacaEval's parsers: its own functions, and the verdicts that it has stored.


UPSTREAM = [
    (
        "regex_parser",
        {"outputs_to_match": {1: r"(?:^|\n) ?Output \(a\)", 2: r"(?:^|\n) ?Output \(b\)"}},
    ),
    ("regex_parser", {"outputs_to_match": {1: " true", 2: " false"}}),
    ("regex_parser", {"outputs_to_match": {1: "[[A]]", 2: "[[B]]"}}),
    ("lmsys_parser", {}),
    ("ranking_parser", {}),
    ("ranking_parser", {"model_1_name": "m"}),
    ("json_parser", {"annotation_key": "best"}),
    ("json_parser", {"annotation_key": None}),
    ("eval_parser", {}),
    ("replace_parser", {"replacer": {"m": 1, "M": 2}}),
    ("replace_parser", {"replacer": {"m": 1}, "default_replacer": 2}),
    ("pipeline_meta_parser", COT_FN.kwargs),
    ("pipeline_meta_parser", {"parsers_to_kwargs": {"eval_parser": {}}, "is_squeeze": False}),
]


def outcome(function, completion, kwargs):
    """What a parser returns, with NaN as a word; or that it raises."""
    try:
        return [
            ("nan" if isinstance(v, float) and math.isnan(v) else v)
            for v in function(completion, **kwargs)
        ]
    except Exception:  # noqa: BLE001 - upstream raises whatever it meets
        return "raises"


@pytest.mark.parametrize(("name", "kwargs"), UPSTREAM)
def test_the_parsers_are_upstreams(upstream, name, kwargs):
    ours, theirs = upstream_parsers.PARSERS[name], getattr(upstream("completion_parsers"), name)

    @settings(deadline=None, max_examples=150)
    @given(replies)
    @example("")
    @example("8 7\nbecause")
    @example("8,7")
    @example('```json\n{"best": 1}\n```')
    @example('[{"best": true}, {"best": false}]')
    @example("Output (a)Output (b)\n Output (a)")
    def same(text):
        if name == "lmsys_parser" and "nan" in text.lower():
            return  # a draw upstream, unparsed here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            try:
                expected = outcome(
                    theirs,
                    text,
                    json.loads(json.dumps(kwargs)) if "replacer" not in kwargs else kwargs,
                )
            finally:
                logging.disable(logging.NOTSET)
        found = outcome(ours, text, kwargs)
        if "outputs_to_match" in kwargs and expected != "raises":
            expected = [int(key) for key in expected]
        assert found == expected

    same()


@pytest.mark.parametrize("is_binarize", [True, False])
@pytest.mark.parametrize("index", ["batch", -1, 0])
def test_the_logprob_parser_is_upstreams(upstream, is_binarize, index):
    kwargs = {
        "numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": is_binarize, "log_prob_index": index,
    }  # fmt: skip
    theirs = upstream("completion_parsers").logprob_parser
    names = st.sampled_from(["m", "M", " M", "The", "\n"])
    tops = st.lists(st.tuples(names, st.floats(-40, 0)), max_size=5)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(tops, min_size=1, max_size=3))
    def same(rows):
        said = Reply("m", tuple(Token("m", -0.1, tuple(top)) for top in rows))
        completion = raw_completion(said, "completions_all")
        found = outcome(upstream_parsers.logprob_parser, completion, kwargs)
        expected = outcome(theirs, completion, kwargs)
        if expected == "raises":
            assert found == expected
            return
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one == (other if other == "nan" else pytest.approx(other, abs=1e-12))

    logging.disable(logging.CRITICAL)
    try:
        same()
    finally:
        logging.disable(logging.NOTSET)


def test_upstreams_zero_is_a_draw_and_whatever_is_no_preference_says_so():
    rule = UpstreamRule("lmsys_parser")
    assert one(rule, "5 5").preference == 1.5
    assert one(rule, "nan nan").status == "unparsed"
    best = UpstreamRule("json_parser", {"annotation_key": "best"})
    assert one(best, '{"best": 1.25}').preference == 1.25
    assert one(best, '{"best": 7}').evidence.startswith("7 is no preference")
    assert one(best, '{"best": false}').status == "unparsed"
    assert one(best, '{"best": ' + "9" * 4_000 + "}").status == "unparsed"
    assert one(best, '{"other": 1}').evidence.startswith("KeyError")
    assert (
        one(UpstreamRule("regex_parser", {"outputs_to_match": {1: "a", 2: ""}}), "b").status
        == "unparsed"
    )


def test_an_upstream_rule_that_has_been_through_json_reads_the_same():
    rule = UpstreamRule("regex_parser", {"outputs_to_match": {"1": "a", "2": "b"}})
    assert one(rule, "b").preference == 2


def stored(released, annotator):
    for path in sorted((released / "results").glob(f"*/{annotator}/annotations.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row.get("raw_completion") is not None:
                yield row


def turned(row, verdict):
    """The preference between the row's outputs, from that between the outputs as they were shown."""
    if verdict.preference is None:
        return None
    return 3 - verdict.preference if is_switched(row["instruction"]) else verdict.preference


@pytest.mark.parametrize(
    ("judge", "annotator", "n"),
    [
        ("alpaca-eval-2", "weighted_alpaca_eval_gpt4_turbo", 17_655),
        ("alpaca-eval-1", "alpaca_eval_gpt4", 3_213),
        ("alpaca_eval_cot_gpt4_turbo_fn", "alpaca_eval_cot_gpt4_turbo_fn", 4_013),
    ],
)
def test_every_stored_completion_gives_the_stored_verdict(released, judge, annotator, n):
    spec = load_judge(judge)
    assert isinstance(spec, PromptedSpec)
    assert spec.name == annotator
    count = 0
    for row in stored(released, annotator):
        found = turned(row, parse(spec.verdict, reply_of_raw(row["raw_completion"]))[0])
        assert found == pytest.approx(float(row["preference"]), abs=1e-8), row["raw_completion"]
        count += 1
    assert count == n


def test_our_own_ranking_rule_refuses_the_one_list_that_names_another_model(released):
    rows = list(stored(released, "alpaca_eval_gpt4"))
    verdicts = [parse(RankingRule(), reply_of_raw(row["raw_completion"]))[0] for row in rows]
    wrong = [
        (row, v)
        for row, v in zip(rows, verdicts, strict=True)
        if turned(row, v) != float(row["preference"])
    ]
    assert len(wrong) == 1
    [(row, verdict)] = wrong
    assert "'model_name'" in row["raw_completion"]
    assert verdict.status == "unparsed"
    assert verdict.evidence.startswith("not both of 'model_1' and 'model_2' are ranked")


def test_our_own_token_rule_differs_by_the_tokens_with_a_space_only(released):
    rule, moved = LogprobRule(["m"], ["M"]), 0
    for row in stored(released, "weighted_alpaca_eval_gpt4_turbo"):
        difference = abs(
            turned(row, parse(rule, reply_of_raw(row["raw_completion"]))[0]) - row["preference"]
        )
        assert difference < 1e-5
        moved += difference > 1e-8
    assert moved == 42


def test_stored_completions_come_back_as_they_were(released):
    """Except for the fields ``refusal``, which are null in every row that has them."""
    for row in stored(released, "weighted_alpaca_eval_gpt4_turbo"):
        raw = row["raw_completion"]
        for part in (raw["logprobs"], raw["message"]):
            assert part.pop("refusal", None) is None
        assert raw_completion(reply_of_raw(raw), "completions_all") == raw
    assert raw_completion(reply_of_raw("text")) == "text"


@pytest.mark.parametrize(
    "raw", [None, 3, {"logprobs": {"content": [{"token": "m"}]}}, {"logprobs": 3}]
)
def test_what_is_no_raw_completion_is_refused(raw):
    with pytest.raises((TypeError, ValueError)):
        reply_of_raw(raw)
