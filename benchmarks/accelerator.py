"""What the benchmarks ask of an accelerator: 7B shapes, the rates that it can reach at most, and what takes the time.

Everything runs on a CPU as well, on a tiny shape, so that the tests can run what a GPU is rarely there for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

SHAPES: Final[dict[str, dict[str, Any]]] = {
    "Mistral-7B": {"num_key_value_heads": 8, "intermediate_size": 14336},
    "Llama-2-7B": {"num_key_value_heads": 32, "intermediate_size": 11008},
}
"""in these sizes only they differ from each other and from `LlamaConfig`'s own; no prompt reaches Mistral's window"""
TINY: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
BANDWIDTH: Final = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12}
"""bytes per second as published; another device's is measured by a copy"""


def name_of(device: str) -> str:
    """What the device is called."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def seconds_of(run: Callable[[], Any], device: str) -> tuple[float, float]:
    """(seconds, peak memory in GB on a CUDA device)."""
    import torch

    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0


def matrix_rate(device: str, n: int) -> float:
    """Floating-point operations per second of a large matrix product, the best of ten."""
    import torch

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    one, other = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = [seconds_of(lambda: one @ other, device)[0] for _ in range(10)]
    return 2 * n**3 / min(seconds)


def bandwidth_of(device: str, n_bytes: int = 1 << 30) -> float:
    """Bytes per second of the device's memory: as published, else of a copy, the best of five."""
    import torch

    for known, rate in BANDWIDTH.items():
        if known in name_of(device):
            return rate
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [seconds_of(lambda: target.copy_(source), device)[0] for _ in range(5)]
    return 2 * n_bytes / min(seconds)


def most_time(run: Callable[[], Any], device: str, n: int = 8) -> list[tuple[str, float]]:
    """The operations that took most of the time of ``device``, each with its share."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        run()
    field = "self_device_time_total" if cuda else "self_cpu_time_total"
    spent = {row.key: float(getattr(row, field)) for row in recorded.key_averages()}
    total = sum(spent.values()) or 1.0
    ranked = sorted(spent.items(), key=lambda one: -one[1])[:n]
    return [(name, time_spent / total) for name, time_spent in ranked]


def busy(run: Callable[[], Any], device: str) -> float:
    """The share of the time in which ``device`` computed something: the rest it waited for the next operation."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device == "cuda"
    activities = [ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        seconds, _ = seconds_of(run, device)
    field = "self_device_time_total" if cuda else "self_cpu_time_total"
    return sum(float(getattr(row, field)) for row in recorded.key_averages()) / 1e6 / seconds
