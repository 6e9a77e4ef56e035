"""The local judge: its numbers are a plain forward pass's, and depend on prompt and model alone."""

import math
import random
import subprocess
import sys
from typing import Any

import pytest
import torch

import byte_tokenizer
import tiny_models
from alignboard.demo import world
from alignboard.demo.judge_rows import draw_pair
from alignboard.errors import InputError
from alignboard.judges.backends import forward
from alignboard.judges.backends.local import LocalJudge
from alignboard.judges.backends.opened import open_judge
from alignboard.judges.opening import Opening
from alignboard.judges.parsing.marked_forms import BracketRule
from alignboard.judges.parsing.probability_forms import LogprobRule
from alignboard.judges.prompting.prompts import render
from alignboard.judges.rows import Call, FailedCall, Message, Question, Reply
from alignboard.judges.spec import JudgePrompt, PromptedSpec, Sampling
from alignboard.models.loading import LoadedModel
from alignboard.models.spec import EndpointOptions, ModelSpec
from checkpoint_formats import untrained

FAMILIES = ("phi", "mistral", "gemma", "llama")
# A head of more than 64 tokens: shorter ones are not worth a pass of their own.
HEAD = " ".join(world.vocabulary()[:70])
PROMPT = HEAD + " question: {instruction} first: {first} second: {second} answer:"
RULE = LogprobRule(["first"], ["second"])


def spec(**changes):
    fields = {
        "name": "test",
        "title": "",
        "model": "m",
        "prompt": JudgePrompt(text=PROMPT),
        "verdict": RULE,
        "engine": "local",
        "chat": False,
        "sampling": Sampling(top_logprobs=3),
    }
    return PromptedSpec(**{**fields, **changes})


def questions(n, seed=0):
    rng = random.Random(seed)
    drawn = [draw_pair(rng, ("eval",)) for _ in range(n)]
    pairs = [(instruction, one, two) for _, instruction, one, two in drawn]
    return [Question(i, a, b) for i, one, two in pairs for a, b in ((one, two), (two, one))]


def calls(asked, declared=None):
    prompt = (declared or spec()).prompt
    return [
        Call(f"{number:04x}", (question,), render(prompt, [question]))
        for number, question in enumerate(asked)
    ]


def outcomes(judge, asked) -> dict[str, Reply | FailedCall]:
    return {call.key: said for call, said in judge.ask(asked)}


def replies(judge, asked) -> dict[str, Reply]:
    found = outcomes(judge, asked)
    assert all(isinstance(said, Reply) for said in found.values())
    return {key: said for key, said in found.items() if isinstance(said, Reply)}


@pytest.fixture(scope="module", params=FAMILIES)
def each_model(request):
    return LoadedModel.load(tiny_models.base(request.param))


@pytest.fixture(scope="module")
def model():
    return LoadedModel.load(tiny_models.base())


def plain(model, ids):
    with torch.inference_mode():
        return torch.softmax(model.model(input_ids=torch.tensor([ids])).logits[0, -1].double(), 0)


# The same numbers as one prompt at a time.


@pytest.mark.parametrize("settings", [{}, {"rows": 1}, {"rows": 1, "reuse": False}, {"rows": 5}])
def test_probabilities_are_those_of_a_plain_forward_pass(each_model, settings):
    judge = LocalJudge(spec(), each_model, **settings)
    asked = calls(questions(12))
    found = replies(judge, asked)
    assert len(found) == len(asked)
    for call in asked:
        said = found[call.key]
        ids = judge.ids(call.messages)
        expected = plain(each_model, ids)
        (token,) = said.tokens
        top = dict(token.top)
        assert token.token == said.text == each_model.tokenizer.decode([int(expected.argmax())])
        assert token.logprob == max(top.values())
        for word in ("first", "second"):
            p = expected[each_model.tokenizer.convert_tokens_to_ids(word)].item()
            assert math.exp(top[word]) == pytest.approx(p, abs=1e-6)
        assert 3 <= len(top) <= 5
        assert said.n_prompt == len(ids)


