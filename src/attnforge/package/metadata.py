"""Rewrites METADATA and WHEEL: the labelled version, the PyTorch that the modules are bound to, Pythons and tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge.model.minors import specifier
from attnforge.model.universal import Pair, numbers
from attnforge.model.versions import as_requirement
from attnforge.wheelfile.metadata import fields_of

# A requirement of ours in a wheel whose Pythons have modules for different PyTorch versions.
_OF_ONE_PYTHON = re.compile(r'python_version == "3\.\d+"')


def relabel(metadata: str, version: str, requires_torch: str, torch: str = "") -> str:
    """Return METADATA with another version that asks for the PyTorch which the modules load with.

    ``requires_torch`` is a specifier (``==2.11.*``), "" for a wheel without modules. Upstream's plain requirements of
    torch become one: what they ask beyond that specifier stays, where ``torch``, the version that the modules were
    compiled with, meets it (``torch_conflicts`` names those that it does not). Where upstream does not ask for torch,
    the wheel does.
    """
    head, separator, body = metadata.replace("\r\n", "\n").partition("\n\n")
    end = "\n" if head.endswith("\n") else ""
    lines = [_line(line, version) for line in head.removesuffix("\n").split("\n")]
    plain = [line for line in lines if _field(line) == "requires-dist" and _is_torch(line.partition(":")[2])]
    if requires_torch and (plain or not any(_is_url_of_torch(line) for line in lines)):
        lines = _replaced(lines, plain, [f"Requires-Dist: {_bound(map(_requirement, plain), requires_torch, torch)}"])
    return "\n".join(lines) + end + separator + body


def torch_conflicts(metadata: str, torches: Collection[str]) -> tuple[str, ...]:
    """Return upstream's plain requirements of torch (``torch<2.9``) that one of these versions does not meet."""
    head = metadata.replace("\r\n", "\n").partition("\n\n")[0]
    lines = [line for line in head.split("\n") if _field(line) == "requires-dist" and _is_torch(line.partition(":")[2])]
    asked = dict.fromkeys(map(_requirement, lines))
    return tuple(
        str(one) for one in asked if not all(one.specifier.contains(version, prereleases=True) for version in torches)
    )


def _bound(asked: Iterable[Requirement], requires_torch: str, torch: str) -> Requirement:
    """Return the one requirement of torch: ours, and what upstream asks beyond it."""
    ours = SpecifierSet(requires_torch)
    extras: set[str] = set()
    more: set[str] = set()
    for requirement in asked:
        extras |= requirement.extras
        if torch and requirement.specifier.contains(torch, prereleases=True):
            more |= {str(one) for one in requirement.specifier if not _is_implied(one, ours)}
    name = f"torch[{','.join(sorted(extras))}]" if extras else "torch"
    return Requirement(name + ",".join([requires_torch, *sorted(more - {str(one) for one in ours})]))


def _is_implied(asked: Specifier, ours: SpecifierSet) -> bool:
    """Say whether whatever meets our specifier (``==2.11.*`` or ``>=2.11``) meets a clause of upstream's too."""
    (clause,) = ours
    first = Version(clause.version.removesuffix(".*"))
    if asked.operator in (">=", ">"):
        bound = Version(asked.version)
        return bound < first or (bound == first and asked.operator == ">=")
    if clause.operator != "==":
        return False
    if asked.operator in ("<", "<="):
        return Version(asked.version) >= Version(f"{first.major}.{first.minor + 1}")
    return asked.operator == "!=" and not asked.version.endswith(".*") and not ours.contains(asked.version, True)


def _requirement(line: str) -> Requirement:
    return Requirement(line.partition(":")[2].strip())


def _is_url_of_torch(line: str) -> bool:
    if _field(line) != "requires-dist":
        return False
    parsed = as_requirement(line.partition(":")[2])
    return parsed is not None and canonicalize_name(parsed.name) == "torch" and bool(parsed.url)


def rebind(metadata: str, version: str, pairs: Collection[Pair]) -> str:
    """Return METADATA of a wheel for these pairs, from upstream's or from that of a wheel for other pairs.

    Version, Pythons and PyTorch are new. The rest stays. Where upstream does not ask for torch, the wheel does.
    """
    head, separator, body = metadata.partition("\n\n")
    end = "\n" if head.endswith("\n") else ""
    lines = [_line(line, version) for line in head.removesuffix("\n").split("\n")]
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
    fields = fields_of(metadata)
    return fields.get("name", ""), fields.get("version", "")


def _line(line: str, version: str) -> str:
    name = line.partition(":")[0]
    return f"{name}: {version}" if name.lower() == "version" else line


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
    parsed = as_requirement(requirement)
    if parsed is None:
        return False
    marked = parsed.marker is not None and not (marker and marker.fullmatch(str(parsed.marker)))
    return canonicalize_name(parsed.name) == "torch" and not marked and not parsed.url
