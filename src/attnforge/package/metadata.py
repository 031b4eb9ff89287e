"""Rewrites METADATA: the labelled version, and the PyTorch that the extension modules are bound to."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement, Requirement


def relabel(metadata: str, version: str, requires_torch: str) -> str:
    """Return METADATA with another version; a plain requirement of torch becomes one of ``requires_torch``.

    That is a specifier (``==2.11.*``): an installer has to know which PyTorch the modules load with. It is "" for a
    wheel without modules.
    """
    head, separator, body = metadata.partition("\n\n")
    lines = [_line(line, version, requires_torch) for line in head.split("\n")]
    return "\n".join(lines) + separator + body


def _line(line: str, version: str, requires_torch: str) -> str:
    name, _, value = line.partition(":")
    if name.lower() == "version":
        return f"{name}: {version}"
    if name.lower() == "requires-dist" and requires_torch and _is_torch(value):
        return f"{name}: torch{requires_torch}"
    return line


def _is_torch(requirement: str) -> bool:
    try:
        parsed = Requirement(requirement.strip())
    except InvalidRequirement:
        return False
    return parsed.name.lower() == "torch" and parsed.marker is None and not parsed.url


def name_and_version(metadata: str) -> tuple[str, str]:
    """Return the name and version that METADATA states."""
    head = metadata.partition("\n\n")[0]
    fields = dict(re.findall(r"(?m)^(Name|Version):\s*(.+?)\s*$", head))
    return fields.get("Name", ""), fields.get("Version", "")