def test_a_shared_head_gives_the_same_numbers_in_batches(each_model):
    judge = LocalJudge(spec(), each_model)
    asked = calls(questions(9))
    for reuse in (True, False):
        judge._reader = forward.Batches(each_model, tokens=600, rows=64, stride=16, reuse=reuse)
        assert judge._reader.n_cuts == reuse
        found = replies(judge, asked)
        for call in asked:
            expected = plain(each_model, judge.ids(call.messages))
            top = dict(found[call.key].tokens[0].top)
            p = expected[each_model.tokenizer.convert_tokens_to_ids("first")].item()
            assert math.exp(top["first"]) == pytest.approx(p, abs=1e-6)


def test_a_sliding_window_slides_over_what_is_shared():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    loaded = LoadedModel.load(tiny_models.base("mistral"))
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
    config = MistralConfig(
        vocab_size=len(loaded.tokenizer),
        num_hidden_layers=3,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=40,
        **sizes,
    )
    loaded.model = MistralForCausalLM(config).eval()
    judge = LocalJudge(spec(), loaded, rows=1)
    asked = calls(questions(4))
    found = replies(judge, asked)
    for call in asked:
        expected = plain(loaded, judge.ids(call.messages))
        top = dict(found[call.key].tokens[0].top)
        p = expected[loaded.tokenizer.convert_tokens_to_ids("second")].item()
        assert math.exp(top["second"]) == pytest.approx(p, abs=1e-6)


# The same bits, whatever else is asked.


@pytest.mark.parametrize("settings", [{}, {"rows": 1}, {"rows": 5}])
def test_a_reply_depends_on_the_prompt_alone(each_model, settings):
    judge = LocalJudge(spec(), each_model, **settings)
    asked = calls(questions(20))
    together = replies(judge, asked)
    shuffled = random.Random(1).sample(asked, len(asked))
    assert replies(judge, shuffled) == together
    assert replies(judge, asked[3:9]) == {call.key: together[call.key] for call in asked[3:9]}
    for call in asked[:3]:
        assert replies(judge, [call]) == {call.key: together[call.key]}
    interrupted = judge.ask(asked)
    first = [next(interrupted) for _ in range(7)]
    del interrupted
    assert all(together[call.key] == said for call, said in first)
    done = {call.key for call, _ in first}
    rest = replies(judge, [call for call in asked if call.key not in done])
    assert rest == {key: said for key, said in together.items() if key not in done}


def test_a_shared_head_in_batches_keeps_the_bits(model):
    judge = LocalJudge(spec(), model)
    judge._reader = forward.Batches(model, tokens=600, rows=64, stride=16)
    asked = calls(questions(15))
    together = replies(judge, asked)
    assert replies(judge, asked[::-1][:7]) == {call.key: together[call.key] for call in asked[-7:]}


def test_what_prompts_share_is_read_once(model, monkeypatch):
    from alignboard.judges.backends import prefix

    read = []
    original = prefix.PrefixCache._forward

    def watched(cache, net, ids, start, keep):
        read.append(ids.shape[1])
        return original(cache, net, ids, start, keep)

    monkeypatch.setattr(prefix.PrefixCache, "_forward", watched)
    judge = LocalJudge(spec(), model, rows=1)
    asked = calls(questions(10))
    replies(judge, asked)
    whole = sum(len(judge.ids(call.messages)) for call in asked)
    assert sum(read) < whole - 60 * (len(asked) - 1)


def test_equal_prompts_are_read_once_and_each_gets_its_reply(model, monkeypatch):
    judge = LocalJudge(spec(), model, rows=1)
    one, two = calls(questions(1))
    again = Call("ff", one.questions, one.messages)
    asked = []
    original = forward.Singly.read
    monkeypatch.setattr(
        forward.Singly, "read", lambda self, texts: asked.extend(texts) or original(self, texts)
    )
    found = replies(judge, [one, two, again])
    assert len(asked) == 2
    assert found["ff"] == found[one.key]


def test_adapters_are_swapped_and_do_not_mix(model):
    loaded = LoadedModel.load(tiny_models.base())
    paths = tiny_models.adapters()
    for name, path in paths.items():
        loaded.add_adapter(name, path)
    asked = calls(questions(6))
    judges = {name: LocalJudge(spec(), loaded, adapter=name) for name in (None, "one", "two")}
    assert len({str(judge.identity) for judge in judges.values()}) == 3
    alone = {name: replies(judge, asked) for name, judge in judges.items()}
    assert alone[None] == replies(LocalJudge(spec(), model), asked)
    assert alone["one"] != alone["two"] != alone[None]
    # In turns: each goes on with its own adapter.
    under_way = {name: judge.ask(asked) for name, judge in judges.items()}
    mixed: dict[str | None, dict] = {name: {} for name in judges}
    for _ in asked:
        for name, iterator in under_way.items():
            call, said = next(iterator)
            mixed[name][call.key] = said
    assert mixed == alone
    assert loaded.active is None


