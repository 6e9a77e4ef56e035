"""Training and evaluation load the commit and the file that an entry names, not what the name alone means."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import checkpoint_formats as written
from alignboard.errors import InputError
from alignboard.models.checks.opened import open_small
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.jobs.weights import base_spec, model_path, which_files
from test_train import short


def noted(folder: Path, base: str, **which: str) -> dict[str, Path]:
    """The inputs of a job whose base is ``base``, as the job before it writes them."""
    from alignboard.pipeline.jobs.train import checkpoint

    hints = {"path": base, "revision": None, "gguf_file": None, **which}
    job = SimpleNamespace(parameters={"source": {}, "model": None}, hints=hints)
    task: Any = SimpleNamespace(job=job, folder=folder)
    folder.mkdir()
    assert checkpoint(task) == {}
    return {"base": folder}


def loaded(inputs: dict[str, Path]) -> Any:
    from alignboard.training.start import load_base

    recipe = short("demo/sft", chat_template=None)
    return load_base(recipe, model_path(inputs), **which_files(inputs))


@pytest.mark.skipif(find_spec("gguf") is None, reason="the extra gguf is not installed")
def test_of_several_gguf_files_the_one_that_is_named(tmp_path: Path) -> None:
    from alignboard.models.loading import LoadedModel

    files = tmp_path / "files"
    files.mkdir()
    for seed, name in enumerate(("a.gguf", "b.gguf")):
        model = written.untrained("llama", written.gguf_vocabulary_size("llama"), seed)
        written.save_gguf(model, files / name, "llama")
    inputs = noted(tmp_path / "job", str(files), gguf_file="b.gguf")
    assert loaded(inputs).fingerprint == LoadedModel.load(files / "b.gguf").fingerprint
    assert loaded(inputs).fingerprint != LoadedModel.load(files / "a.gguf").fingerprint
    assert open_small(ModelSpec(name="base", **base_spec(inputs))).tokenizer is not None


def test_of_several_commits_the_one_that_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    from alignboard.models.loading import LoadedModel

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--lab--tiny"
    first, last = "a" * 40, "b" * 40
    for seed, commit in enumerate((first, last)):
        model = written.untrained("llama", seed=seed)
        written.save(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(last)
    inputs = noted(tmp_path / "job", "lab/tiny", revision=first)
    folders = [repository / "snapshots" / commit for commit in (first, last)]
    wanted, other = (LoadedModel.load(folder).fingerprint for folder in folders)
    found = loaded(inputs)
    assert found.fingerprint == wanted != other
    assert found.model.name_or_path == "lab/tiny", "an adapter names the repository"
    assert base_spec(inputs) == {"base": "lab/tiny", "revision": first}
    shutil.rmtree(folders[0])
    with pytest.raises(InputError, match="lab/tiny"):
        loaded(inputs)


def test_what_a_job_made_has_neither(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "source.json").write_text(json.dumps({"path": "x", "revision": "r"}))
    assert which_files({"base": tmp_path}) == {"revision": "r"}
    assert which_files({"base": tmp_path, "adapter": tmp_path}) == {}
