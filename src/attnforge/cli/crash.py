"""The file that a user sends when attnforge itself is at fault."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnforge.process import redact
from attnforge.version import BUILDER


def write_crash(arguments: Sequence[str], environ: Mapping[str, str]) -> Path:
    """Write a crash report to a file in the temporary folder and return its path. Credentials in URLs are removed."""
    text = "\n".join(
        [
            BUILDER,
            f"python {sys.version}",
            f"system {platform.platform()}",
            f"arguments {list(arguments)}",
            *(f"{key}={value}" for key, value in sorted(environ.items()) if key.startswith("ATTNFORGE_")),
            "",
            traceback.format_exc(),
        ]
    )
    folder = Path(tempfile.mkdtemp(prefix="attnforge-crash-"))
    path = folder / "crash.txt"
    path.write_text(redact(text), encoding="utf-8")
    return path
