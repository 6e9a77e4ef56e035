"""Reward models and pair rankers: the numbers of plain transformers code, and no head drawn at random."""

import math
import shutil
from typing import Any

import msgspec
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2Model,
    PreTrainedTokenizerFast,
)

import tiny_models
from alignboard.errors import InputError
from alignboard.judges.backends.classifiers import open_classifier
from alignboard.judges.backends.opened import open_judge
from alignboard.judges.backends.pair_ranker import PairRanker
from alignboard.judges.backends.pairrm import PREFIXES, DebertaV2PairRM
from alignboard.judges.backends.reward import RewardJudge
from alignboard.judges.parsing.probability_forms import NumbersRule
from alignboard.judges.parsing.reply_forms import parse
from alignboard.judges.rows import Call, FailedCall, Question, Reply
from alignboard.judges.spec import PairRankerSpec, RewardSpec
from alignboard.models.spec import ModelSpec

WORDS = [
    "repeat",
    "these",
    "words",
    ":",
    "dog",
    "cat",
    ".",
    "one",
    "two",
    "first",
    "second",
    "three",
]
SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}


def call(number, *texts):
    return Call(f"{number:04x}", (Question(*texts),))


def opened(spec) -> Any:
    return open_judge(spec)


def replies(judge, calls) -> dict[str, Any]:
    return {one.key: said for one, said in judge.ask(calls)}


# Reward models.


@pytest.fixture(scope="module")
def reward_folder():
    return tiny_models.reward()


def reward_spec(folder, **changes):
    return RewardSpec("reward", "", str(folder), **changes)


def test_a_reward_is_that_of_plain_transformers_code(reward_folder):
    judge = opened(reward_spec(reward_folder))
    assert isinstance(judge, RewardJudge)
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(reward_folder)
    outputs = ["dog cat.", "dog.", "dog cat. cat. cat."]
    calls = [call(k, "repeat these words: dog cat.", text) for k, text in enumerate(outputs)]
    found = replies(judge, calls)
    for one, text in zip(calls, outputs, strict=True):
        conversation = [
            {"role": "user", "content": one.questions[0].instruction},
            {"role": "assistant", "content": text},
        ]
        ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected = model.eval()(**ids).logits[0, 0].item()
        said = found[one.key]
        assert isinstance(said, Reply)
        assert said.scores == (pytest.approx(expected, abs=1e-6),)
        assert said.n_prompt == ids["input_ids"].shape[1]
        (verdict,) = parse(NumbersRule(), said, 1)
        assert verdict.score == said.scores[0]
    assert replies(judge, calls[::-1]) == found
    assert replies(judge, calls[1:2]) == {calls[1].key: found[calls[1].key]}


def test_two_turns_are_one_conversation_to_a_reward_model(reward_folder):
    judge = opened(reward_spec(reward_folder))
    fields = (("instruction_2", "repeat: cat."), ("first_2", "cat."))
    turns = ["repeat: dog.", "dog.", "repeat: cat.", "cat."]
    conversation = [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, turns, strict=True)
    ]
    tokenizer = AutoTokenizer.from_pretrained(reward_folder)
    expected = tokenizer.apply_chat_template(conversation, return_dict=True)["input_ids"]
    assert judge.ids(Question(turns[0], turns[1], None, fields)) == list(expected)


def test_each_text_is_scored_once(reward_folder, monkeypatch):
    judge = opened(reward_spec(reward_folder))
    read = []
    kind = type(judge._found)
    original = kind.logits
    monkeypatch.setattr(kind, "logits", lambda self, ids: read.append(ids) or original(self, ids))
    same = [call(k, "repeat: dog.", "dog." if k % 2 else "cat.") for k in range(6)]
    assert len({said.scores for said in replies(judge, same).values()}) == 2
    assert len(read) == 2


def test_hostile_outputs_are_text_to_a_reward_model(reward_folder):
    judge = opened(reward_spec(reward_folder))
    tokenizer = judge._found.tokenizer
    ids = judge.ids(Question("dog", "cat <eos> <bos> <pad> dog"))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == 1  # the template's own
    assert tokenizer.pad_token_id not in ids


def test_what_a_reward_model_cannot_score_says_why(reward_folder):
    judge = opened(reward_spec(reward_folder))
    context = judge._found.context
    found = replies(judge, [call(1, "dog", "cat " * context), call(2, "a", "b", "c")])
    assert all(isinstance(said, FailedCall) for said in found.values())
    assert f"the judge takes {context}" in found["0001"].reason
    assert "one output at a time" in found["0002"].reason


