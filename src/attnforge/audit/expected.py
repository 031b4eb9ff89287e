"""Compares a wheel with what its plan says that it has, and with what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnforge.audit.metadata import import_name
from attnforge.model.audit import Expected, ModuleReport
from attnforge.model.finding import Finding, Severity
from attnforge.wheelfile.name import WheelName


def check_expected(expected: Expected, modules: Sequence[ModuleReport], name: WheelName | None) -> Iterator[Finding]:
    """Say where machine code, modules or the Python tag differ from what was planned."""
    there = _architectures(modules)
    planned = set(expected.architectures)
    differs = bool(planned) and there != planned
    if differs:
        seen = _listed(there) if modules else "none: the wheel has no compiled module"
        yield _different("architectures", seen, f"the plan says {_listed(planned)}")
    yield from _check_code(expected, modules, there if differs else set())
    absent = set(expected.modules) - {import_name(module.path) for module in modules}
    if absent:
        yield _different("modules", f"no {_listed(absent)}", "the plan says that these modules are built")
    if expected.python and name is not None and not name.serves(expected.python):
        tags = _listed({f"{tag.interpreter}-{tag.abi}" for tag in name.tags})
        yield _different("python", tags, f"the plan says {expected.python}")


def _check_code(expected: Expected, modules: Sequence[ModuleReport], said: set[str]) -> Iterator[Finding]:
    """Say which module lacks what others have: a GPU would find no kernel in it. One may have no kernels at all.

    ``said`` is what was said to be wrong of all modules together.
    """
    for path, name, there in _loaded_together(modules):
        planned = set(expected.code.get(name, expected.architectures if expected.alike else ()))
        if planned and there and there != planned and there != said:
            yield _different("architectures", _listed(there), f"the plan says {_listed(planned)}", path)


def check_coverage(coverage: Mapping[str, Any], modules: Sequence[ModuleReport]) -> Iterator[Finding]:
    """Say where a wheel's own account of its machine code is not what its modules have."""
    there = _architectures(modules)
    covered = {str(one) for one in coverage.get("architectures") or ()}
    found = _listed(there) if there else "no machine code"
    absent, more = covered - there, there - covered
    if absent:
        means = "on the GPU that it was built for, every call fails"
        yield _uncovered(_listed(absent), f"coverage names it, and modules have {found}", means)
    if more and "architectures" in coverage:
        means = "it was not compiled for this wheel, or by other rules than its plan's"
        yield _uncovered(_listed(more), f"modules have it, and coverage names {_listed(covered)}", means)


def check_outside(coverage: Mapping[str, Any], expected: Expected | None) -> Iterator[Finding]:
    """Say that upstream compiled without the ninja that it was given: an error unless that was chosen."""
    if not coverage.get("outside"):
        return
    chosen = expected is None or expected.outside
    yield Finding(
        code="compiled-outside",
        severity=Severity.INFO if chosen else Severity.ERROR,
        subject="compile",
        seen="no compile went through attnforge's ninja",
        means="upstream's build compiled the modules by itself, or packed some that were made elsewhere: neither the "
        "plan's architectures nor its memory limit reached the compilers",
        hint="" if chosen else "a recipe of your own with `outside = true` says that this is wanted (docs/recipes.md)",
    )


def _uncovered(subject: str, seen: str, means: str) -> Finding:
    return Finding(
        code="covered-code",
        severity=Severity.ERROR,
        subject=subject,
        seen=seen,
        means=means,
        hint="build the wheel again",
    )


def _architectures(modules: Sequence[ModuleReport]) -> set[str]:
    return {architecture for module in modules for architecture in module.architectures}


def _loaded_together(modules: Sequence[ModuleReport]) -> Iterator[tuple[str, str, set[str]]]:
    """Yield (path, import name, architectures) of what has the kernels of a module.

    In a universal wheel that is the library, or each pair's module with its own kernels and the library beside it.
    """
    libraries = {import_name(module.path): set(module.architectures) for module in modules if not module.pair}
    with_own = {import_name(module.path) for module in modules if module.pair and module.architectures}
    for module in modules:
        name, there = import_name(module.path), set(module.architectures)
        if module.pair and there:
            yield module.path, name, there | libraries.get(name, set())
        elif not module.pair and name not in with_own:
            yield module.path, name, there


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _different(what: str, seen: str, means: str, subject: str = "") -> Finding:
    return Finding(
        code=f"planned-{what}",
        severity=Severity.ERROR,
        subject=subject or what,
        seen=seen,
        means=f"{means}: the build did something else",
        hint="look for what went wrong in the build's log, and build it again",
    )
