"""Audits a wheel: any wheel of a CUDA extension, made here or not, without importing anything of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnforge.audit.allowed import check_allowed, refused, without_blame
from attnforge.audit.compiler import check_compiler
from attnforge.audit.contents import Contents, check_contents, read_contents
from attnforge.audit.demangle import demangle
from attnforge.audit.expected import check_coverage, check_expected, check_outside
from attnforge.audit.manylinux import Platform, platform_of, satisfied_by
from attnforge.audit.metadata import check_module
from attnforge.audit.module import (
    Module,
    check_code,
    check_cxx_runtime,
    check_driver,
    check_paths,
    check_readable,
    read_module,
)
from attnforge.audit.pairs import Resolved, Sites, resolve_all, resolve_pairs
from attnforge.audit.site import open_elf
from attnforge.audit.universal import Described, check_universal, describe, holds_kernels
from attnforge.elf import Elf
from attnforge.errors import HostError, WheelError
from attnforge.model.audit import AuditReport, Expected, ModuleReport, verdict_of
from attnforge.model.finding import Finding, Severity
from attnforge.model.kernels import Kernels
from attnforge.model.recipe import Recipe
from attnforge.model.universal import Pair, Universal, pair_of
from attnforge.process.guard import temporary_folder
from attnforge.wheelfile.archive import open_archive
from attnforge.wheelfile.name import WheelName


def audit_wheel(
    path: Path,
    *,
    torch_site: Path | None = None,
    sites: Sequence[tuple[Pair, Path]] = (),
    torch: str = "",
    libraries: Sequence[Path] = (),
    recipe: Recipe | None = None,
    expected: Expected | None = None,
) -> AuditReport:
    """Read a wheel and say what is in it and what is wrong with it.

    ``torch_site`` is a site-packages folder with the PyTorch that the wheel is for; without one the report says that
    its symbols are unchecked. Of a universal wheel, the modules for that PyTorch are checked, for all Pythons; or
    ``sites`` has the folder for each pair, and other pairs are not checked. ``torch`` is the version that was chosen if
    the wheel has no module for it, so that there is no folder. ``libraries`` are those that PyTorch has from elsewhere
    than its own folder: from a system's CUDA, from conda. ``recipe`` names kernels by head dimension and dtype,
    ``expected`` says what was planned. Raises RequestError where there is no such file, WheelError where it is no
    whole archive, and HostError where the disk has no space for its modules.
    """
    against = Sites(torch_site, torch, sites, libraries)
    with _enough_memory(path), ExitStack() as stack:
        archive = stack.enter_context(open_archive(path))
        # Modules stay mapped until the stack unwinds, and only then may their folder go.
        folder = stack.enter_context(temporary_folder("attnforge-audit-"))
        contents, name = read_contents(archive, folder), WheelName.parse(path.name)
        if name is not None and name.is_foreign:
            return _audit_foreign(contents, name)
        return _report(_read(contents, name, recipe.kernels if recipe else None, stack), against, expected)


@dataclass(frozen=True, slots=True)
class _Wheel:
    """A wheel as it is read: ``unreadable`` are findings on the modules that are not in ``modules``."""

    contents: Contents
    name: WheelName | None
    described: Described | None
    modules: tuple[Module, ...]
    unreadable: tuple[Finding, ...]

    @property
    def file_name(self) -> str:
        return self.contents.archive.path.name

    @property
    def universal(self) -> Universal | None:
        return self.described.universal if self.described else None

    @property
    def images(self) -> dict[str, Elf]:
        return {module.path: module.elf for module in self.modules}

    @property
    def reports(self) -> tuple[ModuleReport, ...]:
        return tuple(module.report for module in self.modules)

    @property
    def is_seen_whole(self) -> bool:
        return not self.unreadable and not any(module.code.damaged for module in self.modules)


def _read(contents: Contents, name: WheelName | None, kernels: Kernels | None, stack: ExitStack) -> _Wheel:
    """Read each shared object. One that can't be read is a finding, and the others are still read."""
    described = describe(contents)
    modules, unreadable = [], []
    for path, file in contents.modules.items():
        try:
            modules.append(read_module(path, open_elf(file, stack), kernels, _slug(path) if described else ""))
        except WheelError as error:
            unreadable.append(_unreadable(path, error))
    return _Wheel(contents, name, described, tuple(modules), tuple(unreadable))


def _report(wheel: _Wheel, against: Sites, expected: Expected | None) -> AuditReport:
    platform, resolved, coverage = platform_of(wheel.images), _resolve(wheel, against), wheel.contents.coverage()
    findings = (
        *check_contents(wheel.contents, wheel.name),
        *check_compiler(wheel.contents.plan()),
        *wheel.unreadable,
        *_check_modules(wheel),
        *_check_symbols(wheel, resolved),
        *_check_platform(platform, wheel.name),
        *_check_plan(wheel, coverage or {}, expected),
    )
    return AuditReport(
        wheel=wheel.file_name,
        modules=wheel.reports,
        undefined=tuple(demangle(symbol) for symbol in resolved.undefined),
        glibc=platform.glibc,
        glibcxx=platform.glibcxx,
        platform_tag=platform.tag,
        coverage=coverage,
        findings=findings,
        verdict=verdict_of(findings),
    )


