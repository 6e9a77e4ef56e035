"""Boards as files: what is written equals what was computed, and nothing that others wrote acts."""

import csv
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from alignboard.errors import InputError
from alignboard.leaderboards import plots
from alignboard.leaderboards.board import (
    DECLARED_ADVERSARIAL,
    Board,
    board_of,
    published_reproduction,
    write_board,
)
from alignboard.leaderboards.board_files import picture, to_csv, to_json, to_markdown
from alignboard.leaderboards.plots_canvas import Canvas, drawable, drawn_name, text_width
from alignboard.leaderboards.plots_labels import Label, place
from alignboard.leaderboards.plots_style import nice_ticks, percent_limits
from alignboard.published.reproduce import BoardRow, Reproduction
from alignboard.published.wheel_boards import read_published_board
from alignboard.suites import load_suite
from alignboard.text import csv_cell, markdown_text, shown

SUITES = ["alpaca-eval-1", "alpaca-eval-2"]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "a|b|c",
    "line\nbreak\r\n| x |",
    '=HYPERLINK("http://example.com")',
    "@SUM(1+1)*cmd",
    "-2+3",
    "$\\frac{$",
    "[click](javascript:alert(1))",
    "`code` *bold* _under_ ~~no~~",
    "evil\u202egpj.exe",
    "\udcff-not-utf8",
    "模型-七十亿",
    "Z\u0301\u0301\u0301\u0301algo",
    "W" * 60,
    "../../escape",
    "   ",
]


def row(model: str, lc: float | None = 20.0, rate: float | None = 30.0, **changes):
    known = BoardRow(
        model=model,
        n_total=800,
        n_unparsed=5,
        win_rate=rate,
        standard_error=1.5,
        ci_low=None if rate is None else rate - 3,
        ci_high=None if rate is None else rate + 3,
        discrete_win_rate=rate,
        n_wins=240,
        n_wins_base=555,
        n_draws=5,
        avg_length=1200,
        lc_win_rate_compat=lc,
        lc_win_rate_aligned=lc,
        lc_standard_error=1.0,
        lc_ci_low=None if lc is None else lc - 2,
        lc_ci_high=None if lc is None else lc + 2,
        published_win_rate=rate,
        published_lc_win_rate=lc,
        win_rate_difference=-1e-12,
        lc_difference=0.0004,
    )
    return replace(known, **changes)


