"""Instruction sets and preference data."""
