"""Files as such: what lies below a folder, and what a full disk leaves."""

import contextlib
import resource

import pytest
from click.testing import CliRunner

from alignboard.cli.app import cli
from alignboard.results.files import paths_under, write_atomically
from alignboard.workspace import init_workspace


def test_links_are_entered_as_often_as_they_stand_and_loops_are_not(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/one.json").write_text("")
    (tmp_path / "root/inner").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "real")
    (tmp_path / "root/inner/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/lost").symlink_to(tmp_path / "nowhere")
    found = [
        path.relative_to(tmp_path / "root").as_posix() for path in paths_under(tmp_path / "root")
    ]
    assert found == ["a", "a/one.json", "b", "b/one.json", "inner", "inner/up", "lost"]


@contextlib.contextmanager
def full_disk(n_bytes):
    """No file may be longer, as on a disk that has so much room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "board.json"
    write_atomically(path, b"old")
    with full_disk(100), pytest.raises(OSError, match="too large") as raised:
        write_atomically(path, bytes(1000))
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_a_workspace_that_could_not_be_made_is_none_and_can_be_made_again(there, tmp_path):
    folder = tmp_path / "new"
    if there:
        folder.mkdir()
    with full_disk(100), pytest.raises(OSError, match="too large"):
        init_workspace(folder)
    assert list(tmp_path.rglob("*")) == [folder] * there
    assert len(init_workspace(folder)) > 50


def test_a_recipe_that_could_not_be_imported_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "loss_type: sigmoid\nmodel_name_or_path: gpt2\ndataset_name: a/b\n"
    )
    asked = ["recipe", "import", "config.yaml", "--to", "mine"]
    with full_disk(10):
        assert CliRunner().invoke(cli, asked).exit_code != 0
    assert not (tmp_path / "train/mine.yaml").exists()
    assert CliRunner().invoke(cli, asked).exit_code == 0