def board(rows, **changes):
    known = Board(
        name="test",
        title="A suite",
        judge="judge_v1",
        baseline="the_baseline",
        source="recomputed",
        conditions="95 % intervals are for new prompts.",
        rows=rows,
        mode="compat",
        families={"family": ["small", "large"], "absent": ["nobody", "no-one"]},
    )
    return replace(known, **changes)


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def png_parts(content):
    """The chunks of a PNG, each checked against its checksum."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", content[at + 8 + length :][:4])[0]
        chunks[kind] = chunks.get(kind, b"") + data
        at += 12 + length
    return chunks


def png_size(content):
    return struct.unpack(">II", png_parts(content)[b"IHDR"][:8])


def drawn(given):
    """The canvas of a board before it is turned into pixels."""
    shot = picture(given)
    return plots._compose(shot, plots.choose(shot))


def texts(canvas):
    return [writing.text for writing in canvas.writings]


def extent(writing):
    width = text_width(writing.text, writing.size, bold=writing.bold)
    height = writing.size / 72
    return (
        writing.x,
        writing.y - 0.2 * height,
        writing.x + width,
        writing.y + 0.75 * height,
    )


def overlapping(canvas):
    """Pairs of texts that cover each other by more than a hair."""
    boxes = [(w.text, extent(w)) for w in canvas.writings if w.text.strip()]
    hair = 0.01
    return [
        (one, other)
        for k, (one, a) in enumerate(boxes)
        for other, b in boxes[k + 1 :]
        if min(a[2], b[2]) - max(a[0], b[0]) > hair and min(a[3], b[3]) - max(a[1], b[1]) > hair
    ]


def outside(canvas):
    return [
        w.text
        for w in canvas.writings
        if (e := extent(w))[0] < 0 or e[1] < 0 or e[2] > canvas.width or e[3] > canvas.height
    ]


# The published boards.


@pytest.mark.parametrize("name", SUITES)
def test_published_board_is_the_wheels(name, tmp_path):
    suite = load_suite(name)
    published = read_published_board(suite.board.file)
    made = published_reproduction(suite)
    assert (made.judge, made.baseline, made.source) == (
        suite.annotator,
        suite.baseline,
        "published",
    )
    assert {r.model for r in made.rows} == set(published)
    for r in made.rows:
        theirs = published[r.model]
        assert r.win_rate == theirs.win_rate
        assert r.standard_error == theirs.standard_error
        assert r.lc_win_rate_compat == theirs.length_controlled_winrate
        assert (r.n_total, r.n_wins, r.n_draws) == (theirs.n_total, theirs.n_wins, theirs.n_draws)
        assert (r.lc_standard_error, r.lc_ci_low, r.lc_ci_high) == (None, None, None)
        assert r.win_rate is not None
        assert r.ci_low is not None
        assert r.ci_high is not None
        assert r.ci_low <= r.win_rate <= r.ci_high
    assert [path.name for path in write_board(made, tmp_path)] == [
        f"{name}.{suffix}" for suffix in ("csv", "md", "json", "png")
    ]


def test_interval_of_a_published_rate_is_its_standard_error_on_the_logit_scale():
    null = next(
        r
        for r in published_reproduction(load_suite("alpaca-eval-2")).rows
        if r.model == "NullModel"
    )
    rate, error = 0.7691979180386511, 0.009090102449662572
    reach = (
        1.9629 * error / (rate * (1 - rate))
    )  # Student's 97.5 % point with 804 degrees of freedom
    centre = np.log(rate / (1 - rate))
    expected = [100 / (1 + np.exp(-(centre + sign * reach))) for sign in (-1, 1)]
    assert [null.ci_low, null.ci_high] == pytest.approx(expected, abs=1e-4)


def test_models_declared_adversarial_are_flagged():
    rows = published_reproduction(load_suite("alpaca-eval-2")).rows
    assert {r.model for r in rows if DECLARED_ADVERSARIAL in r.flags} == {"NullModel", "gpt4_gamed"}


def test_missing_rows_of_a_published_board_are_told():
    rows = {r.model: r for r in published_reproduction(load_suite("alpaca-eval-2")).rows}
    assert rows["phi-2"].n_total == 803
    assert rows["phi-2"].flags == ["2 rows missing or unparsed"]


@pytest.mark.parametrize("name", SUITES)
def test_every_other_judges_board_can_be_written(name, tmp_path):
    suite = load_suite(name)
    others = [known for known in suite.boards if known.annotator != suite.annotator]
    assert len(others) >= 3
    for known in others:
        made = published_reproduction(suite, known)
        assert made.judge == known.annotator
        assert made.name == f"{name}-{known.annotator}"
        assert len(write_board(made, tmp_path)) == 4
        assert ("LC" in made.conditions) == made.has_lc


def test_a_published_count_that_is_missing_is_named(monkeypatch):
    suite = load_suite("alpaca-eval-2")
    theirs = read_published_board(suite.board.file)["phi-2"]
    broken = type(theirs)(model="phi-2", win_rate=1.0, standard_error=0.1)
    monkeypatch.setattr(
        "alignboard.leaderboards.board.read_published_board", lambda _: {"phi-2": broken}
    )
    with pytest.raises(InputError, match=r"turbo_leaderboard\.csv, model 'phi-2': n_total"):
        published_reproduction(suite)


# Ranks.


def test_rows_are_ranked_by_length_control_and_rows_without_are_not_ranked():
    suite = load_suite("alpaca-eval-1")
    rows = [row("low", 10.0), row("none", None, 99.0), row("high", 40.0), row("same", 40.0)]
    made = board_of(reproduction(rows), suite)
    assert [r.model for r in made.rows] == ["high", "same", "low", "none"]
    assert made.ranks() == [1, 1, 3, None]
    assert "models without one are not ranked" in to_markdown(made)


def test_without_any_length_control_the_win_rate_ranks():
    rows = [row("low", None, 10.0), row("unknown", None, None), row("high", None, 40.0)]
    made = board_of(reproduction(rows), load_suite("alpaca-eval-1"))
    assert [r.model for r in made.rows] == ["high", "low", "unknown"]
    assert made.ranks() == [1, 2, None]
    assert "Ranked by win rate." in to_markdown(made)


def test_a_rate_of_zero_is_a_score():
    made = board_of(
        reproduction([row("zero", 0.0, 50.0), row("one", 1.0)]), load_suite("alpaca-eval-1")
    )
    assert [(r.model, rank) for r, rank in zip(made.rows, made.ranks(), strict=True)] == [
        ("one", 1),
        ("zero", 2),
    ]


def test_the_mode_decides_and_a_joint_fit_is_by_instruction():
    rows = [
        row("b", lc_win_rate_compat=10.0, lc_win_rate_aligned=30.0),
        row("a", lc_win_rate_compat=20.0, lc_win_rate_aligned=5.0),
    ]
    suite = load_suite("alpaca-eval-1")
    compat = board_of(reproduction(rows), suite)
    aligned = board_of(reproduction(rows, mode="aligned"), suite)
    joint = board_of(
        reproduction(
            [
                replace(
                    r,
                    lc_win_rate_compat=None,
                    lc_win_rate_aligned=None,
                    lc_win_rate_joint=r.lc_win_rate_aligned,
                )
                for r in rows
            ],
            length_control="joint",
        ),
        suite,
    )
    assert [r.model for r in compat.rows] == ["a", "b"]
    assert [r.model for r in aligned.rows] == [r.model for r in joint.rows] == ["b", "a"]
    assert joint.ranks() == [1, 2]
    assert (joint.mode, joint.has_lc) == ("joint", True)
    assert "difficulties fitted to these models" in joint.conditions


def reproduction(rows, mode="compat", length_control="calibrated"):
    known = {f.name for f in fields(Reproduction)}
    values = {
        "suite": "alpaca-eval-1",
        "annotator": "alpaca_eval_gpt4",
        "baseline": "text_davinci_003",
        "mode": mode,
        "length_control": length_control,
        "models": rows,
        "n_published": 102,
    }
    return Reproduction(**{key: value for key, value in values.items() if key in known})


# The files.


def test_files_hold_the_numbers_that_went_in(tmp_path):
    made = board([row("large", 41.23456789012345), row("small", 7.000000000000001, 3.3)])
    paths = {path.suffix: path for path in write_board(made, tmp_path)}
    table = csv_rows(paths[".csv"].read_text(encoding="utf-8"))
    content = json.loads(paths[".json"].read_text(encoding="utf-8"))
    names = [f.name for f in fields(BoardRow)]
    assert list(table[0]) == ["rank", *names, "judge", "baseline", "mode", "source"]
    for given, cells, plain in zip(made.rows, table, content["models"], strict=True):
        assert {name: plain[name] for name in names} == {
            name: getattr(given, name) for name in names
        }
        for name in names:
            value = getattr(given, name)
            if isinstance(value, int | float):
                assert float(cells[name]) == value, name
        assert (cells["judge"], cells["baseline"]) == ("judge_v1", "the_baseline")
    assert [plain["rank"] for plain in content["models"]] == [1, 2]
    assert content["judge"] == "judge_v1"
    assert content["conditions"] == made.conditions
    assert content["source"] == "recomputed"
    page = paths[".md"].read_text(encoding="utf-8")
    assert "judged by judge_v1" in page
    assert "![A suite](test.png)" in page
    assert "| 1 | large | 41.23 | 41.23 | 39.23 to 43.23 |" in page


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    made = published_reproduction(load_suite("alpaca-eval-2"))
    first = {path.name: path.read_bytes() for path in write_board(made, tmp_path)}
    second = {path.name: path.read_bytes() for path in write_board(made, tmp_path / "again")}
    assert first == second
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == set(first)
    known = {"models", "n_models"} | {f.name for f in fields(Board)}
    assert set(json.loads(first["alpaca-eval-2.json"])) <= known  # no date, no version, no path
    assert set(png_parts(first["alpaca-eval-2.png"])) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_the_picture_does_not_depend_on_the_process_or_its_matplotlibrc(tmp_path):
    script = (
        "import sys, hashlib\n"
        "from alignboard.suites import load_suite\n"
        "from alignboard.leaderboards.board import published_reproduction\n"
        "from alignboard.leaderboards.board_files import picture\n"
        "from alignboard.leaderboards.plots import draw\n"
        "content = draw(picture(published_reproduction(load_suite('alpaca-eval-1'))))\n"
        "print(hashlib.sha256(content).hexdigest(), 'matplotlib.pyplot' in sys.modules)\n"
    )
    rc = tmp_path / "matplotlibrc"
    rc.write_text(
        "axes.facecolor: red\ntext.usetex: True\npath.sketch: 1, 100, 2\nlines.markeredgewidth: 9\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder in (tmp_path, "/")
    }
    assert len(answers) == 1
    assert answers.pop().endswith("False\n")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".."])
def test_a_boards_name_is_no_path(name, tmp_path):
    with pytest.raises(InputError, match="slash"):
        write_board(board([row("a")], name=name), tmp_path / "boards")
    assert list(tmp_path.iterdir()) == []


def test_what_a_published_board_does_not_count_is_not_zero():
    made = published_reproduction(load_suite("alpaca-eval-2"))
    assert {r["n_unparsed"] for r in csv_rows(to_csv(made))} == {""}
    assert {r["n_unparsed"] for r in json.loads(to_json(made))["models"]} == {None}
    assert "| unparsed |" not in to_markdown(made)
    assert "| unparsed |" in to_markdown(board([row("a")]))


def test_unknown_figures_are_empty_and_nan_is_unknown(tmp_path):
    empty = row(
        "empty", None, None, standard_error=None, avg_length=None, lc_difference=float("nan")
    )
    made = board([row("small"), empty])
    cells = csv_rows(to_csv(made))[1]
    assert [
        cells[name]
        for name in ("rank", "win_rate", "avg_length", "lc_win_rate_compat", "lc_difference")
    ] == [""] * 5
    plain = json.loads(to_json(made), parse_constant=pytest.fail)["models"][1]
    assert plain["rank"] is plain["win_rate"] is plain["lc_difference"] is None
    assert len(write_board(made, tmp_path)) == 4


# Hostile text.


@pytest.mark.filterwarnings("error")
def test_hostile_names_in_all_files(tmp_path):
    made = board(
        [
            row(name, 80.0 - k, flags=[f"generator is {name!r}"], disagreements=[name])
            for k, name in enumerate(HOSTILE)
        ],
        judge="<b>judge|=1</b>",
        baseline="$base$",
    )
    paths = {path.suffix: path for path in write_board(made, tmp_path)}
    assert [path.parent for path in paths.values()] == [tmp_path] * 4
    page = paths[".md"].read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == len(HOSTILE) + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "<" not in page
    assert "](javascript" not in page.replace("\\]", "")
    rows = csv_rows(paths[".csv"].read_text(encoding="utf-8"))
    assert len(rows) == len(HOSTILE)
    for cells in rows:
        for name in ("model", "flags", "disagreements", "judge"):
            assert not cells[name].lstrip().startswith(("=", "+", "-", "@")), cells[name]
            assert "\n" not in cells[name]
    content = json.loads(paths[".json"].read_text(encoding="utf-8"))
    kept = [name.encode("utf-8", "backslashreplace").decode() for name in HOSTILE]
    assert [plain["model"] for plain in content["models"]] == kept


def test_text_is_escaped_once_and_only_where_it_acts():
    assert markdown_text("gpt-4_1106 v1.0 (x)") == "gpt-4_1106 v1.0 (x)"
    assert markdown_text("a|b") == "a\\|b"
    assert markdown_text("<img src=x>&") == "&lt;img src=x&gt;&amp;"
    assert markdown_text("_x_ a_b") == "\\_x\\_ a_b"
    assert markdown_text("https://x.y @me www.z") == "https&#58;//x.y &#64;me www&#46;z"
    assert shown("tab\there") == "tab\\there"
    assert csv_cell(-1.5) == -1.5
    assert csv_cell(float("inf")) is None
    assert csv_cell(["=x", "y"]) == "'=x; y"


def test_names_are_drawn_with_what_the_font_has():
    assert drawable("evil\u202egpj") == "evil\\u202egpj"
    assert drawable("模x") == "\\u6a21x"
    assert drawable("Ångström") == "Ångström"
    assert drawable("e\u0301") == "é"
    assert drawable("q\u0301") == "q\\u0301"
    assert drawn_name("$\\frac{$", 5) == "$\\frac{$"


@pytest.mark.parametrize("name", ["W" * 60, "i" * 60, "Meta-Llama-3.1-70B" * 4])
def test_long_names_keep_both_ends_and_fit(name):
    for room in (0.5, 1.0, 2.5):
        short = drawn_name(name, room)
        assert text_width(short) <= room
        assert short.startswith(name[0])
        assert short.endswith(name[-1])


def test_text_width_is_that_of_matplotlib():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=1000)
    canvas = FigureCanvasAgg(figure)
    for text, bold in [("zephyr-7b-beta", False), ("llama-2-70b-chat-hf 14.7", True)]:
        art = figure.text(0, 0, text, fontsize=8, fontweight="bold" if bold else "normal")
        width = art.get_window_extent(canvas.get_renderer()).width / 1000
        assert text_width(text, 8, bold=bold) == pytest.approx(width, rel=0.02)


# The picture.


def many(n):
    rng = np.random.default_rng(0)
    rates = np.sort(rng.uniform(2, 90, n))[::-1]
    return [
        row(f"model-{k:03d}-instruct", float(rate), avg_length=int(rng.uniform(200, 3000)))
        for k, rate in enumerate(rates)
    ]


def variants():
    family = [row("small", 10.0, avg_length=500), row("large", 30.0, avg_length=1500)]
    bare = [
        replace(r, lc_ci_low=None, lc_ci_high=None, ci_low=None, ci_high=None) for r in many(24)
    ]
    none = {"lc_win_rate_compat": None, "lc_win_rate_aligned": None}
    return {
        "one": [row("only")],
        "two": family,
        "ten": many(8) + family,
        "eleven": many(9) + family,
        "twenty-four": many(22) + family,
        "hundreds": many(221) + family,
        "no intervals": bare,
        "no length control": [replace(r, **none) for r in many(24)],
        "no lengths": [replace(r, avg_length=None) for r in many(12) + family],
        "no scores": [row("a", None, None), row("b", None, None)],
        "nothing": [],
        "equal": [replace(r, model=f"m{k}") for k, r in enumerate([row("x")] * 12)],
        "extremes": [
            row("all", 100.0, 100.0, lc_ci_low=99.5, lc_ci_high=100.0),
            row("none", 0.0, 0.0, lc_ci_low=0.0, lc_ci_high=0.5),
        ],
        "hostile": [row(name, 80.0 - k) for k, name in enumerate(HOSTILE)],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", variants())
def test_every_kind_of_board_is_drawn_without_clipped_or_overlapping_text(kind):
    made = board(sorted(variants()[kind], key=lambda r: -(r.lc_win_rate_compat or 0)))
    canvas = drawn(made)
    assert outside(canvas) == []
    assert overlapping(canvas) == []
    content = plots.draw(picture(made))
    assert png_size(content) == (round(canvas.width * 150), int(canvas.height * 150))


@pytest.mark.parametrize("name", SUITES)
def test_published_boards_are_drawn_without_clipped_or_overlapping_text(name):
    canvas = drawn(published_reproduction(load_suite(name)))
    assert outside(canvas) == []
    assert overlapping(canvas) == []


def test_the_picture_says_judge_baseline_and_what_intervals_mean():
    canvas = drawn(board([row("small", 10.0), row("large", 30.0)]))
    words = " ".join(texts(canvas))
    assert "A suite: length-controlled win rate against the_baseline" in words
    assert "Judged by judge_v1. 2 models, recomputed from the annotations." in words
    assert "95 % intervals are for new prompts." in words
    assert "Without data for a comparison: the family absent." in words
    assert "published LC win rate" in words


def test_a_large_board_shows_its_leaders_and_families_and_counts_the_rest():
    rows = [*many(100), row("small", 1.5, avg_length=100), row("large", 1.75, avg_length=900)]
    chosen = plots.choose(picture(board(sorted(rows, key=lambda r: -(r.lc_win_rate_compat or 0)))))
    assert [line.row.model for line in chosen.lines] == [
        *(r.model for r in many(100)[:15]),
        "large",
        "small",
    ]
    assert any("85 models are left out" in note for note in chosen.notes)
    assert [name for name, _ in chosen.families] == ["family"]


def test_family_members_without_data_are_named():
    made = board([row("a"), row("c", 9.0)], families={"abc": ["a", "b", "c"], "d": ["d", "a"]})
    chosen = plots.choose(picture(made))
    assert [(name, [r.model for r in members]) for name, members in chosen.families] == [
        ("abc", ["a", "c"])
    ]
    assert "Without data for a comparison: b, the family d." in chosen.notes


def points(axes, marker_size):
    return {
        tuple(float(v) for v in offset)
        for art in axes.collections
        if len(getattr(art, "get_sizes", list)()) and art.get_sizes()[0] == marker_size
        for offset in art.get_offsets()
    }


def test_the_ranking_draws_the_numbers_of_the_board():
    made = board([row("x", 40.0, 33.0, published_lc_win_rate=41.0), row("y", 20.0, 22.0)])
    axes = drawn(made).figure.axes[0]
    assert {x for x, _ in points(axes, 30)} == {40.0, 20.0}
    assert {x for x, _ in points(axes, 13)} == {33.0, 22.0}
    assert {x for x, _ in points(axes, 62)} == {41.0, 20.0}
    segments = {
        (float(a[0]), float(b[0]))
        for art in axes.collections
        if isinstance(art, LineCollection)
        for a, b in art.get_segments()
    }
    assert {(38.0, 42.0), (18.0, 22.0), (30.0, 36.0), (19.0, 25.0)} <= segments
    assert {round(y) for x, y in points(axes, 13) if x == 33.0} == {0}  # on its own line
    assert {round(y) for x, y in points(axes, 30) if x == 20.0} == {1}
    low, high = axes.get_xlim()
    assert low < 18.0
    assert high > 42.0


def test_without_an_interval_none_is_drawn():
    bare = row("x", lc_ci_low=None, lc_ci_high=None, ci_low=None, ci_high=None)
    canvas = drawn(board([bare, replace(bare, model="y")]))
    widths = {
        float(np.ravel(art.get_linewidth())[0])
        for art in canvas.figure.axes[0].collections
        if isinstance(art, LineCollection)
    }
    assert widths <= {0.6, 0.8}  # the grid alone
    assert "LC win rate, without intervals" in texts(canvas)


def test_the_interval_is_drawn_at_the_estimate_that_it_is_of():
    made = board([row("x", lc_win_rate_compat=9.0, lc_win_rate_aligned=6.5, lc_ci_low=4.7)])
    shot = picture(made)
    assert shot.rows[0].main is not None
    assert (shot.rows[0].main.value, shot.rows[0].main.low) == (6.5, 4.7)
    assert any("ranks follow the look-up by row" in note for note in shot.notes)


def test_flagged_models_have_their_own_mark():
    made = board([row("cheat", 90.0, flags=["one constant output"]), row("fair", 20.0)])
    shot = picture(made)
    assert [r.flagged for r in shot.rows] == [True, False]
    assert "flagged: constant or adversarial answers" in texts(drawn(made))
    colors = {w.text: w.color for w in drawn(made).writings}
    assert colors["cheat"] != colors["fair"]


def test_names_beside_points_never_cover_each_other():
    canvas = Canvas(6, 4, 100)
    axes = canvas.figure.add_axes((0.1, 0.1, 0.8, 0.8), xlim=(0, 1), ylim=(0, 1))
    rng = np.random.default_rng(1)
    spots = [(float(x), float(y)) for x, y in rng.uniform(0.45, 0.55, (12, 2))]
    names = [
        Label(spot, f"a-long-name-{k}", "#000000", needed=True) for k, spot in enumerate(spots)
    ]
    place(canvas, axes, names, spots)
    assert len(canvas.writings) >= 6
    assert overlapping(canvas) == []


@pytest.mark.parametrize(
    ("low", "high"), [(0, 100), (-1.0, 1.0), (49.0, 51.0), (0.001, 0.0012), (3, 97)]
)
def test_ticks_are_round_few_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert np.ptp(np.diff(ticks)) == pytest.approx(0, abs=1e-9)


def test_limits_have_width_and_stay_near_percentages():
    assert percent_limits([50.0]) == (49.0, 51.0)
    low, high = percent_limits([0.0, 100.0])
    assert -1 <= low < 0
    assert 100 < high <= 101


def test_building_a_board_loads_no_plotting(tmp_path):
    script = (
        "import sys; import alignboard.leaderboards.board; "
        "print([name for name in sys.modules if name.startswith(('matplotlib', 'PIL', 'pandas'))])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"
