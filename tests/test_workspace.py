"""Rooms and names: the workspace wins over the library, and no name leads out of its room."""

from pathlib import Path

import pytest

from alignboard.errors import InputError, nearest
from alignboard.workspace import declaration, library, model_name, names

SUITES = "evaluate/suites"


def declare(root, name, text="name: x\n"):
    path = root / SUITES / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_library_has_its_rooms():
    assert (library() / "evaluate").is_dir()
    assert (library() / "train").is_dir()
    assert "alpaca-eval-2" in names(SUITES, library())


def test_the_library_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert declaration(SUITES, "alpaca-eval-2") == library() / SUITES / "alpaca-eval-2.yaml"


def test_the_workspaces_own_file_wins(tmp_path, monkeypatch):
    own = declare(tmp_path, "alpaca-eval-2")
    assert declaration(SUITES, "alpaca-eval-2", tmp_path) == own
    monkeypatch.chdir(tmp_path)
    assert declaration(SUITES, "alpaca-eval-2") == own


def test_names_in_sub_folders(tmp_path):
    path = declare(tmp_path, "family/method")
    assert names(SUITES, tmp_path) == ["family/method"]
    assert declaration(SUITES, "family/method", tmp_path) == path


def test_a_path_to_a_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "anywhere.yaml"
    path.write_text("", encoding="utf-8")
    assert declaration(SUITES, str(path), tmp_path) == path


def test_an_unknown_name_gets_the_nearest_and_all(tmp_path):
    declare(tmp_path, "my-suite")
    with pytest.raises(InputError) as caught:
        declaration(SUITES, "my-suit", tmp_path)
    assert "did you mean 'my-suite'?" in str(caught.value)
    assert "alpaca-eval-1" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../secret", "../../secret", "a/../../secret", "", "..", "a\0b", "no.yaml"]
)
def test_no_name_leads_out_of_its_room(tmp_path, name):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "secret.yaml").write_text("", encoding="utf-8")
    (tmp_path / "secret.yaml").write_text("", encoding="utf-8")
    declare(tmp_path, "a/b")
    with pytest.raises(InputError):
        declaration(SUITES, name, tmp_path)


def test_an_absolute_name_leads_nowhere(tmp_path):
    (tmp_path / "secret.yaml").write_text("", encoding="utf-8")
    with pytest.raises(InputError):
        declaration(SUITES, str(tmp_path / "secret"), tmp_path)


def test_a_link_out_of_the_room_is_not_followed(tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text("", encoding="utf-8")
    (tmp_path / SUITES).mkdir(parents=True)
    (tmp_path / SUITES / "link.yaml").symlink_to(outside)
    with pytest.raises(InputError):
        declaration(SUITES, "link", tmp_path)


@pytest.mark.parametrize(
    "name", ["zephyr-7b-beta", "Mistral-7B+RAHF-DUAL+LoRA", "a.b", "..a", "日本", "-x", "a b"]
)
def test_names_of_models(name):
    assert model_name(name) == name
    assert Path("results", name).parent == Path("results")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/abs", "a\\b", "a\0b"])
def test_names_that_are_no_folder(name):
    with pytest.raises(InputError) as caught:
        model_name(name)
    assert repr(name) in str(caught.value)


def test_hints():
    assert nearest("phi2", ["phi-2", "zephyr"]) == ", did you mean 'phi-2'?"
    assert nearest("phi-2", ["phi-2-sft", "phi-2-dpo"]).count(" or ") == 1
    assert nearest("nothing", ["zephyr"]) == ""
    assert nearest("x", []) == ""
