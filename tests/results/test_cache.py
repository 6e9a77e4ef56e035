"""The cache: reads no JSON twice, never answers with old or damaged content, and can always be thrown away."""

import json
import multiprocessing
import os
import time
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
import pytest

from alignboard.records import Annotations, Outputs
from alignboard.results import cache
from alignboard.results.cache import TableCache
from alignboard.results.formats import read_annotations, read_outputs
from builders import generations, judgments, write_json

INDEX = ".alignboard/index.json"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An annotation file that is old enough to be trusted by its time stamps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    path = write_json(tmp_path / "results" / "model" / "judge" / "annotations.json", judgments(30))
    settle()
    return path


@pytest.fixture
def results(path):
    return path.parents[2]


def settle():
    time.sleep(0.12)  # longer than a file counts as just written


class Counting:
    def __init__(self, parse=read_annotations):
        self.parse = parse
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        return self.parse(path)


def read(results, path, parse, table: Any = Annotations) -> Any:
    """One run of a program: open the cache, read, save."""
    tables = TableCache(results)
    found = tables.read(path, table, parse)
    tables.save()
    return found


def assert_same(one, other):
    for field in fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs


def test_the_second_read_does_not_parse(results, path):
    parse = Counting()
    first, second = read(results, path, parse), read(results, path, parse)
    assert parse.calls == 1
    assert_same(first, second)
    assert_same(second, read_annotations(path))


def test_outputs_are_kept_beside_annotations_of_the_same_path_rules(results):
    path = write_json(results / "model" / "model_outputs.json", generations(7))
    settle()
    parse = Counting(read_outputs)
    read(results, path, parse, Outputs)
    assert_same(read(results, path, parse, Outputs), read_outputs(path))
    assert parse.calls == 1


def test_changed_content_is_read_again(results, path):
    parse = Counting()
    read(results, path, parse)
    write_json(path, judgments(31))
    assert len(read(results, path, parse)) == 31


def test_changed_content_of_the_same_size_and_time_stamp_is_read_again(results, path):
    parse = Counting()
    before = read(results, path, parse)
    status = path.stat()
    changed = path.read_text().replace('"preference": 1.0', '"preference": 2.0')
    path.write_text(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    after = read(results, path, parse)
    assert parse.calls == 2
    assert after.preference.mean() > before.preference.mean()


def test_a_file_that_was_just_written_is_not_trusted(results, path):
    write_json(path, judgments(20))
    parse = Counting()
    read(results, path, parse)
    read(results, path, parse)
    assert parse.calls == 2


@pytest.mark.parametrize("harm", ["delete", "empty", "truncate", "flip", "header", "noise"])
def test_damaged_columns_are_read_again_and_mended(results, path, harm):
    parse = Counting()
    expected = read(results, path, parse)
    [columns] = (results / ".alignboard").glob("*.rows")
    content = bytearray(columns.read_bytes())
    if harm == "flip":  # one bit of one number, which no format would notice
        content[-30] ^= 1
    elif harm == "header":
        content[12] = ord("(")
    elif harm == "truncate":
        del content[-5:]
    elif harm == "noise":
        content = bytearray(np.random.default_rng(0).bytes(500))
    elif harm == "empty":
        content.clear()
    columns.write_bytes(content)
    if harm == "delete":
        columns.unlink()
    assert_same(read(results, path, parse), expected)
    assert parse.calls == 2
    read(results, path, parse)
    assert parse.calls == 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"entries": 7}', b'{"a":' * 100_000, b'{"\xff":1}']
)
def test_a_damaged_index_is_as_none(results, path, content):
    parse = Counting()
    expected = read(results, path, parse)
    (results / INDEX).write_bytes(content)
    assert_same(read(results, path, parse), expected)
    read(results, path, parse)
    assert parse.calls == 2


def test_an_index_cannot_lead_out_of_its_folder(results, path, tmp_path):
    """A results folder that somebody else made may bring a cache of its own."""
    parse = Counting()
    read(results, path, parse)
    [columns] = (results / ".alignboard").glob("*.rows")
    columns.rename(tmp_path / "elsewhere.rows")
    index = json.loads((results / INDEX).read_text().partition("\n")[2])
    [entry] = index["entries"].values()
    entry["columns"] = str(tmp_path / "elsewhere.rows")
    content = json.dumps(index).encode()
    (results / INDEX).write_bytes(cache._signature(content) + content)
    read(results, path, parse)
    assert parse.calls == 2


