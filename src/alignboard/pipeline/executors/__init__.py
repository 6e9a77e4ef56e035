"""Executors of jobs."""
