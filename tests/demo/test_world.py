"""The demo world: answers that check out, splits that do not mix, an annotator that is what it says it is."""

from __future__ import annotations

import itertools
import random
from typing import cast

import pytest

from alignboard.demo import world
from alignboard.demo.simulated import (
    SimulatedAnnotator,
    label_noise_for_agreement,
    rule_score,
)
from alignboard.errors import InputError


def tasks(n: int, seed: int = 0) -> list[world.WorldTask]:
    rng = random.Random(seed)
    return [world.draw_task(rng) for _ in range(n)]


def test_there_are_at_least_six_families_and_all_are_drawn() -> None:
    assert len(world.FAMILIES) >= 6
    assert {t.family for t in tasks(500)} == set(world.FAMILIES)


def test_prompts_that_the_world_does_not_have_are_a_sentence(monkeypatch) -> None:
    with pytest.raises(InputError, match="no split 'evl', did you mean 'eval'"):
        world.prompts(cast("world.Split", "evl"), 3, 0)
    questions = tasks(4)
    drawn = iter(itertools.cycle(questions))
    monkeypatch.setattr(world, "draw_instruction", lambda *_: (next(drawn), "q"))
    assert len(world.prompts("eval", 4, 0)) == 4
    with pytest.raises(InputError, match="no 5 questions of the split 'eval'; about 4"):
        world.prompts("eval", 5, 0)


@pytest.mark.parametrize("family", world.FAMILIES)
def test_every_phrasing_parses_back_to_its_question(family: str) -> None:
    rng = random.Random(family)
    for _ in range(50):
        task = world.draw_task(rng, family)
        for k in range(len(world.FAMILIES[family].templates)):
            assert world.parse(task.instruction(k)) == task


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("repeat these words: dog cat.", "dog cat"),
        ("swap these two: dog cat.", "cat dog"),
        ("take the last: dog cat key.", "key"),
        ("the first word of: dog cat key.", "dog"),
        ("how in german: apple knife.", "apfel messer"),
        ("the contrary of: hot thin.", "cold thick"),
        ("name each kind: dog shirt.", "animal garment"),
        ("move one on from: sunday twelve.", "monday one"),
        ("find the tool: dog key shirt.", "key"),
    ],
)
def test_published_answers(instruction: str, answer: str) -> None:
    assert world.parse(instruction).answer == answer
    assert world.check(instruction, f"{answer}.")


def test_right_replies_pass_and_wrong_ones_fail_in_both_styles() -> None:
    rng = random.Random(1)
    for task in tasks(300):
        for text in (world.concise(task.answer), world.padded(task.answer, rng)):
            assert world.check(task.instruction(), text)
        wrong = world.wrong_answer(task, rng)
        for text in (world.concise(wrong), world.padded(wrong, rng)):
            assert not world.check(task.instruction(), text)


@pytest.mark.parametrize(
    "output",
    [
        "",
        ".",
        "chien",
        "chat chien.",
        "chien chat chien chat.",
        "chien chat hund katze.",
        "i hope that.",
    ],
)
def test_hedges_repeats_and_empty_outputs_are_wrong(output: str) -> None:
    assert not world.check("translate into french: dog cat.", output)


def test_style_is_about_filler_only() -> None:
    rng = random.Random(0)
    for task in tasks(100):
        assert world.is_concise(task.instruction(), world.concise(task.answer))
        assert not world.is_concise(task.instruction(), world.padded(task.answer, rng))
        assert not world.is_concise(task.instruction(), "")


def test_no_filler_word_is_part_of_an_answer() -> None:
    answers = {w for t in tasks(5000) for w in t.answer.split()}
    filler = {w for text in (*world.OPENERS, *world.CLOSERS) for w in world.words_of(text)}
    assert not answers & filler


def test_splits_share_no_content_and_evaluation_is_in_no_training_text() -> None:
    prompts = {split: world.prompts(split, 300, seed=0) for split in world.SPLITS}
    contents = {split: {world.parse(p) for p in texts} for split, texts in prompts.items()}
    for split, found in contents.items():
        assert {t.split for t in found} == {split}
        assert len(found) == 300
    for given, follows in world.pretraining_documents(3000, seed=0):
        question = given.removeprefix("question: ").removeprefix("user: ")
        question = question.removesuffix(" answer:").removesuffix(" assistant:")
        assert world.parse(question).split != "eval"
        if world.words_of(follows)[-2:-1] and ":" in follows:
            try:
                assert world.parse(follows).split != "eval"
            except ValueError:  # an opener has a colon, too
                assert not world.content_words(follows)[3:]
    assert all(world.parse(e.instruction).split == "sft" for e in world.sft_examples(500, seed=0))


