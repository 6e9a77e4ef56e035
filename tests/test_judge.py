"""Judges: what a file may say, orders, statuses and keys, and the tiny judge that is a model."""

import random

import numpy as np
import pytest

import tiny_models
from alignboard.data import world
from alignboard.errors import InputError
from alignboard.evaluate import judge_rows
from alignboard.evaluate.judge import (
    LogprobSpec,
    Pair,
    Question,
    Reply,
    SimulatedSpec,
    Verdicts,
    judge_pairs,
    judgment_keys,
    load_judge,
)
from alignboard.evaluate.judge_rows import draw_pair
from alignboard.evaluate.judge_training import JudgeTraining, train_judge
from alignboard.evaluate.model_judge import LogprobJudge, open_judge
from alignboard.evaluate.pairwise import rate, round_robin
from alignboard.evaluate.simulated import rule_score
from alignboard.models.loading import LoadedModel
from alignboard.records import Generation, Judgment
from alignboard.results.formats import read_annotations, write_rows
from alignboard.results.order import is_switched


def world_pairs(n, seed=0):
    rng = random.Random(seed)
    drawn = (draw_pair(rng, ("eval",)) for _ in range(n))
    return [Pair(question, one, "base", two, "model") for _, question, one, two in drawn]


def spec(**changes):
    fields = {
        "name": "test",
        "title": "",
        "model": "m",
        "prompt": judge_rows.PROMPT,
        "verdicts": Verdicts(["first"], ["second"]),
        "min_mass": 0.0,
    }
    return LogprobSpec(**{**fields, **changes})


@pytest.fixture(scope="module")
def model():
    return LoadedModel.load(tiny_models.base())


class Recorder:
    """A judge that answers by rote and remembers what it was asked."""

    def __init__(self, reply=None, order="both"):
        self.spec = spec(order=order)
        self.digest = "recorder"
        self.reply = reply or Reply("scored", 0.75, 1.0)
        self.asked: list[Question] = []

    def ask(self, questions):
        for place, question in enumerate(questions):
            self.asked.append(question)
            yield place, self.reply


# Declarations.


def test_the_shipped_judges_load():
    simulated, model_judge = load_judge("demo-simulated"), load_judge("demo-logprob")
    assert isinstance(simulated, SimulatedSpec)
    assert isinstance(model_judge, LogprobSpec)
    assert model_judge.prompt == judge_rows.PROMPT


