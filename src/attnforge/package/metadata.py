"""Rewrites METADATA and WHEEL: the labelled version, the PyTorch that the modules are bound to, Pythons and tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement

from attnforge.model.minors import specifier
from attnforge.model.universal import Pair, numbers

# A requirement of ours in a wheel whose Pythons have modules for different PyTorch versions.
_OF_ONE_PYTHON = re.compile(r'python_version == "3\.\d+"')


def relabel(metadata: str, version: str, requires_torch: str) -> str:
    """Return METADATA with another version; a plain requirement of torch becomes one of ``requires_torch``.

    That is a specifier (``==2.11.*``): an installer has to know which PyTorch the modules load with. It is "" for a
    wheel without modules.
    """
    head, separator, body = metadata.partition("\n\n")
    lines = [_line(line, version, requires_torch) for line in head.split("\n")]
    return "\n".join(lines) + separator + body


def rebind(metadata: str, version: str, pairs: Collection[Pair]) -> str:
    """Return METADATA of a wheel for these pairs, from upstream's or from that of a wheel for other pairs.

    Version, Pythons and PyTorch are anew; all else stays. Where upstream does not ask for torch, the wheel does.
    """
    head, separator, body = metadata.partition("\n\n")
    end = "\n" if head.endswith("\n") else ""
    lines = [_line(line, version, "") for line in head.removesuffix("\n").split("\n")]
    pythons = f"Requires-Python: {specifier(pair.python for pair in pairs)}"
    lines = _replaced(lines, [line for line in lines if _field(line) == "requires-python"], [pythons])
    torches = [f"Requires-Dist: {requirement}" for requirement in torch_requirements(pairs)]
    lines = _replaced(lines, [line for line in lines if _asks_for_torch(line)], torches)
    return "\n".join(lines) + end + separator + body


def torch_requirements(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return what an installer has to know of PyTorch: one requirement, or one for each Python where they differ."""
    by_python: dict[str, set[str]] = {}
    for pair in sorted(pairs, key=lambda pair: numbers(pair.python)):
        by_python.setdefault(pair.python, set()).add(pair.torch_minor)
    asked = {python: f"torch{specifier(minors)}" for python, minors in by_python.items()}
    if len(set(asked.values())) == 1:
        return (str(Requirement(next(iter(asked.values())))),)
    return tuple(str(Requirement(f'{torch}; python_version == "{python}"')) for python, torch in asked.items())


def retag(wheel: str, tag: str) -> str:
    """Return the text of a WHEEL file with one tag, of a wheel that belongs into the folder for platform libraries."""
    kept = [line for line in wheel.splitlines() if line and _field(line) not in ("tag", "root-is-purelib")]
    return "\n".join([*kept, "Root-Is-Purelib: false", f"Tag: {tag}", ""])


def name_and_version(metadata: str) -> tuple[str, str]:
    """Return the name and version that METADATA states."""
    head = metadata.partition("\n\n")[0]
    fields = dict(re.findall(r"(?m)^(Name|Version):\s*(.+?)\s*$", head))
    return fields.get("Name", ""), fields.get("Version", "")


def _line(line: str, version: str, requires_torch: str) -> str:
    name, _, value = line.partition(":")
    if name.lower() == "version":
        return f"{name}: {version}"
    if name.lower() == "requires-dist" and requires_torch and _is_torch(value):
        return f"{name}: torch{requires_torch}"
    return line


def _field(line: str) -> str:
    return line.partition(":")[0].lower()


def _replaced(lines: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Put the new lines where the first of the old ones stands, or behind all where there is none."""
    at = lines.index(old[0]) if old else len(lines)
    return [*lines[:at], *new, *(line for line in lines[at:] if line not in old)]


def _asks_for_torch(line: str) -> bool:
    """Say whether a line is upstream's plain requirement of torch, or one of ours."""
    return _field(line) == "requires-dist" and _is_torch(line.partition(":")[2], _OF_ONE_PYTHON)


def _is_torch(requirement: str, marker: re.Pattern[str] | None = None) -> bool:
    try:
        parsed = Requirement(requirement.strip())
    except InvalidRequirement:
        return False
    marked = parsed.marker is not None and not (marker and marker.fullmatch(str(parsed.marker)))
    return parsed.name.lower() == "torch" and not marked and not parsed.url
