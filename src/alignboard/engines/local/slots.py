"""A cache of keys and values with places that rows take and leave: what continuous batching needs of it.

Living rows hold the places ``0 .. n-1``, each from column 0 on, so nothing is ever padded on the left or shifted. A row
that ends leaves its place to the last one (one copy of a row), new rows come behind the last (their prompts run alone,
so the fast causal kernels apply), and a step writes one column per row in place. transformers' `DynamicCache` copies
every key and value at every step instead; its `StaticCache` has one length for all rows.

Heavy: imports torch and transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_CHUNK = 64
"""columns by which the cache grows at least"""


class _Cursor:
    """Where the next forward pass writes; shared by all layers."""

    first: int = 0
    """the place of the first new row, where prompts are read"""
    positions: torch.Tensor | None = None
    """(rows,): the column of each living row's token; None where prompts are read"""
    rows: torch.Tensor | None = None
    """(rows,): 0, 1, ..."""
    length: int = 0
    """the columns that are in use"""


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, (places, heads, columns, head dimension)."""

    is_sliding = False

    def __init__(self, cursor: _Cursor, slots: int, longest: int) -> None:
        super().__init__()
        self.cursor, self.slots, self.longest = cursor, slots, longest

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_zeros(self.slots, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(
            self.slots, value_states.shape[1], 0, value_states.shape[3]
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states; what attention reads: the prompts' own, or everything of the living rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        cursor = self.cursor
        self.keys = self._grown(self.keys)
        self.values = self._grown(self.values)
        if cursor.positions is None:
            indices = slice(cursor.first, cursor.first + key_states.shape[0])
            self.keys[indices, :, : key_states.shape[2]] = key_states
            self.values[indices, :, : key_states.shape[2]] = value_states
            return key_states, value_states
        n = len(cursor.positions)
        self.keys[cursor.rows, :, cursor.positions] = key_states[:, :, 0]
        self.values[cursor.rows, :, cursor.positions] = value_states[:, :, 0]
        return self.keys[:n, :, : cursor.length], self.values[:n, :, : cursor.length]

    def _grown(self, states: torch.Tensor | None) -> torch.Tensor:
        """``states`` with room for what is about to be written. Zeros: what is masked must still be finite."""
        assert states is not None  # noqa: S101 - set by lazy_initialization
        columns, needed = states.shape[2], self.cursor.length
        if columns >= needed:
            return states
        size = min(self.longest, max(needed, columns * 5 // 4) + _CHUNK)
        grown = states.new_zeros(*states.shape[:2], size, states.shape[3])
        grown[:, :, :columns] = states
        return grown

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a pass over prompts, which sees nothing but itself."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """As above."""
        return 0

    def get_max_length(self) -> int:
        return self.longest


class SlotCache(Cache):
    """The cache of at most ``slots`` rows of at most ``longest`` tokens; memory grows with what is used."""

    def __init__(self, layers: int, slots: int, longest: int) -> None:
        self.cursor = _Cursor()
        # A multiple of 16 columns: kernels that read masks want aligned rows.
        longest = -(-longest // 16) * 16
        super().__init__(layers=[_SlotLayer(self.cursor, slots, longest) for _ in range(layers)])

    def read_prompts(self, first: int, longest: int) -> None:
        """The next pass reads prompts, the longest of ``longest`` tokens, into the places from ``first`` on."""
        self.cursor.first, self.cursor.positions = first, None
        self.cursor.length = max(longest, 1)

    def step(self, positions: torch.Tensor, longest: int) -> None:
        """The next pass adds one token to every living row, at ``positions``, the last of which is ``longest - 1``."""
        self.cursor.positions = positions
        self.cursor.rows = torch.arange(len(positions), device=positions.device)
        self.cursor.length = -(-longest // 16) * 16

    def move(self, source: int, target: int, length: int) -> None:
        """Let the row at ``source``, of ``length`` tokens, take the place ``target``."""
        with torch.inference_mode():
            for layer in self.layers:
                assert isinstance(layer, _SlotLayer)  # noqa: S101 - what the constructor made
                for states in (layer.keys, layer.values):
                    if states is not None:
                        states[target, :, :length] = states[source, :, :length]


def masks(config: Any, positions: torch.Tensor, length: int, dtype: torch.dtype) -> Any:
    """What each row's token may attend to, (rows, 1, 1, length): its own columns up to ``positions``."""
    columns = torch.arange(length, device=positions.device)
    seen = (columns <= positions[:, None])[:, None, None]
    return attended(config, seen, (positions[:, None] - columns)[:, None, None], dtype)


def attended(config: Any, seen: torch.Tensor, back: torch.Tensor, dtype: torch.dtype) -> Any:
    """The masks of a pass whose tokens may attend to what is ``seen``, which lies ``back`` positions before them.

    A model of which every layer slides (Mistral-7B-v0.1) gets the mask of its window, one of both kinds gets both by
    name, as its `forward` takes them.
    """
    kinds = {"full_attention": seen}
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if not layers:
        layers = {"sliding_attention"} if window is not None else {"full_attention"}
    if window is not None:
        kinds["sliding_attention"] = seen & (back < window)
    found = {kind: _as_read(config, kinds[kind], dtype) for kind in layers}
    return found if len(found) > 1 else next(iter(found.values()))


def _as_read(config: Any, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Eager attention adds its mask; sdpa takes it as truth values."""
    if config._attn_implementation != "eager":  # noqa: SLF001 - transformers has no public name for it
        return mask
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)


def fits(model: Any) -> bool:
    """Whether a model reads this cache: transformers' attention interface, and no layers but attention."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ())
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return bool(getattr(base, "_supports_attention_backend", False)) and layers <= {
        "full_attention",
        "sliding_attention",
    }
