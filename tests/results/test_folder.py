"""A results folder: what is found in it, and what is refused."""

from pathlib import Path

import pytest

from alignboard.errors import InputError
from alignboard.results.folder import ResultsFolder
from builders import generations, judgments, results_folder, write_json


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "results"
    return results_folder(
        folder,
        {"zephyr-7b-beta": judgments(5), "phi-2": judgments(4)},
        {"zephyr-7b-beta": generations(5), "only-outputs": generations(3)},
    )


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_annotators_and_files(root):
    folder = ResultsFolder(root)
    assert folder.models == ["only-outputs", "phi-2", "zephyr-7b-beta"]
    assert folder.annotated_models("judge") == ["phi-2", "zephyr-7b-beta"]
    assert folder.annotated_models("nobody") == []
    assert len(folder.annotations("phi-2", "judge")) == 4
    outputs = folder.outputs("only-outputs")
    assert outputs is not None
    assert len(outputs) == 3
    assert folder.outputs("phi-2") is None
    assert folder.outputs_path("phi-2") is None


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_other_formats_are_found(root, suffix):
    from alignboard.records import Judgment
    from alignboard.results.formats import write_rows

    write_rows(
        root / "new" / "judge" / f"annotations{suffix}", [Judgment(**row) for row in judgments(6)]
    )
    assert len(ResultsFolder(root).annotations("new", "judge")) == 6


def test_a_doubled_path_is_read_and_marked(root):
    write_json(root / "phi-2" / "gpt4" / "gpt4" / "annotations.json", judgments(3))
    folder = ResultsFolder(root)
    [doubled] = [file for file in folder.annotation_files("phi-2") if file.annotator == "gpt4"]
    assert doubled.doubled
    assert len(folder.annotations("phi-2", "gpt4")) == 3


def test_the_plain_path_wins_over_a_doubled_one(root):
    write_json(root / "phi-2" / "judge" / "judge" / "annotations.json", judgments(9))
    folder = ResultsFolder(root)
    [file] = folder.annotation_files("phi-2")
    assert not file.doubled
    assert len(folder.annotations("phi-2", "judge")) == 4


def test_an_unknown_model_gets_the_nearest_names(root):
    text = message(ResultsFolder(root).annotations, "zephyr-7b-bta", "judge")
    assert "'zephyr-7b-bta'" in text
    assert "did you mean 'zephyr-7b-beta'?" in text
    assert str(root) in text
    assert message(ResultsFolder(root).annotations, "nothing like it", "judge").endswith(".")


def test_a_judge_without_verdicts_is_named(root):
    assert "phi-2 holds no other/annotations.json" in message(
        ResultsFolder(root).annotations, "phi-2", "other"
    )


@pytest.mark.parametrize("name", ["../phi-2", "..", ".", "", "a/b", "/etc", "a\\b", "a\0b"])
def test_names_that_could_lead_elsewhere(root, name):
    folder = ResultsFolder(root)
    for call in (lambda: folder.annotations(name, "judge"), lambda: folder.outputs(name)):
        assert repr(name) in message(call)


@pytest.mark.parametrize("name", ["../phi-2/judge", "..", ""])
def test_annotators_that_could_lead_elsewhere_are_none_of_the_folder(root, name):
    said = message(ResultsFolder(root).annotations, "zephyr-7b-beta", name)
    assert f"zephyr-7b-beta holds no {name}/annotations.json" in said


def test_a_folder_that_is_not_there(tmp_path):
    assert str(tmp_path / "none") in message(ResultsFolder, tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "no folder" in message(ResultsFolder, tmp_path / "file")


@pytest.mark.parametrize("made", [[], ["model"], ["model/judge"], [".hidden/judge"]])
def test_a_folder_without_results(tmp_path, made):
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    if made == [".hidden/judge"]:
        write_json(tmp_path / ".hidden" / "judge" / "annotations.json", judgments(2))
    text = message(ResultsFolder, tmp_path)
    assert "holds no results" in text
    assert "model_outputs.json" in text
    assert not (tmp_path / ".alignboard").exists()


@pytest.mark.parametrize("blocked", ["", "phi-2"])
def test_a_folder_that_may_not_be_listed(root, monkeypatch, blocked):
    """As root everything can be listed, so that the refusal is played."""
    listing = Path.iterdir

    def refuse(path):
        if path == root / blocked:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    text = message(lambda: ResultsFolder(root).annotated_models("judge"))
    assert str(root / blocked) in text
    assert "Permission denied" in text


def test_the_cache_is_saved_at_the_end(root):
    with ResultsFolder(root) as folder:
        folder.annotations("phi-2", "judge")
    assert (root / ".alignboard" / "index.json").is_file()
    assert "phi-2" in ResultsFolder(root).models
    assert ".alignboard" not in ResultsFolder(root).models


def test_a_relative_root(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    folder = ResultsFolder(Path("results"))
    assert len(folder.annotations("phi-2", "judge")) == 4


def test_a_bad_file_leaves_nothing_behind(root):
    write_json(root / "phi-2" / "judge" / "annotations.json", judgments(2, preference=7.3))
    with pytest.raises(InputError, match=r"7\.3"), ResultsFolder(root) as folder:
        folder.annotations("phi-2", "judge")
    assert not (root / ".alignboard").exists()


def test_the_released_folder(released, tmp_path, monkeypatch):
    monkeypatch.setattr("alignboard.results.cache._folder", lambda _: tmp_path / "cache")
    with ResultsFolder(released / "results") as folder:
        assert len(folder.models) == 40
        assert len(folder.annotated_models("weighted_alpaca_eval_gpt4_turbo")) == 24
        assert len(folder.annotated_models("alpaca_eval_gpt4")) == 20
        assert (
            folder.annotations("NullModel", "weighted_alpaca_eval_gpt4_turbo").generator
            == "example"
        )
    assert not (released / "results" / ".alignboard").exists()
