"""What hosted models cost, and until when they can be asked: a dated table, ``evaluate/prices.yaml``.

AlpacaEval's own table matches ``gpt-4`` as a part of a name, so that gpt-4o costs twelve times too much there; here a
name is a model's whole name, and a model that the table does not know has no price.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from alignboard.engines.openai.addresses import split_address
from alignboard.engines.openai.format import Usage
from alignboard.errors import InputError
from alignboard.suites import convert, read_yaml
from alignboard.workspace import find

_PROVIDERS: Final = frozenset({"api.openai.com", "api.anthropic.com"})
"""who sells the models of the table; anybody else's server that calls a model so has prices of its own"""
SOON: Final = dt.timedelta(days=60)
"""how long before its end a model is said to retire soon"""


class Rate(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """US dollars per million tokens."""

    prompt: float
    answer: float

    def of(self, usage: Usage) -> float | None:
        """What one reply cost; None where the usage does not say."""
        if usage.n_prompt is None or usage.n_answer is None:
            return None
        return (usage.n_prompt * self.prompt + usage.n_answer * self.answer) / 1e6


class ModelPrice(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One hosted model."""

    prompt: float
    answer: float
    batch: Rate | None = None
    retires: dt.date | None = None

    def rate(self, *, batch: bool = False) -> Rate | None:
        """The price of the ordinary interface, or of the batch interface; None where there is none."""
        return self.batch if batch else Rate(self.prompt, self.answer)


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    date: dt.date
    source: str
    models: dict[str, ModelPrice]


@dataclass(frozen=True)
class Prices:
    """The table as it was on ``date``."""

    date: dt.date
    source: str
    models: Mapping[str, ModelPrice]

    def of(self, model: str, *, batch: bool = False, urls: Sequence[str] = ()) -> Rate | None:
        """The price of ``model``; None where the table does not know it, and at ``urls`` other than the providers'."""
        if any(split_address(url).hostname not in _PROVIDERS for url in urls):
            return None
        found = self.models.get(model)
        return None if found is None else found.rate(batch=batch)

    def retired(self, model: str, today: dt.date) -> str | None:
        """As `retirement`, of models that have been switched off."""
        found = self.models.get(model)
        ended = found is not None and found.retires is not None and found.retires <= today
        return self.retirement(model, today) if ended else None

    def retirement(self, model: str, today: dt.date) -> str | None:
        """A sentence where ``model`` has been switched off, or is about to be; None otherwise."""
        found = self.models.get(model)
        if found is None or found.retires is None or found.retires - today > SOON:
            return None
        if found.retires <= today:
            return f"{model} was switched off on {found.retires}"
        return f"{model} will be switched off on {found.retires}, in {(found.retires - today).days} days"


def load_prices(workspace: Path | None = None) -> Prices:
    """The table of the workspace, or else of the library; raises `InputError` that names the file and the field."""
    path = find("evaluate", "prices", workspace)
    if path is None:
        raise InputError("There is no evaluate/prices.yaml, in the workspace or in the library.")
    content = read_yaml(path)
    table = convert(path, content, _Table, "the table of prices")
    for name, price in table.models.items():
        if price.prompt < 0 or price.answer < 0:
            raise InputError(f"{path}: models.{name} has a negative price.")
    return Prices(table.date, table.source, table.models)
