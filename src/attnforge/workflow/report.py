"""The report beside a wheel: all that is known of how it came to be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attnforge.compile.run.summary import Summary
from attnforge.files import file_sha256, write_whole
from attnforge.model.audit import AuditReport
from attnforge.model.plan import BuildPlan, Resolution, ToolchainPin
from attnforge.model.universal import Pair
from attnforge.version import BUILDER

SCHEMA = 1


def write_report(
    wheel: Path,
    resolution: Resolution,
    freeze: tuple[str, ...],
    audit: AuditReport,
    summary: Summary | None,
    seconds: float,
    pairs: Iterable[tuple[Pair, Summary]] = (),
) -> Path:
    """Write ``WHEEL.report.json`` beside the wheel and return its path.

    ``freeze`` is the build environment; ``pairs`` are those of a universal wheel beside the first.
    """
    document = {
        **_about(wheel, seconds),
        "resolution": resolution.public(),
        "environment": list(freeze),
        "compile": asdict(summary) if summary else None,
        "pairs": _pairs(pairs),
        "audit": audit.to_json(),
    }
    return _write(wheel, document)


def write_extension_report(
    wheel: Path,
    plan: BuildPlan,
    toolchain: ToolchainPin,
    audit: AuditReport,
    pairs: Iterable[tuple[Pair, Summary]],
    seconds: float,
) -> Path:
    """Write the report of a wheel that further ``pairs`` were added to, and return its path.

    ``toolchain`` is that of the extension: its headers are what host code was compiled against.
    """
    document = {
        **_about(wheel, seconds),
        "plan": plan.to_json(),
        "toolchain": toolchain.to_json(),
        "pairs": _pairs(pairs),
        "audit": audit.to_json(),
    }
    return _write(wheel, document)


def report_of(wheel: Path) -> Path:
    """Return where the report of a wheel is: beside it."""
    return wheel.with_name(wheel.name + ".report.json")


def _about(wheel: Path, seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "builder": BUILDER,
        "wheel": wheel.name,
        "sha256": file_sha256(wheel),
        "bytes": wheel.stat().st_size,
        "seconds": round(seconds, 1),
    }


def _pairs(pairs: Iterable[tuple[Pair, Summary]]) -> list[dict[str, Any]]:
    """Return what compiling for each pair of a universal wheel took, beside the one that the kernels came with."""
    return [
        {
            "torch": pair.torch,
            "python": pair.python,
            "cpu_seconds": round(summary.cpu_seconds, 1),
            "wall_seconds": round(summary.wall_seconds, 1),
        }
        for pair, summary in pairs
    ]


def _write(wheel: Path, document: dict[str, Any]) -> Path:
    path = report_of(wheel)
    write_whole(path, json.dumps(document, indent=1) + "\n")
    return path
