"""Training and evaluation load the commit and the file that an entry names, not what the name alone means."""

from __future__ import annotations

import contextlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import checkpoint_formats as written
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.models.checks.opened import open_small
from alignboard.models.spec import ModelSpec
from alignboard.pipeline.jobs.weights import base_spec, model_path, which_files
from test_train import pair_rows, short


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


FIRST, LAST = "a" * 40, "b" * 40


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lab/tiny in a cache of the hub, of which main is the last of two commits."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = tmp_path / "hub" / "models--lab--tiny"
    for seed, commit in enumerate((FIRST, LAST)):
        model = written.untrained("llama", seed=seed)
        written.save(model, found / "snapshots" / commit)
    (found / "refs").mkdir()
    (found / "refs" / "main").write_text(LAST)
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The commit that each load of weights asks for."""
    from alignboard.models.loading import LoadedModel

    load, commits = LoadedModel.load, list[str | None]()

    def recorded(*args: Any, **kwargs: Any) -> LoadedModel:
        commits.append(kwargs.get("revision"))
        return load(*args, **kwargs)

    monkeypatch.setattr(LoadedModel, "load", recorded)
    return commits


def test_of_several_commits_the_one_that_is_pinned(tmp_path: Path, repository: Path) -> None:
    from alignboard.models.loading import LoadedModel

    inputs = noted(tmp_path / "job", "lab/tiny", revision=FIRST)
    folders = [repository / "snapshots" / commit for commit in (FIRST, LAST)]
    wanted, other = (LoadedModel.load(folder).fingerprint for folder in folders)
    found = loaded(inputs)
    assert found.fingerprint == wanted != other
    assert found.model.name_or_path == "lab/tiny", "an adapter names the repository"
    assert base_spec(inputs) == {"base": "lab/tiny", "revision": FIRST}
    shutil.rmtree(folders[0])
    with pytest.raises(InputError, match="lab/tiny"):
        loaded(inputs)


@pytest.mark.usefixtures("repository")
def test_pairs_are_sampled_from_the_commit_that_is_pinned(
    tmp_path: Path, loads: list[str | None]
) -> None:
    from alignboard.pipeline.jobs.training_data import pairs

    asked = {"pairs": {"n": 2, "prompts": 2, "max_new_tokens": 3, "temperature": 1.0}, "seed": 0}
    inputs = noted(tmp_path / "base", "lab/tiny", revision=FIRST)
    job = SimpleNamespace(name="pairs", parameters=asked)
    task: Any = SimpleNamespace(job=job, folder=tmp_path, inputs=inputs)
    with contextlib.suppress(InputError):  # random weights give no better and worse replies
        pairs(task)
    assert loads == [FIRST]


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_every_job_of_a_training_loads_the_commit_that_is_pinned(
    tmp_path: Path, loads: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluate" / "models").mkdir(parents=True)
    entry = {"name": "mine", "base": "lab/tiny", "revision": FIRST}
    (tmp_path / "evaluate" / "models" / "mine.yaml").write_text(json.dumps(entry))
    rows = "".join(json.dumps(row) + "\n" for row in pair_rows(8))
    (tmp_path / "pairs.jsonl").write_text(rows)
    batch = "batch={global: 4, per_device: 4}"
    command = ["train", "demo/dpo", "--model", "mine", "--data", "pairs.jsonl", "--set", batch]
    command += ["--set", "duration.steps=2", "--set", "start_from=null", "--executor", "in-process"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert loads == [FIRST, FIRST], "the reference and the training"


def test_what_a_job_made_has_neither(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "source.json").write_text(json.dumps({"path": "x", "revision": "r"}))
    assert which_files({"base": tmp_path}) == {"revision": "r"}
    assert which_files({"base": tmp_path, "adapter": tmp_path}) == {}
