"""The page in a real browser, from a file and without a network: everything that a reader can press."""

import csv
import io
import json
import os
import re
import shutil
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from pypdf import PdfReader

from alignboard.boards.board import Board, read_board
from alignboard.boards.examples import read_examples
from alignboard.boards.files import to_csv, to_markdown, write_board
from alignboard.boards.latex import to_latex
from alignboard.boards.of_results import results_board
from alignboard.boards.results_examples import results_examples
from alignboard.judges.annotations import Annotation
from alignboard.records import Generation
from alignboard.results.formats import write_rows
from alignboard.stats.paired import paired_difference
from boards import HOSTILE, hostile_board, plan_board

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
N = 120
MODELS = ("dpo", "ipo", "sft")
PAYLOADS = (
    "</script><script>document.documentElement.dataset.hit = 1</script>",
    '<img src=x onerror="document.documentElement.dataset.hit = 2">',
    "javascript:document.documentElement.dataset.hit = 3",
    "line\u2028separator\u2029here",
    "{{7*7}} {% raw %} ${7*7}",
    "<!--<script>",
    '"><svg onload="document.documentElement.dataset.hit = 7">',
    "' onmouseover='document.documentElement.dataset.hit = 8",
    "bidi \u202e nul bell \x07",
    '=HYPERLINK("http://x")',
    "</textarea></style><style>body{display:none}</style>",
    "__proto__",
    r"$\frac{$",
    "<a href='javascript:document.documentElement.dataset.hit = 14'>x</a>",
    "<script>document.documentElement.dataset.hit = 15</script>",
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page that was opened from a file, with all that it complained about or asked for."""

    def __init__(self, browser, path, hash_="", **options):
        self.context = browser.new_context(offline=True, accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.faults = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "blob:"))
                else self.faults.append(request.url)
            ),
        )
        self.page.goto(Path(path).as_uri() + hash_)
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready]", state="attached", timeout=20_000)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
        assert self.faults == []

    def models(self):
        return self.page.eval_on_selector_all(
            "#board-table tbody tr", "rows => rows.filter(r => !r.hidden).map(r => r.dataset.model)"
        )

    def prompts(self):
        return [
            int(n)
            for n in self.page.eval_on_selector_all(
                "#list button", "found => found.map(b => b.dataset.prompt)"
            )
        ]

    def shows(self, wanted):
        sync_api.expect(self.page.locator("#n-examples")).to_have_text(re.compile(f"^{wanted} of"))
        return self.prompts()

    def heads(self):
        return self.page.eval_on_selector_all(
            "#board-table th[data-key]",
            "found => found.filter(h => !h.hidden).map(h => h.dataset.label)",
        )

    def result(self):
        return json.loads(self.page.get_attribute("#difference", "data-result"))


def preferences(seed):
    """Draws, sure and unsure verdicts, and some that could not be parsed."""
    rng = np.random.default_rng(seed)
    values = rng.choice([1.0, 1.25, 1.5, 2.0, 1.87654321], size=N).tolist()
    return [None if k % 17 == seed % 17 else value for k, value in enumerate(values)]


def prompt(k):
    return (
        PAYLOADS[k] if k < len(PAYLOADS) else f"Question {k} about {'cats' if k % 3 else 'dogs'}?"
    )


def response(model, k):
    return PAYLOADS[k] + model if k < len(PAYLOADS) else f"{model} answers {k}. " + "x" * (k % 7)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with two judges, one of them in both orders, and the files of its board."""
    root = tmp_path_factory.mktemp("page")
    for m, model in enumerate(MODELS):
        folder = root / "results" / model
        outputs = [Generation(prompt(k), response(model, k), model) for k in range(N)]
        folder.mkdir(parents=True)
        write_rows(folder / "model_outputs.json", outputs)
        for j, judge in enumerate(("one-order", "both-orders")):
            rows = [
                Annotation(
                    instruction=prompt(k),
                    output_1=response("base", k),
                    generator_1="base",
                    output_2=response(model, k),
                    generator_2=model,
                    preference=value,
                    annotator=judge,
                    raw_completion=[f"first {k}", f"second {k}"] if j else f"I say {k}",
                    switched=(False, True) if j else (False,),
                    order_preferences=(2.0, 1.0 if k % 5 == 0 else 2.0) if j else (value,),
                )
                for k, value in enumerate(preferences(10 * m + j))
            ]
            (folder / f"{judge}-vs-base").mkdir()
            write_rows(folder / f"{judge}-vs-base" / "annotations.json", rows)
    board = results_board(root / "results", name="both")
    write_board(board, root, results_examples(root / "results", board))
    return root / "both.html"


def test_sorting_searching_and_every_filter(browser, tmp_path):
    board = plan_board()
    write_board(board, tmp_path)
    with Opened(browser, tmp_path / "demo.html") as opened:
        page, own = opened.page, [row.model for row in board.rows]
        column = board.of_kind("win rate")[0]

        def by_rate(sign):
            scored = [row for row in board.rows if board.score(row, column).value is not None]
            others = [row.model for row in board.rows if row not in scored]
            scored.sort(key=lambda row: sign * board.score(row, column).value)
            return [*(row.model for row in scored), *others]

        head = page.locator("#board-table th[data-key] button", has_text="win rate %").first
        for order, wanted in (("descending", by_rate(-1)), ("ascending", by_rate(1)), (None, own)):
            head.click()
            assert opened.models() == wanted
            assert head.locator("..").get_attribute("aria-sort") == order
        page.fill("#search", "^tiny-phi-(dpo|ipo)")
        assert opened.models() == ["tiny-phi-dpo", "tiny-phi-ipo"]
        page.fill("#search", "(")  # no expression: searched as it is written
        assert opened.models() == []
        page.fill("#search", "")
        page.select_option("#family", "tiny-gemma")
        page.select_option("#method", "ipo")
        assert opened.models() == ["tiny-gemma-ipo"]
        assert page.inner_text("#count") == "1 of 8 models"
        page.select_option("#family", "")
        page.select_option("#method", "")
        page.select_option("#judge", "rule")
        assert not [name for name in opened.heads() if "model judge" in name]
        page.select_option("#judge", "")
        page.select_option("#kind", "length")
        assert opened.heads() == ["length"]
        page.select_option("#kind", "")
        page.click("summary:has-text('Columns')")
        page.locator("#columns label", has_text="correct").click()
        assert "correct" not in opened.heads()
        page.click("button[aria-label='Pin tiny-gemma-ipo']")
        assert opened.models()[0] == "tiny-gemma-ipo"
        state = page.url.partition("#")[2]
    with Opened(browser, tmp_path / "demo.html", f"#{state}") as opened:
        assert opened.models()[0] == "tiny-gemma-ipo"
        assert "correct" not in opened.heads()


def scores(made, column, model):
    examples = read_examples(made.with_name(f"{made.stem}.examples.json.gz"))
    assert examples is not None
    (found,) = [o for o in examples.preferences if (o.column, o.model) == (column, model)]
    return np.array([np.nan if p is None else p - 1 for p in found.preference])


def test_the_difference_on_the_page_is_that_of_the_package(browser, made):
    board = read_board(made.with_suffix(".json"))
    with Opened(browser, made) as opened:
        for column in board.of_kind("win rate"):
            opened.page.select_option("#by", column.key)
            for a, b in (("dpo", "ipo"), ("ipo", "sft"), ("sft", "dpo")):
                opened.page.select_option("#a", a)
                opened.page.select_option("#b", b)
                ours = paired_difference(scores(made, column.key, a), scores(made, column.key, b))
                assert_same(opened.result(), ours)
        opened.page.select_option("#b", "base")
        opened.page.select_option("#a", "dpo")
        row = next(row for row in board.rows if row.model == "dpo")
        rate = board.score(row, board.of_kind("win rate")[-1])
        assert 100 * opened.result()["estimate"] + 50 == pytest.approx(rate.value, abs=1e-9)


def test_models_against_different_baselines_have_no_common_measure(browser, tmp_path):
    root = tmp_path / "results"
    for model, baseline in (("one", "base"), ("two", "base"), ("three", "other")):
        rows = [
            Annotation(
                prompt(k), response(baseline, k), baseline, response(model, k), model, 2.0, "judge"
            )
            for k in range(20, 30)
        ]
        (root / model / f"judge-vs-{baseline}").mkdir(parents=True)
        write_rows(root / model / f"judge-vs-{baseline}" / "annotations.json", rows)
    board = results_board(root)
    shared = board.of_kind("win rate")[0]
    collected = results_examples(root, board)
    merged = [msgspec.structs.replace(one, column=shared.key) for one in collected.preferences]
    write_board(board, tmp_path, msgspec.structs.replace(collected, preferences=merged))
    with Opened(browser, tmp_path / "results.html", "#a=one&b=three") as opened:
        said = opened.page.inner_text("#difference")
        assert (
            said
            == "No common measure: one was judged against base, three was judged against other."
        )
        opened.page.select_option("#b", "two")
        assert "The same score on every one of 10 prompts" in opened.page.inner_text("#difference")


DELTAS = ([0.1] * 9 + [0.12], [0.1] * 9 + [-0.9], [-0.3, -0.2, 0.1, -0.4], [1.0, 0.9, 1.0])
"""of few prompts, of which none goes far against the difference, or one does"""


@pytest.mark.parametrize("deltas", DELTAS, ids=["none", "one", "other sign", "all far"])
def test_differences_of_few_prompts_are_those_of_the_package(browser, made, deltas):
    source = (files("alignboard") / "boards" / "page_parts" / "statistics.js").read_text()
    a, b = np.maximum(deltas, 0), np.maximum(np.negative(deltas), 0)
    with Opened(browser, made) as opened:
        call = f"([a, b]) => {{ {source} return pairedDifference(a, b); }}"
        found = opened.page.evaluate(call, [a.tolist(), b.tolist()])
    assert_same(found, paired_difference(a, b))


def assert_same(found, ours):
    assert found["n"] == ours.n
    for theirs, name in (
        ("estimate",) * 2,
        ("error", "standard_error"),
        ("low",) * 2,
        ("high",) * 2,
        ("p", "p_value"),
    ):
        assert found[theirs] == pytest.approx(getattr(ours, name), rel=1e-9, abs=1e-9)


@pytest.mark.skipif(
    "ALIGNBOARD_RELEASED_DATA" not in os.environ, reason="needs ALIGNBOARD_RELEASED_DATA"
)
def test_the_difference_of_released_models(browser, tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    models = ("alpaca-7b", "phi-2", "phi-2-sft", "zephyr-7b-beta", "gpt-3.5-turbo-1106")
    for model in models:
        (root / model).symlink_to(Path(os.environ["ALIGNBOARD_RELEASED_DATA"]) / "results" / model)
    board = results_board(root, judge="weighted_alpaca_eval_gpt4_turbo")
    write_board(board, tmp_path, results_examples(root, board))
    path, judged = tmp_path / "results.html", [row.model for row in board.rows if row.scores]
    key = board.of_kind("win rate")[0].key
    with Opened(browser, path) as opened:
        options = opened.page.eval_on_selector_all("#a option", "found => found.map(o => o.value)")
        both = [model for model in models if model in options]
        assert len(both) > 2
        for a, b in pairwise(both):
            opened.page.select_option("#a", a)
            opened.page.select_option("#b", b)
            assert_same(
                opened.result(), paired_difference(scores(path, key, a), scores(path, key, b))
            )
    assert judged


def test_every_filter_of_the_prompts(browser, made):
    board = read_board(made.with_suffix(".json"))
    one = next(c.key for c in board.of_kind("win rate") if c.judge == "one-order")
    a, b = scores(made, one, "dpo"), scores(made, one, "ipo")
    with Opened(browser, made) as opened:
        page = opened.page
        page.select_option("#by", one)
        page.select_option("#a", "dpo")
        page.select_option("#b", "ipo")
        for name, wanted in {
            "a": a > b,
            "b": a < b,
            "equal": a == b,
            "unscored": np.isnan(a) | np.isnan(b),
            "orders": np.arange(N) % 5 == 0,
        }.items():
            page.select_option("#show", name)
            assert opened.shows(int(wanted.sum())) == np.flatnonzero(wanted).tolist()
        page.select_option("#show", "judges")
        both = [c.key for c in board.of_kind("win rate")]
        apart = np.zeros(N, dtype=bool)
        for model in ("dpo", "ipo"):
            x, y = (scores(made, key, model) for key in both)
            apart |= ((x > 0.5) & (y < 0.5)) | ((x < 0.5) & (y > 0.5))
        assert opened.shows(int(apart.sum())) == np.flatnonzero(apart).tolist()
        page.select_option("#show", "all")
        page.select_option("#order", "difference")
        opened.shows(N)
        gaps = np.abs(np.nan_to_num(a) - np.nan_to_num(b))
        assert opened.prompts() == sorted(range(N), key=lambda k: -gaps[k])
        page.select_option("#order", "prompt")
        page.fill("#text", "about dogs")
        dogs = [k for k in range(len(PAYLOADS), N) if k % 3 == 0]
        assert opened.shows(len(dogs)) == dogs


def test_keys_blind_mode_and_a_link_to_a_prompt(browser, made):
    with Opened(browser, made, "#prompt=41&a=dpo&b=sft") as opened:
        page = opened.page
        assert page.inner_text("#example h3") == prompt(40)
        page.keyboard.press("j")
        sync_api.expect(page.locator("#example h3")).to_have_text(prompt(41))
        page.keyboard.press("k")
        sync_api.expect(page.locator("#example h3")).to_have_text(prompt(40))
        assert "dpo" in page.inner_text("#example .responses")
        assert page.locator(".verdicts tbody tr").count() == 4
        assert "I say 40" in page.inner_text(".verdicts")
        assert "[the model's response first]\nsecond 40" in page.inner_text(".verdicts")
        page.check("#blind")
        page.wait_for_selector("#example h4:has-text('Response 1')")
        headings = [text.split(" ")[0] for text in page.locator("#example h4").all_inner_texts()]
        assert headings == ["Response", "Response"]
        assert page.locator(".verdicts").count() == 0


def test_downloads_are_the_files_of_the_command(browser, made):
    board = read_board(made.with_suffix(".json"))
    with Opened(browser, made) as opened:
        page = opened.page

        def downloaded(kind):
            if not page.locator(f"[data-download={kind}]").is_visible():
                page.click("summary:has-text('Download')")
            with page.expect_download() as event:
                page.click(f"[data-download={kind}]")
            assert event.value.suggested_filename == f"both.{kind}"
            return Path(event.value.path()).read_text(encoding="utf-8")

        for kind, write in (
            ("csv", to_csv),
            ("tex", to_latex),
            ("md", to_markdown),
            ("json", Board.to_json),
        ):
            content = made.with_suffix(f".{kind}").read_text(encoding="utf-8")
            assert downloaded(kind) == content
            assert write(board) == content, "a board that was read again gives the same files"
        page.fill("#search", "dpo|sft")
        rows = list(csv.DictReader(io.StringIO(downloaded("csv"))))
        assert [row["model"] for row in rows] == opened.models()
        column = board.of_kind("win rate")[0]
        shown = page.locator("#board-table tbody tr:not([hidden])").all()
        for line, row in zip(shown, rows, strict=True):
            place = page.get_attribute(f"th[data-key='{column.key}']", "data-column")
            value = line.locator(":scope > *").nth(int(place)).get_attribute("data-value")
            assert float(value) == float(row[f"{board.label(column)} %"])


def test_hostile_texts_are_shown_as_they_are_and_do_nothing(browser, made):
    with Opened(browser, made, "#a=dpo&b=ipo") as opened:
        page = opened.page
        for k in range(len(PAYLOADS)):
            page.click(f"#list button[data-prompt='{k}']")
            page.wait_for_selector(f"#list button[aria-current=true][data-prompt='{k}']")
            texts = page.eval_on_selector_all(
                "#example h3, #example .responses pre",
                "found => found.map(e => [e.textContent, e.children.length])",
            )
            assert texts == [[PAYLOADS[k], 0], [response("dpo", k), 0], [response("ipo", k), 0]]
        assert page.evaluate("document.documentElement.dataset.hit") is None
        assert page.locator("a[href^='javascript']").count() == 0


def test_hostile_names_do_nothing(browser, tmp_path):
    board = hostile_board()
    write_board(board, tmp_path)
    with Opened(browser, tmp_path / "demo.html") as opened:
        assert len(opened.models()) == len(board.rows)
        assert opened.page.evaluate("document.documentElement.dataset.hit") is None
        assert opened.page.evaluate("getComputedStyle(document.body).display") == "block"
        assert opened.page.inner_text("h1") == HOSTILE[0]


def test_the_policy_stops_a_script_that_got_in(browser, made, tmp_path):
    """The second wall: were a text ever put in as markup, the policy would still keep it from running."""
    text = made.read_text(encoding="utf-8")
    hit = "<script>document.documentElement.dataset.hit = 1</script>"
    (tmp_path / "in.html").write_text(text.replace("<main>", f"<main>{hit}", 1), encoding="utf-8")
    (tmp_path / "open.html").write_text(
        text.replace("<main>", f"<main>{hit}", 1).replace("Content-Security-Policy", "X-None", 1),
        encoding="utf-8",
    )
    opened = Opened(browser, tmp_path / "in.html")
    assert opened.page.evaluate("document.documentElement.dataset.hit") is None
    assert "Content Security Policy" in opened.faults[0]
    opened.context.close()
    with Opened(browser, tmp_path / "open.html") as control:
        assert control.page.evaluate("document.documentElement.dataset.hit") == "1"


def test_without_a_script_the_page_is_a_table(browser, made):
    board = read_board(made.with_suffix(".json"))
    with Opened(browser, made, java_script_enabled=False) as opened:
        assert opened.page.locator("#board-table tbody tr").count() == len(board.rows)
        for part in ("#tools", "#comparison"):
            assert not opened.page.locator(part).is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_width_and_scheme_can_be_used(browser, made, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": 844}
    options = {"viewport": size, "color_scheme": scheme, "bypass_csp": True}
    with Opened(browser, made, **options) as opened:
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        assert [
            (v["id"], v["nodes"][0]["html"])
            for v in found
            if v["impact"] in {"serious", "critical"}
        ] == []
        if width == 390:
            box = (
                page.locator("#board-table tbody tr")
                .first.locator("td[data-value]")
                .first.bounding_box()
            )
            assert box["x"] + box["width"] <= width, "the first number is in sight"


def test_a_page_is_opened_by_names_with_any_characters(browser, made, tmp_path):
    target = tmp_path / "ä [x] #%" / "b.html"
    target.parent.mkdir()
    shutil.copy(made, target)
    assert quote("#") in target.as_uri()
    with Opened(browser, target) as opened:
        assert len(opened.models()) == 3


@pytest.fixture
def large(made, tmp_path, monkeypatch):
    """The same board as if its texts were too many for one file."""
    monkeypatch.setattr("alignboard.boards.page.MOST_TEXT", 1000)
    board = read_board(made.with_suffix(".json"))
    examples = read_examples(made.with_name("both.examples.json.gz"))
    folder = tmp_path / "ä [x] #%"
    write_board(msgspec.structs.replace(board, name="large % one"), folder, examples)
    return folder / "large % one.html"


def test_texts_beside_the_page_are_read_when_they_are_looked_at(browser, large):
    files = sorted(path.name for path in large.with_suffix(".texts").iterdir())
    assert files == ["chunk-0.css", "chunk-1.css", "chunk-2.css"]
    asked = []
    with Opened(browser, large, "#a=dpo&b=ipo") as opened:
        page = opened.page
        page.on("request", lambda request: asked.append(request.url))
        for k in (0, len(PAYLOADS) - 1, N - 1):
            page.click(f"#list button[data-prompt='{k}']")
            page.wait_for_selector(f"#list button[aria-current=true][data-prompt='{k}']")
            assert page.locator("#example h3").text_content() == prompt(k)
            texts = page.eval_on_selector_all(
                "#example .responses pre", "found => found.map(e => e.textContent)"
            )
            assert texts == [response("dpo", k), response("ipo", k)]
        assert [url.rpartition("/")[2] for url in asked] == ["chunk-2.css"], (
            "only what is looked at"
        )
        page.fill("#text", f"dpo answers {N - 1}")
        assert opened.shows(1) == [N - 1]
        assert page.evaluate("document.documentElement.dataset.hit") is None


def test_a_missing_file_of_texts_is_said_in_its_place(browser, large):
    (large.with_suffix(".texts") / "chunk-2.css").unlink()
    opened = Opened(browser, large, "#a=dpo&b=ipo")
    opened.page.click(f"#list button[data-prompt='{N - 1}']")
    wanted = "The file large % one.texts/chunk-2.css is missing beside this page."
    sync_api.expect(opened.page.locator("#example")).to_have_text(wanted)
    opened.page.click("#list button[data-prompt='1']")
    sync_api.expect(opened.page.locator("#example h3")).to_have_text(prompt(1))
    opened.context.close()


def test_a_board_that_shrank_leaves_no_texts_beside_its_page(large, monkeypatch):
    board = read_board(large.with_suffix(".json"))
    monkeypatch.setattr("alignboard.boards.page.MOST_TEXT", 10**9)
    paths = write_board(board, large.parent, None)
    assert not large.with_suffix(".texts").exists()
    assert all(path.is_file() for path in paths)


def test_a_published_or_served_page_has_its_texts(browser, large, tmp_path):
    from alignboard.boards.serving import server
    from alignboard.boards.site import publish
    from alignboard.cli.boards.view import _of_file

    publish([large.with_suffix(".json")], tmp_path / "public", "Boards")
    with Opened(browser, tmp_path / "public" / large.name, "#a=dpo&b=ipo") as opened:
        opened.page.click(f"#list button[data-prompt='{N - 1}']")
        sync_api.expect(opened.page.locator("#example h3")).to_have_text(prompt(N - 1))
    made, address = server(_of_file(large))
    with made:
        Thread(target=made.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(address + "#a=dpo&b=ipo")
        page.wait_for_selector("html[data-ready]", state="attached")
        page.click(f"#list button[data-prompt='{N - 1}']")
        sync_api.expect(page.locator("#example h3")).to_have_text(prompt(N - 1))
        context.close()
        made.shutdown()


@pytest.mark.slow
def test_every_page_of_a_print_has_the_heads_of_the_table(browser, tmp_path):
    """A long board prints its whole table, and names its columns on every sheet."""
    rows = [msgspec.structs.replace(plan_board().rows[0], model=f"model-{k}") for k in range(120)]
    write_board(msgspec.structs.replace(plan_board(), rows=rows, families={}), tmp_path)
    with Opened(browser, tmp_path / f"{plan_board().name}.html") as opened:
        opened.page.pdf(path=tmp_path / "print.pdf", format="A4", landscape=True)
    pages = PdfReader(tmp_path / "print.pdf").pages
    sheets = [text for page in pages if " base 90.0" in (text := page.extract_text())]
    text = "\n".join(sheets)
    assert len(sheets) > 1
    assert all("win rate" in sheet for sheet in sheets)
    assert all(f"model-{k}" in text for k in range(120))
