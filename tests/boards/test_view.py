"""Boards are looked at and published: the page that follows a run, and the folder for a static host."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from threading import Thread
from urllib.parse import urlsplit

import msgspec
import pytest

from alignboard.boards import results_examples, serving
from alignboard.boards.files import write_board
from alignboard.boards.of_results import results_board
from alignboard.boards.results_examples import with_examples
from alignboard.boards.serving import Pages, server
from alignboard.errors import InputError
from alignboard.records import Judgment
from alignboard.results.formats import write_rows
from boards import hostile_board, plan_board
from commands import alignboard


def request(method, address, *, path=None, name="", host=None, body=None, origin=None):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.putrequest(method, path or parts.path + name, skip_host=True)
    connection.putheader("Host", host or parts.netloc)
    if origin is not None:
        connection.putheader("Origin", origin)
    content = b"" if body is None else json.dumps(body).encode()
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def get(address, **options):
    return request("GET", address, **options)


def post(address, name, body, **options):
    return request("POST", address, name=name, body=body, **options)


def judged(folder, model, preferences):
    rows = [
        Judgment(f"q{k}", "a", "base", f"b{k}", model, value) for k, value in enumerate(preferences)
    ]
    (folder / model / "judge-vs-base").mkdir(parents=True, exist_ok=True)
    write_rows(folder / model / "judge-vs-base" / "annotations.json", rows)


def test_a_board_of_too_many_verdicts_has_a_page_without_their_texts(tmp_path, monkeypatch):
    for model in ("one", "two"):
        judged(tmp_path / "results", model, [1.0, 2.0, 2.0])
    board = results_board(tmp_path / "results")
    assert with_examples(tmp_path / "results", board)[0] == board
    monkeypatch.setattr(results_examples, "MOST_VERDICTS", 5)
    noted, examples = with_examples(tmp_path / "results", board)
    assert examples is None
    assert noted.rows == board.rows
    assert "more than 5 verdicts" in noted.notes[-1]
    part = results_board(tmp_path / "results", models=["one"])
    assert with_examples(tmp_path / "results", part)[1] is not None


@pytest.mark.parametrize("stated", ["x", "-1", "1.5", "٣", "9" * 5000, "1000000"])
def test_a_length_that_is_none_is_refused_and_the_terminal_stays_quiet(stated, capfd):
    made, address = server({("POST", "verdict"): lambda body: ("text/plain", body)})
    Thread(target=made.serve_forever, daemon=True).start()
    parts = urlsplit(address)
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=10)) as connection:
        head = f"POST {parts.path}verdict HTTP/1.0\r\nHost: {parts.netloc}\r\nContent-Length: {stated}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.makefile("rb").readline().split()[1] == b"404"
    made.shutdown()
    made.server_close()
    assert capfd.readouterr().err == ""


def test_a_connection_that_says_nothing_is_ended(monkeypatch):
    monkeypatch.setattr(serving, "_PATIENCE", 0.2)
    made, address = server({("GET", ""): lambda _: ("text/plain", b"")})
    Thread(target=made.serve_forever, daemon=True).start()
    parts = urlsplit(address)
    with closing(socket.create_connection((parts.hostname, parts.port), timeout=10)) as connection:
        assert connection.recv(1) == b""
    made.shutdown()
    made.server_close()


def test_the_page_follows_the_results_under_an_address_that_nobody_guesses(tmp_path):
    judged(tmp_path / "results", "one", [2.0] * 10)
    running = subprocess.Popen(
        [sys.executable, "-m", "alignboard", "view", "--from", "results", "--serve", "--no-browser"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ),
    )  # fmt: skip
    try:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        status, page = get(address)
        assert status == 200
        assert 'data-model="one"' in page
        judged(tmp_path / "results", "two", [1.0] * 10)
        assert 'data-model="two"' in get(address)[1]
        assert get(address, path="/")[0] == 404
        assert get(address, path="/results/")[0] == 404
        assert get(address, host="evil.example")[0] == 404
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert "Traceback" not in said


def test_a_board_that_cannot_be_made_says_why_and_is_tried_again(tmp_path):
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise InputError("There is nothing yet.")
        return "<p>here</p>"

    pages = Pages(make, lambda: "same")
    made, address = server({("GET", ""): pages.newest})
    Thread(target=made.serve_forever, daemon=True).start()
    assert get(address) == (400, "There is nothing yet.\n")
    assert get(address) == (200, "<p>here</p>")
    assert get(address) == (200, "<p>here</p>")
    assert len(tries) == 2
    made.shutdown()
    made.server_close()


def test_a_page_that_is_being_written_anew_is_a_reply(tmp_path, capfd):
    page = tmp_path / "board.html"
    made, address = server({("GET", ""): lambda _: ("text/html", page.read_bytes())})
    Thread(target=made.serve_forever, daemon=True).start()
    status, text = get(address)
    made.shutdown()
    made.server_close()
    assert (status, str(page) in text) == (400, True)
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_a_sentence():
    made, address = server({})
    with made, pytest.raises(InputError, match="cannot be used"):
        server({}, int(urlsplit(address).port or 0))


def test_boards_are_published_with_an_index(tmp_path):
    ranked = plan_board(name="second", title="Second")
    column = ranked.of_kind("win rate")[0]
    write_board(msgspec.structs.replace(ranked, ranked_by=column.key), tmp_path / "leaderboards")
    write_board(hostile_board(), tmp_path / "leaderboards")
    finished = alignboard(tmp_path, "publish", "public", "--title", "Ours")
    assert finished.stdout.strip() == "public/index.html", finished.stderr
    index = (tmp_path / "public" / "index.html").read_text(encoding="utf-8")
    assert "<h1>Ours</h1>" in index
    assert "<script" not in index
    best = max(ranked.rows, key=lambda row: ranked.score(row, column).value or 0)
    assert f"<li>{best.model} <small>{ranked.score(best, column).value:.1f} %</small></li>" in index
    for name in ("second", "demo"):
        for suffix in ("html", "csv", "md", "tex", "json", "png"):
            there = (tmp_path / "public" / f"{name}.{suffix}").read_bytes()
            assert there == (tmp_path / "leaderboards" / f"{name}.{suffix}").read_bytes()
            assert f'href="{name}.{suffix}"' in index
    assert alignboard(tmp_path, "publish", "other", "second").returncode == 0
    assert not (tmp_path / "other" / "demo.html").exists()
    refused = alignboard(tmp_path, "publish", "third", "leaderboards/second.json")
    assert "no name of a board in leaderboards" in refused.stderr
    assert "name it second" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["view"], "no page in leaderboards/"),
        (["view", "--from", "results"], "--from needs --serve"),
        (["view", "demo", "--from", "results", "--serve"], "not both"),
        (["publish", "public"], "no boards in leaderboards"),
        (["publish", "public", "demo"], "no leaderboards/demo.json"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, wanted):
    finished = alignboard(tmp_path, *arguments)
    assert finished.returncode == 2
    assert wanted in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_view_prints_the_newest_page(tmp_path):
    write_board(plan_board(), tmp_path / "leaderboards")
    assert alignboard(tmp_path, "view").stdout.strip().endswith("leaderboards/demo.html")
    wrong = alignboard(tmp_path, "view", "dem")
    assert "did you mean 'demo'" in wrong.stderr
