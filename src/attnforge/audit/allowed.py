"""Compares the PyTorch that a wheel is looked at with, with those that its metadata allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.parser import HeaderParser

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from attnforge.audit.metadata import WheelName
from attnforge.model.finding import Finding, Severity


def refused(metadata: str, name: WheelName | None, torch: str) -> tuple[Requirement, ...]:
    """Return what a wheel asks of torch (``torch==2.11.*``) that this version (``2.12.0+cu130``) does not meet."""
    try:
        version = Version(torch)
    except InvalidVersion:
        return ()
    asked = _torch_requirements(HeaderParser().parsestr(metadata).get_all("Requires-Dist") or (), _python(name))
    return tuple(one for one in asked if not one.specifier.contains(version, prereleases=True))


def check_allowed(asked: Iterable[Requirement], torch: str) -> Iterator[Finding]:
    """Say that a wheel was looked at with a PyTorch that it does not allow."""
    for requirement in asked:
        yield Finding(
            code="torch-not-allowed",
            severity=Severity.UNCHECKED,
            subject=f"PyTorch {torch}",
            seen=f"the wheel asks for {requirement}",
            means="no installer puts them together, and what does not fit here says nothing about the wheel",
            hint="audit it with a PyTorch that it asks for: --torch VERSION or --python PATH",
        )


def without_blame(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings about symbols of which none makes a wheel bad: it is not for this PyTorch."""
    for finding in findings:
        error = finding.severity is Severity.ERROR
        yield finding.model_copy(update={"severity": Severity.WARNING}) if error else finding


def _torch_requirements(lines: Iterable[str], python: str) -> Iterator[Requirement]:
    there = {"extra": "", **({"python_version": python, "python_full_version": f"{python}.0"} if python else {})}
    for line in lines:
        try:
            asked = Requirement(str(line))
        except InvalidRequirement:
            continue
        if canonicalize_name(asked.name) == "torch" and (asked.marker is None or asked.marker.evaluate(there)):
            yield asked


def _python(name: WheelName | None) -> str:
    """Return the Python (``3.12``) that a wheel is for, "" where it is for several."""
    tags = {tag.interpreter for tag in name.tags if tag.abi != "abi3"} if name else set()
    (tag,) = tags if len(tags) == 1 else ("",)
    return f"3.{tag.removeprefix('cp3')}" if tag.startswith("cp3") and tag[3:].isdecimal() else ""
