"""Checkpoints and adapters that public bug reports are about: every folder of ``ALIGNBOARD_REAL/bugs`` with models.

The collection's own makers build the weights in a temporary folder.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from alignboard.errors import InputError
from alignboard.models.adapters import needs_own_load
from alignboard.models.asked import load_spec
from alignboard.models.checks.report import check_model
from alignboard.models.gguf.file import read_header
from alignboard.models.gguf.tokenizer import build_tokenizer
from alignboard.models.loading import LoadedModel
from alignboard.models.prompting import adds_bos, prompt_ids
from alignboard.models.registry import load_model
from alignboard.models.sources import weights_identity
from alignboard.models.spec import ModelSpec, PromptFormat

REAL = Path(os.environ.get("ALIGNBOARD_REAL", "missing"))
BUGS = REAL / "bugs"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not BUGS.is_dir(), reason="ALIGNBOARD_REAL has no bugs"),
]
QUESTION = "What is the capital of France?"


@pytest.fixture
def make(tmp_path, monkeypatch) -> Any:
    """Run a maker of the collection; returns the folder with what it made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BUGS / "lib"))

    def run(case: str, script: str = "make.py", *arguments: str) -> Path:
        folder = next(BUGS.glob(f"{case}-*"))
        for file in folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, tmp_path / file.name)
        source = (folder / script).read_text("utf-8")
        places = {"BUGS/lib": BUGS / "lib", f"BUGS/{folder.name}": tmp_path, "WORKSPACE": tmp_path}
        for name, place in places.items():
            source = source.replace(name, str(place))
        (tmp_path / script).write_text(source, "utf-8")
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(tmp_path / script))
        return tmp_path

    return run


def prompt_of(model: LoadedModel) -> list[int]:
    return prompt_ids(model.tokenizer, model.chat_template, QUESTION, source="case")


def kinds(spec: ModelSpec) -> dict[str, str]:
    return {one.kind: one.level for one in check_model(spec).findings}


def test_02_of_named_templates_the_default_is_used(make):
    spec = load_model(str(make("02") / "listed"))
    assert check_model(spec).wrong == []
    model, _ = load_spec(spec)
    assert "<|im_start|>user" in model.tokenizer.decode(prompt_of(model))


def test_03_an_adapter_brings_its_tokenizer_or_is_refused(make):
    folder = make("03")
    model, name = load_spec(load_model(str(folder / "roomy")))
    with model.using(name):
        ids = prompt_of(model)
        starts: Any = model.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
        assert starts == [259, 260]
        assert set(starts) <= set(ids)
        assert len(prompt_ids(model.tokenizer, model.chat_template, "Hi", source="x")) == 21
    model, name = load_spec(load_model(str(folder / "resized")))
    with model.using(name):
        embeddings: Any = model.model.get_input_embeddings()
        assert len(embeddings.weight) == 272
        assert set(starts) <= set(prompt_of(model))


