"""Weights that each process holds a part of (fsdp2, zero3), and how what is read of them is whole.

Heavy: imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor


def trained(model: Any) -> dict[str, torch.Tensor]:
    """What training changes: the weights that take a gradient, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@contextmanager
def whole(weights: Mapping[str, torch.Tensor]) -> Iterator[Mapping[str, torch.Tensor]]:
    """``weights`` with the parts of all processes, each of which has to open the context; to be read, not changed."""
    if any(hasattr(weight, "ds_id") for weight in weights.values()):  # DeepSpeed has parted them
        from deepspeed import zero  # pyright: ignore[reportMissingImports] - nothing requires it

        with zero.GatheredParameters(list(weights.values())):
            yield weights
        return
    yield {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in weights.items()
    }
