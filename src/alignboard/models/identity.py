"""What a checkpoint or an adapter is, by content: the same digest wherever its folder lies and whatever it is called.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from alignboard.models.digests import FileStamp, file_digest, file_stamp
from alignboard.models.gguf.parts import part_names

_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
_CONFIG: Final = ("config.json", "quantize_config.json")
_TOKENIZER: Final = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
_ADAPTER: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
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
    some texts. The chat template is not part of it: it is a setting with a hash of its own.
    """
    if gguf_file is not None:
        digest = _digest(path, tuple(map(glob.escape, part_names(gguf_file))), "gguf-2")
    else:
        code = ("*.py",) if remote_code else ()
        digest = _digest(path, (*_WEIGHTS, *_CONFIG, *_TOKENIZER, *code), "checkpoint-1")
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
    except (OSError, ValueError):
        return {}  # whoever reads the file says what is wrong with it
    return content if isinstance(content, dict) else {}


def fingerprint_with_tokenizer(digest: str, folder: Path) -> str:
    """The digest of an adapter that is read by the tokenizer in its own ``folder``."""
    own = f"tokenizer-1 {digest} {_digest(folder, _TOKENIZER, 'tokenizer-1')}"
    return hashlib.sha256(own.encode()).hexdigest()


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
    content = _canonical(json.loads(Path(stamp.path).read_text(encoding="utf-8")))
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
