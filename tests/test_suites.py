"""Suites: what the library declares is valid, and every mistake names the file, the key and the nearest key."""

import pytest
import yaml

from alignboard.errors import InputError
from alignboard.suites import load_suite
from alignboard.workspace import library


def suite_file(workspace, change):
    content = yaml.safe_load(
        (library() / "evaluate/suites/alpaca-eval-2.yaml").read_text(encoding="utf-8")
    )
    change(content)
    path = workspace / "evaluate" / "suites" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def refusal(workspace, path):
    with pytest.raises(InputError) as caught:
        load_suite("mine", workspace)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["alpaca-eval-1", "alpaca-eval-2"])
def test_the_library_is_valid(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.n_instructions == 805
    assert suite.board.annotator == suite.annotator
    assert set(suite.calibration.sha256) == {"df_gamed.csv", "instruction_difficulty.csv"}
    assert len(suite.released.commit) == 40


def test_a_workspace_may_have_its_own(tmp_path):
    suite_file(tmp_path, lambda content: content.update(name="mine", title="My own"))
    assert load_suite("mine", tmp_path).title == "My own"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("tolerence", "tolerance"), ("baselin", "baseline"), ("famlies", "families")],
)
def test_a_misspelt_key(tmp_path, key, nearest):
    path = suite_file(tmp_path, lambda content: content.update({key: content.pop(nearest)}))
    text = refusal(tmp_path, path)
    assert repr(key) in text
    assert f"did you mean {nearest!r}" in text


def test_a_misspelt_key_further_in(tmp_path):
    path = suite_file(
        tmp_path,
        lambda content: content["released"].update(comit=content["released"].pop("commit")),
    )
    text = refusal(tmp_path, path)
    assert "comit" in text
    assert "released" in text


def test_a_missing_key(tmp_path):
    path = suite_file(tmp_path, lambda content: content.pop("annotator"))
    assert "annotator" in refusal(tmp_path, path)


def test_a_value_of_another_type(tmp_path):
    path = suite_file(tmp_path, lambda content: content.update(n_instructions="many"))
    text = refusal(tmp_path, path)
    assert "n_instructions" in text
    assert "int" in text


def test_boards_without_the_suites_own_annotator(tmp_path):
    path = suite_file(tmp_path, lambda content: content.update(annotator="somebody"))
    assert "'somebody'" in refusal(tmp_path, path)


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b\n", b"a: [1, 2\n", b"a: \xff\n", b"just text", b"a: 1\n\tb: 2\n"]
)
def test_files_that_are_no_suite(tmp_path, content):
    path = suite_file(tmp_path, lambda _: None)
    path.write_bytes(content)
    assert str(path) in refusal(tmp_path, path)


def test_yaml_is_never_run(tmp_path):
    path = suite_file(tmp_path, lambda _: None)
    path.write_text("name: !!python/object/apply:os.system ['touch ran']\n", encoding="utf-8")
    refusal(tmp_path, path)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_suite_gets_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match=r"did you mean .*'alpaca-eval-2'"):
        load_suite("alpaca-evl-2", tmp_path)
