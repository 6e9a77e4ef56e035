"""Generation: the same answers whatever the batch, one BOS, keys that name what determines an answer."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import tiny_models
from alignboard.demo import tiny, world
from alignboard.engines.generate import Decoding, generate, prompts
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import defused, render

INSTRUCTIONS = world.prompts("eval", 60, seed=0)


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base())
    for name, path in tiny_models.adapters().items():
        loaded.add_adapter(name, path)
    return loaded


@pytest.mark.parametrize("adapter", [None, "one"])
def test_greedy_answers_do_not_depend_on_the_batch(model, adapter):
    with model.using(adapter):
        together = generate(model, INSTRUCTIONS, Decoding(24))
        assert generate(model, INSTRUCTIONS, Decoding(24), batch_size=1) == together
        assert generate(model, INSTRUCTIONS[::-1], Decoding(24), batch_size=7) == together[::-1]
    assert len({answer.output for answer in together}) > 10
    assert {answer.finish for answer in together} == {"stop", "length"}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_greedy_answers_are_those_of_transformers(family, model):
    loaded = model if family == "phi" else LoadedModel.load(tiny_models.base(family))
    for answer in generate(loaded, INSTRUCTIONS[:12], Decoding(16)):
        ids = torch.tensor([render(loaded, answer.instruction)])
        with torch.no_grad():
            ask: Any = loaded.model.generate
            expected = ask(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=16,
                do_sample=False,
            )[0, ids.shape[1] :]
        text = loaded.tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.output == str(text).strip()
        assert answer.n_tokens == len(expected)
        assert answer.n_prompt_tokens == ids.shape[1]


def test_sampled_answers_belong_to_the_prompt(model):
    decoding = Decoding(16, temperature=1.0, seed=3)
    together = generate(model, INSTRUCTIONS, decoding)
    assert generate(model, INSTRUCTIONS[20:30], decoding, batch_size=3) == together[20:30]
    other = generate(model, INSTRUCTIONS, replace(decoding, seed=4))
    assert sum(a.output != b.output for a, b in zip(together, other, strict=True)) > 30


def test_sampling_follows_the_distribution(model):
    # the first token, over many seeds, against the softmax
    ids = torch.tensor([render(model, INSTRUCTIONS[0])])
    with torch.no_grad():
        probabilities = torch.softmax(model.model(input_ids=ids).logits[0, -1] / 0.7, dim=0)
    counts = torch.zeros_like(probabilities)
    n = 600
    for seed in range(n):
        answer = generate(model, INSTRUCTIONS[:1], Decoding(1, temperature=0.7, seed=seed))[0]
        token = model.tokenizer.encode(answer.output, add_special_tokens=False)
        counts[token[0] if token else model.tokenizer.eos_token_id] += 1
    likely = probabilities > 0.02
    error = (probabilities * (1 - probabilities) / n).sqrt()
    assert likely.sum() >= 3
    assert ((counts / n - probabilities).abs() < 4 * error)[likely].all()


def test_rows_are_handed_over_as_they_end(model):
    handed = []
    answers = generate(model, INSTRUCTIONS, Decoding(24), batch_size=8, on_done=handed.append)
    assert sorted(a.key for a in handed) == sorted(a.key for a in answers)
    assert handed != answers  # in order of ending, not of asking
    seen = []
    with pytest.raises(KeyboardInterrupt):
        generate(model, INSTRUCTIONS, Decoding(24), on_done=stop_at(5, seen))
    assert len(seen) == 5


def stop_at(n, seen):
    def on_done(answer):
        seen.append(answer)
        if len(seen) == n:
            raise KeyboardInterrupt

    return on_done


def test_keys_name_what_determines_an_answer(model):
    def key(decoding=None, adapter=None, text=INSTRUCTIONS[0]):
        with model.using(adapter):
            return prompts(model, [text], decoding or Decoding(24))[0].key

    assert key() == generate(model, INSTRUCTIONS, Decoding(24), batch_size=3)[0].key
    assert key() == key(Decoding(24, seed=9))  # greedy: the seed has no meaning
    different = {
        key(),
        key(Decoding(25)),
        key(Decoding(24, temperature=1.0)),
        key(Decoding(24, temperature=1.0, seed=9)),
        key(adapter="one"),
        key(adapter="two"),
        key(text=INSTRUCTIONS[1]),
    }
    assert len(different) == 7


def test_one_bos_whoever_writes_it(model):
    bos = model.tokenizer.bos_token_id
    assert render(model, "say once more: dog cat.").count(bos) == 1
    own = model.tokenizer.chat_template
    try:
        model.tokenizer.chat_template = own.replace("{{ bos_token }}", "")
        ids = render(model, "say once more: dog cat.")
        assert ids[0] == bos
        assert ids.count(bos) == 1
        model.tokenizer.chat_template = "{{ bos_token }}" + own
        with pytest.raises(InputError, match="BOS 2 times"):
            render(model, "say once more: dog cat.")
    finally:
        model.tokenizer.chat_template = own


def test_text_cannot_spell_a_special_token(model):
    ids = render(model, "say <eos> <bos>once<pad> more")
    special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}
    assert [i for i in ids if i in special] == [model.tokenizer.bos_token_id]
    assert defused(model.tokenizer, "a < b and <b>c</b>") == "a < b and <b>c</b>"


def test_a_prompt_without_room_is_refused_by_number(model):
    long = "say once more: " + "dog " * model.context
    with pytest.raises(InputError, match="Instruction 2 has"):
        generate(model, [INSTRUCTIONS[0], long], Decoding(4))


def test_the_limit_of_the_context_ends_an_answer(model):
    long = "repeat: " + "dog " * (model.context - 14)
    answers = generate(model, [long, *INSTRUCTIONS[:3]], Decoding(64))
    assert (answers[0].n_prompt_tokens or 0) + (answers[0].n_tokens or 0) <= model.context
    assert answers[1:] == generate(model, INSTRUCTIONS[:3], Decoding(64))
