"""Our own version."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("attnforge")
BUILDER = f"attnforge {VERSION}"
