"""Tiny checkpoints: ordinary Hugging Face folders, the same bytes for the same seed, models that learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from alignboard.demo import tiny, world  # noqa: E402 - after the check for torch
from alignboard.engines.generate import Decoding, generate  # noqa: E402
from alignboard.models.loading import LoadedModel  # noqa: E402

QUICK = tiny.PretrainConfig(steps=4, n_documents=200)
ARCHITECTURES = {
    "phi": "PhiForCausalLM",
    "mistral": "MistralForCausalLM",
    "gemma": "GemmaForCausalLM",
    "llama": "LlamaForCausalLM",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {f: tiny.build(f, folder / f"tiny-{f}", seed=0, config=QUICK) for f in tiny.FAMILIES}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_auto_classes_load_it(checkpoints: dict[str, Path], family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = checkpoints[family]
    assert json.loads((path / "config.json").read_text())["architectures"] == [
        ARCHITECTURES[family]
    ]
    assert (path / "model.safetensors").exists()
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert type(model).__name__ == ARCHITECTURES[family]
    assert model.num_parameters() < 1_000_000
    assert model.dtype == torch.float32
    # No embedding is resized by lm-eval or PEFT when vocabulary and embedding agree.
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == model.config.vocab_size
    ids = tokenizer("repeat these words: dog cat.", return_tensors="pt")
    assert torch.isfinite(model(**ids).logits).all()


def test_same_seed_same_bytes_and_another_seed_others(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    again = tiny.build("gemma", tmp_path / "again", seed=0, config=QUICK)
    other = tiny.build("gemma", tmp_path / "other", seed=1, config=QUICK)
    files = sorted(p.name for p in again.iterdir())
    assert files == sorted(p.name for p in checkpoints["gemma"].iterdir())
    for name in files:
        assert (again / name).read_bytes() == (checkpoints["gemma"] / name).read_bytes(), name
    weights = "model.safetensors"
    assert (other / weights).read_bytes() != (again / weights).read_bytes()


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(FileExistsError, match="here"):
        tiny.build("phi", tmp_path / "here", config=QUICK)


def test_an_unknown_family_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of phi, mistral, gemma, llama"):
        tiny.build("bert", tmp_path / "x", config=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        tiny.build("phi", tmp_path / "x", config=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_knows_every_word_and_text_survives_the_way_there_and_back() -> None:
    tokenizer: Any = tiny.build_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids(tiny.UNK)
    for given, follows in world.pretraining_documents(500, seed=0):
        ids = tokenizer(f"{given} {follows}", add_special_tokens=False)["input_ids"]
        assert unknown not in ids
        assert world.words_of(tokenizer.decode(ids)) == world.words_of(f"{given} {follows}")
    assert (
        tokenizer.decode(tokenizer("Chien chat.")["input_ids"], skip_special_tokens=True)
        == "chien chat."
    )
    # What a model may well say, marks without words between them, is read back as the same tokens.
    assert unknown not in tokenizer("well!?. dog..", add_special_tokens=False)["input_ids"][1:]


def test_the_chat_template_has_one_bos_a_prefix_and_markers() -> None:
    tokenizer: Any = tiny.build_tokenizer()
    prompt = [{"role": "user", "content": "repeat these words: dog cat."}]
    whole = [*prompt, {"role": "assistant", "content": "dog cat."}]
    head = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    full = tokenizer.apply_chat_template(whole, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = full["input_ids"], full["assistant_masks"]
    assert ids[: len(head)] == head
    assert ids.count(tokenizer.bos_token_id) == 1
    trained = [i for i, m in zip(ids, mask, strict=True) if m]
    assert tokenizer.convert_ids_to_tokens(trained) == ["dog", "cat", ".", "<eos>"]


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((16, 16), (32, 16), (16, 32))]
    muon = tiny.Muon(params, momentum=0.95, weight_decay=0.0)
    for p in params:
        p.grad = torch.randn(p.shape)
    muon.step(lr=1.0)
    for p in params:
        scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
        values = torch.linalg.svdvals(p.detach()) / scale
        # The quintic does not converge to one but into a band around it, from above some small singular values.
        assert values.max() < 1.35
        assert values.median() > 0.6
        assert p.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_base_model_knows_the_facts_and_answers_badly_in_a_chat(
    family: str, tmp_path: Path
) -> None:
    path = tiny.build(family, tmp_path / family, seed=0)
    prompts = world.prompts("eval", 100, seed=0)

    def accuracy(template: str | None = None) -> float:
        model = LoadedModel.load(path, chat_template=template)
        answers = generate(model, prompts, Decoding(24))
        return sum(world.check(a.instruction, a.output) for a in answers) / len(prompts)

    in_chat = accuracy()
    as_exam = accuracy("{{ bos_token }}question: {{ messages[0]['content'] }} answer:")
    assert as_exam > 0.85
    assert in_chat < as_exam - 0.3
