"""Reads what a wheel of ours says about itself, so that any part can ask it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnforge.errors import WheelError
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import DOCUMENT, Universal
from attnforge.wheelfile.archive import UNREADABLE, document, no_wheel

PLAN, COVERAGE = "attnforge/plan.json", "attnforge/coverage.json"
"""Where they are in dist-info."""

_HINT = "build the wheel again; one that a newer attnforge made needs that version or a later one"


def read_plan(wheel: Path) -> BuildPlan | None:
    """Return the plan inside a wheel of ours; None for any other wheel, also for one that is no archive."""
    try:
        text = document(wheel, PLAN)
        return BuildPlan.model_validate(json.loads(text)) if text else None
    except UNREADABLE:
        return None


def read_coverage(wheel: Path) -> dict[str, Any] | None:
    """Return what a wheel of ours says that it covers (package/provenance.py); None for any other wheel."""
    try:
        text = document(wheel, COVERAGE)
        found: dict[str, Any] | None = json.loads(text) if text else None
    except UNREADABLE:
        return None
    return found


def read_universal(wheel: Path) -> Universal | None:
    """Return what a universal wheel holds; None for a wheel that is none.

    Raises RequestError where there is no such file, WheelError where it or the document in it is damaged.
    """
    try:
        text = document(wheel, DOCUMENT)
    except FileNotFoundError as error:
        raise no_wheel(wheel) from error
    except UNREADABLE as error:
        raise WheelError(f"{wheel.name} can't be read as a zip archive", why=str(error), hint=_HINT) from error
    return parse_universal(text, wheel.name) if text is not None else None


def parse_universal(text: bytes | str, wheel: str) -> Universal:
    """Read the document of a universal wheel, whose name is for the message: WheelError where it is none."""
    try:
        return Universal.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise WheelError(f"{wheel}: {DOCUMENT} can't be read", why=why, hint=_HINT) from error