@pytest.mark.parametrize("name", ["gone", "relative", "mirror"])
def test_04_a_base_elsewhere_is_named_with_the_way_out(make, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no network
    adapter = make("04") / name
    with pytest.raises(InputError) as told:
        load_spec(load_model(str(adapter)))
    assert re.search(rf"{re.escape(str(adapter))}.*base:", str(told.value)), told.value
    entry = ModelSpec(name="mine", base=str(adapter.parent / "base"), adapter=str(adapter))
    if name == "mirror":
        entry = msgspec.structs.replace(entry, any_base=True)
    assert load_spec(entry)[1] is not None


def test_09_every_kind_of_adapter_is_right_or_refused_and_the_base_stays(make):
    folder = make("09")
    wanted = {
        name: torch.tensor(row) for name, row in json.loads(Path("want.json").read_bytes()).items()
    }
    seen = {}
    for name, logits in wanted.items():
        tied = "-tied" if name.endswith("-tied") else ""
        model = LoadedModel.load(folder / f"base{tied}")
        ids = model.tokenizer.encode("What is this?", add_special_tokens=False)

        def last(model: Any = model, ids: Any = ids) -> torch.Tensor:
            with torch.no_grad():
                return model.model(input_ids=torch.tensor([ids])).logits[0, -1]

        before = last()
        try:
            model.add_adapter("x", folder / name)
        except InputError:
            seen[name] = "refused"
            continue
        with model.using("x"):
            assert torch.allclose(last(), logits, atol=1e-5), name
        if needs_own_load(folder / name):
            seen[name] = "alone"
            with pytest.raises(InputError, match="needs a load of its own"):
                model.add_adapter("y", folder / f"plain{tied}")
            continue
        assert torch.equal(last(), before), name
        model.add_adapter("y", folder / f"plain{tied}")
        with model.using("y"):
            assert torch.allclose(last(), wanted[f"plain{tied}"], atol=1e-5), name
        with model.using("x"):
            assert torch.allclose(last(), logits, atol=1e-5), name
        assert torch.equal(last(), before), name
        seen[name] = "works"
    print(seen)  # noqa: T201 - what `make test-real` shows
    assert {seen[name] for name in ("pissa", "olora", "tokens", "ia3")} == {"alone"}
    assert seen["prompt"] == "refused"
    plain = {"plain", "dora", "rslora", "rank-pattern", "bias", "saved", "all-linear"}
    assert {seen[name] for name in plain} == {"works"}


@pytest.mark.parametrize("name", ["gemma3-4b-like", "gemma3-1b-like"])
def test_13_a_composite_configuration_is_read_where_its_text_is(make, name):
    spec = load_model(str(make("13") / name))
    spec = msgspec.structs.replace(
        spec, end_of_turn="allow"
    )  # the smaller one states no end of a turn
    found = check_model(spec)
    assert (found.wrong, found.facts["context"]) == ([], "512 tokens")
    assert load_spec(spec)[0].context == 512


def test_14_a_template_with_the_date_is_said_and_can_be_set(make):
    spec = load_model(str(make("14") / "dated"))
    assert kinds(spec)["clock"] == "beware"
    today, _ = load_spec(spec)
    text = f"Today Date: {dt.datetime.now().strftime('%d %b %Y')}"  # noqa: DTZ005 - the template's own
    assert text in today.tokenizer.decode(prompt_of(today))
    prompt = PromptFormat(variables={"strftime_now": "26 Jul 2024"})
    fixed = msgspec.structs.replace(spec, prompt=prompt)
    assert "clock" not in kinds(fixed)
    model, _ = load_spec(fixed)
    assert model.template_hash != today.template_hash
    shown = check_model(fixed).prompt or ""
    assert "Today Date: 26 Jul 2024" in shown


def test_16_sentencepiece_alone_names_its_package_or_is_read(make, monkeypatch):
    folder = make("16", "make.py", "320")
    monkeypatch.setattr("alignboard.models.sentencepiece.find_spec", lambda _name: None)
    with pytest.raises(InputError, match="pip install sentencepiece protobuf"):
        LoadedModel.load(folder / "sponly")
    monkeypatch.undo()
    reader = pytest.importorskip("sentencepiece").SentencePieceProcessor()
    reader.load(str(folder / "sponly" / "tokenizer.model"))
    model = LoadedModel.load(folder / "sponly")
    assert prompt_of(model) == [1, *reader.encode(f"[INST] {QUESTION} [/INST]")]
    assert check_model(load_model(str(folder / "sponly"))).wrong == []


def test_21_a_text_begins_as_the_vocabulary_says():
    found = {}
    for path in sorted((REAL / "tokenizers").glob("*.gguf")):
        header = read_header(path)
        try:
            tokenizer = build_tokenizer(header)
        except InputError:
            continue
        stated = header.of_tokenizer("add_bos_token")
        kind = header.of_tokenizer("model") == "llama"
        begins = (
            kind or header.of_tokenizer("pre") == "llama-bpe" if stated is None else bool(stated)
        )
        found[path.stem] = (adds_bos(tokenizer), begins)
    assert len(found) >= 5
    assert {name: ours for name, (ours, _) in found.items()} == {
        name: theirs for name, (_, theirs) in found.items()
    }


def test_24_what_training_taught_ends_the_reply_or_the_base_is_refused(make):
    from alignboard.data.preferences.read import read_rows
    from alignboard.training.recipe import load_recipe
    from alignboard.training.trainer import train

    folder = make("24")
    base = load_model(str(folder / "qwen-like"))
    assert kinds(base)["end-of-turn"] == "wrong"
    with pytest.raises(InputError, match="does not end a reply"):
        load_spec(base)
    recipe = load_recipe(folder / "train" / "b24" / "plain.yaml")
    rows, _ = read_rows(recipe.data.source(), "demonstration")  # pyright: ignore[reportAttributeAccessIssue]
    train(recipe, str(folder / "qwen-like"), rows, folder / "adapter")
    model, name = load_spec(load_model(str(folder / "adapter")))
    with model.using(name):
        assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.end_tokens


def test_25_a_corrected_generation_config_is_another_model(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path / "model"
    shutil.copytree(
        BUGS / "25-generation-config-fixed" / "model", folder, copy_function=shutil.copyfile
    )
    folder.chmod(0o755)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(
        tmp_path / "made"
    )
    shutil.copyfile(tmp_path / "made" / "model.safetensors", folder / "model.safetensors")
    spec = msgspec.structs.replace(load_model(str(folder)), end_of_turn="allow")
    fixed = weights_identity(spec, tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [257]}))
    assert weights_identity(spec, tmp_path) != fixed
