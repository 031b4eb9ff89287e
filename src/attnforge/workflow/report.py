"""The report beside a wheel: all that is known of how it came to be."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attnforge.compile.summary import Summary
from attnforge.model.audit import AuditReport
from attnforge.model.plan import Resolution
from attnforge.provision.indexes import file_sha256
from attnforge.provision.store import write_atomically
from attnforge.version import BUILDER

SCHEMA = 1


def write_report(
    wheel: Path,
    resolution: Resolution,
    freeze: tuple[str, ...],
    audit: AuditReport,
    summary: Summary | None,
    seconds: float,
) -> Path:
    """Write ``WHEEL.report.json`` beside the wheel and return its path. ``freeze`` is the build environment."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "builder": BUILDER,
        "wheel": wheel.name,
        "sha256": file_sha256(wheel),
        "bytes": wheel.stat().st_size,
        "seconds": round(seconds, 1),
        "resolution": resolution.public(),
        "environment": list(freeze),
        "compile": asdict(summary) if summary else None,
        "audit": audit.to_json(),
    }
    path = wheel.with_name(wheel.name + ".report.json")
    write_atomically(path, json.dumps(document, indent=1) + "\n")
    return path
