"""What a checkpoint or an adapter is, by content: the same digest wherever its folder lies and whatever it is called.

Importing this module loads neither torch nor transformers.

Digests of large files are kept between processes: a dry run that is repeated reads no gigabytes again.

What this module promises of them
    A file is taken to be the one that was read before only where its place, inode, size, time of modification and time
    of change are all the same. The last is the kernel's own: a file changed in place, whose other time was put back,
    is read again.
What it never does
    Believe a workspace: digests lie in the user's cache folder (`alignboard.fetch.sources.cache_folder`), so that a
    folder of somebody else brings none, and a base in several workspaces is read once. The file can be deleted at any
    time.
"""

from __future__ import annotations

import glob
import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from alignboard.fetch.sources import cache_folder
from alignboard.models.gguf.parts import part_names
from alignboard.results.files import file_sha256, read_json_object

_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
_CONFIG: Final = ("config.json", "quantize_config.json")
_TOKENIZER: Final = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
_ADAPTER: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_OF_FILES: Final = frozenset(
    {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}
)
"""the classes of transformers that take tokenizer.json as it is"""
# Where something lay or who wrote it: changes no output.
_IRRELEVANT: Final = frozenset(
    {"_name_or_path", "base_model_name_or_path", "revision", "name_or_path"}
)


def fingerprint(
    path: Path,
    *,
    gguf_file: str | None = None,
    tokenizer: Path | None = None,
    remote_code: bool = False,
) -> str:
    """The digest of a checkpoint's weights, configuration and tokenizer.

    Of a folder of GGUF files only ``gguf_file`` and its other parts count, which hold all three. ``tokenizer`` is the
    folder of a tokenizer that replaces the checkpoint's own, ``remote_code`` says that the folder's own Python runs:
    both change what the model answers. ``gguf-2`` is the version of how a GGUF file is read: 1 had other token ids for
    some texts; `_reading` is that of a folder's tokenizer. The chat template is not part of it: it is a setting with a
    hash of its own.
    """
    if gguf_file is not None:
        digest = _digest(path, tuple(map(glob.escape, part_names(gguf_file))), "gguf-2")
    else:
        code = ("*.py",) if remote_code else ()
        digest = _digest(
            path, (*_WEIGHTS, *_CONFIG, *_TOKENIZER, *code), f"checkpoint-{_reading(path)}"
        )
    if tokenizer is None:
        return digest
    return fingerprint_with_tokenizer(digest, tokenizer)


def adapter_fingerprint(path: Path) -> str:
    """The digest of an adapter's weights and configuration, without the place where its base lay."""
    return _digest(path, _ADAPTER, "adapter-1")


def prompt_fingerprint(folder: Path) -> str | None:
    """The digest of what a folder says about prompts and the end of replies; None where it says nothing.

    That is its chat template, its generation configuration, and what the training of an adapter taught as the end.
    """
    found: dict[str, str] = {}
    for pattern in ("*.jinja", "additional_chat_templates/*", "generation_config.json"):
        for path in sorted(folder.glob(pattern)):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name, key in (("tokenizer_config.json", "chat_template"), ("training.json", "end_tokens")):
        content = _json_object(folder / name).get(key)
        if content is not None:
            found[name] = json.dumps(content, sort_keys=True)
    if not found:
        return None
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # whoever reads the file says what is wrong with it
    return content if isinstance(content, dict) else {}


def fingerprint_with_tokenizer(digest: str, folder: Path) -> str:
    """The digest of an adapter that is read by the tokenizer in its own ``folder``."""
    own = f"tokenizer-1 {digest} {_digest(folder, _TOKENIZER, f'tokenizer-{_reading(folder)}')}"
    return hashlib.sha256(own.encode()).hexdigest()


def _reading(folder: Path) -> int:
    """The version of how the tokenizer in ``folder`` is read.

    1 was transformers' way, which drops what the file says of spaces and digits for some classes of tokenizers. It is
    still that of folders that name no such class, so that nothing that was trained on them is trained again.
    """
    named = _json_object(folder / "tokenizer_config.json").get("tokenizer_class")
    files = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    alone = not (folder / "tokenizer.json").is_file()
    return 2 if files and (alone or str(named) not in _OF_FILES) else 1


def _digest(folder: Path, patterns: tuple[str, ...], scheme: str) -> str:
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    total = hashlib.sha256(scheme.encode())
    for path in files:
        total.update(f"\n{path.name} {_file_digest(file_stamp(path))}".encode())
    return total.hexdigest()


def _file_digest(stamp: FileStamp) -> str:
    return _config_digest(stamp) if stamp.path.endswith("config.json") else file_digest(stamp)


@lru_cache(maxsize=1024)
def _config_digest(stamp: FileStamp) -> str:
    content = _canonical(read_json_object(Path(stamp.path)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _canonical(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what changes no output; PEFT writes sets of module names in any order."""
    kept = {
        key: value for key, value in content.items() if key not in _IRRELEVANT | {"chat_template"}
    }
    for key in ("target_modules", "modules_to_save", "exclude_modules"):
        if isinstance(kept.get(key), list):
            kept[key] = sorted(kept[key])
    return kept


_NAME: Final = "digests.sqlite"
_LARGE: Final = 2**20
"""bytes from which on a file is worth a look at the disk"""
# A file changed within this time of being read may change again without a new time stamp (git's "racy" files).
_RACY_NS: Final = 100_000_000
_TABLE: Final = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT) WITHOUT ROWID"


class FileStamp(NamedTuple):
    """What tells this version of a file from any other, as far as the file system says."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @property
    def text(self) -> str:
        """All but the path."""
        return " ".join(map(str, self[1:]))


def file_stamp(path: Path) -> FileStamp:
    """The stamp of a file as it is now."""
    path = path.resolve()
    now = path.stat()
    times = (now.st_mtime_ns, now.st_ctime_ns)
    return FileStamp(str(path), now.st_size, *times, now.st_ino, now.st_dev)


@lru_cache(maxsize=1024)
def file_digest(stamp: FileStamp) -> str:
    """sha256 of the content of the file with ``stamp``, read only where it is not known."""
    if stamp.size < _LARGE:
        return file_sha256(Path(stamp.path))
    return _known(stamp) or _kept(stamp, file_sha256(Path(stamp.path)))


def _known(stamp: FileStamp) -> str | None:
    query = "SELECT sha256 FROM digests WHERE path = ? AND stamp = ?"
    with suppress(sqlite3.Error, OSError), closing(_opened()) as known:
        row = known.execute(query, (stamp.path, stamp.text)).fetchone()
        return None if row is None else row[0]
    return None


def _kept(stamp: FileStamp, digest: str) -> str:
    """``digest``, kept where that is safe and possible."""
    settled = time.time_ns() - stamp.ctime_ns > _RACY_NS
    if settled and file_stamp(Path(stamp.path)) == stamp:
        row = (stamp.path, stamp.text, digest)
        with suppress(sqlite3.Error, OSError), closing(_opened()) as known:
            known.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", row)
    return digest


def _opened() -> sqlite3.Connection:
    path = cache_folder() / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    connection.execute(_TABLE)
    return connection