def _resolve(wheel: _Wheel, against: Sites) -> Resolved:
    if wheel.universal:
        return resolve_pairs(wheel.images, wheel.universal.pairs, against, wheel.file_name)
    return resolve_all(wheel.images, against)


def _check_modules(wheel: _Wheel) -> Iterator[Finding]:
    for module in wheel.modules:
        yield from _check_module(module, wheel.name, wheel.universal)
    if wheel.described:
        yield from check_universal(wheel.described, wheel.contents.files.keys(), wheel.images)


def _check_symbols(wheel: _Wheel, resolved: Resolved) -> Iterator[Finding]:
    not_allowed = refused(wheel.contents.text("METADATA"), wheel.name, resolved.torch)
    yield from check_allowed(not_allowed, resolved.torch)
    yield from without_blame(resolved.findings) if not_allowed else resolved.findings


def _check_plan(wheel: _Wheel, coverage: Mapping[str, Any], expected: Expected | None) -> Iterator[Finding]:
    # A plan is compared in more detail than coverage; and what could not be read says nothing of what is there.
    if expected:
        yield from check_expected(expected, wheel.reports, wheel.name)
    elif wheel.is_seen_whole:
        yield from check_coverage(coverage, wheel.reports)
    yield from check_outside(coverage, expected)


@contextmanager
def _enough_memory(path: Path) -> Iterator[None]:
    """Say that memory ran out, which is no fault of the wheel's."""
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise HostError(
            f"memory ran out during the audit of {path.name}",
            why="the wheel was neither found good nor bad",
            hint="a larger limit (ulimit -v, the container's memory), or run it on another machine",
        ) from error


def _slug(path: str) -> str:
    """Return the pair that a module of a universal wheel is for: ``torch2.11-py3.12``; empty for none."""
    pair = pair_of(path)
    return f"torch{pair[0]}-py{pair[1]}" if pair else ""


def _unreadable(path: str, error: WheelError) -> Finding:
    return Finding(
        code="module-unreadable",
        severity=Severity.ERROR,
        subject=path,
        seen=error.what,
        means=f"{error.why}: no Python can load it" if error.why else "no Python can load it",
        hint=error.hint,
    )


def _check_module(module: Module, name: WheelName | None, universal: Universal | None) -> Iterator[Finding]:
    yield from check_readable(module)
    yield from check_driver(module.path, module.elf)
    yield from check_cxx_runtime(module.path, module.elf)
    yield from check_code(module, holds_kernels(universal, module.path) if universal else None)
    yield from check_paths(module)
    if name is not None:
        pythons = {pair.python for pair in universal.pairs} if universal else set()
        yield from check_module(name, module.path, module.elf, pythons)


def _check_platform(platform: Platform, name: WheelName | None) -> Iterator[Finding]:
    wrong = [tag for tag in (name.platforms if name else ()) if not satisfied_by(platform.tag, tag)]
    if wrong:
        yield _promises_too_much(platform, wrong)
        return
    reasons = f"; not manylinux because of {', '.join(platform.reasons)}" if platform.reasons else ""
    seen = _needs(platform) + reasons
    yield Finding(code="platform", severity=Severity.OK, subject="platform", seen=seen)


def _promises_too_much(platform: Platform, claimed: list[str]) -> Finding:
    return Finding(
        code="platform-tag",
        severity=Severity.ERROR,
        subject="platform",
        seen=_needs(platform),
        means=f"the file name promises {', '.join(claimed)}, but it does not load on the oldest such machines",
        hint=f"name it for what it needs: python -m wheel tags --platform-tag {platform.tag} WHEEL",
        link="https://github.com/Dao-AILab/flash-attention/issues/1708",
    )


def _audit_foreign(contents: Contents, name: WheelName) -> AuditReport:
    """Check what is the same on every system: archive, metadata and RECORD."""
    platforms = ", ".join(name.platforms)
    unchecked = Finding(
        code="platform-unchecked",
        severity=Severity.UNCHECKED,
        subject="platform",
        seen=f"the wheel is for {platforms}",
        means="not checked: modules are read for Linux with glibc, on x86-64 and 64-bit ARM",
        hint="audit it with the tools of that system",
    )
    findings = (*check_contents(contents, name), unchecked)
    return AuditReport(
        wheel=contents.archive.path.name,
        modules=(),
        platform_tag=platforms,
        coverage=contents.coverage(),
        findings=findings,
        verdict=verdict_of(findings),
    )


def _needs(platform: Platform) -> str:
    versions = (("glibc", platform.glibc), ("libstdc++", platform.glibcxx))
    return ", ".join([platform.tag, *(f"{name} {version}" for name, version in versions if version)])
