"""What a wheel's metadata asks of PyTorch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def torch_requirements(wheel: Path, python: str) -> Iterator[Requirement]:
    """Yield what a wheel's metadata asks of PyTorch with a Python (``3.12`` or ``3.12.3``) and no extras.

    A line that is no requirement is passed over.
    """
    there = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": ""}
    for line in metadata(wheel).get_all("Requires-Dist") or ():
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(asked.name) == "torch" and (asked.marker is None or asked.marker.evaluate(there)):
            yield asked


def metadata(wheel: Path) -> Any:
    """Return the headers of a wheel's METADATA; none where it has no such file or is no archive."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = archive.read(names[0]).decode(errors="replace") if names else ""
    except (OSError, zipfile.BadZipFile, KeyError):
        text = ""
    return HeaderParser().parsestr(text)
