"""The wheel that pairs are added to: it is audited first, and its libraries are taken out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnforge.audit.wheel import audit_wheel
from attnforge.errors import WheelError
from attnforge.link.linker import Library
from attnforge.model.universal import Universal
from attnforge.package.archive import read_members
from attnforge.package.sbom import vendored
from attnforge.package.universal import extend_wheel
from attnforge.version import BUILDER
from attnforge.workflow.artifacts import Packed, Parts, SourceTree
from attnforge.workflow.job import Context
from attnforge.workflow.verdict import bad_wheel, is_bad


@dataclass(frozen=True, slots=True)
class HeldWheel:
    """A universal wheel, and what it says that it holds."""

    wheel: Path
    universal: Universal


def audit_held(context: Context) -> None:
    """Audit the wheel that is there. Raises WheelError: a bad file must not get a new RECORD that says it is right."""
    report = audit_wheel(context.of(HeldWheel).wheel, recipe=context.job.recipe)
    if is_bad(report):
        raise bad_wheel(report, "nothing is added to it")


def take_libraries(context: Context) -> Parts:
    """Take the libraries out of the wheel. WheelError where one is not there."""
    held = context.of(HeldWheel)
    members, libraries = read_members(held.wheel), {}
    for module in held.universal.modules:
        if not module.library:
            continue
        if module.library_path not in members:
            raise WheelError(f"{held.wheel.name} has no {module.library_path}", hint="build or download it again")
        path = context.job.folder / "link" / "library" / module.name / module.library
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(members[module.library_path].data)
        libraries[module.name] = Library(path)
    return Parts(held.universal, libraries)


def package_extended(context: Context) -> Packed:
    """Pack the wheel with the modules that were added. What the old wheel has stays byte for byte."""
    job, parts = context.job, context.of(Parts)
    folder = job.folder / "extended"
    folder.mkdir(exist_ok=True)
    inside = vendored(context.of(SourceTree).folder)
    wheel = context.of(HeldWheel).wheel
    return Packed(extend_wheel(wheel, folder, job.plan, parts.universal, parts.built, BUILDER, inside))