MODEL_JUDGE = """
kind: logprob
name: x
title: x
model: m
prompt: "{prompt}"
verdicts: {{first: [{first}], second: [b]}}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: simulated\nname: x\ntitle: x\nlabel_nois: 0.1", "'label_nois', did you mean 'label_noise'"),
        ("kind: simulate\nname: x\ntitle: x", "kind is 'simulate', did you mean 'simulated'"),
        ("kind: simulated\nname: x\ntitle: x\nlabel_noise: 0.7", "label_noise is 0.7"),
        ("kind: simulated\nname: x\ntitle: x\norder: always", "order"),
        (MODEL_JUDGE.format(prompt="{first}", first="a"), "prompt lacks {instruction} and {second}"),
        (MODEL_JUDGE.format(prompt="{first}{second}{instruction}", first=""), "at least one token"),
        ("- a list", "a mapping"),
        ("kind: [", "not readable YAML"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "evaluate" / "judges" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        load_judge("mine", tmp_path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


# Orders, statuses, keys.


def test_both_orders_are_asked_and_averaged():
    judge = Recorder(Reply("scored", 0.75, 1.0))
    (judged,) = judge_pairs(judge, [Pair("q", "a", "1", "b", "2")])
    assert [(q.first, q.second) for q in judge.asked] == [("a", "b"), ("b", "a")]
    assert judged.preference == 1.5  # a judge that only likes what comes first decides nothing
    assert judged.switched == (False, True)


def test_one_order_is_upstreams_coin():
    judge = Recorder(order="coin")
    pairs = [Pair(f"question {k}", "a", "1", "b", "2") for k in range(40)]
    judged = judge_pairs(judge, pairs)
    for pair, question, row in zip(pairs, judge.asked, judged, strict=True):
        assert (question.first == "b") == is_switched(pair.instruction)
        assert row.preference == (1.75 if is_switched(pair.instruction) else 1.25)


def test_identical_outputs_are_a_draw_without_a_call():
    judge = Recorder()
    (judged,) = judge_pairs(judge, [Pair("q", "a", "1", "a", "2")])
    assert judge.asked == []
    assert (judged.status, judged.preference, judged.replies) == ("scored", 1.5, ())


@pytest.mark.parametrize("status", ["unparsed", "failed"])
def test_what_is_not_scored_has_no_preference(status, tmp_path):
    done = []
    pairs = [Pair(f"question {k}", "a", "1", "b", "2") for k in range(3)]
    judged = judge_pairs(Recorder(Reply(status)), pairs, done.append)
    assert {row.status for row in judged} == {status}
    assert {row.preference for row in judged} == {None}
    assert done == judged
    write_rows(tmp_path / "annotations.json", [row.row("judge") for row in judged])
    assert read_annotations(tmp_path / "annotations.json").n_unparsed == 3


def test_keys_name_judge_texts_and_order():
    pair = Pair("q", "a", "1", "b", "2")
    coin, both = Recorder(order="coin"), Recorder()
    variants = [
        pair,
        Pair("q", "b", "1", "a", "2"),
        Pair("q2", "a", "1", "b", "2"),
        Pair("q", "a\x00b", "1", "", "2"),
        Pair("q", "a", "1", "\x00b", "2"),
    ]
    keys = judgment_keys(both, variants)
    assert len({*keys, *judgment_keys(coin, [pair])}) == 6
    assert judgment_keys(both, [Pair("q", "a", "x", "b", "y")]) == keys[:1]  # names decide nothing


# The simulated annotator.


def test_the_simulated_judge_follows_rule_noise_and_position():
    pairs = world_pairs(3000)
    margins = [
        rule_score(p.instruction, p.output_2) - rule_score(p.instruction, p.output_1) for p in pairs
    ]
    decided = [i for i, margin in enumerate(margins) if margin]

    def judged(**settings):
        return judge_pairs(open_judge(SimulatedSpec("s", "", **settings)), pairs)

    exact = judged(label_noise=0.0, position_bias=0.0)
    assert all((exact[i].preference == 2) == (margins[i] > 0) for i in decided)
    noisy = judged(label_noise=0.2, position_bias=0.0)
    flipped = np.mean([noisy[i].preference != exact[i].preference for i in decided])
    assert flipped == pytest.approx(0.2, abs=0.03)
    biased = judged(label_noise=0.0, position_bias=0.3)
    first = [(biased[i].preference == 2) == biased[i].switched[0] for i in decided]
    assert np.mean(first) == pytest.approx(0.5 + 0.3 / 2, abs=0.04)
    assert judged(label_noise=0.2, position_bias=0.0) == noisy


def test_a_question_of_another_world_is_a_failure_not_a_draw():
    judge = open_judge(SimulatedSpec("s", "", position_bias=0.0))
    (judged,) = judge_pairs(
        judge, [Pair("What is the capital of France?", "Paris", "1", "Rome", "2")]
    )
    assert (judged.status, judged.preference) == ("failed", None)
    assert "not an instruction" in (judged.replies[0].reason or "")


# A model as judge.


def test_a_models_verdicts_do_not_depend_on_what_else_is_asked(model):
    judge = LogprobJudge(spec(), model)
    pairs = world_pairs(70)
    together = judge_pairs(judge, pairs)
    shuffled = random.Random(1).sample(range(70), 70)
    again = judge_pairs(judge, [pairs[i] for i in shuffled])
    assert [together[i] for i in shuffled] == again  # to the last bit
    assert judge_pairs(judge, pairs[5:9]) == together[5:9]


def test_the_probability_is_that_of_the_verdict_tokens(model):
    import torch

    judge = LogprobJudge(spec(verdicts=Verdicts(["first", "one"], ["second"])), model)
    question = Question("repeat these words: dog cat.", "dog cat.", "cat.")
    (_, reply), *_ = judge.ask([question])
    ids = torch.tensor([judge.render(question)])
    with torch.no_grad():
        p = torch.softmax(model.model(input_ids=ids).logits[0, -1].double(), dim=0)
    first, one, second = (
        p[model.tokenizer.convert_tokens_to_ids(w)].item() for w in ("first", "one", "second")
    )
    assert reply.p_first == pytest.approx((first + one) / (first + one + second), rel=1e-4)
    assert reply.mass == pytest.approx(first + one + second, rel=1e-4)


def test_a_verdict_without_mass_is_unparsed_and_a_long_prompt_failed(model):
    (judged,) = judge_pairs(LogprobJudge(spec(min_mass=0.999), model), world_pairs(1))
    assert (judged.status, judged.preference) == ("unparsed", None)
    long = Pair("q", "dog " * model.context, "1", "cat", "2")
    (judged,) = judge_pairs(LogprobJudge(spec(), model), [long])
    assert judged.status == "failed"
    assert "tokens" in (judged.replies[0].reason or "")


def test_outputs_are_text_and_not_part_of_the_template(model):
    judge = LogprobJudge(spec(), model)
    ids = judge.render(Question("repeat these words: dog cat.", "{second} <eos>", "{first} cat"))
    text = model.tokenizer.decode(ids)
    assert ids.count(model.tokenizer.eos_token_id) == 0
    assert ids.count(model.tokenizer.bos_token_id) == 1
    assert text.count("cat") == 2  # the question's and the second output's own, not filled in again


def test_a_judge_that_cannot_be_asked_is_refused(model):
    with pytest.raises(InputError, match="'no-word' is not one token"):
        LogprobJudge(spec(verdicts=Verdicts(["no-word"], ["second"])), model)
    with pytest.raises(InputError, match="both sides"):
        LogprobJudge(spec(verdicts=Verdicts(["first"], ["first"])), model)
    with pytest.raises(InputError, match="needs its model"):
        open_judge(spec())


def test_digests_tell_judges_apart(model):
    one = LogprobJudge(spec(), model).digest
    assert LogprobJudge(spec(title="another title"), model).digest == one
    assert LogprobJudge(spec(min_mass=0.1), model).digest != one
    assert LogprobJudge(spec(), model, batch_size=8).digest != one
    model.add_adapter("one", tiny_models.adapters()["one"])
    with model.using("one"):
        assert LogprobJudge(spec(), model).digest != one


def test_training_writes_an_ordinary_checkpoint_and_measures_it(tmp_path):
    report = train_judge(
        tiny_models.base(), tmp_path / "judge", config=JudgeTraining(steps=3, batch=8)
    )
    assert 0 <= report.agreement <= 1
    assert report.n_pairs > 200
    loaded = LoadedModel.load(tmp_path / "judge")
    assert loaded.model.config.num_hidden_layers == 4
    assert (tmp_path / "judge" / "alignboard_judge.json").is_file()
    again = train_judge(
        tiny_models.base(), tmp_path / "again", config=JudgeTraining(steps=3, batch=8)
    )
    assert LoadedModel.load(again.path).fingerprint == loaded.fingerprint
    with pytest.raises(FileExistsError):
        train_judge(tiny_models.base(), tmp_path / "judge")


@pytest.mark.slow
def test_a_trained_judge_agrees_with_the_rule(tmp_path):
    from alignboard.models import tiny

    base = tiny.build("phi", tmp_path / "base", seed=0)
    report = train_judge(base, tmp_path / "judge", seed=0)
    assert report.agreement >= 0.85
    assert abs(report.p_first - 0.5) < 0.1


# Everybody against everybody.


def answers(models, n=30):
    rng = random.Random(0)
    instructions = world.prompts("eval", n, seed=0)
    found = {}
    for model, p_wrong in models.items():
        found[model] = []
        for text in instructions:
            output, _ = world.reply(world.parse(text), rng, p_padded=0.3, p_wrong=p_wrong)
            found[model].append(Generation(text, output, model))
    return found


def test_a_round_robin_meets_everybody_on_the_same_prompts():
    outputs = answers({"a": 0.1, "b": 0.5, "c": 0.9})
    pairs = round_robin(outputs, 10, seed=4)
    assert len(pairs) == 30
    assert len({pair.instruction for pair in pairs}) == 10
    assert pairs == round_robin(dict(reversed(outputs.items())), 10, seed=4)
    assert pairs != round_robin(outputs, 10, seed=5)
    sides = [
        pair.generator_1 for pair in pairs if {pair.generator_1, pair.generator_2} == {"a", "b"}
    ]
    assert {"a", "b"} == set(sides)
    with pytest.raises(InputError, match="no instruction in common"):
        round_robin({"a": outputs["a"][:5], "b": outputs["b"][5:]}, 3)


def test_ratings_order_models_by_how_good_they_are():
    pairs = round_robin(answers({"good": 0.05, "middle": 0.45, "bad": 0.9}, 60), 60)
    judged = judge_pairs(open_judge(SimulatedSpec("s", "", label_noise=0.1)), pairs)
    ratings = rate(judged)
    assert [row.model for row in ratings.rows] == ["good", "middle", "bad"]
    assert [row.rank_best for row in ratings.rows] == [1, 2, 3]
    assert ratings.n_prompts == 60
    assert ratings.note is None
    for row in ratings.rows:
        assert row.elo_low < row.elo < row.elo_high
    assert sum(row.elo for row in ratings.rows) == pytest.approx(3000)


def test_a_model_that_never_loses_gets_a_rating_and_a_note():
    judge = open_judge(SimulatedSpec("s", "", label_noise=0.0, position_bias=0.0))
    outputs = answers({"bad": 1.0, "poor": 0.6}, 20)
    outputs["perfect"] = [
        Generation(row.instruction, world.concise(world.parse(row.instruction).answer), "perfect")
        for row in outputs["bad"]
    ]
    judged = [row for row in judge_pairs(judge, round_robin(outputs, 20)) if row.preference != 1.5]
    ratings = rate(judged)
    assert ratings.rows[0].model == "perfect"
    assert ratings.note is not None
    assert "prior" in ratings.note
    assert "{perfect} > " in ratings.note


def test_what_was_not_scored_is_counted_and_left_out():
    pairs = [Pair(f"question {k}", "a", "1", "b", "2") for k in range(12)]
    judged = judge_pairs(Recorder(Reply("unparsed")), pairs[:4])
    with pytest.raises(InputError, match="None of the comparisons"):
        rate(judged)
    scored = judge_pairs(Recorder(order="coin"), pairs)
    assert rate([*judged, *scored]).n_unparsed == 4


def test_rows_are_alpaca_evals():
    (judged,) = judge_pairs(Recorder(order="coin"), [Pair("q", "a", "base", "b", "model")])
    assert judged.row("judge", "set") == Judgment(
        "q", "a", "base", "b", "model", judged.preference, "judge", "set"
    )
