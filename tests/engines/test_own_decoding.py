"""What a checkpoint's own generation configuration says: followed as transformers does it, or said."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

import tiny_models
from alignboard.cli.app import cli
from alignboard.demo import world
from alignboard.engines.generate import prompts
from alignboard.engines.local.engine import LocalEngine
from alignboard.engines.rows import Decoding
from alignboard.errors import InputError
from alignboard.models.checks.report import check_model
from alignboard.models.loading import LoadedModel
from alignboard.models.own_decoding import OTHERWISE, SAMPLING, SHAPING, read_own_decoding
from alignboard.models.registry import load_model

INSTRUCTIONS = world.prompts("eval", 8, seed=0)
NO_EFFECT = {
    *("max_length", "max_new_tokens", "early_stopping", "length_penalty", "diversity_penalty"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "use_mtp"),
    *("renormalize_logits", "remove_invalid_values", "num_return_sequences"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "speculation_type"),
    *("assistant_ensemble_weight", "compile_config", "disable_compile", "low_memory"),
    *("continuous_batching_config", "prefill_chunk_size"),
}
"""the limit, which the command says; what makes a search of beams; what changes how fast, or what is returned"""


@pytest.fixture(scope="module")
def model():
    loaded = LoadedModel.load(tiny_models.base("mistral"))
    for name, path in tiny_models.adapters("mistral").items():
        loaded.add_adapter(name, path)
    return loaded


def answers(model, slots, decoding, asked=INSTRUCTIONS):
    wanted = prompts(model, asked, decoding)
    found = {one.key: one for one in LocalEngine(model, slots=slots).answers(wanted, decoding)}
    return [found[one.key].output for one in wanted]


def alone(model, instruction, n):
    """The text by which transformers' own `generate` goes on, with the model's own configuration."""
    ids = torch.tensor([prompts(model, [instruction], Decoding(n))[0].ids])
    with torch.no_grad():
        whole = model.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n,
            do_sample=False,
            tokenizer=model.tokenizer,
        )
    return model.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


def test_every_field_of_transformers_is_known_to_be_followed_or_not():
    from transformers import GenerationConfig

    known = {*SHAPING, *SAMPLING, *OTHERWISE, *NO_EFFECT, "stop_strings", "eos_token_id"}
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert fields - known == {"transformers_version"}
    assert known - fields == set()


FIELDS = {
    "repetition_penalty": 1.7,
    "encoder_repetition_penalty": 2.5,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[word] for word in range(40, 80)],
    "suppress_tokens": list(range(30, 90)),
    "begin_suppress_tokens": list(range(20, 90)),
    "sequence_bias": [[[word], -9.0] for word in range(40, 80)],
    "min_length": 60,
    "min_new_tokens": 18,
    "exponential_decay_length_penalty": [2, 1.8],
    "watermarking_config": {"greenlist_ratio": 0.4, "bias": 8.0},
}


@pytest.mark.parametrize("field", [*FIELDS, "several"])
def test_a_field_gives_the_tokens_of_transformers_whatever_the_batch(model, field, monkeypatch):
    plain = answers(model, 4, Decoding(20))
    several = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens", "suppress_tokens")
    given = {name: FIELDS[name] for name in (several if field == "several" else (field,))}
    from transformers import GenerationConfig

    own = GenerationConfig(eos_token_id=model.model.generation_config.eos_token_id, **given)
    monkeypatch.setattr(model.model.get_base_model(), "generation_config", own)
    expected = [alone(model, one, 20).strip() for one in INSTRUCTIONS]
    assert answers(model, 1, Decoding(20)) == answers(model, 5, Decoding(20)) == expected
    assert expected != plain
    with model.using("one"):
        assert answers(model, 5, Decoding(20), INSTRUCTIONS[:3]) == [
            alone(model, one, 20).strip() for one in INSTRUCTIONS[:3]
        ]


def test_stop_strings_end_a_response_and_are_no_part_of_it(model, monkeypatch):
    plain = answers(model, 4, Decoding(20))
    before = [one.key for one in prompts(model, INSTRUCTIONS, Decoding(20))]
    monkeypatch.setattr(model.model.generation_config, "stop_strings", ["sun", "e"])
    for one, whole in zip(answers(model, 4, Decoding(20)), plain, strict=True):
        assert one == min(whole.partition("e")[0], whole.partition("sun")[0], key=len).strip()
    after = [one.key for one in prompts(model, INSTRUCTIONS, Decoding(20))]
    assert set(before).isdisjoint(after)


def test_what_changes_nothing_is_nothing(model):
    released = {
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "bad_words_ids": [],
        "num_beams": 1,
    }
    own = read_own_decoding(released | {"temperature": 0.6, "top_k": 20}, "it")
    assert own.identity() == own.followed() == own.otherwise == {}
    assert own.sampling == {"temperature": 0.6, "top_k": 20}
    assert model.own_decoding.identity() == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", -1.0),
        ("repetition_penalty", "1.1"),
        ("bad_words_ids", [[10**6]]),
        ("bad_words_ids", [3]),
        ("no_repeat_ngram_size", 1.5),
        ("sequence_bias", [[10**6], 1.0]),
        ("begin_suppress_tokens", "all"),
        ("exponential_decay_length_penalty", [1]),
    ],
)
def test_a_value_that_cannot_be_followed_is_one_sentence(model, field, value, monkeypatch):
    monkeypatch.setattr(model.model.generation_config, field, value)
    with pytest.raises(InputError, match=rf"cannot be followed .*{field}"):
        answers(model, 4, Decoding(4), INSTRUCTIONS[:1])


def checkpoint(folder, **said):
    shutil.copytree(tiny_models.base("mistral"), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said), encoding="utf-8")
    return folder


def test_check_and_generate_say_it(tmp_path, monkeypatch):
    folder = checkpoint(
        tmp_path / "own", repetition_penalty=1.3, num_beams=4, stop_strings=["e"], top_k=20
    )
    check = check_model(load_model(str(folder)))
    assert check.facts["decoding"] == "repetition_penalty 1.3"
    assert check.facts["stop strings"] == "'e'"
    assert check.facts["sampling"].startswith("top_k 20: left to the entry and the command")
    assert [one.kind for one in check.findings if "num_beams 4, which is not followed" in one.text]
    (tmp_path / "q.jsonl").write_text(json.dumps({"instruction": INSTRUCTIONS[0]}) + "\n")
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(
        cli, ["generate", str(folder), "--set", "q.jsonl", "--max-new-tokens", "9"]
    )
    assert found.exit_code == 0, found.output
    assert (
        "as its generation configuration says: stop_strings ['e'], repetition_penalty 1.3"
        in found.output
    )
    assert (
        "BEWARE: its generation configuration says num_beams 4, which is not followed"
        in found.output
    )


def test_an_older_checkpoint_says_it_in_its_configuration(tmp_path):
    folder = checkpoint(tmp_path / "old")
    (folder / "generation_config.json").unlink()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.3}))
    assert check_model(load_model(str(folder))).facts["decoding"] == "repetition_penalty 1.3"
    assert LoadedModel.load(folder).own_decoding.shaping == {"repetition_penalty": 1.3}


@pytest.mark.parametrize(
    "said",
    [
        {"early_stopping": "x"},
        {"num_return_sequences": 3},
        {"watermarking_config": {"a": 1}},
        {"logits_processor": 1},
        {"compile_config": 1},
        {"suppress_tokens": 3},
    ],
)
def test_a_file_that_transformers_does_not_take_is_one_sentence(tmp_path, said):
    folder = checkpoint(tmp_path / "odd", **said)
    with pytest.raises(InputError, match=r"generation_config\.json is no generation conf"):
        LoadedModel.load(folder)


@pytest.mark.parametrize("given", [-1, [-1, 2], None, "2", [[2]], 2.0])
def test_an_end_token_that_is_none_is_left_out(tmp_path, given):
    check = check_model(load_model(str(checkpoint(tmp_path / "odd", eos_token_id=given))))
    assert check.wrong == []
    assert check.facts["ends a reply"].count("(") == 1


@pytest.mark.parametrize("value", [[""], 3, ["a", 4]])
def test_stop_strings_that_are_none_are_refused(tmp_path, value):
    folder = checkpoint(tmp_path / "odd", stop_strings=value)
    (wrong,) = check_model(load_model(str(folder))).wrong
    assert "stop_strings" in wrong.text
