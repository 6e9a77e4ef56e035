"""alignboard: evaluation and benchmarking of preference-tuned language models."""

__version__ = "0.1.0"