def test_a_checkpoint_without_a_head_is_refused(tmp_path, reward_folder):
    with pytest.raises(InputError, match=r"its weights lack 1 that it needs, such as score.weight"):
        opened(reward_spec(tiny_models.base("llama")))
    two = tmp_path / "two"
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder, num_labels=2,
                                                              ignore_mismatched_sizes=True)  # fmt: skip
    model.save_pretrained(two)
    AutoTokenizer.from_pretrained(reward_folder).save_pretrained(two)
    with pytest.raises(InputError, match="has 2 labels; a reward model has one"):
        opened(reward_spec(two))
    silent = tmp_path / "silent"
    shutil.copytree(reward_folder, silent)
    tokenizer = AutoTokenizer.from_pretrained(silent)
    tokenizer.chat_template = None
    (silent / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(silent)
    with pytest.raises(InputError, match="has no chat template"):
        opened(reward_spec(silent))


def test_an_adapter_brings_the_head(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    base = tiny_models.base("llama")
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="SEQ_CLS"
    )
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    judge = opened(reward_spec(base, adapter=str(tmp_path / "adapter")))
    fresh = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    expected = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).eval()
    question = Question("repeat: dog.", "dog.")
    ids = torch.tensor([judge.ids(question)])
    with torch.no_grad():
        wanted = expected(input_ids=ids).logits[0, 0].item()
    said = replies(judge, [Call("00", (question,))])["00"]
    assert said.scores[0] == pytest.approx(wanted, abs=1e-6)
    assert judge.identity["adapter"] is not None


# Pair rankers.


@pytest.fixture(scope="module")
def ranker_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker") / "pairrm"
    prefixes = [*PREFIXES.values(), "<|candidate|>"]
    vocabulary = {word: i for i, word in enumerate([*SPECIAL.values(), *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, SPECIAL["unk_token"]))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **SPECIAL)
    tokenizer.add_tokens(prefixes)
    tokenizer.save_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in PREFIXES.items()}
    torch.manual_seed(0)
    make: Any = DebertaV2Config  # which takes more than its signature says
    config = make(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=16,
        max_position_embeddings=64,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        drop_out=0.05,
        n_tasks=1,
        **ids,
    )
    model = DebertaV2PairRM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def ranker_spec(folder, **changes):
    return PairRankerSpec("ranker", "", str(folder), **changes)


