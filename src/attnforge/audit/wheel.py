"""Audits a wheel: any wheel of a CUDA extension, made here or not, without importing anything of it."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attnforge.audit.allowed import check_allowed, refused, without_blame
from attnforge.audit.archive import Archive, open_archive
from attnforge.audit.compiler import check_compiler
from attnforge.audit.contents import Contents, check_contents, read_contents, read_coverage, read_metadata
from attnforge.audit.demangle import demangle
from attnforge.audit.expected import check_coverage, check_expected, check_outside
from attnforge.audit.manylinux import Platform, platform_of, satisfied_by
from attnforge.audit.metadata import WheelName, check_module, is_foreign
from attnforge.audit.module import (
    Module,
    check_code,
    check_cxx_runtime,
    check_driver,
    check_paths,
    check_readable,
    read_module,
)
from attnforge.audit.pairs import Sites, resolve_all, resolve_pairs
from attnforge.audit.site import open_elf
from attnforge.audit.universal import check_universal, describe, holds_kernels
from attnforge.errors import HostError, WheelError
from attnforge.model.audit import AuditReport, Expected, verdict_of
from attnforge.model.finding import Finding, Severity
from attnforge.model.kernels import Kernels
from attnforge.model.recipe import Recipe
from attnforge.model.universal import Pair, Universal, pair_of


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
    its symbols are unchecked. Of a universal wheel, the modules for that PyTorch are looked at, for all Pythons; or
    ``sites`` has the folder for each pair, and others are not looked at. ``torch`` is the version that was chosen where
    there is no folder with it, since the wheel has no module for it. ``libraries`` are those that PyTorch has from
    elsewhere than its own folder: from a system's CUDA, from conda. ``recipe`` tells kernels by head dimension and
    dtype, ``expected`` what was planned. Raises RequestError where there is no such file, WheelError where it is no
    whole archive, and HostError where there is no room to unpack its modules.
    """
    with _enough_memory(path), ExitStack() as stack:
        archive = stack.enter_context(open_archive(path))
        # Modules stay mapped until the stack unwinds, and only then may their folder go.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attnforge-audit-")))
        contents = read_contents(archive, folder)
        name = WheelName.parse(path.name)
        if name is not None and is_foreign(name):
            return _audit_foreign(archive, contents, name)
        described = describe(archive, contents)
        universal = described.universal if described else None
        modules, unreadable = _read_modules(contents.modules, recipe.kernels if recipe else None, universal, stack)
        images = {module.path: module.elf for module in modules}
        reports = tuple(module.report for module in modules)
        against, platform = Sites(torch_site, torch, sites, libraries), platform_of(images)
        resolved = (
            resolve_pairs(images, universal.pairs, against, path.name) if universal else resolve_all(images, against)
        )
        coverage = read_coverage(archive, contents)
        not_allowed = refused(read_metadata(archive, contents), name, resolved.torch)
        # A plan is compared in more detail; and what could not be read says nothing of what is there.
        seen_whole = not unreadable and not any(module.code.damaged for module in modules)
        findings = (
            *check_contents(archive, contents, name),
            *check_compiler(archive, contents),
            *unreadable,
            *(finding for module in modules for finding in _check_module(module, name, universal)),
            *(check_universal(described, contents.files.keys(), images) if described else ()),
            *check_allowed(not_allowed, resolved.torch),
            *(without_blame(resolved.findings) if not_allowed else resolved.findings),
            *_check_platform(platform, name),
            *(check_expected(expected, reports, name) if expected else ()),
            *(check_coverage(coverage or {}, reports) if seen_whole and not expected else ()),
            *check_outside(coverage or {}, expected),
        )
        return AuditReport(
            wheel=path.name,
            modules=reports,
            undefined=tuple(demangle(symbol) for symbol in resolved.undefined),
            glibc=platform.glibc,
            glibcxx=platform.glibcxx,
            platform_tag=platform.tag,
            coverage=coverage,
            findings=findings,
            verdict=verdict_of(findings),
        )


@contextmanager
def _enough_memory(path: Path) -> Iterator[None]:
    """Say that memory ran out, which is no fault of the wheel's."""
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise HostError(
            f"memory ran out while {path.name} was looked at",
            why="the wheel was neither found good nor bad",
            hint="a larger limit (ulimit -v, the container's memory), or run it on another machine",
        ) from error


def _read_modules(
    files: Mapping[str, Path], kernels: Kernels | None, universal: Universal | None, stack: ExitStack
) -> tuple[list[Module], list[Finding]]:
    """Read each shared object; one that can't be read is a finding, and the others are still looked at."""
    modules, unreadable = [], []
    for path, file in files.items():
        try:
            modules.append(read_module(path, open_elf(file, stack), kernels, _slug(path) if universal else ""))
        except WheelError as error:
            unreadable.append(_unreadable(path, error))
    return modules, unreadable


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
    claimed = sorted({tag.platform for tag in name.tags}) if name else []
    wrong = [tag for tag in claimed if not satisfied_by(platform.tag, tag)]
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


def _audit_foreign(archive: Archive, contents: Contents, name: WheelName) -> AuditReport:
    """Look at what is the same on every system: archive, metadata and RECORD."""
    platforms = ", ".join(sorted({tag.platform for tag in name.tags}))
    unchecked = Finding(
        code="platform-unchecked",
        severity=Severity.UNCHECKED,
        subject="platform",
        seen=f"the wheel is for {platforms}",
        means="not checked: modules are looked into for Linux with glibc, on x86-64 and 64-bit ARM",
        hint="audit it with the tools of that system",
    )
    findings = (*check_contents(archive, contents, name), unchecked)
    return AuditReport(
        wheel=archive.path.name,
        modules=(),
        platform_tag=platforms,
        coverage=read_coverage(archive, contents),
        findings=findings,
        verdict=verdict_of(findings),
    )


def _needs(platform: Platform) -> str:
    versions = (("glibc", platform.glibc), ("libstdc++", platform.glibcxx))
    return ", ".join([platform.tag, *(f"{name} {version}" for name, version in versions if version)])
