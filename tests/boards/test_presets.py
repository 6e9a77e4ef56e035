"""Presets: the same columns in the same order whatever the source, and bold only where a first place is certain."""

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from alignboard.boards.board import Board, read_board
from alignboard.boards.columns import Column, Row, Score
from alignboard.boards.files import to_csv, to_markdown, to_text
from alignboard.boards.latex import to_latex
from alignboard.boards.origins import with_origins
from alignboard.boards.presets import Described, Preset, apply_preset, load_preset
from alignboard.boards.scoring import judged_columns, rank_column
from alignboard.cli.app import cli
from alignboard.errors import InputError
from alignboard.workspace import library, names
from boards import plan_board
from test_board_page import to_html

NAMES = ["alpaca-eval-1", "alpaca-eval-2", "everything", "methods", "open-llm", "ratings"]


def invoke(arguments):
    return CliRunner().invoke(cli, arguments)


def shown(board: Board) -> list[str]:
    return [column.kind for column in board.shown()]


def test_these_presets_are_shipped_and_read():
    assert names("leaderboards", library()) == NAMES
    for name in NAMES:
        load_preset(name)


def test_methods_stand_family_by_family_with_base_and_sft_first():
    made = apply_preset(plan_board(), load_preset("methods"), "mine")
    by_family = [row.family for row in made.rows]
    assert len(set(by_family)) == sum(
        one != before for one, before in zip(by_family, [None, *by_family], strict=False)
    )
    for family in set(by_family):
        methods = [row.method for row in made.rows if row.family == family]
        assert methods[: len({"base", "sft"} & set(methods))] == [
            m for m in ("base", "sft") if m in methods
        ]
    kinds = shown(made)
    assert kinds == sorted(
        kinds, key=["LC win rate", "win rate", "place", "length", "accuracy"].index
    )
    assert made.name == "mine"
    assert f"Ranked by {made.label(made.column(str(made.ranked_by)))}." in made.notes


@pytest.mark.parametrize("name", ["methods", "open-llm", "ratings", "everything"])
def test_a_preset_changes_no_number_and_keeps_the_others_in_the_files(name):
    board = plan_board()
    made = apply_preset(board, load_preset(name), "mine")
    for row in made.rows:
        assert row.scores == next(old for old in board.rows if old.model == row.model).scores
    assert {column.key for column in made.columns} == {column.key for column in board.columns}
    for column in made.columns:
        if made.holds(column):
            assert made.label(column) in to_csv(made)


def test_a_preset_of_columns_that_the_board_lacks_says_what_there_is():
    board = replace(plan_board(), columns=[c for c in plan_board().columns if c.kind != "rating"])
    board = replace(board, columns=[c for c in board.columns if c.source != "round robin"])
    preset = Preset(title="x", columns=[Described(kind="rating")])
    with pytest.raises(
        InputError, match=r"no column that this preset shows \(kind rating\); it has: .*win rate"
    ):
        apply_preset(board, preset, "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: x\ncolums: []\n", "'colums'.*'columns'"),
        ("title: x\ncolumns: [{kind: wins}]\n", "Invalid enum value 'wins'"),
        ("title: x\ncolumns: [{kin: length}]\n", "'columns.kin'|columns.*kin.*kind"),
        ("title: x\n", "columns"),
    ],
)
def test_a_preset_that_is_wrong_is_one_sentence_with_its_file(tmp_path, monkeypatch, text, words):
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        load_preset("mine")
    assert "mine.yaml" in str(caught.value)


def test_the_command_shows_a_boards_file_by_ones_own_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / "short.yaml").write_text(
        "title: Short\ncolumns: [{kind: length}]\nsort: {kind: length}\n"
    )
    board = plan_board()
    (tmp_path / "theirs.json").write_text(board.to_json())
    result = invoke(["board", "short", "--from", "theirs.json"])
    assert result.exit_code == 0, result.output
    made = read_board(tmp_path / "leaderboards" / f"{board.name}-short.json")
    assert made.title == "Short"
    assert shown(made) == ["length"]
    plain = invoke(["board", "--from", "theirs.json"])
    assert isinstance(plain.exception, InputError)
    assert "name a preset" in str(plain.exception)
    alone = invoke(["board", "short"])
    assert isinstance(alone.exception, InputError)
    assert "--from" in str(alone.exception)


def one_column(places: dict[str, tuple[int, int]]) -> Board:
    rate, _ = judged_columns("a-judge", "base", None)
    place = rank_column(rate)
    rows = [
        Row(name, {rate.key: Score(90.0 - 10 * k), place.key: Score(low, low, high)})
        for k, (name, (low, high)) in enumerate(places.items())
    ]
    return Board(name="b", title="B", columns=[rate, place], rows=rows, ranked_by=rate.key)


@pytest.mark.parametrize(
    ("places", "best"),
    [
        ({"a": (1, 1), "b": (2, 3), "c": (2, 3)}, "a"),
        ({"a": (1, 2), "b": (1, 2), "c": (3, 3)}, None),
        # Two groups, each against its own baseline: nobody is first of all.
        ({"a": (1, 1), "b": (2, 2), "c": (1, 2), "d": (1, 2)}, None),
        ({}, None),
    ],
)
def test_the_best_is_bold_only_where_no_other_model_may_be_first(places, best):
    board = one_column(places)
    found = board.best(board.columns[0])
    assert (None if found is None else found.model) == best
    bold = {
        "md": "**90.0**" in to_markdown(board),
        "tex": "{\\bfseries 90.0}" in to_latex(board),
        "html": "<strong>90.0</strong>" in to_html(board) if places else False,
        "notebook": "<b>90.0</b>" in board._repr_html_(),
    }
    assert set(bold.values()) == {best is not None}
    assert ("Bold:" in to_markdown(board)) == (best is not None)
    assert "**" not in to_text(board)


def test_family_and_method_of_a_results_folder_come_from_its_records(tmp_path):
    results, adapter = tmp_path / "results", tmp_path / "runs" / "mine"
    adapter.mkdir(parents=True)
    (adapter / "training.json").write_text('{"method": "ipo", "seconds": 1800, "steps": 20}')
    records = {
        "mine": {"base": "org/small", "adapter": "runs/mine"},
        "small": {"base": "org/small"},
        "else": {"base": "org/other"},
        "broken": [],
    }
    for name, record in records.items():
        (results / name).mkdir(parents=True)
        (results / name / "model.json").write_bytes(msgspec.json.encode(record))
    length = Column(key="n", name="n", kind="length")
    rows = [Row(name, {"n": Score(1.0)}) for name in [*records, "unknown"]]
    made = with_origins(Board(name="b", title="B", columns=[length], rows=rows), results)
    assert {row.model: (row.family, row.method) for row in made.rows} == {
        "mine": ("small", "ipo"),
        "small": ("small", "base"),
        "else": ("other", None),
        "broken": (None, None),
        "unknown": (None, None),
    }
    mine = next(row for row in made.rows if row.model == "mine")
    assert (mine.scores["training steps"].value, mine.scores["training time"].value) == (20, 0.5)
