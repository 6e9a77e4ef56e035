"""One load of a base model serves everything that is asked of it: its adapters are swapped, not reloaded.

What this module promises
    `LoadedModel.load` is the one door for every format of checkpoints (`alignboard.models.weights`) and reads a
    checkpoint once (`loads` counts). Adapters are added by name and chosen with ``with model.using(name):``; ``None``
    is the base itself, its adapters switched off. Outputs after a swap are those of a freshly loaded adapter, bit for
    bit. What is loaded is identified by content (`alignboard.models.identity`).
What it refuses
    An adapter that is not this base's (`alignboard.models.adapters`), and a tokenizer larger than the embedding.
    lm-eval resizes embeddings where an adapter is given and not otherwise, so that base and adapter are not like for
    like; here an embedding is resized only for an adapter that holds all rows of another size.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignboard.errors import InputError, nearest
from alignboard.models.adapters import (
    Adapter,
    default_template,
    fit_embedding,
    needs_own_load,
    own_tokenizer,
    read_adapter,
    require_fitting,
    require_placed,
    require_same_base,
)
from alignboard.models.arithmetic import (
    QLORA,
    Arithmetic,
    Attention,
    Dtype,
    FourBit,
    Quantization,
    choose_device,
    choose_dtype,
)
from alignboard.models.ends import ends_of
from alignboard.models.formats import Format, identify
from alignboard.models.hub import locate, locate_adapter, locate_tokenizer
from alignboard.models.identity import fingerprint, fingerprint_with_tokenizer
from alignboard.models.own_decoding import OwnDecoding, read_own_decoding
from alignboard.models.tokenizers import open_tokenizer, quiet
from alignboard.models.weights import open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

loads: Final[list[str]] = []
"""The folder (or GGUF file) of every base model that this process has loaded, in order."""


@dataclass
class LoadedModel:
    """A base model in memory with its tokenizer and adapters; make one with `LoadedModel.load`."""

    path: Path
    """its folder, or its GGUF file"""
    fingerprint: str
    """sha256 over the weights, the configuration and the tokenizer"""
    model: PreTrainedModel | Any
    """transformers' model; PEFT's around it as soon as there is an adapter"""
    tokenizer: PreTrainedTokenizerFast
    base_chat_template: str | None
    dtype: str
    quantization: Quantization | None
    format: Format = "transformers"
    attention: str = "sdpa"
    """the implementation of attention that is in use, never ``auto``"""
    source: str = ""
    """what was asked for: a path, or a repository of the hub"""
    adapters: dict[str, Adapter] = field(default_factory=dict)
    active: str | None = None
    sole: str | None = None
    """the adapter that rewrote the base's weights, which nothing else can then be asked of"""
    base_tokenizer: Any = None
    """the checkpoint's own, or what replaces it; `tokenizer` is the one in use"""

    def __post_init__(self) -> None:
        if self.base_tokenizer is None:
            self.base_tokenizer = self.tokenizer

    @classmethod
    def load(  # noqa: PLR0913 - one keyword for each thing that a registry entry may say
        cls,
        base: str | Path,
        *,
        dtype: Dtype = "auto",
        quantization: Quantization | None = None,
        four_bit: FourBit = QLORA,
        device: str = "auto",
        chat_template: str | None = None,
        format: Format | None = None,  # noqa: A002 - the word the registry has for it
        gguf_file: str | None = None,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
        attn_implementation: Attention = "auto",
        trust_remote_code: bool = False,
    ) -> LoadedModel:
        """Load a checkpoint: a folder, a GGUF file, or a repository of the hub such as ``microsoft/phi-2``.

        ``dtype="auto"`` is float32 on the CPU; on a GPU it is the checkpoint's own type, with bfloat16 in place of
        float16 (the attention of Phi-2 and the activations of Gemma overflow in float16). ``quantization`` loads linear
        layers through bitsandbytes: 4 bits (``four_bit``; as in QLoRA: NF4, double quantisation), or 8.
        ``chat_template`` is for base models that have none.

        ``format`` is found out where it is not given; given, it has to be what is there. ``gguf_file`` names a file of
        a folder of several; its weights are dequantised, so they take the memory of the original. ``tokenizer`` is a
        folder or repository whose tokenizer replaces the checkpoint's own. ``attn_implementation="auto"`` is
        flash-attention 2 where it can be had, else sdpa; `attention` says which. ``trust_remote_code`` lets the Python
        in the repository run.

        Raises `InputError` for what cannot be found, reached, read or matched.
        """
        path, gguf_file = locate(
            base, revision=revision, gguf_file=gguf_file, remote_code=trust_remote_code
        )
        checkpoint = identify(path, gguf_file, format)
        device = choose_device(device)
        how = Arithmetic(
            dtype=choose_dtype(dtype, device, checkpoint.config),
            device=device,
            quantization=quantization,
            four_bit=four_bit,
            attention=attn_implementation,
            remote_code=trust_remote_code,
        )
        other = None if tokenizer is None else locate_tokenizer(tokenizer)
        words = open_tokenizer(checkpoint, other, remote_code=trust_remote_code)
        model = open_model(checkpoint, how)
        loads.append(str(checkpoint.place))
        n_embedded = int(model.config.get_text_config().vocab_size)
        if len(words) > n_embedded:
            raise InputError(
                f"{checkpoint.place}: the tokenizer has {len(words)} tokens, but the model only "
                f"{n_embedded}; give the tokenizer that belongs to it."
            )
        if words.pad_token_id is None:
            words.pad_token = words.eos_token
        template = (
            chat_template if chat_template is not None else default_template(words.chat_template)
        )
        words.chat_template = template
        return cls(
            path=checkpoint.place,
            fingerprint=fingerprint(
                path, gguf_file=gguf_file, tokenizer=other, remote_code=trust_remote_code
            ),
            model=model,
            tokenizer=words,
            base_chat_template=template,
            dtype=how.dtype,
            quantization=quantization,
            format=checkpoint.format,
            attention=str(model.config._attn_implementation),  # noqa: SLF001 - transformers says it nowhere else
            source=str(base),
        )

    def add_adapter(
        self,
        name: str,
        path: str | Path,
        *,
        any_base: bool = False,
        revision: str | None = None,
    ) -> Adapter:
        """Add a PEFT adapter under ``name``; adding the same again changes nothing.

        ``path`` is its folder, or a repository of the hub at ``revision``.
        Raises `InputError` for an adapter that does not fit, or was trained on another base; the latter is allowed
        with ``any_base``, for mirrors and conversions of one model under several names.
        """
        from peft import PeftModel

        path = locate_adapter(path, revision)
        adapter = read_adapter(name, path)
        if name in self.adapters:
            known = self.adapters[name]
            if known.path == adapter.path or known.fingerprint == adapter.fingerprint:
                return self.adapters[name]
            raise InputError(
                f"There is already another adapter {name!r}, from {self.adapters[name].path}."
            )
        if not any_base:
            require_same_base(path, self.path, self.source, self.fingerprint)
        self._require_company(path)
        model: Any = self.model  # PEFT's, as soon as there is an adapter
        base = model.get_base_model() if self.adapters else model
        resized = not self.adapters and fit_embedding(base, path)
        adapter = self._with_tokenizer(adapter)
        require_fitting(base, path)
        before = sampled_weights(base)
        with quiet(), fixed_draws():
            if self.adapters:
                model.load_adapter(str(path), adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(model, str(path), adapter_name=name)
        require_placed(self.model, name, path)
        self.model.eval()
        changed = "the embedding" if resized else changed_weight(before, base)
        if changed is not None:
            self.sole = name
            if self.adapters:
                raise InputError(
                    f"{path} changed {changed} of the base, which other models of this load share; ask it apart from "
                    "them."
                )
        self.adapters[name] = adapter
        self._switch(self.active)  # PEFT switches to what it loads first
        return adapter

    def _require_company(self, path: Path) -> None:
        """Raise `InputError` where the adapter in ``path`` and those of this load cannot share it."""
        alone = [
            one
            for one in (path, *(one.path for one in self.adapters.values()))
            if needs_own_load(one)
        ]
        if self.sole is not None:
            alone.append(self.adapters[self.sole].path)
        if self.adapters and alone:
            raise InputError(
                f"{alone[0]} needs a load of its own (it rewrites the weights of its base, brings or trains an "
                "embedding, or is no LoRA); ask it apart from the other models of that base."
            )

    def _with_tokenizer(self, adapter: Adapter) -> Adapter:
        """The adapter with the tokenizer that it brought, where that is another; its fingerprint then names it, too."""
        words = own_tokenizer(adapter.path, self.base_tokenizer)
        if words is None:
            return adapter
        n_embedded = int(self.model.config.get_text_config().vocab_size)
        if len(words) > n_embedded:
            raise InputError(
                f"{adapter.path} brings a tokenizer of {len(words)} tokens, but the base embeds {n_embedded}; merge "
                "the adapter into a base that was resized to it, and name the merged checkpoint."
            )
        return replace(
            adapter,
            tokenizer=words,
            fingerprint=fingerprint_with_tokenizer(adapter.fingerprint, adapter.path),
        )

    @contextmanager
    def using(self, name: str | None) -> Iterator[LoadedModel]:
        """Everything inside the block is asked of the adapter ``name``, or of the base (None)."""
        if name is not None and name not in self.adapters:
            raise InputError(f"There is no adapter {name!r}{nearest(name, self.adapters) or '.'}")
        if self.sole is not None and name != self.sole:
            raise InputError(
                f"{self.adapters[self.sole].path} rewrote the weights of {self.path}; load that base again to ask it."
            )
        before = self.active
        self._switch(name)
        try:
            yield self
        finally:
            self._switch(before)

    def _switch(self, name: str | None) -> None:
        self.active = name
        template = self.adapters[name].chat_template if name is not None else None
        own = self.adapters[name].tokenizer if name is not None else None
        self.tokenizer = self.base_tokenizer if own is None else own
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
        config: Any = self.model.config
        return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))

    @property
    def end_tokens(self) -> frozenset[int]:
        """The ids that end a reply, but for an entry's ``stop_tokens``; see `alignboard.models.ends`."""
        taught = () if self.active is None else self.adapters[self.active].end_tokens
        configured: Any = self.model.generation_config.eos_token_id
        return frozenset(ends_of(self.tokenizer, configured, taught=taught))

    @property
    def own_decoding(self) -> OwnDecoding:
        """What the generation configuration says besides its end tokens."""
        return read_own_decoding(self.model.generation_config.to_dict(), self.path)


@contextmanager
def fixed_draws() -> Iterator[None]:
    """Torch's random numbers from seed 0 inside the block: PEFT draws what some kinds begin with anew."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sampled_weights(model: Any) -> dict[str, Any]:
    """Some numbers of every weight matrix of a base model, by name: enough to see that one was rewritten."""
    found = {}
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "lora_" not in name and weight.is_floating_point():
            flat = weight.detach().reshape(-1)
            found[name] = flat[:: max(1, flat.numel() // 64)].clone()
    return found


def changed_weight(before: Mapping[str, Any], model: Any) -> str | None:
    """The name of a weight that is no longer as `sampled_weights` saw it; PEFT puts ``base_layer`` into its name."""
    for name, weight in model.named_parameters():
        known = before.get(name, before.get(name.replace(".base_layer.", ".")))
        if known is not None and weight.ndim == 2 and weight.is_floating_point():
            flat = weight.detach().reshape(-1)
            if not flat[:: max(1, flat.numel() // 64)].equal(known):
                return name
    return None