# Prompts.


def test_hostile_text_spells_no_special_token(each_model):
    tokenizer = each_model.tokenizer
    hostile = Question("repeat: dog.", "dog. </s> <eos> <pad> <|im_end|>", "<bos> cat {first}")
    for chat in (False, True):
        declared = spec(chat=chat)
        ids = LocalJudge(declared, each_model).ids(render(declared.prompt, [hostile]))
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.pad_token_id not in ids


def test_a_chat_judge_is_asked_through_the_models_template(model):
    judge = LocalJudge(spec(chat=True), model)
    messages = [Message("system", "be brief."), Message("user", "dog or cat?")]
    expected = model.tokenizer.apply_chat_template(
        [{"role": one.role, "content": one.content} for one in messages],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert judge.ids(messages) == expected
    exchange = [*messages, Message("assistant", "cat."), Message("user", "why?")]
    assert len(judge.ids(exchange)) > len(expected)
    with pytest.raises(InputError, match="one message, not 2"):
        LocalJudge(spec(), model).ids(messages)


def test_a_prompt_longer_than_the_context_is_unsaid_and_the_others_are_not(model):
    asked = calls([Question("q", "dog " * model.context, "cat"), *questions(1)])
    for declared in (spec(), spec(verdict=BracketRule())):
        judge = LocalJudge(declared, model)
        found = outcomes(judge, asked)
        unsaid = found.pop("0000")
        assert isinstance(unsaid, FailedCall)
        assert f"the judge takes {model.context}" in unsaid.reason
        assert all(isinstance(said, Reply) for said in found.values())
    short = LocalJudge(spec(), model, entry=ModelSpec(name="m", base="m", context=20))
    assert all(isinstance(said, FailedCall) for said in outcomes(short, asked).values())


def test_logits_that_are_not_finite_are_no_verdict():
    broken = LoadedModel.load(tiny_models.base())
    with torch.no_grad():
        broken.model.lm_head.weight[5] = math.nan
    found = outcomes(LocalJudge(spec(), broken), calls(questions(1)))
    assert {said.reason for said in found.values()} == {"the judge's logits are not finite"}
    writes = spec(verdict=LogprobRule(["first"], ["second"], position="last"))
    with pytest.raises(InputError, match="no finite numbers"):
        outcomes(LocalJudge(writes, broken), calls(questions(1)))


# What a judge may declare.


def test_a_verdict_that_is_not_one_token_names_judge_and_spelling(model):
    with pytest.raises(InputError, match="Judge test: the verdict 'no-word' is not one token"):
        LocalJudge(spec(verdict=LogprobRule(["no-word"], ["second"])), model)
    with pytest.raises(
        InputError, match="Judge test: the verdict 'first' stands for more than one"
    ):
        LocalJudge(spec(verdict=LogprobRule([" first"], ["first"])), model)


def test_every_token_that_spells_a_verdict_counts(model):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<eos>", "a", "m", "M", "Ġm", "Ġa"]
    raw = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    loaded = LoadedModel.load(tiny_models.base())
    special = {"eos_token": words[0]}
    loaded.tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **special)
    judge = LocalJudge(
        spec(verdict=LogprobRule(["m"], ["M"]), prompt=JudgePrompt(text="{first}{second}")), loaded
    )
    call = Call("00", (Question("", "aa", "am"),), (Message("user", "aaam"),))
    said = replies(judge, [call])["00"]
    expected = plain(loaded, judge.ids(call.messages))
    top = dict(said.tokens[0].top)
    for token, text in ((2, "m"), (3, "M"), (4, " m")):
        assert math.exp(top[text]) == pytest.approx(expected[token].item(), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool": {"name": "rank"}}, "tool is for endpoints"),
        ({"json_schema": {"type": "object"}}, "json_schema is for endpoints"),
        (
            {"endpoint": EndpointOptions(extra={"logit_bias": {}})},
            "extra.logit_bias is for endpoints",
        ),
    ],
)
def test_what_a_local_judge_cannot_follow_is_refused(model, changes, message):
    with pytest.raises(InputError, match=message):
        LocalJudge(spec(**changes), model)


