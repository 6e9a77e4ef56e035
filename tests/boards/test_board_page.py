"""The page of a plan's board: what it shows, that nothing in it acts, and what a browser makes of it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from alignboard.boards.board import read_board
from alignboard.boards.files import write_board
from alignboard.boards.page import page_columns
from alignboard.boards.page import to_html as made
from alignboard.errors import InputError
from boards import HOSTILE, board_with_gaps, hostile_board, plan_board
from test_page_text import ALPHABET

VOID = {"meta", "input", "wbr", "br", "path", "use"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    def all(self, tag):
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag:
                    yield child
                yield from child.all(tag)

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    @property
    def own_text(self):
        """Without what is in small print."""
        return "".join(
            c if isinstance(c, str) else c.text
            for c in self.children
            if isinstance(c, str) or c.tag != "small"
        ).strip()

    @property
    def classes(self):
        return (self.attributes.get("class") or "").split()


class Tree(HTMLParser):
    """A tree of the page; an end tag that does not fit is a failure."""

    def __init__(self):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


PAGES = {}


def to_html(board):
    """The page of ``board``, made once."""
    key = board.to_json()
    if key not in PAGES:
        PAGES[key] = made(board)
    return PAGES[key]


def parsed(page):
    tree = Tree()
    tree.feed(page)
    tree.close()
    assert tree.open == [tree.root]
    return tree.root


def table(page):
    """The names of the columns, and the rows as (value, small prints) by column."""
    body = next(parsed(page).all("table"))
    first, second = list(next(body.all("thead")).all("tr"))
    heads = list(first.all("th"))
    spanned = [h for h in heads if "colspan" in h.attributes]
    groups = [g.text for g in spanned for _ in range(int(g.attributes["colspan"] or 0))]
    before = heads[: heads.index(spanned[0])]
    names = [h.text for h in before]
    names += [f"{g}: {th.text}" for g, th in zip(groups, second.all("th"), strict=True)]
    names += [h.text for h in heads[len(before) + len(spanned) :]]
    rows = []
    for line in next(body.all("tbody")).all("tr"):
        cells = [cell for cell in line.children if isinstance(cell, Element)]
        pairs = [(cell.own_text, [s.text for s in cell.all("small")]) for cell in cells]
        rows.append(dict(zip(names, pairs, strict=True)))
    return names, rows


def test_a_line_parts_the_families_only_where_they_stand_together():
    board = plan_board()
    rows = sorted(board.rows, key=lambda row: row.family or "")
    families = len({row.family for row in rows})
    mixed = rows[::2] + rows[1::2]
    for order, wanted in ((rows, families - 1), (mixed, 0)):
        page = to_html(msgspec.structs.replace(board, rows=order))
        lines = next(parsed(page).all("tbody")).all("tr")
        assert sum(line.attributes.get("class") == "family" for line in lines) == wanted
    assert families > 1


def test_every_number_of_the_table_is_the_boards():
    board = plan_board()
    _, rows = table(to_html(board))
    assert len(rows) == len(board.rows)
    for row, cells in zip(board.rows, rows, strict=True):
        assert (cells["model"][0], cells["method"][0]) == (row.model, row.method)
        for column in page_columns(board):
            shown_cell = cells[f"{column.group}: {column.name}"]
            score = board.score(row, column.column)
            if score.reason == "baseline":
                assert shown_cell == ("", ["baseline"])
                continue
            assert score.value is not None
            assert shown_cell[0] == f"{score.value:.{column.column.digits}f}"
            assert (
                shown_cell[1][:1] == [column.column.interval(score)]
                or column.column.kind == "length"
            )
    win = rows[0]["judged by model judge: win rate %"]
    assert win[1][1] == "W 100 · D 0 · L 49 · 1 unparsed"


def test_what_is_not_known_is_shown_as_not_known():
    _, rows = table(to_html(board_with_gaps()))
    assert rows[0]["judged by rule: win rate %"] == ("n/a", [])
    assert rows[1]["responses: correct %"] == ("n/a", [])
    assert rows[2]["judged by rule: win rate %"] == ("n/a", ["no scored verdict", "200 unparsed"])
    assert rows[2]["responses: length"] == ("n/a", [])
    assert rows[6]["judged by rule: win rate %"] == ("60.0", [])
    assert not re.search(r"\bnan\b|\bnone\b<", to_html(board_with_gaps()), re.IGNORECASE)


def test_the_page_has_its_parts_and_can_be_read_without_a_script():
    board = plan_board()
    root = parsed(to_html(board))
    assert next(root.all("html")).attributes["lang"] == "en"
    assert [h.text for h in root.all("h1")] == ["A plan"]
    assert [h.text for h in root.all("h2")] == [
        "Board",
        "What the numbers mean",
        "Plots",
    ]
    assert [li.text for li in root.all("li")] == board.notes
    assert len(list(root.all("svg"))) == len(list(root.all("figcaption"))) == 7
    assert all(svg.attributes["aria-label"] for svg in root.all("svg"))
    assert len(list(next(root.all("table")).all("caption"))) == 1
    numbered = [e.attributes["id"] for e in everything(root) if "id" in e.attributes]
    assert len(numbered) == len(set(numbered))


def everything(element):
    for child in element.children:
        if isinstance(child, Element):
            yield child
            yield from everything(child)


@pytest.mark.filterwarnings("error")
def test_hostile_text_is_shown_and_never_acts():
    page = to_html(hostile_board())
    page.encode()  # no lone surrogate
    assert not set(page) & {"\x00", "\x07", "\u202e", "\u2028", "\r"}
    root = parsed(page)
    elements = list(everything(root))
    scripts = [e for e in elements if e.tag == "script"]
    assert [s.attributes.get("type") for s in scripts] == ["application/octet-stream", None]
    assert set(scripts[0].text) <= set(ALPHABET)
    assert [e.tag for e in elements].count("style") == 1
    assert not [e for e in elements if e.tag in {"img", "link", "a", "iframe", "object", "base"}]
    assert not [name for e in elements for name in e.attributes if name.startswith("on")]
    addresses = {e.attributes.get(n) for e in elements for n in ("src", "href", "xlink:href")}
    assert all(address is None or address.startswith("#") for address in addresses)
    assert next(root.all("h1")).text == HOSTILE[0]


def test_the_policy_of_the_page_allows_its_own_script_and_nothing_else():
    page = to_html(plan_board())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy[1])
    script = page[page.index("<script>") : page.index("</script>")]
    assert "A plan" not in script
    assert "innerHTML" not in script
    assert "http" not in script


@pytest.mark.parametrize(
    ("changes", "plots"),
    [
        ({"judges": (), "rated": False}, 3),
        ({"judges": (), "rated": False, "benchmarks": ()}, 1),
        ({"rows": []}, 0),
        ({"judges": (), "rated": False, "benchmarks": (), "notes": []}, 1),
        ({"families": ("phi",), "methods": ("base",)}, 4),
    ],
)
def test_parts_without_data_are_left_out(changes, plots):
    board = plan_board(**changes)
    root = parsed(to_html(board))
    assert len(list(root.all("svg"))) == plots
    assert len(list(next(root.all("tbody")).all("tr"))) == len(board.rows)
    headings = [h.text for h in root.all("h2")]
    assert ("Plots" in headings) == bool(plots)


# The files.


def test_all_files_are_written_beside_each_other(tmp_path):
    paths = write_board(plan_board(name="small"), tmp_path)
    names = [f"small.{suffix}" for suffix in ("csv", "md", "tex", "json", "png", "html")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert "![A plan](small.png)" in (tmp_path / "small.md").read_text()
    assert read_board(tmp_path / "small.json") == plan_board(name="small")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".."])
def test_a_boards_name_is_no_path(name, tmp_path):
    with pytest.raises(InputError):
        write_board(plan_board(name=name), tmp_path / "boards")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_process_or_its_settings(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hashlib, pathlib\n"
        "from boards import plan_board\n"
        "from alignboard.boards.files import write_board\n"
        "for path in write_board(plan_board(), pathlib.Path('out')):\n"
        "    print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    said = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        if seed == "2":
            (folder / "matplotlibrc").write_text(
                "axes.facecolor: red\npath.sketch: 1, 100, 2\nlines.markeredgewidth: 9\nsvg.hashsalt: x\n"
            )
        finished = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parents[1])],
            cwd=folder,
            env={
                "PYTHONHASHSEED": seed,
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(finished.stdout)
    assert len(said) == 1
    assert len(said.pop().splitlines()) == 7
