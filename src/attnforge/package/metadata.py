"""Rewrites METADATA: the labelled version, and the PyTorch that the extension modules are bound to."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement, Requirement


def relabel(metadata: str, version: str, torch_minor: str) -> str:
    """Return METADATA with another version; a plain requirement of torch becomes one of that minor.

    Extension modules that use PyTorch's C++ interface load with the minor that they were built for and no other
    (FA#723), so an installer has to know. ``torch_minor`` is "" for a wheel without such modules.
    """
    head, separator, body = metadata.partition("\n\n")
    lines = [_line(line, version, torch_minor) for line in head.split("\n")]
    return "\n".join(lines) + separator + body


def _line(line: str, version: str, torch_minor: str) -> str:
    name, _, value = line.partition(":")
    if name.lower() == "version":
        return f"{name}: {version}"
    if name.lower() == "requires-dist" and torch_minor and _is_torch(value):
        return f"{name}: torch=={torch_minor}.*"
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
