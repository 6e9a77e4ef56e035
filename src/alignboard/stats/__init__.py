"""Comparison statistics: arrays in, frozen dataclasses out; no files, no models, no randomness of its own."""
