"""Engines: prompts in, generations out."""
