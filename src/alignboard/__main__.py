"""``python -m alignboard``."""

from alignboard.cli.main import main

main()
