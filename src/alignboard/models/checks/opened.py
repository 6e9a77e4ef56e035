"""What can be judged of a checkpoint without its weights: configuration, tokenizer and adapter, from disk or hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.adapters import (
    default_template,
    embedded_rows,
    own_tokenizer,
    require_kind,
    saved_template,
    taught_ends,
)
from alignboard.models.ends import ends_of
from alignboard.models.formats import Checkpoint, identify, text_config
from alignboard.models.hub import base_of_adapter, is_repository, locate, locate_tokenizer
from alignboard.models.own_decoding import OwnDecoding, read_own_decoding
from alignboard.models.spec import ModelSpec
from alignboard.models.tokenizers import open_tokenizer
from alignboard.results.files import read_json_object

_FILES: Final = ("*.json", "tokenizer.model", "merges.txt", "*.jinja")


@dataclass(frozen=True)
class Opened:
    """The parts of a checkpoint that are looked at."""

    spec: ModelSpec
    checkpoint: Checkpoint
    tokenizer: Any
    generation: dict[str, Any]
    """generation_config.json; a GGUF file states its own"""
    adapter: Path | None
    here: bool
    """whether ``base`` is a folder on this disk"""

    @property
    def own_template(self) -> str | None:
        """The adapter's template, else the tokenizer's."""
        brought = None if self.adapter is None else saved_template(self.adapter)
        return brought if brought is not None else default_template(self.tokenizer.chat_template)

    @property
    def n_embedded(self) -> int | None:
        """How many tokens have an embedding: the adapter's, where it holds one, else the base's."""
        brought = None if self.adapter is None else embedded_rows(self.adapter)
        stated = text_config(self.checkpoint.config).get("vocab_size")
        return brought or (stated if isinstance(stated, int) else None)

    @property
    def decoding(self) -> OwnDecoding:
        """What the generation configuration says besides its end tokens; older checkpoints say it in config.json."""
        config = self.checkpoint.config
        stated = self.generation or {**text_config(config), **config}
        return read_own_decoding(stated, self.checkpoint.path)

    def ends(self) -> dict[int, str]:
        """The tokens that end a reply, each with who says so; those of ``stop_tokens`` that exist."""
        config = self.checkpoint.config
        own = config.get("eos_token_id", text_config(config).get("eos_token_id"))
        return ends_of(
            self.tokenizer,
            self.generation.get("eos_token_id", own),
            self.spec.stop_tokens,
            () if self.adapter is None else taught_ends(self.adapter),
        )


def open_small(spec: ModelSpec) -> Opened:
    """The small files of ``spec``; raises `InputError` where they cannot be had."""
    here = Path(spec.base).exists() or not is_repository(spec.base)
    with base_of_adapter(spec.base, spec.adapter):
        checkpoint = _checkpoint(spec, here=here)
    other = None if spec.tokenizer is None else locate_tokenizer(spec.tokenizer)
    tokenizer = open_tokenizer(checkpoint, other)
    settings = checkpoint.path / "generation_config.json"
    states_own = checkpoint.gguf_file is not None
    generation = read_json_object(settings) if settings.is_file() and not states_own else {}
    adapter = None if spec.adapter is None else _adapter(spec.adapter)
    if adapter is not None:
        tokenizer = own_tokenizer(adapter, tokenizer) or tokenizer
    return Opened(spec, checkpoint, tokenizer, generation, adapter, here)


def _checkpoint(spec: ModelSpec, *, here: bool) -> Checkpoint:
    if here:
        folder, gguf_file = locate(spec.base, gguf_file=spec.gguf_file, revision=spec.revision)
        return identify(folder, gguf_file)
    if spec.format == "gguf":
        if spec.tokenizer is None:
            raise InputError(
                f"{spec.base}: the tokenizer lies inside {spec.gguf_file}; download that file and name it, or say "
                "tokenizer: in the entry."
            )
        return Checkpoint(Path(spec.base), "gguf", {}, spec.gguf_file)
    return identify(_from_hub(spec.base, spec.revision))


def _adapter(name: str) -> Path:
    local = Path(name).exists() or not is_repository(name)
    folder = Path(name) if local else _from_hub(name, None)
    require_kind(folder)
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    """The small files of a repository."""
    if revision is None:
        return locate_tokenizer(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} at {revision!r} could not be downloaded: {reason}") from error
