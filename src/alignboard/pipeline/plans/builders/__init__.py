"""Builders of a plan's jobs, one module for each kind of work."""
