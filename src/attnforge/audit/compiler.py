"""Which nvcc made a wheel of ours, where that is another minor than the CUDA that its PyTorch is built with."""

from __future__ import annotations

import json
from collections.abc import Iterator

from attnforge.audit.archive import Archive
from attnforge.audit.contents import Contents
from attnforge.embedded import PLAN
from attnforge.model.finding import Finding, Severity


def check_compiler(archive: Archive, contents: Contents) -> Iterator[Finding]:
    """State the compiler by the plan in the wheel. Nothing for a wheel without one, or with one that can't be read."""
    path = f"{contents.dist_info}/{PLAN}"
    if path not in contents.files:
        return
    try:
        plan = json.loads(archive.text(path))
        nvcc, cuda, own = plan["toolchain"]["nvcc"], plan["toolchain"]["cuda"], plan["target"]["cuda"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if cuda and own and cuda != own:
        yield Finding(
            code="compiler",
            severity=Severity.INFO,
            subject="compiler",
            seen=f"nvcc {nvcc}",
            means=f"its PyTorch is built with CUDA {own}: any minor of one major goes together",
        )
