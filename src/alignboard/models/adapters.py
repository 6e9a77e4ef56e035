"""PEFT adapters: what one is, and whether it belongs to the base model that it is put on.

What this module knows
    Some adapters (PiSSA, OLoRA, CorDA, LoftQ, KaSA) rewrite the base's weights when they are added: every other model
    of the load would then be another one (peft#2184). They get a load of their own (`rewrites_base`).
What this module refuses
    An adapter whose weights do not all find their place: PEFT only warns, and adapters for other layer names then
    silently do nothing (peft#1375). One whose matrices have another shape than the base's layers. One that says it was
    trained on another base, unless that is asked for: weights of the right shape on the wrong base answer, badly.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

from alignboard.errors import InputError
from alignboard.fetch.packages import is_packaged
from alignboard.models.hub import is_repository
from alignboard.models.identity import adapter_fingerprint, fingerprint
from alignboard.models.tokenizers import prepares, read_tokenizer
from alignboard.results.files import read_json_object
from alignboard.workspace import STORE

_REWRITING: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""values of ``init_lora_weights``, or how they begin, with which PEFT changes the base when it adds an adapter"""
_PROMPTS: Final = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT")
_NOT_ASKED: Final = frozenset(
    (*_PROMPTS, "CARTRIDGE", "ADAPTION_PROMPT", "POLY", "XLORA", "SHADOW")
)
"""kinds that need more than a prompt: tokens without a text before it, a task's number, a second pass"""
_SETTINGS: Final = {
    "alora_invocation_tokens": "an activated LoRA, which begins to work at tokens inside the prompt",
    "layer_replication": "a LoRA on repeated layers (layer_replication), another network than its base",
    "arrow_config": "a router of other adapters (arrow_config)",
}
"""settings of a LoRA whose prompts cannot share the base's forward pass, in words"""
_EMBEDDING: Final = re.compile(r".*(?:embed_tokens|lm_head|wte|embed_out)\b.*weight")
_HEAD: Final = re.compile(r"lm_head|embed_out")
_LORA: Final = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")


@dataclass(frozen=True)
class Adapter:
    """An adapter that was added to a loaded base model."""

    name: str
    path: Path
    fingerprint: str
    chat_template: str | None
    """the template it was trained with, where its folder says so; otherwise the base's is used"""
    end_tokens: tuple[str, ...] = ()
    """the spellings that its training taught as the end of a reply"""
    tokenizer: Any = None
    """its own, where it brought one that reads texts otherwise than the base's; otherwise the base's is used"""


def read_adapter(name: str, path: Path) -> Adapter:
    """The adapter in the folder ``path``; raises `InputError` where there is none, and for a name PEFT cannot hold."""
    require_kind(path)
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"The adapter name {name!r} may only hold letters, digits, '-' and '_'.")
    return Adapter(name, path, adapter_fingerprint(path), saved_template(path), taught_ends(path))


def require_kind(path: Path) -> None:
    """Raise `InputError` where the folder ``path`` holds no adapter, or one of a kind that cannot be asked."""
    if not (path / "adapter_config.json").is_file():
        raise InputError(f"{path} is no adapter: it holds no adapter_config.json.")
    config = read_json_object(path / "adapter_config.json")
    kind = config.get("peft_type")
    found = f"an adapter of the kind {kind}" if kind in _NOT_ASKED else None
    found = found or next((words for name, words in _SETTINGS.items() if config.get(name)), None)
    if str(config.get("init_lora_weights")).casefold().startswith("pissa_niter"):
        raise InputError(
            f"{path} is a PiSSA of drawn numbers, which are not saved; where it was trained, save it as a plain LoRA "
            "(path_initial_model_for_weight_conversion of PEFT's save_pretrained)."
        )
    if found is not None:
        raise InputError(
            f"{path} is {found}; generation does not support it: train one that changes weights, such as LORA."
        )


def rewrites_base(path: Path) -> bool:
    """Whether PEFT changes the base's own weights when it adds the adapter in ``path``."""
    config = read_json_object(path / "adapter_config.json")
    kind = config.get("init_lora_weights")
    drawn = isinstance(kind, str) and kind.casefold().startswith(_REWRITING)
    return drawn or bool(config.get("kasa_config"))


def needs_own_load(path: Path) -> bool:
    """Whether the adapter in ``path`` cannot share a load with others.

    It rewrites the base's weights, brings a vocabulary with its embedding, or is of a kind beside which PEFT cannot add
    another: one that trains rows of the embedding (``trainable_token_indices``), or no LoRA.
    """
    config = read_json_object(path / "adapter_config.json")
    other_kind = config.get("peft_type", "LORA") != "LORA"
    brings_words = (path / "tokenizer.json").is_file() and bool(_embedded(path))
    return (
        rewrites_base(path)
        or other_kind
        or bool(config.get("trainable_token_indices"))
        or brings_words
    )


def embedded_rows(path: Path) -> int | None:
    """How many tokens the embedding has that the adapter in ``path`` holds; None where it holds none."""
    return max(_embedded(path).values(), default=None)


def _embedded(path: Path) -> dict[str, int]:
    """The rows of the embedding and the head that an adapter's file holds whole, by their names."""
    file = path / "adapter_model.safetensors"
    if not file.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as held:
            names = [name for name in held.keys() if _EMBEDDING.fullmatch(name)]  # noqa: SIM118 - no mapping
            shapes = {name: held.get_slice(name).get_shape() for name in names}
    except (OSError, SafetensorError):
        return {}  # said where the weights are read
    return {
        name: shape[0]
        for name, shape in shapes.items()
        if len(shape) == 2 and ".lora_" not in name and "token_adapter" not in name
    }


