"""GGUF checkpoints in several files, as llama.cpp's ``gguf-split`` cuts them: ``name-00001-of-00003.gguf`` and on.

What this module promises
    Any part means the whole checkpoint, and a checkpoint is named by its first part. A file of any other name is a
    checkpoint by itself.
What it refuses
    A checkpoint of which a part is missing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from alignboard.errors import InputError

_PART: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def part_names(gguf_file: str) -> tuple[str, ...]:
    """The files of the checkpoint that ``gguf_file`` is or belongs to, in order.

    >>> part_names("Q8_0/big-00002-of-00002.gguf")
    ('Q8_0/big-00001-of-00002.gguf', 'Q8_0/big-00002-of-00002.gguf')
    >>> part_names("small.gguf")
    ('small.gguf',)
    """
    found = _PART.fullmatch(gguf_file)
    if found is None or not 1 <= int(found[2]) <= int(found[3]):
        return (gguf_file,)
    return tuple(f"{found[1]}-{n:05}-of-{found[3]}.gguf" for n in range(1, int(found[3]) + 1))


def checkpoint_name(gguf_file: str) -> str:
    """What a checkpoint is called: its file without the suffix, and without what says that it is a part."""
    name = Path(gguf_file).name
    found = _PART.fullmatch(name)
    return found[1] if found else name.removesuffix(".gguf")


def require_parts(folder: Path, gguf_file: str, source: str) -> str:
    """The first file of a checkpoint that lies in ``folder``; raises `InputError` that names the parts that do not."""
    names = part_names(gguf_file)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and len(names) == 1:
        raise InputError(f"{source} has no GGUF file {gguf_file!r}.")
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of the {len(names)} parts of a GGUF checkpoint: {', '.join(missing)}; put "
            "all parts beside the first."
        )
    return names[0]
