"""What tells the files that a model is made of from others: parameters of the jobs whose results follow from them.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.fetch.packages import is_packaged, packaged_digest
from alignboard.models.hub import is_repository, resolve_commit
from alignboard.models.identity import (
    adapter_fingerprint,
    fingerprint,
    fingerprint_with_tokenizer,
    prompt_fingerprint,
)
from alignboard.models.spec import ModelSpec

_NO_IDENTITY: Final = (
    *("name", "base", "revision", "adapter", "tokenizer", "notes", "licence", "gated", "aliases"),
    "decoding",
)


def asked_as(spec: ModelSpec) -> dict[str, Any]:
    """What of an entry, besides its weights, decides how it is asked; as parameters of a job."""
    content = msgspec.to_builtins(spec)
    return {key: value for key, value in content.items() if key not in _NO_IDENTITY}


def pinned(spec: ModelSpec) -> ModelSpec:
    """``spec`` at the commit of the hub that it means now, so that what is loaded is what its key names."""
    if spec.revision is None and not is_repository(spec.base):
        return spec
    if Path(spec.base).exists():
        return spec
    commit = resolve_commit(spec.base, spec.revision)
    return spec if commit is None else msgspec.structs.replace(spec, revision=commit)


def weights_identity(spec: ModelSpec, root: Path) -> dict[str, Any]:
    """What tells the checkpoint of ``spec`` from others: weights, tokenizer, template and code, by content."""
    found = {
        "base": source_identity(
            spec.base,
            root,
            spec.gguf_file,
            spec.revision,
            remote_code=spec.trust_remote_code,
        )
    }
    if spec.adapter is not None:
        found["adapter"] = source_identity(spec.adapter, root)
    if spec.tokenizer is not None:
        found["tokenizer"] = tokenizer_identity(spec.tokenizer, root)
    return found


def tokenizer_identity(source: str, root: Path) -> dict[str, Any]:
    """What tells a tokenizer of its own folder or repository from others."""
    folder = root / source
    if not folder.is_dir():
        return {"id": source, "commit": resolve_commit(source)}
    return {"tokenizer": fingerprint_with_tokenizer("", folder)}


def source_identity(
    source: str,
    root: Path,
    gguf_file: str | None = None,
    revision: str | None = None,
    *,
    remote_code: bool = False,
) -> dict[str, Any]:
    """What tells a checkpoint or an adapter from others, wherever it lies: the digest of its files, or a commit.

    Of a repository of the hub the commit that ``revision`` means now, None where that cannot be found out. Raises
    `InputError` for a folder that holds neither a checkpoint nor an adapter.
    """
    if is_packaged(source):
        return {"package": packaged_digest(source, root), "file": gguf_file}
    folder = root / source
    if folder.is_file():
        folder, gguf_file = folder.parent, folder.name
    if not folder.is_dir():
        return {"id": source, "commit": resolve_commit(source, revision), "file": gguf_file}
    prompt = prompt_fingerprint(folder)
    if (folder / "adapter_config.json").is_file():
        digest = fingerprint_with_tokenizer(adapter_fingerprint(folder), folder)
        return {"adapter": digest, "prompt": prompt}
    if gguf_file is None and not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json: it is no checkpoint.")
    digest = fingerprint(folder, gguf_file=gguf_file, remote_code=remote_code)
    return {"weights": digest, "prompt": None if gguf_file else prompt}
