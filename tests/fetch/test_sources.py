"""Downloads from a loopback server that fails in every way a network does."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import replace

import faulty_server as faulty
from alignboard.errors import InputError, SourceError
from alignboard.fetch import download, ranges, sources
from alignboard.fetch.http import Patience
from alignboard.suites import CalibrationFiles, PublishedBoard, ReleasedResults, Suite
from faulty_server import FaultyServer, cut, status

REPOSITORY = "owner/board_data"
COMMIT = "c" * 40
REVISION = "d" * 40
JUDGE = "weighted_judge"
OTHER_JUDGE = "other_judge"
LISTING = f"/api.github.com/repos/{REPOSITORY}/git/trees/{COMMIT}"
RAW = f"/raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/"
HUB = f"/huggingface.co/datasets/owner/calibration/resolve/{REVISION}/"

FILES = {
    f"results/plain/{JUDGE}/annotations.json": b"plain annotations " * 9,
    "results/plain/model_outputs.json": b"plain outputs " * 7,
    f"results/Mistral-7B+RAHF #1?/{JUDGE}/annotations.json": b"odd annotations " * 5,
    "results/Mistral-7B+RAHF #1?/model_outputs.json": "odd outputs \N{SNOWMAN} ".encode() * 3,
    f"results/doubled/{JUDGE}/{JUDGE}/annotations.json": b"doubled annotations",
    "results/doubled/model_outputs.json": b"",
    f"results/no-outputs/{JUDGE}/annotations.json": b"annotations without outputs",
    f"results/elsewhere/{OTHER_JUDGE}/annotations.json": b"another judge's annotations",
    "results/elsewhere/model_outputs.json": b"not asked for",
    "results/the-baseline/model_outputs.json": b"baseline outputs " * 20,
    "results/unjudged/model_outputs.json": b"not asked for",
    "README.md": b"not asked for",
}
WANTED = {name for name in FILES if JUDGE in name} | {
    f"results/{model}/model_outputs.json"
    for model in ("plain", "doubled", "Mistral-7B+RAHF #1?", "the-baseline")
}
# The file that the faults are tried on: large enough to arrive in pieces.
BIG_NAME = f"results/plain/{JUDGE}/annotations.json"
BIG = bytes(range(256)) * 1200
GAMED = b"model,preference\n" + b"x,0.5\n" * 5000
CALIBRATION = {"df_gamed.csv": GAMED, "instruction_difficulty.csv": b"index,d\n0,1\n"}


def raw(name: str) -> str:
    return RAW + quote(name)


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def listing(files: dict[str, bytes], **more: object) -> bytes:
    tree = [{"path": "results", "mode": "040000", "type": "tree", "sha": "e" * 40}]
    for path, content in files.items():
        blob = {"sha": blob_id(content), "size": len(content)}
        tree.append({"path": path, "mode": "100644", "type": "blob", **blob})
    return json.dumps({"sha": COMMIT, "tree": tree, "truncated": False, **more}).encode()


SUITE = Suite(
    name="s",
    title="S",
    baseline="the-baseline",
    n_instructions=1,
    annotator=JUDGE,
    boards=[PublishedBoard(JUDGE, "board.csv")],
    tolerance=0.0,
    lc_tolerance=0.0,
    released=ReleasedResults(REPOSITORY, COMMIT, "results"),
    calibration=CalibrationFiles(
        "owner/calibration",
        REVISION,
        {name: hashlib.sha256(content).hexdigest() for name, content in CALIBRATION.items()},
    ),
)


@dataclass
class Recorder:
    """A progress that adds up what it hears."""

    files: int = 0
    n_bytes: int = 0
    arrived: int = 0
    done: list[str] = field(default_factory=list)

    def total(self, files: int, n_bytes: int) -> None:
        self.files, self.n_bytes = files, n_bytes

    def advance(self, n_bytes: int) -> None:
        self.arrived += n_bytes

    def done_file(self, name: str) -> None:
        self.done.append(name)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranges, "PATIENCE", Patience(backoff=0.001, longest=0.002, timeout=20))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(cache, monkeypatch):
    with FaultyServer() as server:
        monkeypatch.setenv("ALIGNBOARD_MIRROR", server.address + "/")
        serve(server, FILES)
        server.files.update({HUB + name: content for name, content in CALIBRATION.items()})
        yield server


def serve(server: FaultyServer, files: dict[str, bytes]) -> None:
    server.files[LISTING] = listing(files)
    server.files.update({raw(name): content for name, content in files.items()})


@pytest.fixture
def big(server):
    """The path of one large file on the server."""
    serve(server, FILES | {BIG_NAME: BIG})
    return raw(BIG_NAME)


def fetch_released(**more) -> Path:
    return sources.released_results(SUITE, annotators=[JUDGE], **more)


def fetch_big() -> bytes:
    folder = fetch_released(models=["plain"])
    assert_only_complete(folder)
    return (folder.parent / BIG_NAME).read_bytes()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_only_complete(folder: Path) -> None:
    assert [name for name in names(folder.parent) if name.endswith((".part", ".tmp"))] == []


def assert_fails(*words: str, call=fetch_released) -> str:
    with pytest.raises(SourceError) as caught:
        call()
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert message.endswith(".")
    assert "\n" not in message
    assert ". " not in message
    return message


# What is fetched, and where it goes.


def test_the_files_of_judged_models_and_the_baseline_are_fetched_byte_for_byte(server, cache):
    progress = Recorder()
    folder = fetch_released(progress=progress)
    assert folder == cache / "released" / "owner-board_data" / COMMIT / "results"
    assert names(folder) == {name.removeprefix("results/") for name in WANTED}
    for name in WANTED:
        assert (folder.parent / name).read_bytes() == FILES[name]
    size = sum(len(FILES[name]) for name in WANTED)
    assert (progress.files, progress.n_bytes, progress.arrived) == (len(WANTED), size, size)
    assert set(progress.done) == WANTED
    assert len(server.requests) == len(WANTED) + 1
    assert_only_complete(folder)


def test_a_second_run_makes_no_request_and_imports_no_client(server, cache):
    fetch_released()
    sources.calibration_folder(SUITE)
    asked = len(server.requests)
    progress = Recorder()
    fetch_released(progress=progress)
    sources.calibration_folder(SUITE, progress=progress)
    assert len(server.requests) == asked
    assert progress == Recorder()


def test_importing_the_module_imports_no_client():
    code = (
        "import sys, alignboard.fetch.sources\n"
        "print(*{'httpx', 'tenacity', 'rich', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_only_chosen_models_are_fetched_and_more_can_follow(server):
    folder = fetch_released(models=["plain"])
    plain = {f"plain/{JUDGE}/annotations.json", "plain/model_outputs.json"}
    assert names(folder) == plain | {"the-baseline/model_outputs.json"}
    fetch_released(models=["plain", "doubled"])
    assert f"doubled/{JUDGE}/{JUDGE}/annotations.json" in names(folder)
    assert len(server.requests_of(LISTING)) == 1
    assert len(server.requests_of(raw("results/plain/model_outputs.json"))) == 1


def test_several_annotators(server):
    folder = sources.released_results(SUITE, annotators=[OTHER_JUDGE, "nobody"])
    assert names(folder) == {
        f"elsewhere/{OTHER_JUDGE}/annotations.json",
        "elsewhere/model_outputs.json",
        "the-baseline/model_outputs.json",
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"models": ["plian"]}, ["'plian'", "did you mean 'plain'?"]),
        ({"models": ["elsewhere"]}, ["no annotations of 'elsewhere'", JUDGE]),
        ({"models": ["../plain"]}, ["'../plain'"]),
        ({"annotators": ["nobody"]}, ["no annotations by 'nobody'"]),
    ],
)
def test_names_that_the_release_does_not_have_are_refused(server, more, words):
    with pytest.raises(InputError) as caught:
        sources.released_results(SUITE, **{"annotators": [JUDGE], **more})
    assert [word for word in words if word not in str(caught.value)] == []
    assert len(server.requests) == 1


def test_a_baseline_that_the_release_does_not_have_is_refused(server):
    with pytest.raises(InputError, match=r"results/absent/model_outputs\.json"):
        sources.released_results(replace(SUITE, baseline="absent"), annotators=[JUDGE])


@pytest.mark.parametrize(
    "pinned",
    [
        ReleasedResults("../..", COMMIT, "results"),
        ReleasedResults("owner/../x", COMMIT, "results"),
        ReleasedResults(REPOSITORY, "../main", "results"),
        ReleasedResults(REPOSITORY, COMMIT, ".."),
        ReleasedResults(REPOSITORY, COMMIT, "/etc"),
    ],
)
def test_a_suite_cannot_pin_a_path_out_of_the_cache(server, pinned):
    with pytest.raises(InputError, match="suite"):
        sources.released_results(replace(SUITE, released=pinned), annotators=[JUDGE])
    assert server.requests == []


def test_calibration_files(server, cache):
    progress = Recorder()
    folder = sources.calibration_folder(SUITE, progress=progress)
    assert folder == cache / "calibration" / REVISION
    assert {name: (folder / name).read_bytes() for name in CALIBRATION} == CALIBRATION
    assert (progress.files, progress.n_bytes) == (2, 0)
    assert progress.arrived == sum(map(len, CALIBRATION.values()))
    assert_only_complete(folder)


def test_a_calibration_file_with_another_checksum_is_refused(server):
    server.files[HUB + "df_gamed.csv"] = b"model,preference\n"
    message = assert_fails(
        "df_gamed.csv is not the pinned content",
        f"expected sha256 {SUITE.calibration.sha256['df_gamed.csv']}",
        f"found {hashlib.sha256(b'model,preference' + bytes([10])).hexdigest()} of 17 bytes",
        "--assets DIR",
        call=lambda: sources.calibration_folder(SUITE),
    )
    assert server.address in message


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ALIGNBOARD_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/alignboard"),
        ({"ALIGNBOARD_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/alignboard"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("ALIGNBOARD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert sources.cache_folder() == Path(expected)


# What a network does.


def test_a_dropped_connection_is_gone_on_with_where_it_ended(server, big):
    server.faults[big] = [cut(100_000), cut(50_000)]
    progress = Recorder()
    folder = fetch_released(progress=progress)
    assert (folder.parent / BIG_NAME).read_bytes() == BIG
    first, second, third = server.requests_of(big)
    assert first.range is None
    assert [second.range, third.range] == ["bytes=100000-", "bytes=150000-"]
    assert second.if_range
    assert first.accept_encoding == "identity"  # a range of something compressed has no use
    assert [first.sent, second.sent, third.sent] == [100_000, 50_000, len(BIG) - 150_000]
    assert progress.arrived == progress.n_bytes
    assert_only_complete(folder)


def test_an_interrupted_run_is_gone_on_with_by_the_next(server, big):
    server.always[big] = faulty.status(503)
    server.faults[big] = [cut(70_000)]
    assert_fails(
        big,
        "503 Service Unavailable",
        "6 attempts",
        "--from DIR",
        "ALIGNBOARD_MIRROR",
        call=lambda: fetch_released(models=["plain"]),
    )
    server.always.clear()
    server.requests.clear()
    assert fetch_big() == BIG
    (request,) = server.requests_of(big)
    assert request.range == "bytes=70000-"
    assert request.sent == len(BIG) - 70_000


def test_many_drops_are_survived_as_long_as_bytes_arrive(server, big):
    server.faults[big] = [cut(1 << 14)] * 15
    monotone = Patience(tries=2, step=1 << 14, backoff=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "PATIENCE", monotone)
        assert fetch_big() == BIG
    requests = server.requests_of(big)
    assert [request.range for request in requests[1:]] == [
        f"bytes={n << 14}-" for n in range(1, 16)
    ]
    assert sum(request.sent for request in requests) == len(BIG)


def test_a_body_shorter_than_promised_is_not_taken_for_whole(server, big):
    server.faults[big] = [faulty.overlong()]
    assert fetch_big() == BIG
    assert len(server.requests_of(big)) == 1  # every byte had arrived, as the checksum says


@pytest.mark.parametrize(
    ("faults", "n_requests"),
    [
        ([status(500)] * 3, 4),
        ([status(502), status(408), status(429)], 4),
        ([status(429, Retry_After="0")], 2),
        ([status(503, Retry_After="never")], 2),
        ([faulty.hang_up()] * 2, 3),
        ([cut(0)], 2),
        ([cut(9000), faulty.ignore_range()], 2),
        ([cut(9000), faulty.elsewhere()], 3),
        ([cut(9000), faulty.elsewhere(), faulty.content(b"x")], 4),
        ([cut(9000), status(416)], 3),
        ([faulty.compressed()], 1),
        ([cut(900), faulty.compressed()], 3),
        ([faulty.content(BIG[:-1])], 2),
        ([faulty.content(BIG[:-1] + b"x")], 2),
        ([faulty.content(BIG + b"x")], 2),
        ([cut(9000), faulty.content(b"x" * len(BIG))], 3),
        ([faulty.content(b"x" * len(BIG)), cut(9000)], 3),
    ],
)
def test_what_passes_is_survived(server, big, faults, n_requests):
    server.faults[big] = faults
    assert fetch_big() == BIG
    assert len(server.requests_of(big)) == n_requests


def test_without_etags_a_mixture_of_two_contents_is_found_by_the_checksum(server, big):
    server.etags = False
    server.faults[big] = [cut(9000), faulty.content(b"x" * len(BIG))]
    assert fetch_big() == BIG
    _, second, third = server.requests_of(big)
    assert (second.range, second.if_range, second.status) == ("bytes=9000-", None, 206)
    assert third.range is None


@pytest.mark.parametrize("size", [9000, len(BIG), len(BIG) + 5])
def test_a_damaged_part_of_an_earlier_run_is_started_again(server, big, size):
    folder = fetch_released(models=["doubled"])
    part = folder.parent / f"{BIG_NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * size)
    assert fetch_big() == BIG
    assert server.requests_of(big)[-1].range is None


def test_a_whole_part_of_an_earlier_run_is_used_without_a_request(server, big):
    folder = fetch_released(models=["doubled"])
    part = folder.parent / f"{BIG_NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG)
    assert fetch_big() == BIG
    assert server.requests_of(big) == []


def test_a_calibration_part_of_unknown_size_is_gone_on_with(server):
    path = HUB + "df_gamed.csv"
    server.faults[path] = [cut(20_000)]
    folder = sources.calibration_folder(SUITE)
    assert (folder / "df_gamed.csv").read_bytes() == GAMED
    assert [request.range for request in server.requests_of(path)] == [None, "bytes=20000-"]


def test_a_redirect_is_followed_with_its_range(server):
    # The hub answers with the address of a content network.
    elsewhere = "/content.example/df"
    server.files[elsewhere] = GAMED
    server.faults[elsewhere] = [cut(20_000)]
    server.always[HUB + "df_gamed.csv"] = status(302, Location=server.address + elsewhere)
    folder = sources.calibration_folder(SUITE)
    assert (folder / "df_gamed.csv").read_bytes() == GAMED
    assert [r.range for r in server.requests_of(elsewhere)] == [None, "bytes=20000-"]


def test_a_redirect_in_a_circle_ends(server, big):
    server.always[big] = status(302, Location=server.address + big)
    assert_fails(big, "too many redirects", "--from DIR")


def test_a_calibration_part_with_too_many_bytes_is_started_again(server, cache):
    part = cache / "calibration" / REVISION / "df_gamed.csv.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(GAMED) + 1))
    folder = sources.calibration_folder(SUITE)
    assert (folder / "df_gamed.csv").read_bytes() == GAMED
    requests = server.requests_of(HUB + "df_gamed.csv")
    assert [request.status for request in requests] == [416, 200]


# What does not pass.


def test_wrong_content_always_is_refused_after_one_more_try(server, big):
    server.always[big] = faulty.content(b"x" * 10)
    assert_fails(
        f"{server.address}{big} is not the pinned content",
        f"expected git-blob {blob_id(BIG)} of 307,200 bytes",
        f"found {blob_id(b'x' * 10)} of 10 bytes",
        "--from DIR",
        "ALIGNBOARD_MIRROR",
    )
    assert len(server.requests_of(big)) == 2


def test_nothing_wrong_is_left_behind(server, big, cache):
    server.always[big] = faulty.content(b"x" * 10)
    assert_fails("pinned content")
    commit = cache / "released" / "owner-board_data" / COMMIT
    assert BIG_NAME not in names(commit)
    for name in names(commit) - {"listing.json", ".verified.json"}:
        assert FILES[name.removesuffix(".part")].startswith((commit / name).read_bytes())
    assert f"{BIG_NAME}.part" not in names(commit)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(server, big, code):
    server.always[big] = status(code)
    assert_fails(f"{server.address}{big}", f"answers {code}", "--from DIR", "ALIGNBOARD_MIRROR")
    assert len(server.requests_of(big)) == 1


def test_a_used_up_limit_of_requests_is_said(server):
    server.always[LISTING] = status(403, X_RateLimit_Remaining="0")
    assert_fails(LISTING, "403 Forbidden", "limit of requests is used up")


@pytest.mark.parametrize("fault", [status(500), faulty.hang_up(), cut(0)])
def test_failures_without_end_end(server, big, fault):
    server.always[big] = fault
    assert_fails(f"{server.address}{big} could not be downloaded", "6 attempts", "--from DIR")
    assert len(server.requests_of(big)) == 6


def test_a_server_that_is_not_there(cache, monkeypatch):
    with FaultyServer() as server:
        address = server.address
    monkeypatch.setenv("ALIGNBOARD_MIRROR", address)
    assert_fails(f"{address}{LISTING}", "connect", "6 attempts")
    monkeypatch.setenv("ALIGNBOARD_MIRROR", address.replace("//", "//user:s3cret@"))
    said = assert_fails(f"{address.replace('//', '//***@')}{LISTING}", "connect", "6 attempts")
    assert "s3cret" not in said


def test_a_server_that_says_nothing_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(ranges, "PATIENCE", Patience(tries=2, backoff=0.0, timeout=0.05))
    with faulty.socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("ALIGNBOARD_MIRROR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert_fails(LISTING, "timeout", "2 attempts")


def test_retry_after_is_waited_for_up_to_a_bound(server, big, monkeypatch):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    server.faults[big] = [
        status(429, Retry_After="7"),
        status(503, Retry_After="99999"),
        status(503, Retry_After=later),
        status(503),
    ]
    pauses = []
    monkeypatch.setattr(download, "_sleep", lambda _, seconds: pauses.append(seconds))
    assert fetch_big() == BIG
    asked, bounded, dated, own = pauses
    assert asked == pytest.approx(7, abs=0.01)
    assert bounded == pytest.approx(Patience().longest_asked, abs=0.01)
    assert 45 < dated <= 50.01
    assert own <= 0.002


def test_an_address_that_is_none_is_refused(cache, monkeypatch):
    monkeypatch.setenv("ALIGNBOARD_MIRROR", "localhost")
    with pytest.raises(InputError, match="ALIGNBOARD_MIRROR is 'localhost'"):
        fetch_released()


def test_a_cache_that_cannot_be_written_is_named(server, cache):
    cache.write_text("a file where the folder should be")
    assert_fails("cannot be used", "ALIGNBOARD_CACHE", str(cache))
    assert_fails(
        "cannot be used",
        "ALIGNBOARD_CACHE",
        "--assets DIR",
        call=lambda: sources.calibration_folder(SUITE),
    )


# A listing is data from outside.


@pytest.mark.parametrize(
    "path",
    [
        f"results/../../evil/{JUDGE}/annotations.json",
        f"../evil/{JUDGE}/annotations.json",
        f"/results/evil/{JUDGE}/annotations.json",
        f"results\\evil/{JUDGE}/annotations.json",
        f"results/./{JUDGE}/annotations.json",
        f"results//{JUDGE}/annotations.json",
        f"results/a\0b/{JUDGE}/annotations.json",
    ],
)
def test_a_listing_with_a_path_that_leads_out_is_refused(server, cache, path):
    serve(server, FILES | {path: b"evil"})
    assert_fails(LISTING, "could lead out of its folder", "--from DIR")
    assert len(server.requests) == 1
    assert names(cache) == set()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (listing(FILES, truncated=True), "truncated"),
        (listing(FILES)[:-30], "no listing"),
        (b'{"message": "hello"}', "no listing"),
        (b"<html>sign in</html>", "no listing"),
        (b"\xff\xfe", "no listing"),
        (listing(FILES).replace(b'"sha": "', b'"sha": "../'), "blob id"),
    ],
)
def test_a_listing_that_cannot_be_used_is_refused_and_not_kept(server, cache, content, words):
    server.files[LISTING] = content
    assert_fails(f"{LISTING}", words, "--from DIR")
    assert names(cache) == set()
    serve(server, FILES)
    assert len(names(fetch_released())) == len(WANTED)


def test_symbolic_links_are_not_followed(server):
    entries = json.loads(listing(FILES))
    for entry in entries["tree"]:
        if entry["path"].startswith("results/plain/"):
            entry["mode"] = "120000"
    server.files[LISTING] = json.dumps(entries).encode()
    assert [name for name in names(fetch_released()) if name.startswith("plain/")] == []


def test_the_listing_is_retried_and_fetched_again_when_its_copy_is_damaged(server, cache):
    server.faults[LISTING] = [status(500), cut(40)]
    folder = fetch_released()
    assert len(server.requests_of(LISTING)) == 3
    (folder.parent / "listing.json").write_text("{")
    fetch_released()
    assert len(server.requests_of(LISTING)) == 4
    assert json.loads((folder.parent / "listing.json").read_bytes())["truncated"] is False


# What happens to the cache afterwards.


@pytest.mark.parametrize("content", [b"short", b"x" * len(FILES[BIG_NAME])])
def test_a_cached_file_that_was_changed_is_fetched_again(server, content):
    folder = fetch_released()
    asked = len(server.requests)
    (folder.parent / BIG_NAME).write_bytes(content)
    fetch_released()
    assert (folder.parent / BIG_NAME).read_bytes() == FILES[BIG_NAME]
    assert [request.path for request in server.requests[asked:]] == [raw(BIG_NAME)]


@pytest.mark.parametrize("stamps", [None, b"{", b'{"a": 1}'])
def test_without_its_stamps_the_cache_is_read_again_but_not_fetched(server, stamps):
    folder = fetch_released()
    asked = len(server.requests)
    path = folder.parent / ".verified.json"
    before = json.loads(path.read_bytes())
    path.unlink() if stamps is None else path.write_bytes(stamps)
    fetch_released()
    assert len(server.requests) == asked
    assert json.loads(path.read_bytes()) == before


def test_files_that_were_complete_when_another_failed_are_kept(server, big):
    server.always[big] = status(404)
    assert_fails("404")
    server.always.clear()
    fetch_released()
    for name in WANTED - {BIG_NAME}:
        assert sum(r.status == 200 for r in server.requests_of(raw(name))) <= 2
    asked = len(server.requests)
    fetch_released()
    assert len(server.requests) == asked


def test_a_failure_ends_the_waiting_of_the_others(server, big):
    server.always[big] = status(404)
    server.always[raw("results/plain/model_outputs.json")] = status(503, Retry_After="60")
    begin = time.monotonic()
    assert_fails("404")
    assert time.monotonic() - begin < 10


def test_two_runs_at_once_fetch_every_file_once(server):
    results: list[Path] = []
    runs = [threading.Thread(target=lambda: results.append(fetch_released())) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(results) == 3
    for name in WANTED:
        assert len(server.requests_of(raw(name))) == 1


def test_an_interrupt_keeps_what_has_arrived(server, big, cache):
    class Interrupting(Recorder):
        def advance(self, n_bytes: int) -> None:
            super().advance(n_bytes)
            if self.arrived > 50_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_released(models=["plain"], progress=Interrupting())
    part = cache / "released" / "owner-board_data" / COMMIT / f"{BIG_NAME}.part"
    kept = part.read_bytes()
    assert 0 < len(kept) < len(BIG)
    assert BIG.startswith(kept)
    assert fetch_big() == BIG
    assert server.requests_of(big)[-1].range == f"bytes={len(kept)}-"


# Progress.


def test_progress_off_a_terminal_is_one_line_on_stderr(server, capsys):
    with sources.rich_progress() as progress:
        fetch_released(progress=progress)
        fetch_released(progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Downloading {len(WANTED)} files (0.0 MB)")
    assert err.count("\n") == 1


def test_progress_on_a_terminal_is_a_bar_on_stderr(server, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with sources.rich_progress() as progress:
        fetch_released(progress=progress)
        sources.calibration_folder(SUITE, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(WANTED)}/{len(WANTED)} files" in err
    assert "2/2 files" in err
