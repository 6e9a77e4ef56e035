"""The command line: one module per command, each parses, calls one function and prints."""

from alignboard.cli.app import main

__all__ = ["main"]
