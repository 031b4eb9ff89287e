"""What a wheel of ours says about itself, in its dist-info."""

from __future__ import annotations

import json
from typing import Any

from attnforge.model.plan import BuildPlan

FOLDER = "attnforge"


def documents(plan: BuildPlan, builder: str) -> dict[str, bytes]:
    """Return the documents by file name: the plan, where the wheel comes from, and what it covers.

    They follow from the plan and ``builder`` (attnforge and its version) alone, so they keep the wheel reproducible.
    """
    return {
        f"{FOLDER}/plan.json": _json(plan.to_json()),
        f"{FOLDER}/provenance.json": _json(_provenance(plan, builder)),
        f"{FOLDER}/coverage.json": _json(coverage(plan)),
    }


def _provenance(plan: BuildPlan, builder: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "builder": builder,
        "plan": plan.digest,
        "source": plan.source.to_json(),
        "toolchain": plan.toolchain.to_json(),
        "torch": plan.target.torch,
        "python": plan.target.python,
    }


def coverage(plan: BuildPlan) -> dict[str, Any]:
    """Return what was built and what was left out."""
    selection = plan.selection
    return {
        "schema": 1,
        "package": plan.package,
        "version": plan.version,
        "profile": plan.profile,
        "architectures": [architecture.sm for architecture in plan.target.architectures],
        "gpus": [gpu.name for gpu in plan.target.gpus],
        "features": list(selection.features),
        "left_out": list(selection.without),
        "head_dims": list(selection.head_dims),
        "dtypes": list(selection.dtypes),
        "kernels": list(selection.kept),
        "kernels_left_out": list(selection.dropped),
    }


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