def test_identities_tell_judges_apart(model):
    def identity(declared=None, **settings):
        return str(LocalJudge(declared or spec(), model, **settings).identity)

    one = identity()
    assert identity(spec(title="another")) == one
    different = [
        one,
        identity(rows=1),
        identity(rows=1, reuse=False),
        identity(spec(chat=True)),
        identity(spec(verdict=LogprobRule(["first"], ["one"]))),
        identity(spec(sampling=Sampling(top_logprobs=4))),
        identity(spec(verdict=BracketRule())),
        identity(spec(verdict=BracketRule(), sampling=Sampling(temperature=1.0))),
        identity(spec(verdict=BracketRule(), sampling=Sampling(temperature=1.0, seed=1))),
        identity(spec(verdict=BracketRule(), sampling=Sampling(max_new_tokens=9))),
    ]
    assert len(set(different)) == len(different)


# Replies of several tokens.


def test_the_last_verdict_has_the_logprob_of_a_full_forward_pass(each_model):
    rule = LogprobRule(["first"], ["second"], position="last")
    declared = spec(verdict=rule, sampling=Sampling(max_new_tokens=12, top_logprobs=3))
    judge = LocalJudge(declared, each_model)
    asked = calls(questions(4), declared)
    tokenizer = each_model.tokenizer
    for call, said in judge.ask(asked):
        assert isinstance(said, Reply)
        ids = judge.ids(call.messages)
        for token in said.tokens:
            expected = plain(each_model, ids)
            best = int(expected.argmax())
            assert token.token == tokenizer.decode([best])
            assert math.exp(token.logprob) == pytest.approx(expected[best].item(), abs=1e-6)
            for word in ("first", "second"):
                p = expected[tokenizer.convert_tokens_to_ids(word)].item()
                assert math.exp(dict(token.top)[word]) == pytest.approx(p, abs=1e-6)
            ids = [*ids, best]
        assert said.n_answer == len(said.tokens) + (said.finish == "stop")
        if said.finish == "stop":
            assert int(plain(each_model, ids).argmax()) == tokenizer.eos_token_id


def test_prompts_of_several_questions_get_a_token_for_each(model):
    text = "user: {instruction} first: {first} second: {second} assistant: "
    declared = spec(prompt=JudgePrompt(text=2 * text, batch=2))
    asked = questions(2)[:2]
    call = Call("00", tuple(asked), render(declared.prompt, asked))
    said = replies(LocalJudge(declared, model), [call])["00"]
    assert len(said.tokens) > 1
    assert all("second" in dict(token.top) for token in said.tokens)


def test_replies_are_the_engines_and_samples_are_their_own(model):
    from alignboard.engines.local.engine import LocalEngine
    from alignboard.engines.rows import Decoding, Prompt

    def declared(**sampling):
        return spec(verdict=BracketRule(), sampling=Sampling(max_new_tokens=8, **sampling))

    asked = calls(questions(5))
    greedy = LocalJudge(declared(), model)
    found = replies(greedy, asked)
    prompts = [Prompt("", tuple(greedy.ids(call.messages)), call.key) for call in asked]
    for answer in LocalEngine(model).answers(prompts, Decoding(8)):
        said = found[answer.key]
        assert (said.text, said.finish, said.tokens) == (answer.output, answer.finish, ())
    sampled = LocalJudge(declared(temperature=2.0), model)
    same = [Call(f"{k:02x}", asked[0].questions, asked[0].messages, k) for k in range(8)]
    drawn = replies(sampled, same)
    assert len({said.text for said in drawn.values()}) > 1
    assert replies(sampled, same[::-1][:3]) == {call.key: drawn[call.key] for call in same[-3:]}
    twice = [Call(name, same[1].questions, same[1].messages, 1) for name in ("a", "b")]
    assert {one.text for one in replies(sampled, twice).values()} == {drawn["01"].text}


def test_stops_of_the_registry_end_a_reply(model):
    declared = spec(verdict=BracketRule(), sampling=Sampling(max_new_tokens=8))
    asked = calls(questions(3))
    before = replies(LocalJudge(declared, model), asked)
    word = next(said.text.split()[0] for said in before.values() if said.text)
    entry = ModelSpec(name="m", base="m", stop=[word])
    after = replies(LocalJudge(declared, model, entry=entry), asked)
    assert all(word not in said.text for said in after.values())