def test_evaluation_has_four_hundred_prompts_of_every_family() -> None:
    prompts = world.prompts("eval", 400, seed=0)
    assert {world.parse(p).family for p in prompts} == set(world.FAMILIES)
    assert len(set(prompts)) == 400


def test_a_seed_fixes_everything() -> None:
    assert world.prompts("eval", 50, seed=3) == world.prompts("eval", 50, seed=3)
    assert world.prompts("eval", 50, seed=3) != world.prompts("eval", 50, seed=4)
    assert world.sft_examples(50, seed=3) == world.sft_examples(50, seed=3)
    assert world.pretraining_documents(50, seed=3) == world.pretraining_documents(50, seed=3)
    # Pinned, so that a change of the world that changes results does not go unnoticed.
    assert world.prompts("eval", 2, seed=0) == PINNED_PROMPTS


PINNED_PROMPTS = ["which one is the garment: cat shoe horse.", "the contrary of: light old."]


def test_vocabulary_covers_every_text_of_the_world() -> None:
    vocabulary = set(world.vocabulary())
    assert len(vocabulary) == len(world.vocabulary()) < 300
    for given, follows in world.pretraining_documents(2000, seed=1):
        assert set(world.words_of(given) + world.words_of(follows)) <= vocabulary


def test_distractors_are_wrong_and_different() -> None:
    rng = random.Random(0)
    for task in tasks(50):
        options = world.distractors(task, 3, rng)
        assert len({*options, task.answer}) == 4


@pytest.mark.parametrize(
    "text", ["", "hello", "translate into french: dog monday.", "find the garment: dog cat."]
)
def test_foreign_instructions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an instruction of the demo world"):
        world.parse(text)


INSTRUCTION = "translate into french: dog cat."
GOOD, PADDED, WRONG = (
    "chien chat.",
    "that is easy: chien chat. i hope that this helps you a lot!",
    "chien hund.",
)


def test_rule_prefers_right_over_wrong_and_concise_over_padded() -> None:
    assert [rule_score(INSTRUCTION, x) for x in (GOOD, PADDED, WRONG, "")] == [1.5, 1.0, 0.0, 0.0]


def verdicts(judge: SimulatedAnnotator, a: str, b: str, n: int = 4000) -> list[float]:
    """The judge's preferences over n different instructions with outputs of fixed quality."""
    found = []
    for p in world.prompts("eval", n, seed=5):
        answer = world.parse(p).answer
        texts = {GOOD: f"{answer}.", PADDED: f"that is easy: {answer}.", WRONG: "nothing."}
        found.append(judge.annotate(p, texts[a], texts[b]).preference)
    return found


def test_label_noise_is_the_stated_rate() -> None:
    judge = SimulatedAnnotator(seed=1, label_noise=0.25, position_bias=0.0)
    found = verdicts(judge, PADDED, GOOD, n=2000)
    assert set(found) == {1.0, 2.0}
    assert found.count(1.0) / len(found) == pytest.approx(0.25, abs=0.04)  # four standard errors


def test_two_annotators_agree_as_calibrated() -> None:
    noise = label_noise_for_agreement(0.66)
    one, two = (SimulatedAnnotator(seed=s, label_noise=noise, position_bias=0.0) for s in (1, 2))
    pairs = zip(verdicts(one, WRONG, GOOD, 2000), verdicts(two, WRONG, GOOD, 2000), strict=True)
    assert sum(a == b for a, b in pairs) / 2000 == pytest.approx(0.66, abs=0.043)


def test_position_bias_follows_the_order_shown_and_moves_no_mean() -> None:
    judge = SimulatedAnnotator(seed=0, label_noise=0.0, position_bias=1.0)
    found = [judge.annotate(p, "one.", "two.") for p in world.prompts("eval", 1000, seed=0)]
    assert all(v.preference == v.shown_first for v in found)
    assert sum(v.preference for v in found) / 1000 == pytest.approx(1.5, abs=0.064)


def test_annotations_are_antisymmetric_and_repeatable() -> None:
    judge = SimulatedAnnotator(seed=0)
    for p in world.prompts("eval", 300, seed=0):
        answer = world.parse(p).answer
        a, b = f"{answer}.", f"that is easy: {answer}."
        assert judge.annotate(p, a, b).preference == 3 - judge.annotate(p, b, a).preference
        assert judge.annotate(p, a, b) == judge.annotate(p, a, b)
        assert judge.annotate(p, a, a).preference == 1.5


def test_bad_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="label_noise"):
        SimulatedAnnotator(label_noise=0.7)
    with pytest.raises(ValueError, match="agreement"):
        label_noise_for_agreement(0.3)
