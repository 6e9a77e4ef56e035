"""The tokenizer of a checkpoint or an adapter, of any format, which reads texts as its own files say."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import AlignboardError, InputError
from alignboard.models.formats import Checkpoint
from alignboard.models.gguf.file import read_header
from alignboard.models.sentencepiece import (
    HandedOver,
    backend_of,
    is_alone,
    require_packages,
    require_read_alike,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


_FILES: Final = ("*token*", "vocab*", "spiece*", "merges.txt")
"""of a tokenizer, in whatever form: what has none of them has none"""


def open_tokenizer(
    checkpoint: Checkpoint, replaced_by: Path | None = None, *, remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, or the one in the folder that replaces it."""
    from alignboard.models.gguf.tokenizer import build_tokenizer

    try:
        if replaced_by is None and checkpoint.gguf_file is not None:
            found = build_tokenizer(read_header(checkpoint.place))
        else:
            found = _from_folder(checkpoint, replaced_by, remote_code=remote_code)
    except (ImportError, LookupError, OSError, ValueError, TypeError) as error:
        folder = replaced_by or (checkpoint.path if checkpoint.gguf_file is None else None)
        if folder is not None and not any(next(folder.glob(one), None) for one in _FILES):
            raise _no_files(folder) from error
        raise InputError(
            f"{checkpoint.place}: its tokenizer cannot be loaded; give one as tokenizer, such as that of the model "
            f"it was made from ({' '.join(str(error).split())})."
        ) from error
    if len(found) <= len(found.all_special_tokens):  # transformers makes one of nothing
        raise _no_files(replaced_by or checkpoint.path)
    return found


def _no_files(place: Path) -> InputError:
    return InputError(
        f"{place} holds no files of a tokenizer; give one as tokenizer, such as that of the model it was made from."
    )


def _from_folder(
    checkpoint: Checkpoint, replaced_by: Path | None, *, remote_code: bool
) -> PreTrainedTokenizerFast:
    from transformers import PhiConfig

    # What AutoTokenizer would find in config.json, but for the old name of Phi, which it does not know.
    old_phi = replaced_by is None and checkpoint.format in {"phi-msft", "phixtral"}
    known = {"config": PhiConfig()} if old_phi else {}
    return read_tokenizer(replaced_by or checkpoint.path, trust_remote_code=remote_code, **known)


def read_tokenizer(folder: Path, **known: Any) -> PreTrainedTokenizerFast:
    """The tokenizer whose files lie in ``folder``; ``known`` is what AutoTokenizer is told besides.

    transformers builds those of some classes anew from vocabulary and merges, and drops how the file prepares a text:
    leading spaces (LlamaTokenizer), digits one by one (GPT2Tokenizer). Here the file counts. Whatever the libraries
    raise for a damaged file that no caller could name, plain exceptions and panics, is a ValueError.
    """
    try:
        return _read_tokenizer(folder, **known)
    except (AlignboardError, ImportError, LookupError, OSError, ValueError, TypeError, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(f"a damaged file: {error}") from error
        raise


def _read_tokenizer(folder: Path, **known: Any) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    alone = is_alone(folder)
    if alone:
        require_packages(folder)
    found = AutoTokenizer.from_pretrained(folder, **known)
    ours = type(found).__module__.startswith("transformers.")  # and not the folder's own code
    if not ours or not isinstance(found, PreTrainedTokenizerFast):
        return found
    file, backend = folder / "tokenizer.json", None
    if alone:
        backend = backend_of(folder)
    elif file.is_file() and type(found) is not PreTrainedTokenizerFast:
        backend = _stated(file, found)
    if backend is not None:
        found = _around(backend, found, folder, begins=alone)
    if alone:
        require_read_alike(found.backend_tokenizer, folder)
    # What tokenizer_config.json says wrongly (model_max_length: "x") fails where a text is read.
    found("a")
    return found


_WAYS: Final[dict[tuple[int, ...], list[Any]]] = {}
"""how a ``tokenizer.json`` prepares a text: a command reads one to check it, and again to use it"""


def _stated(file: Path, found: PreTrainedTokenizerFast) -> Tokenizer | None:
    """The tokenizer in ``file``, if it prepares a text in another way than ``found``."""
    from tokenizers import Tokenizer

    seen = file.stat()
    state = (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size)
    stated = None
    if state not in _WAYS:
        stated = Tokenizer.from_file(str(file))
        _WAYS[state] = _way(stated)
    if _WAYS[state] == prepares(found):
        return None
    return Tokenizer.from_file(str(file)) if stated is None else stated


def prepares(tokenizer: Any) -> list[Any]:
    """How ``tokenizer`` prepares a text and writes one; empty where its own Python does it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return [] if backend is None else _way(backend)


def _way(backend: Tokenizer) -> list[Any]:
    """How a tokenizer reads a text and writes one, but for its vocabulary and its added tokens."""
    steps = (backend.normalizer, backend.pre_tokenizer, backend.decoder)
    model: Any = backend.model
    flags = ("ignore_merges", "byte_fallback", "fuse_unk", "unk_token", "continuing_subword_prefix")
    return [
        type(model).__name__,
        *(None if step is None else step.__getstate__() for step in steps),
        *(getattr(model, flag, None) or None for flag in flags),
    ]


def _around(
    backend: Tokenizer, found: PreTrainedTokenizerFast, folder: Path, *, begins: bool
) -> PreTrainedTokenizerFast:
    """A tokenizer of ``backend`` with the special tokens of ``found``, whose class may name some that no file does.

    With ``begins`` a text begins with BOS where no file says otherwise: SentencePiece's files do not, and the classes
    of the models that have nothing else do it.
    """
    from transformers import PreTrainedTokenizerFast

    named: dict[str, Any] = {
        name: token
        for name, token in found.special_tokens_map.items()
        if isinstance(token, str) and backend.token_to_id(token) is not None
    }
    if begins and "bos_token" in named and "add_bos_token" not in found.init_kwargs:
        named["add_bos_token"] = True
    return PreTrainedTokenizerFast.from_pretrained(
        folder,
        tokenizer_object=HandedOver(backend),
        padding_side=found.padding_side,
        **named,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, which report one step for a checkpoint of one file, and without what PEFT
    is told there about its own calls.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
