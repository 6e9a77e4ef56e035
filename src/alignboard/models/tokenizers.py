"""The tokenizer of a checkpoint, of any format; that of a GGUF file is its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from alignboard.errors import InputError
from alignboard.models.formats import Checkpoint
from alignboard.models.gguf.file import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def open_tokenizer(
    checkpoint: Checkpoint, replaced_by: Path | None = None, *, remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, or the one in the folder that replaces it."""
    from alignboard.models.gguf.tokenizer import build_tokenizer

    _require_sentencepiece(replaced_by or checkpoint.path, checkpoint)
    try:
        if replaced_by is None and checkpoint.gguf_file is not None:
            found = build_tokenizer(read_header(checkpoint.place))
        else:
            found = _from_folder(checkpoint, replaced_by, remote_code=remote_code)
    except (ImportError, LookupError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{checkpoint.place}: its tokenizer cannot be loaded; give one as tokenizer, such as that of the model "
            f"it was made from ({' '.join(str(error).split())})."
        ) from error
    if len(found) <= len(found.all_special_tokens):  # transformers makes one of nothing
        raise InputError(
            f"{replaced_by or checkpoint.place} holds no files of a tokenizer; give one as tokenizer, such as that of "
            "the model it was made from."
        )
    return found


def _from_folder(
    checkpoint: Checkpoint, replaced_by: Path | None, *, remote_code: bool
) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PhiConfig

    # What AutoTokenizer would find in config.json, but for the old name of Phi, which it does not know.
    old_phi = replaced_by is None and checkpoint.format in {"phi-msft", "phixtral"}
    known = {"config": PhiConfig()} if old_phi else {}
    folder = checkpoint.path if replaced_by is None else replaced_by
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code, **known)


def _require_sentencepiece(folder: Path, checkpoint: Checkpoint) -> None:
    """A folder with ``tokenizer.model`` alone needs two more packages, which transformers does not name."""
    if checkpoint.gguf_file is not None or (folder / "tokenizer.json").is_file():
        return
    if not (folder / "tokenizer.model").is_file():
        return
    packages = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf.message"}
    missing = [name for name, module in packages.items() if not _is_installed(module)]
    if missing:
        raise InputError(
            f"{folder} has a tokenizer.model and no tokenizer.json, and reading that needs {' and '.join(missing)}: "
            f"pip install {' '.join(missing)}."
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False


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
