"""Digests of weights: read once for all processes, and again where anything about the file changed."""

import os
import subprocess
import sys
import time

import pytest

from alignboard.models import identity as digests
from alignboard.models.identity import fingerprint
from alignboard.results.files import file_sha256


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A checkpoint's folder with a file large enough to be remembered, and what was read of it."""
    monkeypatch.setenv("ALIGNBOARD_CACHE", str(tmp_path / "cache"))
    folder, read = tmp_path / "model", []
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * digests._LARGE)
    time.sleep(0.15)  # a file that was changed just now may change again unseen
    monkeypatch.setattr(digests, "file_sha256", lambda path: read.append(path) or file_sha256(path))
    digests.file_digest.cache_clear()
    return folder, read


def test_another_process_does_not_read_the_weights_again(weights):
    folder, read = weights
    code = "import sys, pathlib; from alignboard.models.identity import fingerprint as of"
    code += "; print(of(pathlib.Path(sys.argv[1])))"
    found = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert fingerprint(folder) == found.stdout.strip()
    assert read == []


def test_a_file_changed_in_place_with_its_time_put_back_is_read_again(weights):
    folder, read = weights
    path = folder / "model.safetensors"
    before, first = path.stat(), fingerprint(folder)
    with path.open("r+b") as file:
        file.write(b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert fingerprint(folder) != first
    assert len(read) == 2
    digests.file_digest.cache_clear()
    assert fingerprint(folder) != first


def test_a_damaged_or_read_only_memory_costs_time_only(weights, tmp_path):
    folder, read = weights
    first = fingerprint(folder)
    for content in (b"damaged", None):
        digests.file_digest.cache_clear()
        database = tmp_path / "cache" / "digests.sqlite"
        database.unlink()
        if content is None:
            database.mkdir()
        else:
            database.write_bytes(content * 1000)
        assert fingerprint(folder) == first
    assert len(read) == 3
