"""West-of-N: candidates of the one engine, whose draws belong to the seed, the prompt and the candidate's number."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import tiny_models
from alignboard.engines.generate import Decoding, generate
from alignboard.models.loading import LoadedModel
from alignboard.training.pairs import build_pairs, candidates, west_of_n
from alignboard.training.sections import PairSpec

PROMPTS = [f"name each kind: cow key {i}." for i in range(4)]
SAMPLED = Decoding(6, 1.0, seed=3)


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel.load(tiny_models.base("phi"))


def test_a_candidate_depends_on_its_seed_its_prompt_and_its_number(loaded):
    few = candidates(loaded, PROMPTS[:2], SAMPLED, 3)
    more = candidates(loaded, PROMPTS[::-1], SAMPLED, 5)[::-1]
    assert [outputs[:3] for outputs in more[:2]] == few
    assert all(len(set(outputs)) > 1 for outputs in more), "each candidate draws its own"
    assert candidates(loaded, PROMPTS[:2], Decoding(6, 1.0, seed=4), 3) != few


def test_greedy_candidates_are_the_responses_of_generate(loaded):
    greedy = Decoding(6)
    expected = [[answer.output] * 2 for answer in generate(loaded, PROMPTS, greedy)]
    assert candidates(loaded, PROMPTS, greedy, 2) == expected


def test_pairs_come_from_the_adapter_and_its_seed():
    spec = PairSpec(n=4, temperature=1.0, max_new_tokens=6, prompts=4)
    loaded = LoadedModel.load(tiny_models.base("phi"))
    loaded.add_adapter("one", tiny_models.adapters("phi")["one"])

    def made(adapter, seed=0, stop=()):
        with loaded.using(adapter):
            return build_pairs(spec, loaded, PROMPTS, lambda _, output: len(output), seed, stop)

    pairs = made("one")
    assert pairs
    assert all(pair.score_chosen > pair.score_rejected for pair in pairs)
    assert made("one") == pairs
    assert made("one", seed=1) != pairs
    assert made(None) != pairs
    longest = max(pairs, key=lambda pair: pair.score_chosen).chosen
    mark = longest[len(longest) // 2]
    assert all(mark not in pair.chosen for pair in made("one", stop=(mark,)))


def test_unfinished_replies_are_no_candidates(loaded):
    asked = Decoding(3, 1.0, seed=3)
    every = candidates(loaded, PROMPTS, asked, 8)
    kept = candidates(loaded, PROMPTS, asked, 8, finished=True)
    assert sum(map(len, kept)) < sum(map(len, every)), "some are ended by three tokens"
    assert all(set(few) <= set(all_) for few, all_ in zip(kept, every, strict=True))
    assert west_of_n(["q"], [[]], lambda _, output: len(output)) == []
