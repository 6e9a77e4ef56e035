"""The local engine: the answers of one prompt at a time, whatever the rows; stops, memory, adapters."""

import itertools
import random
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny_models
from alignboard.demo import tiny, world
from alignboard.engines.generate import prompts
from alignboard.engines.local import batch
from alignboard.engines.local.batch import Batch, OneRow, RunningSequence, choose
from alignboard.engines.local.ending import Ending, StopTexts, cut
from alignboard.engines.local.engine import LocalEngine
from alignboard.engines.local.slots import fits, masks
from alignboard.engines.rows import Decoding, Prompt, uniform
from alignboard.errors import InputError
from alignboard.models.loading import LoadedModel

INSTRUCTIONS = world.prompts("eval", 24, seed=0)
SAMPLED = Decoding(16, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base("mistral"))
    for name, path in tiny_models.adapters("mistral").items():
        loaded.add_adapter(name, path)
    return loaded


def answers(model, decoding, slots, asked=INSTRUCTIONS, **options):
    engine = LocalEngine(model, slots=slots, **options)
    found = {one.key: one for one in engine.answers(prompts(model, asked, decoding), decoding)}
    return [found[one.key] for one in prompts(model, asked, decoding)]


def alone(model, instruction, n):
    """The tokens by which transformers goes on from one prompt."""
    ids = torch.tensor([prompts(model, [instruction], Decoding(n))[0].ids])
    ask: Any = model.model.generate
    with torch.no_grad():
        whole = ask(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False
        )
    return model.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("family", "attention"), [*((family, "sdpa") for family in tiny.FAMILIES), ("gemma", "eager")]
)
def test_the_tokens_are_those_of_one_prompt_at_a_time(family, attention):
    loaded = LoadedModel.load(tiny_models.base(family))
    loaded.model.set_attn_implementation(attention)
    expected = [alone(loaded, one, 20) for one in INSTRUCTIONS[:6]]
    together = answers(loaded, Decoding(20), 5)
    assert [one.output for one in together[:6]] == expected
    for slots, tokens in ((1, 1), (24, 4096)):
        assert answers(loaded, Decoding(20), slots, prefill_tokens=tokens) == together
    assert len({one.output for one in together}) > 5


def test_an_adapter_is_asked_and_the_base_is_left_as_it_was(model):
    before = answers(model, Decoding(16), 4)
    with model.using("one"):
        assert [one.output for one in answers(model, Decoding(16), 4)[:4]] == [
            alone(model, one, 16) for one in INSTRUCTIONS[:4]
        ]
        adapted = answers(model, Decoding(16), 7)
    assert adapted != before
    assert answers(model, Decoding(16), 24) == before


def test_sampled_rows_do_not_depend_on_their_batch(model):
    together = answers(model, SAMPLED, 24)
    assert answers(model, SAMPLED, 5, INSTRUCTIONS[10:20]) == together[10:20]
    assert answers(model, SAMPLED, 1, INSTRUCTIONS[:3]) == together[:3]


def test_a_run_that_is_stopped_goes_on_with_the_same_answers(model):
    expected = {one.key: one for one in answers(model, Decoding(16), 6)}
    asked = prompts(model, INSTRUCTIONS, Decoding(16))
    stopped = LocalEngine(model, slots=6).answers(asked, Decoding(16))
    found = {one.key: one for one in itertools.islice(stopped, 7)}
    del stopped
    missing = [one for one in asked if one.key not in found]
    rest = {one.key: one for one in LocalEngine(model).answers(missing, Decoding(16))}
    assert len(found) == 7
    assert found.keys().isdisjoint(rest)
    assert found | rest == expected


def test_a_row_that_ends_hands_its_place_on(model, monkeypatch):
    sizes = []
    step = Batch.step

    def counted(self):
        sizes.append((len(self.living), len(self.waiting)))
        step(self)

    monkeypatch.setattr(Batch, "step", counted)
    answers(model, Decoding(24), 4)
    assert max(living for living, _ in sizes) == 4
    assert all(living == 4 for living, waiting in sizes if waiting)


