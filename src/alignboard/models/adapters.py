"""PEFT adapters: what one is, and whether it belongs to the base model that it is put on.

What this module refuses
    An adapter whose weights do not all find their place: PEFT only warns, and adapters for other layer names then
    silently do nothing (peft#1375). One whose matrices have another shape than the base's layers. One that says it was
    trained on another base, unless that is asked for: weights of the right shape on the wrong base answer, badly.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.models.hub import is_repository
from alignboard.models.identity import adapter_fingerprint, fingerprint
from alignboard.results.files import read_json_object

_LORA: Final = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")


@dataclass(frozen=True)
class Adapter:
    """An adapter that was added to a loaded base model."""

    name: str
    path: Path
    fingerprint: str
    chat_template: str | None
    """the template it was trained with, where its folder says so; otherwise the base's is used"""


def read_adapter(name: str, path: Path) -> Adapter:
    """The adapter in the folder ``path``; raises `InputError` where there is none, and for a name PEFT cannot hold."""
    if not (path / "adapter_config.json").is_file():
        raise InputError(f"{path} is no adapter: it holds no adapter_config.json.")
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"The adapter name {name!r} may only hold letters, digits, '-' and '_'.")
    return Adapter(name, path, adapter_fingerprint(path), saved_template(path))


def require_same_base(path: Path, base: Path, source: str, base_fingerprint: str) -> None:
    """The adapter in ``path`` was trained on this base, as far as that can be known.

    Where both name a repository of the hub the names have to agree; where the adapter names a checkpoint on this disk
    the contents have to. A folder that is gone says nothing.
    """
    config = read_json_object(path / "adapter_config.json")
    trained_on = config.get("base_model_name_or_path")
    if not isinstance(trained_on, str) or trained_on in {"", source, str(base)}:
        return
    if (Path(trained_on) / "config.json").is_file():
        differs = fingerprint(Path(trained_on)) != base_fingerprint
    else:
        both = is_repository(trained_on) and is_repository(source) and not Path(source).exists()
        differs = both and trained_on.casefold() != source.casefold()
    if differs:
        raise InputError(
            f"{path} was trained on {trained_on}, not on {source}; load that base, or say any_base where the two are "
            "known to have the same weights."
        )


def require_fitting(model: Any, path: Path) -> None:
    """Every LoRA matrix in ``path`` has a layer of ``model`` to go to, of its shape; nothing is changed yet."""
    from pickle import (
        UnpicklingError,  # raised for a file that holds more than tensors; nothing is unpickled here
    )

    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    modules = dict(model.named_modules())
    try:
        saved = load_peft_weights(str(path), device="cpu")
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the adapter's weights cannot be read: {reason}") from error
    homeless, other_shape = [], []
    for name, tensor in saved.items():
        found = _LORA.fullmatch(name)
        if found is None:
            continue
        layer = modules.get(found[1])
        if layer is None:
            homeless.append(name)
            continue
        size = "in_features" if found[2] == "A" else "out_features"
        expected, given = getattr(layer, size, None), tensor.shape[1 if found[2] == "A" else 0]
        if tensor.ndim == 2 and expected is not None and expected != given:
            other_shape.append(f"{name} ({given} in place of {expected})")
    if homeless:
        raise InputError(
            f"{path} does not fit the model: {len(homeless)} of its {len(saved)} tensors have no place, such as "
            f"{min(homeless)}; load the base that it was trained on."
        )
    if other_shape:
        raise InputError(
            f"{path} does not fit the model: {len(other_shape)} of its {len(saved)} tensors have another shape, such "
            f"as {min(other_shape)}; load the base that it was trained on."
        )


def require_placed(model: Any, name: str, path: Path) -> None:
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


def saved_template(folder: Path) -> str | None:
    """The chat template in a checkpoint's or an adapter's folder: a file of its own, or in the tokenizer's."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    if not config.is_file():
        return None
    found = read_json_object(config).get("chat_template")
    return found if isinstance(found, str) else None