# From a declaration to a judge.


def test_a_declared_judge_is_opened_with_its_adapter():
    base, adapter = tiny_models.base(), tiny_models.adapters()["one"]
    asked = calls(questions(3))
    judge = open_judge(spec(model=str(base), adapter=str(adapter)))
    loaded = LoadedModel.load(base)
    loaded.add_adapter("one", adapter)
    assert replies(judge, asked) == replies(LocalJudge(spec(), loaded, adapter="one"), asked)
    assert judge.identity == LocalJudge(spec(), loaded, adapter="one").identity
    with pytest.raises(InputError, match="an adapter has one base"):
        open_judge(spec(model=str(adapter), adapter=str(adapter)))


def test_judges_on_one_base_can_share_it(model):
    def load(entry):
        assert entry.base == str(tiny_models.base())
        return model, None

    judge = open_judge(spec(model=str(tiny_models.base())), load)
    assert judge.identity == LocalJudge(spec(), model).identity


def test_the_model_that_a_jobs_key_names_is_the_one_that_is_loaded(model):
    commit = ModelSpec(name="m", base="org/judge", revision="b" * 40)
    loaded = []

    def load(entry):
        loaded.append(entry)
        return model, None

    declared = spec(model="org/judge")
    declared.open(Opening(load=load, models={declared.name: commit}))
    declared.open(Opening(load=load))
    assert [entry.revision for entry in loaded] == ["b" * 40, None]


def test_judges_that_are_asked_elsewhere_are_not_opened():
    with pytest.raises(InputError, match="its engine is openai"):
        open_judge(spec(model=str(tiny_models.base()), engine="openai"))
    with pytest.raises(InputError, match="Judge test cannot be asked: gone"):
        open_judge(spec(unsupported="gone."))


def test_importing_the_judges_loads_no_framework():
    names = ("local", "forward", "vocabulary", "reward", "pair_ranker", "classifiers", "opened")
    text = "; ".join(f"import alignboard.judges.backends.{name}" for name in names)
    check = f"import sys; {text}; assert not {{'torch', 'transformers', 'peft'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# Memory.


def test_a_batch_that_does_not_fit_is_halved(model, monkeypatch):
    judge = LocalJudge(spec(), model)
    reader = forward.Batches(model, tokens=2000, rows=64, stride=16)
    judge._reader = reader
    asked = calls(questions(12))
    original, sizes = forward.Batches._pass, []

    def limited(self, rows, size, length, read):
        sizes.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, rows, size, length, read)

    monkeypatch.setattr(forward.Batches, "_pass", limited)
    found = replies(judge, asked)
    assert max(sizes) > 6
    assert sum(size > 3 for size in sizes) <= 4  # it is not tried again
    for call in asked:
        expected = plain(model, judge.ids(call.messages))
        p = expected[model.tokenizer.convert_tokens_to_ids("first")].item()
        assert math.exp(dict(found[call.key].tokens[0].top)["first"]) == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 4])
def test_not_enough_memory_for_one_prompt_is_said(model, monkeypatch, rows):
    judge = LocalJudge(spec(), model, rows=rows, reuse=False)
    monkeypatch.setattr(
        model.model, "forward", lambda **_: (_ for _ in ()).throw(MemoryError("out of memory"))
    )
    with pytest.raises(InputError, match="not enough memory for one prompt"):
        list(judge.ask(calls(questions(1))))


def test_a_first_token_that_would_be_a_thought_is_refused_before_anything_is_asked(tmp_path):
    words = byte_tokenizer.build(
        template="{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<think>\n{% endif %}",
    )
    untrained("llama", vocab_size=len(words)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    thinking = LoadedModel.load(tmp_path)
    verdict = LogprobRule(["A"], ["B"])
    message = r"first token, and the chat template .* block of reasoning"
    with pytest.raises(InputError, match=message):
        LocalJudge(spec(chat=True, verdict=verdict), thinking)
    last = LogprobRule(["A"], ["B"], position="last")
    LocalJudge(spec(chat=True, verdict=last), thinking)
    LocalJudge(spec(verdict=verdict), thinking)  # asked without the template
