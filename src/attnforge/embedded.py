"""Reads what a wheel of ours says about itself, so that any part can ask it."""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnforge.errors import RequestError, WheelError
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import DOCUMENT, Universal

PLAN, COVERAGE = "attnforge/plan.json", "attnforge/coverage.json"
"""Where in dist-info they lie."""

_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)
_HINT = "build the wheel again; one that a newer attnforge made needs that version or a later one"


def read_plan(wheel: Path) -> BuildPlan | None:
    """Return the plan inside a wheel of ours; None for any other wheel, also for one that is no archive."""
    try:
        document = _document(wheel, PLAN)
        return BuildPlan.model_validate(json.loads(document)) if document else None
    except (*_UNREADABLE, ValueError):
        return None


def read_coverage(wheel: Path) -> dict[str, Any] | None:
    """Return what a wheel of ours says that it covers (package/provenance.py); None for any other wheel."""
    try:
        document = _document(wheel, COVERAGE)
        found: dict[str, Any] | None = json.loads(document) if document else None
    except (*_UNREADABLE, ValueError):
        return None
    return found


def read_universal(wheel: Path) -> Universal | None:
    """Return what a universal wheel holds; None for a wheel that is none.

    Raises RequestError where there is no such file, WheelError where it or the document in it is damaged.
    """
    try:
        document = _document(wheel, DOCUMENT)
    except FileNotFoundError as error:
        raise no_wheel(wheel) from error
    except _UNREADABLE as error:
        raise WheelError(f"{wheel.name} can't be read as a zip archive", why=str(error), hint=_HINT) from error
    return parse_universal(document, wheel.name) if document is not None else None


def no_wheel(path: Path) -> RequestError:
    """Return the error for a path at which no file lies that could be a wheel."""
    if path.is_dir():
        what = f"{path} is a folder"
    else:
        what = f"{path} is no ordinary file" if path.exists() else f"there is no file {path}"
    return RequestError(what, hint="name a wheel: dist/NAME.whl")


def parse_universal(document: bytes | str, wheel: str) -> Universal:
    """Read the document of a universal wheel, whose name is for the message: WheelError where it is none."""
    try:
        return Universal.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise WheelError(f"{wheel}: {DOCUMENT} can't be read", why=why, hint=_HINT) from error


def _document(wheel: Path, place: str) -> bytes | None:
    """Return a document by its place in dist-info, None where the wheel has none."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(f".dist-info/{place}")]
        return archive.read(names[0]) if names else None
