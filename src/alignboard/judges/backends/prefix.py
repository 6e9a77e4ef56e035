"""Keys and values of what prompts begin with alike: read once, attended to by all of them.

A pass over a part of a prompt writes the keys and values of that part behind those of the parts before it, and attends
to all of them. So the next prompt goes on behind the parts that it shares with this one. Of all parts but the last no
more is needed than keys and values, so the pass ends where the last layer has written its own: the rest of that layer,
its feed-forward network above all, is computed for the last token only. transformers' `DynamicCache` would copy every
key at every pass, and drops what is outside a sliding window, where nothing can go on.

Heavy: imports torch and transformers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from alignboard.engines.local.slots import masks


class _Cursor:
    """The columns that the next pass writes; shared by all layers."""

    start: int = 0
    stop: int = 0
    ends: bool = False
    """whether the pass is over when the last layer has written"""


class _Written(Exception):  # noqa: N818 - no error: how a pass ends early
    """Everything that was wanted of a pass is in the cache."""


class _PrefixLayer(CacheLayerMixin):
    """Keys and values of one layer, (rows, columns, heads, head dimension).

    Columns come before heads, as the projections write them: then where a number lies within its column does not
    depend on how many columns there are, and neither does the order in which a kernel reads them.
    """

    is_sliding = False

    def __init__(self, cursor: _Cursor, *, last: bool) -> None:
        super().__init__()
        self.cursor, self.last = cursor, last

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros(rows, 0, heads, size)
        self.values = value_states.new_zeros(rows, 0, heads, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states; everything up to them is attended to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.cursor.start, self.cursor.stop
        self.keys = _grown(self.keys, start, stop)
        self.values = _grown(self.values, start, stop)
        self.keys[:, start:stop] = key_states.transpose(1, 2)
        self.values[:, start:stop] = value_states.transpose(1, 2)
        if self.last and self.cursor.ends:
            raise _Written
        return self.keys[:, :stop].transpose(1, 2), self.values[:, :stop].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a pass without a mask of its own: the first, which sees nothing but itself."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """As above."""
        return 0

    def get_max_length(self) -> int:
        return -1


def _grown(states: torch.Tensor | None, kept: int, needed: int) -> torch.Tensor:
    """``states`` with room for ``needed`` columns; the first ``kept`` stay."""
    assert states is not None  # noqa: S101 - set by lazy_initialization
    if states.shape[1] >= needed:
        return states
    size = max(needed, states.shape[1] * 5 // 4)
    grown = states.new_empty(states.shape[0], size, *states.shape[2:])
    grown[:, :kept] = states[:, :kept]
    return grown


class PrefixCache(Cache):
    """The keys and values of some rows that all have one length."""

    def __init__(self, model: Any) -> None:
        self.cursor = _Cursor()
        config = model.config.get_text_config()
        n = config.num_hidden_layers
        self.own_layers = [_PrefixLayer(self.cursor, last=k == n - 1) for k in range(n)]
        super().__init__(layers=list(self.own_layers))

    def write(self, model: Any, ids: torch.Tensor, start: int) -> None:
        """Keep the keys and values of ``ids`` (rows, n) behind the first ``start`` columns."""
        self.cursor.ends = True
        with suppress(_Written):
            self._forward(model, ids, start, 1)

    def read(
        self, model: Any, ids: torch.Tensor, start: int, keep: int | torch.Tensor
    ) -> torch.Tensor:
        """Likewise, and the logits at the places ``keep`` of ``ids``."""
        self.cursor.ends = False
        return self._forward(model, ids, start, keep)

    def _forward(
        self, model: Any, ids: torch.Tensor, start: int, keep: int | torch.Tensor
    ) -> torch.Tensor:
        stop = start + ids.shape[1]
        self.cursor.start, self.cursor.stop = start, stop
        positions = torch.arange(start, stop, device=ids.device)
        config = model.config.get_text_config()
        mask = None
        # Without a mask the first pass takes the causal kernels; flash attention aligns a causal pass at its end.
        if start and not config._attn_implementation.startswith("flash"):  # noqa: SLF001 - no public name
            mask = _as_queries(masks(config, positions, stop, model.dtype))
        with torch.inference_mode():
            return model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions[None].expand(ids.shape[0], -1),
                past_key_values=self,
                use_cache=True,
                logits_to_keep=keep,
            ).logits

    def spread(self, model: Any, rows: int, columns: int) -> PrefixCache:
        """A cache of ``rows`` rows that all begin with the first ``columns`` columns of this one's only row."""
        found = PrefixCache(model)
        with torch.inference_mode():
            for mine, its in zip(self.own_layers, found.own_layers, strict=True):
                for name in ("keys", "values"):
                    states = getattr(mine, name)[:, :columns]
                    setattr(its, name, states.repeat(rows, 1, 1, 1))
                its.is_initialized = True
        return found


def _as_queries(mask: Any) -> Any:
    """`masks` makes one row of every position; here they are the queries of one row: (1, 1, queries, columns)."""
    if isinstance(mask, dict):
        return {kind: _as_queries(one) for kind, one in mask.items()}
    return mask.permute(1, 2, 0, 3)
