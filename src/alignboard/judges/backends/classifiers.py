"""Loading models whose head is not a vocabulary: reward models and pair rankers. A missing head is an error.

transformers would draw the weights of a head that a checkpoint does not have, and say so in a warning: such a judge
decides at random. Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignboard.engines.generate import library_versions
from alignboard.errors import InputError
from alignboard.models.adapters import require_placed
from alignboard.models.arithmetic import (
    Arithmetic,
    choose_device,
    choose_dtype,
    load_options,
)
from alignboard.models.formats import identify
from alignboard.models.hub import locate, locate_adapter, locate_tokenizer
from alignboard.models.identity import adapter_fingerprint, fingerprint
from alignboard.models.spec import ModelSpec
from alignboard.models.tokenizers import open_tokenizer, quiet


@dataclass(frozen=True)
class Classifier:
    """A model with a head of its own, and its tokenizer."""

    path: Path
    model: Any
    tokenizer: Any
    fingerprint: str
    dtype: str
    quantization: str | None = None
    adapter_fingerprint: str | None = None

    @property
    def context(self) -> int:
        """How many tokens it was made for."""
        return int(getattr(self.model.config, "max_position_embeddings", 2**31))

    def identity(self, scheme: str, **more: Any) -> dict[str, Any]:
        """All that determines a score except the texts."""
        return {
            "scheme": scheme,
            "weights": self.fingerprint,
            "adapter": self.adapter_fingerprint,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "device": self.model.device.type,
            "libraries": library_versions("torch", "transformers", "peft"),
            **more,
        }

    def logits(self, ids: Sequence[int]) -> Any:
        """What the head says of one text, read alone: so it depends on the text alone."""
        import torch

        rows = torch.tensor([list(ids)], device=self.model.device)
        with torch.inference_mode():
            output = self.model(input_ids=rows, attention_mask=torch.ones_like(rows))
        return output.logits[0].double()


def open_classifier(
    entry: ModelSpec, kind: Any, *, device: str = "auto", **options: Any
) -> Classifier:
    """The checkpoint of a registry entry as a model of the class ``kind``, with its adapter merged into no weight.

    Raises `InputError` for what cannot be found, read or matched.
    """
    if entry.unsupported is not None:
        raise InputError(f"{entry.name}: {entry.base} cannot be loaded: {entry.unsupported}.")
    if entry.trust_remote_code:
        raise InputError(f"{entry.name} runs Python of its own repository, which judges do not.")
    path, gguf_file = locate(entry.base, revision=entry.revision, gguf_file=entry.gguf_file)
    checkpoint = identify(path, gguf_file, entry.format)
    if checkpoint.format != "transformers":
        raise InputError(
            f"{checkpoint.place} is {checkpoint.format}; a judge with a head needs the original weights."
        )
    device = choose_device(device)
    dtype = choose_dtype(entry.dtype, device, checkpoint.config)
    how = Arithmetic(dtype=dtype, device=device, quantization=entry.quantization)
    other = None if entry.tokenizer is None else locate_tokenizer(entry.tokenizer)
    adapter = None if entry.adapter is None else locate_adapter(entry.adapter)
    with quiet():
        model, report = kind.from_pretrained(
            path,
            **options,
            **load_options(how, None),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    missing = set(report["missing_keys"]) | {str(key) for key in report["mismatched_keys"]}
    if adapter is not None:
        missing -= _brought(adapter, missing)
    if missing:
        raise InputError(
            f"{path} is no {type(model).__name__}: its weights lack {len(missing)} that it needs, such as "
            f"{min(missing)}."
        )
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model.eval().requires_grad_(requires_grad=False)
    return Classifier(
        path,
        model,
        open_tokenizer(checkpoint, other),
        fingerprint(path, tokenizer=other),
        dtype,
        entry.quantization,
        None if adapter is None else adapter_fingerprint(adapter),
    )


def _brought(adapter: Path, names: set[str]) -> set[str]:
    """Those of ``names`` that the adapter's file holds."""
    from peft.utils import load_peft_weights

    saved = set(load_peft_weights(str(adapter), device="cpu"))
    return {name for name in names if f"base_model.model.{name}" in saved}


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    with quiet():
        found = PeftModel.from_pretrained(model, str(adapter))
    require_placed(found, "default", adapter)
    return found
