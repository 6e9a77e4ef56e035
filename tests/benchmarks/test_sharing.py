"""Texts that are scored with each shared prefix read once: the plan of passes, and the log-probabilities."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from alignboard.benchmarks.scoring import Scorer, can_share
from alignboard.benchmarks.sharing import ScoredText, passes
from alignboard.models.loading import LoadedModel


def made(ids, n_targets):
    """The text ``ids``, of which the last ``n_targets`` tokens are scored."""
    return ScoredText(tuple(ids[:-1]), tuple(ids[-n_targets:]))


@st.composite
def some_texts(draw):
    """Texts over a small alphabet, some of which begin like others."""
    tokens = st.lists(st.integers(0, 2), min_size=2, max_size=9)
    texts = draw(st.lists(tokens, min_size=1, max_size=12))
    stems = draw(st.lists(st.sampled_from([(), (0,) * 40, (0,) * 40 + (1,) * 35]), min_size=12))
    found = []
    for stem, text in zip(stems, texts, strict=False):
        ids = [*stem, *text]
        found.append(made(ids, draw(st.integers(1, len(ids) - 1))))
    return found


@given(some_texts(), st.integers(1, 60))
def test_every_target_is_scored_once_after_its_own_text(texts, budget):
    cache: list[int] = []
    scored = [dict[int, int]() for _ in texts]
    for one in passes(texts, budget):
        assert 1 <= len(one.ids) <= budget
        assert one.keep <= len(cache)
        cache = [*cache[: one.keep], *one.ids]
        for wanted in one.wanted:
            before, place = list[int](), wanted.place
            while place >= 0:
                before.append(one.ids[place])
                place = one.parents[place]
            read = [*cache[: one.keep], *reversed(before)]
            text = texts[wanted.text]
            assert tuple(read) == text.ids[: len(read)]
            assert text.targets[len(read) - 1 - text.start] == wanted.target
            assert len(read) not in scored[wanted.text]
            scored[wanted.text][len(read)] = wanted.target
    assert [len(found) for found in scored] == [len(text.targets) for text in texts]


def test_a_context_is_read_once_for_all_its_choices():
    rng = random.Random(0)
    examples = [rng.randrange(9) for _ in range(600)]  # shared by the questions, as in MMLU
    texts, n_different = [], len(examples)
    for question in range(3):
        context = [10 + question, *(rng.randrange(9) for _ in range(99))]
        n_different += len(context)
        for choice in range(4):
            texts.append(made([*examples, *context, 20 + choice, 5, 6], 3))
            n_different += 2  # the last token of a text is never read
    read = sum(len(one.ids) for one in passes(texts, 256))
    assert read == n_different < sum(len(text.ids) for text in texts) / 8


FAMILIES = ("phi", "mistral", "gemma", "llama")


def plain(model, text):
    """The log-probability of a text's targets from one pass over it alone, and whether each is the most likely."""
    with torch.inference_mode():
        logits = model.model(torch.tensor([text.ids])).logits[0, text.start :]
    targets = torch.tensor(text.targets)
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])
    return float(logprobs.sum()), bool((logits.argmax(dim=1) == targets).all())


def texts_of(model):
    """Questions with choices of one and of several tokens, examples before them, and a long text scored throughout."""
    rng, n = random.Random(1), len(model.tokenizer)
    examples = [rng.randrange(n) for _ in range(80)]
    texts = [made([rng.randrange(n) for _ in range(150)], 149)]
    for size in (1, 1, 3, 7):
        context = examples + [rng.randrange(n) for _ in range(20)]
        choices = ([rng.randrange(n) for _ in range(size)] for _ in range(4))
        texts.extend(made(context + choice, size) for choice in choices)
    return texts


def assert_plain(model, budget):
    texts = texts_of(model)
    found = {index: rest for index, *rest in Scorer(model.model, budget).scores(texts)}
    for index, text in enumerate(texts):
        logprob, is_greedy = plain(model, text)
        assert found[index][0] == pytest.approx(logprob, abs=1e-4)
        assert found[index][1] == is_greedy


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [16, 64, 4096])
def test_log_probabilities_are_those_of_each_text_alone(family, budget):
    model = LoadedModel.load(tiny_models.base(family))
    assert can_share(model.model)
    assert_plain(model, budget)


def small(kind, **settings):
    """A model of random weights whose attention is not plain."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes | settings)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mistral", {"sliding_window": 24}),
        ("gemma2", {"sliding_window": 24}),
        ("gemma3_text", {"sliding_window": 24}),
        ("gpt2", {"n_positions": 512}),
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
        ("qwen2", {}),
    ],
)
def test_windows_capped_logits_and_learned_positions(kind, settings):
    class Loaded:
        model = small(kind, **settings)
        tokenizer = range(50)

    assert can_share(Loaded.model)
    for budget in (16, 64, 4096):
        assert_plain(Loaded, budget)