def fit_embedding(model: Any, path: Path) -> bool:
    """Give ``model`` an embedding of the size that the adapter in ``path`` holds whole; whether it was another size.

    Raises `InputError` where the file lacks the embedding or the head: the rows that are new would be random.
    """
    rows, known = _embedded(path), int(model.config.get_text_config().vocab_size)
    if not rows or set(rows.values()) == {known}:
        return False
    if len(set(rows.values())) > 1 or len({_HEAD.search(name) is None for name in rows}) < 2:
        raise InputError(
            f"{path} was trained with an embedding of {max(rows.values())} tokens, its base has {known}, and it does "
            "not hold both the embedding and the head; merge it into the base that it was trained on, and name the "
            "merged checkpoint."
        )
    model.resize_token_embeddings(max(rows.values()), mean_resizing=False)
    model.eval().requires_grad_(requires_grad=False)
    return True


def own_tokenizer(path: Path, base: Any) -> Any:
    """The tokenizer in an adapter's folder, where it reads texts otherwise than ``base``; None where it does not.

    Raises `InputError` where it cannot be loaded.
    """
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    found = adapter_tokenizer(path)
    if _reads_as(found) == _reads_as(base):
        return None
    if found.pad_token_id is None:
        found.pad_token = found.eos_token
    return found


def adapter_tokenizer(path: Path) -> Any:
    """The tokenizer in an adapter's folder; raises `InputError` where its files are no tokenizer."""
    try:
        return read_tokenizer(path)
    except (ImportError, LookupError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: the adapter's tokenizer cannot be loaded ({' '.join(str(error).split())}); remove its tokenizer "
            "files to use the base's."
        ) from error


def _reads_as(tokenizer: Any) -> tuple[Any, ...]:
    """What decides how a tokenizer reads texts, as far as adapters change it."""
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return (
        tokenizer.get_vocab(),
        special,
        sorted(tokenizer.added_tokens_decoder),
        prepares(tokenizer),
    )


def stated_base(path: Path) -> str | None:
    """The base that the adapter in ``path`` names: an id, or where that folder is now.

    Trainings of a workspace name their base from the workspace on, and folders of jobs keep their names when it moves.
    """
    base = read_json_object(path / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str):
        return None
    parts = Path(base).parts
    if STORE not in parts or os.path.exists(base):  # noqa: PTH110 - any text is a name
        return base
    made = Path(*parts[parts.index(STORE) :])
    here = (folder / made for folder in path.resolve().parents)
    return next((str(place) for place in here if place.is_dir()), base)


def require_same_base(path: Path, base: Path, source: str, base_fingerprint: str) -> None:
    """The adapter in ``path`` was trained on this base, as far as that can be known.

    Where both name a repository of the hub the names have to agree; where the adapter names a checkpoint on this disk
    the contents have to. A folder that is gone says nothing.
    """
    trained_on = stated_base(path)
    if trained_on is None or trained_on in {"", source, str(base)}:
        return
    if Path(trained_on).resolve() == base.resolve():
        return
    if (Path(trained_on) / "config.json").is_file():
        differs = fingerprint(Path(trained_on)) != base_fingerprint
    else:
        elsewhere = not Path(source).exists()
        both = elsewhere and all(
            is_repository(one) or is_packaged(one) for one in (trained_on, source)
        )
        differs = both and trained_on.casefold() != source.casefold()
    if differs:
        raise InputError(
            f"{path} was trained on {trained_on}, not on {source}; load that base, or say any_base: true in the entry "
            "where the two are known to have the same weights."
        )


def require_fitting(model: Any, path: Path) -> None:
    """Every LoRA matrix in ``path`` has a layer of ``model`` to go to, of its shape; nothing is changed yet."""
    modules = dict(model.named_modules())
    saved = _weights(path)
    homeless, other_shape = [], []
    n_embedded = int(model.config.get_text_config().vocab_size)
    for name, tensor in saved.items():
        if _EMBEDDING.fullmatch(name) and ".lora_" not in name and tensor.ndim == 2:
            if "token_adapter" not in name and tensor.shape[0] != n_embedded:
                raise InputError(
                    f"{path} was trained with an embedding of {tensor.shape[0]} tokens, and its base has {n_embedded}; "
                    "save it as adapter_model.safetensors, or merge it and name the merged checkpoint."
                )
            continue
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


def _weights(path: Path) -> dict[str, Any]:
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    try:
        return load_peft_weights(str(path), device="cpu")
    except (OSError, ValueError, UnpicklingError, SafetensorError) as error:
        raise InputError(
            f"{path}: the adapter's weights cannot be read; copy or download them again "
            f"({' '.join(str(error).split())})."
        ) from error


def require_placed(model: Any, name: str, path: Path) -> None:
    """Every tensor of the adapter's file is in the model, and every one of the model's came from the file."""
    from peft import get_peft_model_state_dict

    saved = set(_weights(path))
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
    return default_template(read_json_object(config).get("chat_template"))


def default_template(template: Any) -> str | None:
    """The chat template of a tokenizer; of several by name (Command R+, Hermes 2 Pro) the one called ``default``.

    Several come as a mapping, or as the list of ``{name, template}`` that ``tokenizer_config.json`` holds.
    """
    if isinstance(template, list):
        template = {
            one.get("name"): one.get("template") for one in template if isinstance(one, dict)
        }
    found = template.get("default") if isinstance(template, dict) else template
    return found if isinstance(found, str) else None


def taught_ends(adapter: Path) -> tuple[str, ...]:
    """The spellings that an adapter's training taught as the end of a reply; none where its folder does not say."""
    card = adapter / "training.json"
    if not card.is_file():
        return ()
    found = read_json_object(card).get("end_tokens")
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
