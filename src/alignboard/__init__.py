"""alignboard: evaluation and benchmarking of preference-tuned language models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignboard.reports.compare import compare

__all__ = ["__version__", "compare"]
__version__ = "0.1.0"

# Public functions by their module, which is imported when the name is first used.
_PUBLIC = {"compare": "alignboard.reports.compare"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'alignboard' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
