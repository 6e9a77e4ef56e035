"""The header of a GGUF checkpoint: its metadata and where its tensors lie, read once for all that ask.

What this module promises
    The parts of a checkpoint that llama.cpp's ``gguf-split`` has cut are read as one file: the metadata of the first,
    the tensors of all. No tensor is read, and the package ``gguf`` is not needed.
What it refuses
    A file that ends early or is no GGUF of version 2 or 3, and parts that are not of one checkpoint.

References: ``docs/gguf.md`` of ggml; ``gguf-split.cpp`` of llama.cpp.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.gguf.parts import checkpoint_name, part_names

_SCALARS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_VERSIONS: Final = (2, 3)
_MAX_DIMENSIONS: Final = 8


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies."""

    name: str
    shape: tuple[int, ...]
    """rows first, as torch counts them; GGUF states the reverse"""
    kind: int
    """the number of its type, as ``gguf.GGMLQuantizationType``"""
    file: Path
    offset: int
    """of its first byte in `file`"""


@dataclass(frozen=True, eq=False)
class GgufHeader:
    """What a GGUF checkpoint states about itself; of a file that has not changed, one object."""

    file: Path
    """its only or first part"""
    metadata: Mapping[str, Any]
    tensors: tuple[TensorEntry, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of it: ``llama`` (which Mistral is, too), ``phi2``, ``gemma``."""
        return str(self.required("general.architecture"))

    def required(self, key: str) -> Any:
        """The value of ``key``; raises `InputError` where the file lacks it."""
        if key not in self.metadata:
            raise InputError(
                f"{self.file} has no {key} in its metadata; convert it again with llama.cpp's converter."
            )
        return self.metadata[key]

    def of_model(self, key: str) -> Any:
        """The value of a key of the architecture, such as ``context_length``, or None."""
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}")

    def of_tokenizer(self, key: str) -> Any:
        """The value of a key of the tokenizer, such as ``bos_token_id``, or None."""
        return self.metadata.get(f"tokenizer.ggml.{key}")


def read_header(file: Path) -> GgufHeader:
    """Read the header of the checkpoint whose only or first part is ``file``.

    Raises
    ------
    InputError
        Where a part cannot be read, or is not of this checkpoint.
    """
    parts = [file.with_name(name) for name in part_names(file.name)]
    headers = [_cached(part, *_version_on_disk(part)) for part in parts]
    for number, header in enumerate(headers):
        _require_place(header, number, len(parts))
    if len(parts) == 1:
        return headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    total = headers[0].required("split.tensors.count")
    if len(tensors) != total:
        raise InputError(
            f"{file} is of a checkpoint of {total} tensors, but its {len(parts)} parts hold {len(tensors)}; "
            "download them again."
        )
    return GgufHeader(file, headers[0].metadata, tensors)


def _version_on_disk(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=8)
def _cached(file: Path, _changed: int, size: int) -> GgufHeader:
    """One parse for each state of a file, however many ask: tokenizer, configuration and weights."""
    if size == 0:
        raise InputError(f"{file} is no GGUF file: it is empty; download it again.")
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _parse(file, _Cursor(data))
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{file} is no GGUF file that can be read ({error}); download it again."
            ) from error


class _Cursor:
    """Values of a file, one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def text(self) -> str:
        (length,) = self.take("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise ValueError("it ends inside a text")
        return self.data[start : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"there is no type {kind}")
        of, count = self.take("IQ")
        if of in _SCALARS:
            return list(self.take(f"{self._fitting(count)}{_SCALARS[of]}"))
        if of != _STRING:
            raise ValueError(f"there is an array of the type {of}")
        return [self.text() for _ in range(self._fitting(count))]

    def _fitting(self, count: int) -> int:
        """No element is smaller than a byte."""
        if count > len(self.data) - self.at:
            raise ValueError("it ends inside an array")
        return count


def _parse(file: Path, cursor: _Cursor) -> GgufHeader:
    magic, version = cursor.take("4sI")
    if magic != b"GGUF":
        raise ValueError("its first four bytes are not GGUF")
    if version not in _VERSIONS:
        raise ValueError(f"it says version {version}, and 2 and 3 are read")
    n_tensors, n_keys = cursor.take("QQ")
    metadata = {}
    for _ in range(n_keys):
        key = cursor.text()
        metadata[key] = cursor.value(*cursor.take("I"))
    found = []
    for _ in range(n_tensors):
        name, (n_dimensions,) = cursor.text(), cursor.take("I")
        if n_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{name} has {n_dimensions} dimensions")
        shape = tuple(reversed(cursor.take(f"{n_dimensions}Q")))
        kind, offset = cursor.take("IQ")
        found.append((name, shape, kind, offset))
    alignment = int(metadata.get("general.alignment", 32)) or 1
    start = -(-cursor.at // alignment) * alignment
    tensors = tuple(
        TensorEntry(name, shape, kind, file, start + offset) for name, shape, kind, offset in found
    )
    return GgufHeader(file, metadata, tensors)


def _require_place(header: GgufHeader, number: int, count: int) -> None:
    """A part says itself which of how many it is, counted from 0."""
    declared = [header.metadata.get(f"split.{key}") for key in ("no", "count")]
    own = (
        tuple(value for value in declared if isinstance(value, int))
        if None not in declared
        else (0, 1)
    )
    if len(own) != len(declared):
        raise InputError(f"{header.file} does not state which part it is; split it again.")
    if own != (number, count):
        file = header.file
        raise InputError(
            f"{file} says that it is part {own[0] + 1} of {own[1]}, not {number + 1} of {count}; name the parts as "
            f"gguf-split does, such as {checkpoint_name(file.name)}-{own[0] + 1:05}-of-{own[1]:05}.gguf."
        )
