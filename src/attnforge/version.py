"""Our own version."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

VERSION = version("attnforge")
BUILDER = f"attnforge {VERSION}"


@cache
def fingerprint() -> str:
    """Return a digest of our own code and data: what an earlier build finished is used again by the same code alone."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".toml"):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