def test_the_folder_can_be_deleted_at_any_time(results, path):
    parse = Counting()
    read(results, path, parse)
    tables = TableCache(results)
    for entry in (results / ".alignboard").iterdir():
        entry.unlink()
    (results / ".alignboard").rmdir()
    assert len(tables.read(path, Annotations, parse)) == 30
    tables.save()
    assert parse.calls == 2


def test_a_new_schema_reads_everything_again(results, path, monkeypatch):
    parse = Counting()
    read(results, path, parse)
    monkeypatch.setattr(cache, "SCHEMA", cache.SCHEMA + 1)
    read(results, path, parse)
    assert parse.calls == 2


def test_a_folder_that_may_not_be_written_is_left_alone(results, path, tmp_path):
    results.chmod(0o555)
    try:
        parse = Counting()
        read(results, path, parse)
        assert_same(read(results, path, parse), read_annotations(path))
        assert parse.calls == 1
        assert not (results / ".alignboard").exists()
        assert list((tmp_path / "home-cache" / "alignboard").rglob("*.rows"))
    finally:
        results.chmod(0o755)


def test_where_nothing_can_be_written_everything_is_parsed(results, path, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    results.chmod(0o555)
    try:
        parse = Counting()
        read(results, path, parse)
        assert_same(read(results, path, parse), read_annotations(path))
        assert parse.calls == 2
    finally:
        results.chmod(0o755)


def test_a_file_that_cannot_be_parsed_is_no_entry(results, path):
    path.write_text("[")

    def fail(_):
        raise ValueError("bad file")

    with pytest.raises(ValueError, match="bad file"):
        read(results, path, fail)
    assert not (results / INDEX).exists()


def run_many_times(results, path):
    for _ in range(20):
        tables = TableCache(results)
        assert len(tables.read(path, Annotations, read_annotations)) == 30
        tables._changed = True  # make both processes write the index over and over
        tables.save()


def test_two_processes_at_once(results, path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=run_many_times, args=(results, path)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    parse = Counting()
    assert_same(read(results, path, parse), read_annotations(path))
    assert parse.calls == 0
    assert not list((results / ".alignboard").glob("*.tmp"))


class Computed(msgspec.Struct):
    value: float


def test_derived_results_are_computed_once_per_key(results):
    calls = []

    def compute():
        calls.append(1)
        return Computed(0.1 + 0.2)

    for _ in range(2):
        tables = TableCache(results)
        assert tables.derived("key", Computed, compute).value == 0.1 + 0.2
        tables.save()
    assert len(calls) == 1
    TableCache(results).derived("another key", Computed, compute)
    assert len(calls) == 2


def test_a_derived_result_of_another_shape_is_computed_again(results):
    tables = TableCache(results)
    tables.derived("key", dict, lambda: {"other": 1})
    tables.save()
    assert TableCache(results).derived("key", Computed, lambda: Computed(2.0)).value == 2.0


def test_released_files_are_the_same_through_the_cache(released, tmp_path, monkeypatch):
    """Read through a cache that lies elsewhere: the released folder itself is never written to."""
    monkeypatch.setattr(cache, "_folder", lambda _: tmp_path / "cache")
    folder = (released / "results").resolve()
    paths = sorted(folder.glob("*/weighted_alpaca_eval_gpt4_turbo/annotations.json"))
    assert len(paths) >= 20
    parse, found = Counting(), []
    for _ in range(2):
        tables = TableCache(folder)
        found = [tables.read(path, Annotations, parse) for path in paths]
        tables.save()
    assert parse.calls == len(paths)
    for path, table in zip(paths, found, strict=True):
        assert_same(table, read_annotations(path))
    assert not (folder / ".alignboard").exists()


def test_an_index_that_came_with_the_folder_is_not_believed(results, path, monkeypatch, tmp_path):
    """Somebody else's index, edited or not, has another signature; what it says is computed anew."""
    tables = TableCache(results)
    tables.remember("key", 4.4)
    tables.save()
    index = results / INDEX
    assert TableCache(results).derived("key", float, lambda: 0.0) == 4.4
    signed = index.read_bytes()
    assert b"4.4" in signed
    index.write_bytes(signed.replace(b"4.4", b"9.4"))
    assert TableCache(results).derived("key", float, lambda: 4.4) == 4.4
    index.write_bytes(signed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert not TableCache(results).knows("key")
