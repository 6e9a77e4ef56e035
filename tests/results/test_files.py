"""Files as such: what lies below a folder."""

from alignboard.results.files import paths_under


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
