"""Instruction sets and preference data: the demo's world."""
