"""Holds a wheel against what its plan says that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attnforge.audit.metadata import WheelName, import_name, serves
from attnforge.model.audit import Expected, ModuleReport
from attnforge.model.finding import Finding, Severity


def check_expected(expected: Expected, modules: Sequence[ModuleReport], name: WheelName | None) -> Iterator[Finding]:
    """Say where machine code, modules or the Python tag differ from what was planned."""
    there = {architecture for module in modules for architecture in module.architectures}
    planned = set(expected.architectures)
    if planned and there != planned:
        yield _different("architectures", _listed(there), f"the plan says {_listed(planned)}")
    yield from _check_code(expected, modules)
    absent = set(expected.modules) - {import_name(module.path) for module in modules}
    if absent:
        yield _different("modules", f"no {_listed(absent)}", "the plan says that these modules are built")
    if expected.python and name is not None and not serves(name, expected.python):
        tags = _listed({f"{tag.interpreter}-{tag.abi}" for tag in name.tags})
        yield _different("python", tags, f"the plan says {expected.python}")


def _check_code(expected: Expected, modules: Sequence[ModuleReport]) -> Iterator[Finding]:
    """Say which module lacks what others have: a GPU would find no kernel in it. One may have no kernels at all."""
    for path, name, there in _loaded_together(modules):
        planned = set(expected.code.get(name, ()))
        if planned and there and there != planned:
            yield _different("architectures", _listed(there), f"the plan says {_listed(planned)}", path)


def _loaded_together(modules: Sequence[ModuleReport]) -> Iterator[tuple[str, str, set[str]]]:
    """Yield (path, import name, architectures) of what has the kernels of a module.

    In a universal wheel that is the library, or each pair's module with kernels of its own and the library beside it.
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
