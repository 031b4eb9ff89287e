"""From the wheel that upstream packed to ours: labelled, with its provenance inside, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attnforge.model.plan import BuildPlan
from attnforge.package.archive import Member
from attnforge.package.metadata import name_and_version, relabel
from attnforge.package.provenance import documents
from attnforge.package.sbom import PLACE, Vendored, bill
from attnforge.package.unpacked import Named, labelled, unpack


def package_wheel(
    upstream: Path, folder: Path, plan: BuildPlan, builder: str, vendored: Iterable[Vendored] = ()
) -> Path:
    """Write our wheel into ``folder`` and return its path.

    Tags are upstream's own (an abi3 or a pure Python wheel stays one). Name and version are the plan's; the version is
    upstream's where only its build could say it. ``vendored`` is what of other projects is compiled in (sbom.vendored).
    Raises BuildError where upstream packed something else than what was planned.
    """
    old = unpack(upstream, plan)
    version = labelled(name_and_version(old.metadata)[1], plan.label)
    named = Named.like(old, version, old.tags)
    compiled = any(path.endswith(".so") for path in old.files)
    metadata = relabel(old.metadata, version, plan.requires_torch if compiled else "")
    made = {"METADATA": metadata.encode(), **documents(plan, builder)}
    if compiled:
        made[PLACE] = bill(plan, builder, named.file, metadata, vendored, static_runtime=False)
    information = {**old.information, **{path: Member(data) for path, data in made.items()}}
    return named.write(folder, old.files, information)
