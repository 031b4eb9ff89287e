"""Compares the PyTorch of an audit with those that the wheel's metadata allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement

from attnforge.model.finding import Finding, Severity
from attnforge.model.versions import as_version
from attnforge.wheelfile.metadata import torch_requirements
from attnforge.wheelfile.name import WheelName


def refused(metadata: str, name: WheelName | None, torch: str) -> tuple[Requirement, ...]:
    """Return what a wheel asks of torch (``torch==2.11.*``) that this version (``2.12.0+cu130``) does not meet."""
    version = as_version(torch)
    if version is None:
        return ()
    asked = torch_requirements(metadata, name.python if name else "")
    return tuple(one for one in asked if not one.specifier.contains(version, prereleases=True))


def check_allowed(asked: Iterable[Requirement], torch: str) -> Iterator[Finding]:
    """Report an audit with a PyTorch that the wheel does not allow."""
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
