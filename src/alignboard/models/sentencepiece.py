"""Tokenizers of SentencePiece: those in GGUF files, and folders with a ``tokenizer.model`` and no tokenizer.json.

What this module promises
    Pieces are found as SentencePiece finds them, every space included: transformers' own conversion of the same file
    drops a space where a text begins with one, and merges pieces that are no byte pairs. A folder's tokenizer is held
    against SentencePiece itself on some texts, and refused where it reads one of them otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError
from alignboard.text import shown

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""The types of a piece, which GGUF files number alike."""
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_SPACE: Final = "\u2581"
_FILE: Final = "tokenizer.model"
_PACKAGES: Final = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf.message"}
_TEXTS: Final = (
    "Hello world",
    " a leading space",
    "   three of them,  two inside, one behind ",
    "\nlines\n\n\tand a tab\r\n",
    "It's 3.14 or 1,234,567 (100%)",
    "caf\u00e9 na\u00efve \u4f60\u597d \u0441\u043b\u043e\u0432\u043e \U0001f999",
    "\uff26\uff55\uff4c\uff4c \u00bd \ufb01ne e\u0301\u00a0x",
    "def f(x):\n    return x  # <b>&amp;</b>",
)
"""What SentencePiece and the tokenizer made of its file have to read alike."""


@dataclass(frozen=True)
class Pieces:
    """A vocabulary and how it prepares a text."""

    tokens: list[str]
    types: list[int]
    scores: list[float]
    unknown: int | None
    prefix: bool
    """whether a text begins with a space that is put there"""
    byte_fallback: bool = True
    single_spaces: bool = False
    """whether runs of spaces become one, and those at both ends none"""
    rules: bytes = b""
    """what a text's characters are replaced by, as SentencePiece compiles it (NFKC, for one)"""
    unigram: bool = False
    """whether the most probable pieces are chosen, and not byte pairs merged"""


def pieces_backend(pieces: Pieces) -> Tokenizer:
    """The tokenizer proper, without its special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers

    backend = Tokenizer(_model(pieces))
    steps: list[Any] = [normalizers.Precompiled(pieces.rules)] if pieces.rules else []
    if pieces.single_spaces:
        steps += [normalizers.Replace(Regex(r), w) for r, w in ((r"\A +| +\z", ""), (" {2,}", " "))]
    if pieces.prefix:
        steps.append(normalizers.Prepend(_SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    after = [decoders.Strip(" ", 1, 0)] if pieces.prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    return backend


def _model(pieces: Pieces) -> Any:
    from tokenizers import models

    if pieces.unigram:
        scored = list(zip(pieces.tokens, pieces.scores, strict=True))
        return models.Unigram(scored, unk_id=pieces.unknown, byte_fallback=pieces.byte_fallback)
    return models.BPE(
        {token: number for number, token in enumerate(pieces.tokens)},
        _merges(pieces),
        unk_token=None if pieces.unknown is None else pieces.tokens[pieces.unknown],
        fuse_unk=True,
        byte_fallback=pieces.byte_fallback,
    )


def _merges(pieces: Pieces) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, those of the best-scored token first."""
    tokens, types = pieces.tokens, pieces.types
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL}
    order = sorted(range(len(tokens)), key=pieces.scores.__getitem__, reverse=True)
    return [
        (token[:at], token[at:])
        for token in (tokens[number] for number in order if types[number] == NORMAL)
        for at in range(1, len(token))
        if token[:at] in normal and token[at:] in normal
    ]


