"""What a folder or file of a checkpoint holds, from its files alone.

`alignboard.models.weights` and `alignboard.models.tokenizers` load what `identify` finds. Importing this module loads
neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from alignboard.errors import InputError, nearest
from alignboard.models import phi_msft
from alignboard.models.gguf.file import read_header
from alignboard.models.gguf.parts import part_names
from alignboard.models.gguf.reader import native_config
from alignboard.models.hub import require_fetched
from alignboard.results.files import read_json_object

Format = Literal["transformers", "gptq", "gguf", "phi-msft", "phixtral"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_NOT_GENERATING: Final = re.compile(
    r"For(?:SequenceClassification|TokenClassification|MaskedLM|QuestionAnswering|MultipleChoice)\Z|Reward\w*\Z"
)
_BODY: Final = re.compile(r"(?<!LMHead)(?<!DoubleHeads)Model\Z")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this disk, and what it is."""

    path: Path
    """its folder"""
    format: Format
    config: Mapping[str, Any]
    """what its config.json says, or a GGUF file in the same words"""
    gguf_file: str | None = None

    @property
    def place(self) -> Path:
        """What messages call it: the folder, or the GGUF file in it, which is the first of its parts."""
        return self.path if self.gguf_file is None else self.path / self.gguf_file


def identify(
    path: Path, gguf_file: str | None = None, expected: Format | None = None
) -> Checkpoint:
    """What the folder ``path`` holds; raises `InputError` where that is not ``expected``."""
    if expected is not None and expected not in FORMATS:
        hint = nearest(expected, FORMATS) or f"; the formats are {', '.join(FORMATS)}."
        raise InputError(f"There is no format {expected!r}{hint}")
    found = _from_config(path) if gguf_file is None else _from_gguf(path, gguf_file)
    if expected is not None and found.format != expected:
        raise InputError(
            f"{found.place} is a checkpoint of the format {found.format!r}, not {expected!r} as was asked for."
        )
    return found


def _from_gguf(path: Path, gguf_file: str) -> Checkpoint:
    for part in part_names(gguf_file):
        with (path / part).open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(
                    f"{path / part} is no GGUF file, whose first four bytes are GGUF; download it again."
                )
    header = read_header(path / gguf_file)
    return Checkpoint(path, "gguf", native_config(header), gguf_file)


def not_generating(config: Mapping[str, Any]) -> str | None:
    """The architecture of a checkpoint that was made for something else than text, or None.

    Its body loads as a language model's, too, and where the head is the embedding nothing is missing: of an embedding
    model (a body alone, ``Gemma3TextModel``), and of the decoder of one that reads with an encoder (BART). Code
    of a repository's own (``ChatGLMModel``) calls anything a model.
    """
    stated = config.get("architectures")
    listed = [one for one in stated if isinstance(one, str)] if isinstance(stated, list) else []
    if config.get("is_encoder_decoder") is True:
        return listed[0] if listed else f"{config.get('model_type')} with an encoder"
    kinds = (_NOT_GENERATING,) if "auto_map" in config else (_NOT_GENERATING, _BODY)
    other = all(any(kind.search(one) for kind in kinds) for one in listed)
    return listed[0] if listed and other else None


def _from_config(path: Path) -> Checkpoint:
    require_fetched(path)
    config = read_json_object(path / "config.json")
    method = (config.get("quantization_config") or {}).get("quant_method")
    gptq = method == "gptq" or (method is None and (path / "quantize_config.json").is_file())
    old = config.get("model_type") in phi_msft.MODEL_TYPES
    if gptq and old:
        raise InputError(
            f"{path} is GPTQ of the phi-msft format, for which no library has a loader; use its unquantised original."
        )
    if old:
        return Checkpoint(path, "phixtral" if "num_local_experts" in config else "phi-msft", config)
    return Checkpoint(path, "gptq" if gptq else "transformers", config)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the language model.

    Composite checkpoints (Gemma 3 from 4B on, Mistral 3) have one for text beside those of other inputs;
    ``PretrainedConfig.get_text_config`` is the same for a loaded one.
    """
    found = config.get("text_config")
    return found if isinstance(found, Mapping) else config
