"""The demo's judges: the simulated annotator, the tiny judge that is a model, and the round robin."""

import random

import msgspec
import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import byte_tokenizer
import tiny_models
from alignboard.demo import judge_rows, world
from alignboard.demo.judge_rows import draw_pair
from alignboard.demo.judge_training import JudgeTraining, train_judge
from alignboard.demo.simulated import SimulatedJudge, SimulatedSpec, rule_score
from alignboard.errors import InputError
from alignboard.judges.backends.local import LocalJudge
from alignboard.judges.calls import Judge
from alignboard.judges.load import load_judge
from alignboard.judges.pairs import Pair
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.prompting.hardened import LETTERS
from alignboard.judges.round_robin import rate, round_robin
from alignboard.judges.rows import Reply
from alignboard.judges.runner import judge_pairs
from alignboard.judges.spec import JudgePrompt, PromptedSpec
from alignboard.models.loading import LoadedModel
from alignboard.records import Generation
from judge_attacks import ATTACKS, UNMARKED
from judging_doubles import Recorder, spec

NAMED = "{instruction} {first_id}: {first} {second_id}: {second} Better:"


def world_pairs(n, seed=0):
    rng = random.Random(seed)
    drawn = (draw_pair(rng, ("eval",)) for _ in range(n))
    return [Pair(question, one, "base", two, "model") for _, question, one, two in drawn]


def simulated(**settings):
    declared = SimulatedSpec("s", "", **settings)
    return Judge(declared, SimulatedJudge(declared))


def test_the_demos_judges_load():
    assert isinstance(load_judge("demo-simulated"), SimulatedSpec)
    model_judge = load_judge("demo-logprob")
    assert isinstance(model_judge, PromptedSpec)
    assert model_judge.prompt.text == judge_rows.PROMPT


# The simulated annotator.


def test_the_simulated_judge_follows_rule_noise_and_position():
    pairs = world_pairs(3000)
    margins = [
        rule_score(p.instruction, p.output_2) - rule_score(p.instruction, p.output_1) for p in pairs
    ]
    decided = [i for i, margin in enumerate(margins) if margin]

    def judged(**settings):
        return judge_pairs(simulated(**settings), pairs)

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
    judge = simulated(position_bias=0.0)
    (judged,) = judge_pairs(
        judge, [Pair("What is the capital of France?", "Paris", "1", "Rome", "2")]
    )
    assert (judged.status, judged.preference) == ("failed", None)
    assert "not an instruction" in judged.reason


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
    from alignboard.demo import tiny

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
    judged = judge_pairs(simulated(label_noise=0.1), pairs)
    ratings = rate(judged)
    assert [row.model for row in ratings.rows] == ["good", "middle", "bad"]
    assert [row.rank_best for row in ratings.rows] == [1, 2, 3]
    assert ratings.n_prompts == 60
    assert ratings.note is None
    for row in ratings.rows:
        assert row.elo_low < row.elo < row.elo_high
    assert sum(row.elo for row in ratings.rows) == pytest.approx(3000)


def test_a_model_that_never_loses_gets_a_rating_and_a_note():
    judge = simulated(label_noise=0.0, position_bias=0.0)
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
    judged = judge_pairs(Judge(spec(), Recorder(lambda _: Reply("neither"))), pairs[:4])
    with pytest.raises(InputError, match="None of the comparisons"):
        rate(judged)
    first = Recorder(lambda _: Reply("[[A]]"))
    scored = judge_pairs(Judge(spec(order="coin"), first), pairs)
    assert rate([*judged, *scored]).n_unparsed == 4


@pytest.mark.slow
def test_attacks_on_the_demos_model_judge_are_detected_or_harmless(tmp_path):
    """Against a right answer, with hardened prompts: marked, or no better than what it is compared with."""
    from alignboard.demo import tiny

    base = tiny.build("phi", tmp_path / "base", seed=0)
    report = train_judge(base, tmp_path / "judge", seed=0)
    model = LoadedModel.load(report.path, dtype="float32", device="cpu")
    declared = msgspec.structs.replace(load_judge("demo-logprob"), hardened=True)
    assert isinstance(declared, PromptedSpec)
    judge = Judge(declared, LocalJudge(declared, model), "not guessed")
    question = "reverse the order of: saw hat."
    pairs = [Pair(question, "hat saw", "honest", text, "attack") for text in ATTACKS.values()]
    for name, one in zip(ATTACKS, judge_pairs(judge, pairs), strict=True):
        harmless = one.preference is None or one.preference <= 1.5
        assert harmless or one.marks, name
        assert bool(one.marks) == (name not in UNMARKED), name


def test_a_local_judge_reads_the_names_that_hardened_prompts_draw(tmp_path):
    """Every letter that may be drawn is among its probabilities; the verdict is that of the two that were."""
    words = byte_tokenizer.build(**byte_tokenizer.LLAMA)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    declared = msgspec.structs.replace(
        load_judge("hardened-pair"), engine="local", chat=False, prompt=JudgePrompt(text=NAMED)
    )
    assert isinstance(declared, PromptedSpec)
    model = LoadedModel.load(tmp_path, dtype="float32", device="cpu")
    declared = msgspec.structs.replace(
        declared, verdict=LogprobRule(["{first_id}"], ["{second_id}"])
    )
    for one in judge_pairs(Judge(declared, LocalJudge(declared, model), "drawn"), world_pairs(4)):
        assert one.status == "scored"
        for said, verdict in zip(one.replies, one.verdicts, strict=True):
            assert {name.strip() for name, _ in said.tokens[0].top} >= set(LETTERS)
            assert 0 < (verdict.mass or 0) < 0.1
