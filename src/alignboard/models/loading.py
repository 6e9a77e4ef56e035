"""One load of a base model serves everything that is asked of it: its adapters are swapped, not reloaded.

What this module promises
    `LoadedModel.load` reads a checkpoint once (`loads` counts). Adapters are added by name and chosen with
    ``with model.using(name):``; ``None`` is the base itself, its adapters switched off. Outputs after a swap are those
    of a freshly loaded adapter, bit for bit. What is loaded is identified by content (`alignboard.models.identity`).
What it refuses
    An adapter whose weights do not all find their place, and a tokenizer larger than the embedding. PEFT only warns of
    the first (adapters for other layer names then silently do nothing, peft#1375). lm-eval resizes embeddings where
    an adapter is given and not otherwise, so that base and adapter are not like for like; here nothing is resized.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from alignboard.errors import InputError, nearest
from alignboard.models.identity import adapter_fingerprint, fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["4bit", "8bit"]

loads: Final[list[str]] = []
"""The folder of every base model that this process has loaded, in order."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that was added to a loaded base model."""

    name: str
    path: Path
    fingerprint: str
    chat_template: str | None
    """the template it was trained with, where its folder says so; otherwise the base's is used"""


@dataclass
class LoadedModel:
    """A base model in memory with its tokenizer and adapters; make one with `LoadedModel.load`."""

    path: Path
    fingerprint: str
    """sha256 over the weights, the configuration and the tokenizer"""
    model: PreTrainedModel | Any
    """transformers' model; PEFT's around it as soon as there is an adapter"""
    tokenizer: PreTrainedTokenizerFast
    base_chat_template: str | None
    dtype: str
    quantization: Quantization | None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    active: str | None = None

    @classmethod
    def load(
        cls,
        base: str | Path,
        *,
        dtype: Dtype = "auto",
        quantization: Quantization | None = None,
        device: str = "auto",
        chat_template: str | None = None,
    ) -> LoadedModel:
        """Load a checkpoint: a folder, or a repository of the hub such as ``microsoft/phi-2``.

        ``dtype="auto"`` is float32 on the CPU; on a GPU it is the checkpoint's own type, with bfloat16 in place of
        float16 (the attention of Phi-2 and the activations of Gemma overflow in float16). ``quantization`` loads linear
        layers through bitsandbytes: 4 bits as in QLoRA (NF4, double quantisation), or 8. ``chat_template`` is for base
        models that have none.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = resolve(base)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = _dtype(dtype, device, path)
        options: dict[str, Any] = {"dtype": getattr(torch, kind), "device_map": {"": device}}
        if quantization is not None:
            options["quantization_config"] = _bitsandbytes(quantization, getattr(torch, kind))
        tokenizer = AutoTokenizer.from_pretrained(path)
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(path, **options)
        loads.append(str(path))
        model.eval().requires_grad_(requires_grad=False)
        if len(tokenizer) > model.config.vocab_size:
            raise InputError(
                f"{path}: the tokenizer has {len(tokenizer)} tokens, but the model only {model.config.vocab_size}; "
                "give the tokenizer that belongs to it."
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        template = chat_template if chat_template is not None else tokenizer.chat_template
        tokenizer.chat_template = template
        return cls(path, fingerprint(path), model, tokenizer, template, kind, quantization)

    def add_adapter(self, name: str, path: str | Path) -> Adapter:
        """Add the PEFT adapter in the folder ``path`` under ``name``; adding the same again changes nothing."""
        from peft import PeftModel

        path = Path(path)
        if not (path / "adapter_config.json").is_file():
            raise InputError(f"{path} is no adapter: it holds no adapter_config.json.")
        digest = adapter_fingerprint(path)
        if name in self.adapters:
            if self.adapters[name].fingerprint == digest:
                return self.adapters[name]
            raise InputError(
                f"There is already another adapter {name!r}, from {self.adapters[name].path}."
            )
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(
                f"The adapter name {name!r} may only hold letters, digits, '-' and '_'."
            )
        with _quiet():
            if self.adapters:
                self.model.load_adapter(str(path), adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, str(path), adapter_name=name)
        _require_placed(self.model, name, path)
        self.model.eval()
        self.adapters[name] = Adapter(name, path, digest, _saved_template(path))
        self._switch(self.active)  # PEFT switches to what it loads first
        return self.adapters[name]

    @contextmanager
    def using(self, name: str | None) -> Iterator[LoadedModel]:
        """Everything inside the block is asked of the adapter ``name``, or of the base (None)."""
        if name is not None and name not in self.adapters:
            raise InputError(f"There is no adapter {name!r}{nearest(name, self.adapters) or '.'}")
        before = self.active
        self._switch(name)
        try:
            yield self
        finally:
            self._switch(before)

    def _switch(self, name: str | None) -> None:
        self.active = name
        template = self.adapters[name].chat_template if name is not None else None
        self.tokenizer.chat_template = template if template is not None else self.base_chat_template
        if not self.adapters:
            return
        model: Any = self.model  # PEFT's, whose attributes are looked up at run time
        if name is None:
            model.base_model.disable_adapter_layers()
        else:
            model.base_model.enable_adapter_layers()
            model.set_adapter(name)

    @property
    def adapter_fingerprint(self) -> str | None:
        """The digest of the adapter in use, or None for the base."""
        return None if self.active is None else self.adapters[self.active].fingerprint

    @property
    def chat_template(self) -> str:
        """The template in use; raises `InputError` where there is none."""
        template = self.tokenizer.chat_template
        if not isinstance(template, str):
            raise InputError(
                f"{self.path} has no chat template; give one as chat_template (the recipe that trained it has it)."
            )
        return template

    @property
    def template_hash(self) -> str:
        """sha256 of the chat template in use, as lm-eval records it (``chat_template_sha``)."""
        return hashlib.sha256(self.chat_template.encode()).hexdigest()

    @property
    def context(self) -> int:
        """How many tokens the model was made for."""
        return int(getattr(self.model.config, "max_position_embeddings", 2**31))


def resolve(base: str | Path) -> Path:
    """The folder of a checkpoint: itself, or the local copy of a repository of the hub, downloaded where needed."""
    path = Path(base)
    if (path / "config.json").is_file():
        return path
    if path.exists() or isinstance(base, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise InputError(f"{base} is no checkpoint: it holds no config.json.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "tokenizer.model", "merges.txt", "*.jinja"]
        return Path(snapshot_download(base, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{base} is neither a folder nor could it be downloaded: {reason}"
        ) from error


def _saved_template(folder: Path) -> str | None:
    """The chat template beside an adapter, as transformers writes it (a file of its own) or wrote it."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = (
        json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        if config.is_file()
        else None
    )
    return found if isinstance(found, str) else None


def _dtype(dtype: Dtype, device: str, path: Path) -> str:
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return "bfloat16" if stored == "float16" else stored


def _bitsandbytes(quantization: Quantization, compute: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _require_placed(model: Any, name: str, path: Path) -> None:
    """Every tensor of the adapter's file is in the model, and every one of the model's came from the file."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    saved = set(load_peft_weights(str(path), device="cpu"))
    placed = set(get_peft_model_state_dict(model, adapter_name=name))
    if saved != placed:
        example = min(saved ^ placed)
        raise InputError(
            f"{path} does not fit the model: {len(saved - placed)} of its {len(saved)} tensors have no place and "
            f"{len(placed - saved)} places stay empty, such as {example}."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, which report one step for a checkpoint of one file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
