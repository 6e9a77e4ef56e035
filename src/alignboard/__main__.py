"""``python -m alignboard``."""

from alignboard.cli.app import main

main()