@pytest.mark.parametrize("where", ["step", "read_prompts"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_halves_the_rows_and_goes_on(model, monkeypatch, where, error):
    expected = {decoding: answers(model, decoding, 8) for decoding in (Decoding(16), SAMPLED)}
    monkeypatch.setattr(Batch, "_forward", failing(Batch._forward, error, where))
    for decoding, wanted in expected.items():
        engine = LocalEngine(model, slots=8)
        found = {
            one.key: one for one in engine.answers(prompts(model, INSTRUCTIONS, decoding), decoding)
        }
        assert sorted(found) == sorted(one.key for one in wanted)
        assert [found[one.key] for one in wanted] == wanted
        assert engine.slots == 2


def failing(forward, error, where):
    """``forward`` for at most three rows, the sixth pass or later."""
    passes = 0

    def run(self, ids, *arguments):
        nonlocal passes
        passes += 1
        if len(self.living) > 3 and passes > 5 and (ids.shape[1] == 1) == (where == "step"):
            raise error
        return forward(self, ids, *arguments)

    return run


def test_no_memory_for_one_row_is_said_and_other_errors_are_raised(model, monkeypatch):
    def broken(error):
        def run(*_):
            raise error

        monkeypatch.setattr(Batch, "_forward", run)

    broken(MemoryError())
    with pytest.raises(InputError, match="has not enough memory for one prompt of"):
        answers(model, Decoding(4), 4)
    broken(RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        answers(model, Decoding(4), 4)


def test_the_rows_that_memory_allows(model, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1_000_000))
    # 2 (keys, values) * 2 layers * 2 heads * 16 * 4 bytes = 512 bytes a token
    assert batch.affordable(model, 100, 64) == 15
    assert batch.affordable(model, 10, 64) == 64
    assert batch.affordable(model, 10**6, 64) == 1


def test_stop_texts_end_a_row_and_are_cut_once(model):
    plain = answers(model, Decoding(24), 8)
    long = max(plain, key=lambda one: len(one.output))
    words = long.output.split()
    stop = " ".join(words[3:5])
    stopped = answers(model, Decoding(24, stop=(stop, "never said")), 8)
    for before, after in zip(plain, stopped, strict=True):
        assert after.output == before.output.partition(stop)[0].strip()
        assert stop not in after.output
        if stop in before.output:
            assert after.finish == "stop"
            assert after.n_tokens is not None
            assert before.n_tokens is not None
            assert after.n_tokens <= before.n_tokens
    until = long.output[: long.output.index(stop) + len(stop)]
    (short,) = [b for a, b in zip(plain, stopped, strict=True) if a == long]
    assert short.n_tokens == len(model.tokenizer.encode(until, add_special_tokens=False))
    assert {one.key for one in plain}.isdisjoint(one.key for one in stopped)


def test_stop_tokens_end_a_row(model):
    plain = answers(model, Decoding(24), 8)
    ids = model.tokenizer.encode(plain[0].output, add_special_tokens=False)
    stopped = answers(model, Decoding(24, stop_tokens=(ids[1],)), 8)
    assert (stopped[0].n_tokens, stopped[0].finish) == (ids.index(ids[1]) + 1, "stop")


def test_a_stop_text_is_found_over_the_borders_of_tokens():
    stops = StopTexts(lambda said: bytes(said).decode(errors="replace"), ["\nÜber:"])
    text = list("So.\nÜber: that".encode())
    found = [n for n in range(1, len(text) + 1) if stops.ended(text[:n])]
    assert found[0] == len("So.\nÜber:".encode())
    assert cut("a STOP b STOP", ["STOP"]) == ("a ", True)
    assert cut("a END b STOP", ["STOP", "END"]) == ("a ", True)


def test_an_added_token_as_a_stop_text(model):
    # <unk> is special: decoding leaves it out, so its text would never be seen
    unknown = model.tokenizer.unk_token_id
    ending = Ending(model, Decoding(8, stop=("<unk>", "dog")))
    prompt = Prompt("", (1,), "k")
    assert ending.over(RunningSequence(prompt, 8, [7, unknown]))
    assert not ending.over(RunningSequence(prompt, 8, [7, 7]))
    assert ending.answer(RunningSequence(prompt, 8, [7, unknown])).finish == "stop"


def test_settings_that_make_no_sense():
    wrong: list[dict[str, Any]] = [
        {"stop": ("",)},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
    ]
    for settings in wrong:
        with pytest.raises(InputError):
            Decoding(**settings)


def test_a_limit_of_a_prompt_itself(model):
    asked = [
        Prompt(one.instruction, one.ids, one.key, max_new_tokens=3)
        for one in prompts(model, INSTRUCTIONS, Decoding(16))
    ]
    found = list(LocalEngine(model).answers(asked, Decoding(16)))
    assert {one.n_tokens for one in found} <= {1, 2, 3}
    assert len(found) == len(asked)
    assert list(LocalEngine(model).answers([], Decoding(16))) == []
    long = Prompt("too long", (1,) * model.context, "k")
    with pytest.raises(InputError, match="takes 256 in all: 'too long'"):
        list(LocalEngine(model).answers([long], Decoding(16)))


def test_a_window_slides_as_in_transformers():
    loaded = LoadedModel.load(tiny_models.base("mistral"))
    loaded.model.config.sliding_window = 6
    found = answers(loaded, Decoding(12), 5)
    assert [one.output for one in found[:6]] == [alone(loaded, one, 12) for one in INSTRUCTIONS[:6]]


def test_masks_by_kind_of_layer():
    config = SimpleNamespace(
        sliding_window=2,
        layer_types=["full_attention", "sliding_attention"],
        _attn_implementation="sdpa",
    )
    found = masks(config, torch.tensor([0, 3]), 5, torch.float32)
    assert found["full_attention"].int().tolist() == [[[[1, 0, 0, 0, 0]]], [[[1, 1, 1, 1, 0]]]]
    assert found["sliding_attention"].int().tolist() == [[[[1, 0, 0, 0, 0]]], [[[0, 0, 1, 1, 0]]]]


def test_a_model_with_a_cache_of_its_own_runs_one_row_at_a_time(model, monkeypatch):
    assert fits(model.model)
    expected = answers(model, Decoding(12), 4)
    monkeypatch.setattr(type(model.model.get_base_model()), "_supports_attention_backend", False)
    assert not fits(model.model)
    assert batch.batch_of(model) is OneRow
    assert answers(model, Decoding(12), 4) == expected


def test_a_longer_limit_goes_on_from_the_same_draw(model):
    def texts(decoding):
        return [one.output for one in answers(model, decoding, 4)]

    short, longer = texts(SAMPLED), texts(replace(SAMPLED, max_new_tokens=24))
    assert all(b.startswith(a) for a, b in zip(short, longer, strict=True))
    assert longer != short
    assert texts(replace(SAMPLED, seed=4)) != short


def test_nucleus_sampling_leaves_out_the_unlikely():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(400, 1)
    rows = [RunningSequence(Prompt("", (1,), ""), 1, draw=f"{i:032x}") for i in range(400)]
    drawn = choose(logits, rows, Decoding(1, temperature=1.0, top_p=0.7))
    assert set(drawn) == {0, 1}
    assert 0.55 < drawn.count(0) / 400 < 0.7  # 0.625
    assert set(choose(logits, rows, Decoding(1, temperature=1.0))) == {0, 1, 2, 3}


def test_drawn_numbers_are_uniform_and_belong_to_their_token():
    numbers = [uniform(f"{random.Random(i).random()}", i % 7) for i in range(4000)]
    assert abs(sum(numbers) / 4000 - 0.5) < 0.02
    assert 0 <= min(numbers) < max(numbers) < 1
    assert uniform("a", 1) != uniform("a", 2) != uniform("b", 2)


def test_rows_are_taken_in_order_and_none_is_lost():
    rng = random.Random(0)
    living = [RunningSequence(Prompt("", (1,) * rng.randrange(1, 5), str(i)), 9) for i in range(9)]
    one = Batch.__new__(Batch)
    one.living, one.waiting = list(living), deque()
    moves = []
    cache: Any = SimpleNamespace(move=lambda *where: moves.append(where))
    one._cache = cache
    ended = {0, 3, 8, 7}
    left = one.leave(lambda row: int(row.prompt.key) in ended)
    assert sorted(int(row.prompt.key) for row in left) == sorted(ended)
    assert sorted(int(row.prompt.key) for row in one.living) == [1, 2, 4, 5, 6]
    places = {int(row.prompt.key): place for place, row in enumerate(one.living)}
    assert all(places[i] == i or any(target == places[i] for _, target, _ in moves) for i in places)
