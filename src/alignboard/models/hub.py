"""Where a checkpoint lies: a folder, a GGUF file, or a repository of the hub, downloaded where it is needed.

What this module promises
    Only the files that are loaded are downloaded: safetensors, or ``.bin`` where a repository has no safetensors; of
    a repository of GGUF files the one that was asked for, with the other parts where it is split. What the hub refuses
    becomes one sentence that says what to do: accept a licence, log in, name another revision.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, TypedDict

from alignboard.errors import InputError, nearest
from alignboard.fetch.packages import is_packaged, packaged_path
from alignboard.models.gguf.parts import part_names, require_parts

_COMMIT: Final = re.compile("[0-9a-f]{40}")
_HUB_SECONDS: Final = 5.0
_WEIGHTS: Final = ("model*.safetensors", "pytorch_model*.bin")
_DESCRIPTIONS: Final = ("config.json", "adapter_config.json")
_POINTER_BYTES: Final = 1024
"""more than a pointer of Git LFS has"""
_TOKENIZER: Final = ("*.json", "tokenizer.model", "merges.txt", "*.jinja")


class Which(TypedDict, total=False):
    """What a name leaves open: an id alone would mean another commit, a folder another file."""

    revision: str
    gguf_file: str


def locate(
    base: str | Path,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    remote_code: bool = False,
) -> tuple[Path, str | None]:
    """The folder of a checkpoint, and which GGUF file of it is meant where it consists of those; of several parts the
    first.

    ``base`` is a folder, a GGUF file, ``package:NAME`` (`alignboard.fetch.packages`), or a repository of the hub at
    ``revision``. Raises `InputError` where there is
    none, where several GGUF files leave the choice open, where a part is missing, and where the hub refuses.
    """
    if is_packaged(base):
        base = packaged_path(str(base))
    path = Path(base)
    if path.exists() or isinstance(base, Path) or not is_repository(base):
        if revision is not None:
            raise InputError(
                f"{base} is no repository of the hub, so it has no revision {revision!r}."
            )
        if path.suffix == ".gguf" and not path.is_dir():
            return path.parent, require_parts(path.parent, path.name, str(path.parent))
        return path, _chosen(path, gguf_file)
    if gguf_file is not None:
        folder = _download(base, revision, list(part_names(gguf_file)))
        return folder, require_parts(folder, gguf_file, str(base))
    files = ["*.safetensors", *_TOKENIZER, *(["*.py"] if remote_code else [])]
    folder = _download(base, revision, files)
    if not any(folder.glob("*.safetensors")):
        folder = _download(base, revision, ["*.bin"])
    return folder, _chosen(folder, None)


def locate_tokenizer(base: str | Path) -> Path:
    """The folder of a tokenizer that is loaded for a checkpoint without one of its own."""
    path = Path(base)
    if path.is_dir() or isinstance(base, Path) or not is_repository(base):
        if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            raise InputError(f"{base} is no tokenizer: it holds no tokenizer.json.")
        return path
    return _download(base, None, list(_TOKENIZER))


def locate_adapter(base: str | Path, revision: str | None = None) -> Path:
    """The folder of a PEFT adapter: itself, or the local copy of a repository of the hub."""
    if Path(base).exists() or isinstance(base, Path) or not is_repository(base):
        return Path(base)
    files = ["adapter_config.json", "adapter_model.*", "training.json", *_TOKENIZER]
    return _download(base, revision, files)


@contextmanager
def base_of_adapter(base: str, adapter: str | None) -> Iterator[None]:
    """Inside the block, an error about the base of an adapter also names the adapter and the way out."""
    try:
        yield
    except InputError as error:
        if adapter is None:
            raise
        raise InputError(
            f"{adapter} is an adapter on the base {base!r}: {error} Where that model lies elsewhere, write an entry "
            f"evaluate/models/NAME.yaml with base: and adapter: {adapter}."
        ) from error


def is_repository(base: str) -> bool:
    """Whether it is spelt as a repository of the hub is: ``microsoft/phi-2``."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) is not None


@lru_cache(maxsize=256)
def resolve_commit(repository: str, revision: str | None = None) -> str | None:
    """The commit of the hub that ``revision`` of ``repository`` means: now, or else in what was downloaded before.

    None where neither the hub nor the local cache knows.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    if not is_repository(repository):
        return None
    from huggingface_hub import HfApi, constants, errors

    try:
        return HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS).sha
    except (errors.HTTPError, errors.OfflineModeIsEnabled, OSError):  # pyright: ignore[reportPrivateImportUsage] - httpx or httpx2, as the hub chose
        folder = repository.replace("/", "--")
        known = Path(constants.HF_HUB_CACHE) / f"models--{folder}" / "refs" / (revision or "main")
        return known.read_text(encoding="utf-8").strip() if known.is_file() else None


def holds_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    return any(next(folder.glob(pattern), None) is not None for pattern in _WEIGHTS)


def require_fetched(folder: Path) -> None:
    """Raise `InputError` for files that Git has cloned and Git LFS has not fetched."""
    files = (one for pattern in (*_WEIGHTS, "tokenizer.*") for one in folder.glob(pattern))
    for file in files:
        small = file.is_file() and file.stat().st_size < _POINTER_BYTES
        if small and file.read_bytes().startswith(b"version https://git-lfs"):
            raise InputError(
                f"{file} is a pointer of Git LFS, not the file; run `git lfs pull` in {folder}."
            )


def _chosen(folder: Path, gguf_file: str | None) -> str | None:
    if gguf_file is None and (folder / "config.json").is_file():
        return None
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf"))
    found = sorted({part_names(file)[0] for file in files})
    chosen = None if gguf_file is None else part_names(gguf_file)[0]
    if chosen in found or (chosen is None and len(found) == 1):
        return require_parts(folder, chosen or found[0], str(folder))
    if gguf_file is not None:
        hint = nearest(gguf_file, found) or f"; it has {', '.join(found) or 'none'}."
        raise InputError(f"{folder} has no GGUF file {gguf_file!r}{hint}")
    if found:
        raise InputError(
            f"{folder} has several GGUF files; name one as gguf_file: {', '.join(found)}."
        )
    inner = [
        folder / name
        for name, file in (("adapter", "adapter_config.json"), ("checkpoint", "config.json"))
        if (folder / name / file).is_file()
    ]
    inner = inner or sorted(
        one for one in folder.glob("*/") if any((one / name).is_file() for name in _DESCRIPTIONS)
    )
    hint = (
        f"did you mean {' or '.join(map(str, inner))}?" if inner else "name the model's own folder."
    )
    raise InputError(f"{folder} is not a model folder (no config.json); {hint}")


def _download(base: str, revision: str | None, files: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    at = "" if revision is None else f" at {revision!r}"
    try:
        return Path(
            huggingface_hub.snapshot_download(base, revision=revision, allow_patterns=files)
        )
    except errors.GatedRepoError as error:
        raise InputError(
            f"{base} is gated: accept its licence at https://huggingface.co/{base}, then log in by "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{base} has no revision {revision!r}; name a branch, a tag or a commit."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{base} is neither a folder nor a repository of the hub that this account may see; if it is private, "
            "log in by `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.LocalEntryNotFoundError as error:  # its text is several sentences
        raise InputError(
            f"{base}{at} is neither a folder nor in the hub's cache on this machine, and the hub cannot be reached; "
            "check the network, or name a folder."
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{base}{at} is neither a folder nor could it be downloaded: {reason}."
        ) from error