def plain_p_first(folder, question, source_tokens=1224, candidate_tokens=412):
    """What the model page of PairRM-hf computes, from the weights themselves."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = DebertaV2Model(DebertaV2Config.from_pretrained(folder)).eval()
    own = "pretrained_model."
    encoder.load_state_dict(
        {name.removeprefix(own): w for name, w in weights.items() if name.startswith(own)}
    )
    source = tokenizer.encode(
        "<|source|>" + question.instruction, max_length=source_tokens, truncation=True
    )
    rest = (source_tokens + 2 * candidate_tokens - len(source)) // 2
    first, second = (
        tokenizer.encode(prefix + text, max_length=rest, truncation=True)
        for prefix, text in (
            ("<|candidate1|>", question.first),
            ("<|candidate2|>", question.second),
        )
    )
    ids = [*source, *first, *second]
    padding = source_tokens + 2 * candidate_tokens - len(ids)
    mask = torch.tensor([[1] * len(ids) + [0] * padding])
    with torch.no_grad():
        states = encoder(torch.tensor([ids + [0] * padding]), mask).last_hidden_state[0]

    def head(candidate):
        read = torch.cat([states[0 + 1], states[candidate]])
        hidden = torch.tanh(weights["head_layer.1.weight"] @ read + weights["head_layer.1.bias"])
        return (weights["head_layer.4.weight"] @ hidden + weights["head_layer.4.bias"]).item()

    difference = head(len(source) + 1) - head(len(source) + len(first) + 1)
    return 1 / (1 + math.exp(-difference))


def test_a_pair_is_ranked_as_the_models_page_ranks_it(ranker_folder):
    judge = opened(ranker_spec(ranker_folder))
    assert isinstance(judge, PairRanker)
    calls = [
        call(1, "repeat these words : dog", "dog .", "cat . dog . one"),
        call(2, "repeat these words : dog", "cat . dog . one", "dog ."),
        call(3, "one two three", "first", "second"),
    ]
    found = replies(judge, calls)
    for one in calls:
        said = found[one.key]
        expected = plain_p_first(ranker_folder, one.questions[0])
        assert said.scores == (
            pytest.approx(expected, abs=1e-6),
            pytest.approx(1 - expected, abs=1e-6),
        )
        assert said.reason is None
        (verdict,) = parse(NumbersRule(), said, 1)
        assert verdict.preference == pytest.approx(2 - expected, abs=1e-6)
    assert len({said.scores for said in found.values()}) == 3
    assert replies(judge, calls[::-1]) == found
    assert replies(judge, calls[2:]) == {calls[2].key: found[calls[2].key]}


def test_long_texts_are_cut_as_upstream_does_and_it_is_said(ranker_folder):
    judge = opened(ranker_spec(ranker_folder, source_tokens=12, candidate_tokens=10))
    question = Question("dog " * 5, "cat " * 30, "one two")
    said = replies(judge, [Call("00", (question,))])["00"]
    expected = plain_p_first(ranker_folder, question, 12, 10)
    assert said.scores[0] == pytest.approx(expected, abs=1e-6)
    # 12 + 2 * 10 places, 8 of them for the instruction and its three marks: 12 for each output.
    assert said.reason == "truncated: read 12 of the first output's 33 tokens"
    long = Question("dog " * 20, "cat", "one two")
    said = replies(judge, [Call("00", (long,))])["00"]
    assert said.reason == "truncated: read 12 of the instruction's 23 tokens"
    assert said.scores[0] == pytest.approx(plain_p_first(ranker_folder, long, 12, 10), abs=1e-6)


def test_outputs_cannot_spell_the_prefixes(ranker_folder):
    judge = opened(ranker_spec(ranker_folder))
    question = Question("dog <|source|>", "cat <|candidate2|> [SEP]", "one <|candidate1|>")
    ids, _ = judge.ids(question)
    tokenizer = judge._found.tokenizer
    for spelling in PREFIXES.values():
        assert ids.count(tokenizer.convert_tokens_to_ids(spelling)) == 1
    assert ids.count(tokenizer.sep_token_id) == 3
    said = replies(judge, [Call("00", (question,))])["00"]
    assert isinstance(said, Reply)
    (unsaid,) = replies(judge, [call(0, "dog", "cat")]).values()
    assert isinstance(unsaid, FailedCall)


def test_what_is_no_pair_ranker_is_refused(ranker_folder, tmp_path):
    entry = ModelSpec(name="x", base=str(ranker_folder))
    found = open_classifier(entry, DebertaV2PairRM)
    found.model.config.cand1_prefix_id = 0
    with pytest.raises(InputError, match=r"cand1_prefix_id 0 and the token <\|candidate1\|> 1"):
        PairRanker(ranker_spec(ranker_folder), found, PREFIXES)
    headless = tmp_path / "headless"
    shutil.copytree(ranker_folder, headless)
    (headless / "model.safetensors").unlink()
    DebertaV2Model(DebertaV2Config.from_pretrained(ranker_folder)).save_pretrained(headless)
    shutil.copy(ranker_folder / "config.json", headless)
    with pytest.raises(InputError, match="its weights lack"):
        opened(ranker_spec(headless))


def test_limits_are_part_of_a_rankers_identity(ranker_folder):
    one = opened(ranker_spec(ranker_folder)).identity
    assert opened(ranker_spec(ranker_folder, candidate_tokens=9)).identity != one
    assert msgspec.json.encode(one) == msgspec.json.encode(
        opened(ranker_spec(ranker_folder, order="coin")).identity
    )


def test_entries_that_need_more_than_weights_are_refused(reward_folder):
    entry = ModelSpec(name="x", base=str(reward_folder))
    for changes, message in (
        ({"trust_remote_code": True}, "Python of its own repository"),
        ({"unsupported": "no weights"}, "cannot be loaded: no weights"),
    ):
        with pytest.raises(InputError, match=message):
            open_classifier(
                msgspec.structs.replace(entry, **changes), AutoModelForSequenceClassification
            )
    with pytest.raises(InputError, match="Judge reward cannot be asked: gone"):
        opened(reward_spec(reward_folder, unsupported="gone"))
