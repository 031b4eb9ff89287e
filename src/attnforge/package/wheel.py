"""From the wheel that upstream packed to ours: labelled, with its provenance inside, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from attnforge.model.plan import BuildPlan
from attnforge.package.archive import Member
from attnforge.package.metadata import name_and_version, relabel, torch_conflicts
from attnforge.package.provenance import documents
from attnforge.package.runpath import without_build_paths
from attnforge.package.sbom import PLACE, Vendored, bill
from attnforge.package.unpacked import Named, labelled, unpack
from attnforge.wheelfile.name import SHARED_OBJECT


def package_wheel(
    upstream: Path,
    folder: Path,
    plan: BuildPlan,
    builder: str,
    vendored: Iterable[Vendored] = (),
    *,
    outside: bool = False,
) -> Path:
    """Write our wheel into ``folder`` and return its path.

    Tags are upstream's own (an abi3 or a pure Python wheel stays one). Name and version are the plan's; the version is
    upstream's where only its build could say it. ``vendored`` is what of other projects is compiled in (sbom.vendored).
    ``outside`` says that no compile went through the ninja that upstream was given. Raises BuildError where upstream
    packed something else than what was planned.
    """
    old = unpack(upstream, plan)
    version = labelled(name_and_version(old.metadata)[1], plan.label)
    named = Named.like(old, version, old.tags)
    modules = {path for path in old.files if SHARED_OBJECT.search(path)}
    compiled = bool(modules)
    files = {path: _portable(member) if path in modules else member for path, member in old.files.items()}
    metadata = relabel(old.metadata, version, plan.requires_torch if compiled else "", plan.target.torch)
    made = {"METADATA": metadata.encode(), **documents(plan, builder, outside=outside and compiled)}
    if compiled:
        made[PLACE] = bill(plan, builder, named.file, metadata, vendored, static_runtime=False)
    information = {**old.information, **{path: Member(data) for path, data in made.items()}}
    return named.write(folder, files, information)


def torch_warnings(upstream: Path, plan: BuildPlan) -> tuple[str, ...]:
    """Return what is to be said of upstream's own bounds on torch: those that the plan's versions do not meet."""
    torches = torches_of(plan)
    return tuple(
        f"upstream's metadata asks for {asked}, and the wheel is for PyTorch {', '.join(torches)}: "
        "upstream does not promise that it works, and the wheel asks for its own PyTorch instead"
        for asked in torch_conflicts(unpack(upstream, plan).metadata, torches)
    )


def torches_of(plan: BuildPlan) -> tuple[str, ...]:
    """Return the PyTorch versions that a plan's modules are compiled with; none of a wheel that has no modules."""
    found = [pair.torch for pair in plan.pairs] or [plan.target.torch]
    return tuple(dict.fromkeys(filter(None, found)))


def _portable(member: Member) -> Member:
    return replace(member, data=without_build_paths(member.data))
