"""Blind labelling: what a person sees, what is kept, and that boards read it like any judge's verdicts."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from threading import Thread

import msgspec
import numpy as np
import pytest

from alignboard.boards.labelling import Labels
from alignboard.boards.of_results import results_board
from alignboard.boards.serving import server
from alignboard.errors import InputError
from alignboard.records import Generation, Judgment
from alignboard.results.formats import read_rows, write_rows

N = 24
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def pairs(n=N):
    return [Judgment(f"q{k}", f"base {k}", "sft", f"mine {k}", "dpo", None) for k in range(n)]


def answer(labels, verdict, k):
    return json.loads(labels.take(json.dumps({"pair": k, "verdict": verdict}).encode())[1])


def shown(labels):
    return json.loads(labels.next_pair()[1])


def test_a_verdict_is_for_the_response_that_was_shown_there(tmp_path):
    labels = Labels(pairs(), tmp_path, "ada")
    firsts = []
    for done in range(N):
        now = shown(labels)
        k = now["pair"]
        assert (now["done"], now["n"]) == (done, N)
        assert set(now) == {"done", "n", "pair", "instruction", "responses"}, "names are not told"
        mine = now["responses"].index(f"mine {k}")
        firsts.append(mine)
        answer(labels, ("first", "second")[mine], k)
    assert shown(labels) == {"done": N, "n": N}
    rows = read_rows(labels.path, Judgment)
    assert [row.preference for row in rows] == [2.0] * N
    assert {row.annotator for row in rows} == {"ada"}
    assert 5 < sum(firsts) < N - 5, "both orders come"


def test_a_second_sitting_goes_on_and_nothing_is_taken_twice(tmp_path):
    first = Labels(pairs(), tmp_path, "ada")
    answer(first, "draw", 0)
    answer(first, "draw", 0)
    answer(first, "first", 1)
    again = Labels(pairs(), tmp_path, "ada")
    assert again.counts() == (2, N)
    assert shown(again)["pair"] not in {0, 1}
    assert shown(again) == shown(first), "the order of the responses is that of the first sitting"
    assert read_rows(again.path, Judgment)[0].preference == 1.5


def test_what_is_done_at_any_time_is_a_random_sample_of_the_prompts(tmp_path):
    """Where a person stops must not decide which prompts correct a judge."""
    first = np.array([shown(Labels(pairs(), tmp_path, f"person {k}"))["pair"] for k in range(600)])
    counts = np.bincount(first, minlength=N)
    expected = len(first) / N
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 49.7, "the 0.1 % limit of 23 degrees of freedom"


def test_identical_responses_are_draws_and_not_shown(tmp_path):
    told = [
        msgspec.structs.replace(pair, output_2=pair.output_1) if k % 3 == 0 else pair
        for k, pair in enumerate(pairs())
    ]
    labels = Labels(told, tmp_path, "ada")
    first = shown(labels)
    assert first["done"] < N // 3, (
        "in their turn: what is done stays a random sample of the prompts"
    )
    asked = []
    while "pair" in (now := shown(labels)):
        asked.append(now["pair"])
        answer(labels, "first", now["pair"])
    assert sorted(asked) == [k for k in range(N) if k % 3]
    rows = {row.instruction: row for row in read_rows(labels.path, Judgment)}
    assert len(rows) == N
    assert all(rows[f"q{k}"].preference == 1.5 for k in range(0, N, 3))
    assert Labels(told, tmp_path, "ada").counts() == (N, N)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"pair": 0, "verdict": "third"}', b"\xff"])
def test_what_is_no_verdict_is_not_kept(body, tmp_path):
    labels = Labels(pairs(), tmp_path, "ada")
    with pytest.raises(InputError, match="no verdict"):
        labels.take(body)
    assert not labels.path.exists()


def test_verdicts_of_others_are_not_added_to(tmp_path):
    write_rows(tmp_path / "annotations.json", [Judgment("q", "a", "sft", "b", "dpo", 1.0)])
    with pytest.raises(InputError, match="holds verdicts already"):
        Labels(pairs(), tmp_path, "ada")
    (tmp_path / "annotations.json").unlink()
    answer(Labels(pairs(), tmp_path, "ada"), "draw", 0)
    with pytest.raises(InputError, match="by 'ada', not by 'bob'"):
        Labels(pairs(), tmp_path, "bob")


def test_a_full_disk_leaves_no_half_verdict_and_the_next_one_is_kept(tmp_path):
    """Half a line would join the next verdict, and the whole file would be unreadable."""
    labels = Labels(pairs(), tmp_path, "ada")
    answer(labels, "draw", 0)
    before = labels.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written.*this verdict is not kept"):
            answer(labels, "draw", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert labels.path.read_bytes() == before
    answer(labels, "draw", 1)
    assert {row.instruction for row in read_rows(labels.path, Judgment)} == {"q0", "q1"}


def test_a_verdict_that_did_not_reach_the_disk_is_not_kept(tmp_path, monkeypatch):
    labels = Labels(pairs(), tmp_path, "ada")

    def fails(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(InputError, match="Input/output error"):
            answer(labels, "draw", 0)
    assert labels.path.read_bytes() == b""
    answer(labels, "draw", 0)
    assert len(read_rows(labels.path, Judgment)) == 1


def test_two_sittings_at_once_keep_no_verdict_twice(tmp_path):
    """An instruction that is there twice is refused by every board."""
    first, second = (Labels(pairs(), tmp_path, "ada") for _ in range(2))
    answer(first, "draw", 0)
    with pytest.raises(InputError, match="has changed since this command began"):
        answer(second, "first", 0)
    answer(first, "draw", 1)
    assert [row.instruction for row in read_rows(first.path, Judgment)] == ["q0", "q1"]
    assert Labels(pairs(), tmp_path, "ada").counts() == (2, N)


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
def test_keys_and_buttons_in_a_browser(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    hostile = "</script><script>document.documentElement.dataset.hit = 1</script>"
    told = [Judgment(hostile, hostile, "sft", "fine", "dpo", None), *pairs(2)]
    labels = Labels(told, tmp_path, "ada")
    made, address = server(
        {
            ("GET", ""): labels.page,
            ("GET", "next"): labels.next_pair,
            ("POST", "verdict"): labels.take,
        }
    )
    Thread(target=made.serve_forever, daemon=True).start()
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        faults = []
        page.on("console", lambda message: faults.append(message.text))
        page.goto(address)
        texts = {"q0": ["base 0", "mine 0"], "q1": ["base 1", "mine 1"], hostile: [hostile, "fine"]}
        for step in range(3):
            page.wait_for_selector(f"html[data-pair='{shown(labels)['pair']}']", state="attached")
            wanted = texts.pop(page.text_content("#instruction"))
            read = [page.text_content("#first"), page.text_content("#second")]
            assert sorted(read) == sorted(wanted)
            before = page.get_attribute("html", "data-pair")
            if step < 2:
                page.keyboard.press("1t"[step])
                page.wait_for_selector(f"html:not([data-pair='{before}'])", state="attached")
            else:
                page.click("[data-verdict=second]")
        sync_api.expect(page.locator("#progress")).to_contain_text("last one")
        assert page.evaluate("document.documentElement.dataset.hit") is None
        assert faults == []
        browser.close()
    made.shutdown()
    made.server_close()
    assert [row.preference for row in read_rows(labels.path, Judgment)][1] == 1.5


def test_the_commands_verdicts_stand_on_a_board(tmp_path):
    for model in ("sft", "dpo"):
        rows = [Generation(f"q{k}", f"{model} {k}", model) for k in range(4)]
        (tmp_path / "results" / model).mkdir(parents=True)
        write_rows(tmp_path / "results" / model / "model_outputs.json", rows)
    command = [
        "label",
        "results/dpo/model_outputs.json",
        "--baseline",
        "sft",
        "--annotator",
        "ada",
        "--no-browser",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "alignboard", *command],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    from test_view import get, post

    assert running.stdout is not None
    address = running.stdout.readline().strip()
    for _ in range(4):
        now = json.loads(get(address, path=None, name="next")[1])
        k = now["pair"]
        mine = now["responses"].index(f"dpo {k}")
        status, _ = post(address, "verdict", {"pair": k, "verdict": ("first", "second")[mine]})
        assert status == 200
    assert (
        post(address, "verdict", {"pair": 0, "verdict": "draw"}, origin="http://evil.example")[0]
        == 404
    )
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=30)
    assert "4 of 4 done: results/dpo/ada-vs-sft/annotations.jsonl" in out, said
    board = results_board(tmp_path / "results")
    (column,) = board.of_kind("win rate")
    assert (column.judge, column.baseline) == ("ada", "sft")
    assert board.score(next(row for row in board.rows if row.model == "dpo"), column).value == 100.0