class HandedOver:
    """A tokenizer that is not copied: transformers makes a deep copy of what it is given, and drops that."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend

    def __deepcopy__(self, _: object) -> Tokenizer:
        return self._backend


def is_alone(folder: Path) -> bool:
    """Whether ``folder`` has a SentencePiece file and no tokenizer.json."""
    return (folder / _FILE).is_file() and not (folder / "tokenizer.json").is_file()


def require_packages(folder: Path) -> None:
    """Raise `InputError` where the packages are missing, or too old, that read ``folder``.

    transformers does not name them.
    """
    missing = [name for name, module in _PACKAGES.items() if not _is_installed(module)]
    if missing:
        raise InputError(
            f"{folder} has a tokenizer.model and no tokenizer.json, and reading that needs {' and '.join(missing)}: "
            f"pip install {' '.join(missing)}."
        )
    _definition(folder)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False


def backend_of(folder: Path) -> Tokenizer | None:
    """The tokenizer proper of the SentencePiece file in ``folder``, with its own special tokens.

    None for a vocabulary of whole words or characters, which transformers converts, or a file of another kind.
    """
    model = _read(folder)
    if model is None or model.trainer_spec.model_type not in {_UNIGRAM, _BPE}:
        return None
    with _readable(folder):
        return _backend(model)


def _backend(model: Any) -> Tokenizer:
    tokens = [one.piece for one in model.pieces]
    types = [one.type for one in model.pieces]
    how = model.normalizer_spec
    backend = pieces_backend(
        Pieces(
            tokens,
            types,
            [one.score for one in model.pieces],
            unknown=types.index(UNKNOWN) if UNKNOWN in types else None,
            prefix=how.add_dummy_prefix,
            byte_fallback=model.trainer_spec.byte_fallback,
            single_spaces=how.remove_extra_whitespaces,
            rules=how.precompiled_charsmap,
            unigram=model.trainer_spec.model_type == _UNIGRAM,
        )
    )
    backend.add_tokens([_whole(t, k) for t, k in zip(tokens, types, strict=True) if _is_whole(k)])
    return backend


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """A damaged file is a sentence: tokenizers and sentencepiece tell of one by exceptions of every class."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = shown(" ".join(str(error).split())[:200])
        raise InputError(
            f"{folder / _FILE} is damaged ({reason}): copy it again, or give a tokenizer with a tokenizer.json."
        ) from error


def _read(folder: Path) -> Any:
    """The content of the SentencePiece file, or None where the file of that name is none (tiktoken's has it, too)."""
    from google.protobuf.message import DecodeError

    model = _definition(folder).ModelProto()
    try:
        model.ParseFromString((folder / _FILE).read_bytes())
    except DecodeError:
        return None
    return model if model.pieces else None


def _definition(folder: Path) -> Any:
    """SentencePiece's description of its files; raises `InputError` where protobuf is older than what wrote that."""
    from google.protobuf import __version__ as installed

    try:
        from google.protobuf.runtime_version import VersionError as TooOld
    except ImportError:  # before 5.26
        TooOld = ImportError
    try:
        return import_module("sentencepiece.sentencepiece_model_pb2")
    except (ImportError, TooOld) as error:
        raise InputError(
            f"{folder / _FILE} cannot be read with protobuf {installed}, which is older than this sentencepiece needs: "
            f"pip install -U protobuf ({error})."
        ) from error


def _is_whole(kind: int) -> bool:
    return kind in {UNKNOWN, CONTROL, USER_DEFINED}


def _whole(token: str, kind: int) -> AddedToken:
    """A token that is read whole; one of spaces is found in the text that has its spaces replaced."""
    from tokenizers import AddedToken

    return AddedToken(token, special=kind != USER_DEFINED, normalized=_SPACE in token)


def require_read_alike(backend: Tokenizer, folder: Path) -> None:
    """Raise `InputError` where ``backend`` reads a text otherwise than SentencePiece reads it with the file."""
    model = _read(folder)
    if model is None:
        return
    with _readable(folder):
        _require_read_alike(backend, model, folder)


def _require_read_alike(backend: Tokenizer, model: Any, folder: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    reader = SentencePieceProcessor(model_proto=model.SerializeToString())
    own = [one.piece for one in model.pieces if one.type == USER_DEFINED][:200]
    for text in (*_TEXTS, *(f"a{token.replace(_SPACE, ' ')}b" for token in own)):
        expected = [reader.id_to_piece(number) for number in reader.encode(text)]
        read = backend.encode(text, add_special_tokens=False).ids
        if [backend.id_to_token(number) for number in read] != expected:
            raise InputError(
                f"{folder / _FILE} reads {text!r} otherwise than the tokenizer that can be made of it; give one with a "
                "tokenizer.json as tokenizer, such as that of the model it was made from."
            )
