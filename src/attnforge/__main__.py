"""``python -m attnforge``."""

from attnforge.cli.main import run

run()
