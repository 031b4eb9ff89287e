"""METADATA of a wheel: its fields, and what it asks of PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge.model.versions import applies, as_requirement
from attnforge.wheelfile.archive import UNREADABLE, document

_CONTENT_TYPE = re.compile(r"(?:^|(?<=[\r\n]))content-type:", re.IGNORECASE)


def fields_of(metadata: str) -> RawMetadata:
    """Return the fields of METADATA as they are written. One that is there twice and may not be is left out."""
    # packaging before 26.3 asserts that the body is a text. With this header it may be a list of messages.
    return parse_email(_CONTENT_TYPE.sub("X-Content-Type:", metadata))[0]


def read_metadata(wheel: Path) -> str:
    """Return the text of a wheel's METADATA, "" where it has none or can't be read."""
    try:
        return (document(wheel, "METADATA") or b"").decode(errors="replace")
    except UNREADABLE:
        return ""


def torch_requirements(metadata: str, python: str) -> Iterator[Requirement]:
    """Yield what METADATA asks of PyTorch with a Python (``3.12`` or ``3.12.3``) and no extras.

    With ``python`` "" that is the Python that runs this. A line that is no requirement is passed over.
    """
    full = python if python.count(".") != 1 else f"{python}.0"
    known = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": full} if python else {}
    for asked in map(as_requirement, fields_of(metadata).get("requires_dist", ())):
        if asked and canonicalize_name(asked.name) == "torch" and applies(asked, known):
            yield asked
