"""Where responses lie: in the folder of their set below the model's, one folder for each decoding of the set.

``results/<model>/[<set>/]model_outputs.json`` has the decoding that came first, and ``decoding.json`` beside it says
which that is. Another decoding of the set goes to ``results/<model>/<set>-<decoding>/``, so that neither takes the
other's place. Responses without such a record (of earlier versions, or from elsewhere) are replaced as ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from alignboard.errors import InputError
from alignboard.results.files import UNREADABLE
from alignboard.workspace import model_name

ALPACA_EVAL: Final = "alpaca-eval"
"""the set without a folder of its own: its responses lie where boards of AlpacaEval look for them"""
RECORD: Final = "decoding.json"
_DECODED: Final = re.compile(r"-temperature-[^/]+-max_new_tokens-\d+$")


def set_place(model: str, set_name: str) -> Path:
    """The folder of a model's responses to a set, below the workspace."""
    folder = Path("results") / model_name(model)
    return folder if set_name == ALPACA_EVAL else folder / model_name(set_name)


def outputs_place(workspace: Path, model: str, set_name: str, decoding: Mapping[str, Any]) -> Path:
    """The same for one decoding: the set's own folder, or its neighbour where another decoding came first."""
    own = set_place(model, set_name)
    there = _decoding_of(workspace / own)
    if there is None or there == decoding:
        return own
    parts = [
        f"{name}-{_spelled(decoding[name])}"
        for name in ("temperature", "top_p", "seed", "max_new_tokens")
        if name in decoding
    ]
    return Path("results") / model_name(model) / model_name("-".join([set_name, *parts]))


def _spelled(number: float) -> str:
    """A number in short, but never two in the same way: seeds are often dates."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def without_decoding(folder: str) -> str:
    """The set whose responses a folder holds.

    >>> without_decoding("mt-bench-temperature-0.7-top_p-1-seed-2-max_new_tokens-512")
    'mt-bench'
    """
    return _DECODED.sub("", folder)


def _decoding_of(folder: Path) -> Any:
    """The decoding of the responses in ``folder``, where there are any and it is known."""
    if not any(path.is_file() for path in folder.glob("model_*.json*")):
        return None
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise InputError(f"{folder / RECORD} cannot be read: {error}; remove it.") from error
