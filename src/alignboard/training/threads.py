"""How many threads torch runs on while a tiny model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

TINY_PARAMETERS: Final = 5_000_000
"""below this a CPU trains fastest on one thread, and deterministically"""


def few_threads(base: Any) -> AbstractContextManager[None]:
    """One thread where ``base`` is tiny and there is no GPU."""
    import torch

    small = base.num_parameters() < TINY_PARAMETERS and not torch.cuda.is_available()
    return one_thread() if small else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: faster than several for matrices this small, and the order of sums is fixed."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
