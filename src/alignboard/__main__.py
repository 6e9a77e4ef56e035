"""``python -m alignboard``."""

from alignboard.cli import main

main()
