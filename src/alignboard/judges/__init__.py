"""Judges: pairs of responses in, verdicts out."""
