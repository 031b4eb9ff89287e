"""What a wheel of ours says about itself, in its dist-info."""

from __future__ import annotations

import json
from typing import Any

from attnforge.model.plan import BuildPlan
from attnforge.model.universal import DOCUMENT, Universal

FOLDER = "attnforge"


def documents(
    plan: BuildPlan, builder: str, universal: Universal | None = None, *, outside: bool = False
) -> dict[str, bytes]:
    """Return the documents by file name: the plan, where the wheel comes from, what it covers, what a universal one
    holds.

    They follow from the plan, from ``builder`` (attnforge and its version) and from whether upstream compiled
    ``outside`` of the ninja that it was given, so they keep the wheel reproducible.
    """
    own = {DOCUMENT: as_json(universal.to_json())} if universal else {}
    return {
        f"{FOLDER}/plan.json": as_json(plan.to_json()),
        f"{FOLDER}/provenance.json": as_json(_provenance(plan, builder)),
        f"{FOLDER}/coverage.json": as_json(coverage(plan, universal, outside=outside)),
        **own,
    }


def _provenance(plan: BuildPlan, builder: str) -> dict[str, Any]:
    more: dict[str, Any] = {"pairs": [pair.to_json() for pair in plan.pairs]} if plan.is_universal else {}
    more |= {"installed": plan.installed.to_json()} if plan.installed else {}
    return {
        "schema": 1,
        "builder": builder,
        "plan": plan.digest,
        "source": plan.source.to_json(),
        "toolchain": plan.toolchain.to_json(),
        "torch": plan.target.torch,
        "python": plan.target.python,
        **more,
    }


def coverage(plan: BuildPlan, universal: Universal | None = None, *, outside: bool = False) -> dict[str, Any]:
    """Return what was built and what was left out; of a universal wheel, also where the kernels are."""
    selection = plan.selection
    places: dict[str, Any] = {"universal": _places(universal)} if universal else {}
    places |= {"outside": True} if outside else {}
    return {
        "schema": 1,
        "package": plan.package,
        "version": plan.version,
        "profile": plan.profile,
        "architectures": [architecture.sm for architecture in plan.target.architectures],
        "features": list(selection.features),
        "left_out": list(selection.without),
        "head_dims": list(selection.head_dims),
        "dtypes": list(selection.dtypes),
        "kernels": list(selection.kept),
        "kernels_left_out": list(selection.dropped),
        **places,
    }


def _places(universal: Universal) -> dict[str, Any]:
    return {
        "pairs": [pair.to_json() for pair in universal.pairs],
        "modules": [
            {"name": module.name, "library": module.library, "own": list(module.own)} for module in universal.modules
        ],
    }


def as_json(document: dict[str, Any]) -> bytes:
    """Return a document's text: the same for equal documents."""
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
