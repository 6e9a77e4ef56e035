"""What a judge's backend is opened with: access to endpoints, prices, models in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignboard.engines.openai.prices import Rate
from alignboard.engines.openai.served import Limits
from alignboard.models.spec import ModelSpec


@dataclass(frozen=True)
class Access:
    """How judges behind endpoints are asked."""

    urls: tuple[str, ...] = ()
    """in place of the judge's own address"""
    api_key_env: str | None = None
    """the environment variable with the key for ``urls``"""
    allowed_keys: frozenset[str] | None = frozenset()
    """keys that judges' files may have sent to other hosts than they belong to; None: agreed to already"""
    limits: Limits = field(default_factory=Limits)
    rate: Rate | None = None
    """what is paid; None = as the table of prices says, where it knows the model"""
    batch_folder: Path | None = None
    """where batches are kept until they are done; None = the ordinary interface"""


@dataclass(frozen=True)
class Opening(Access):
    """How a declared judge is reached in this run; its ``rate`` is what its tokens cost, where that is known."""

    load: Callable[[Any], tuple[Any, str | None]] | None = None
    """from a registry entry to its loaded model and the name of its adapter; None = a load of its own"""
    workspace: Path | None = None
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    """by judge: its model, at the commit of the hub that the job's key names"""
    device: str = "auto"
    """where models with a head of their own are put"""
