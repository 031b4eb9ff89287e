"""From the wheel that upstream packed to ours: labelled, with its provenance inside, the same bytes every time."""

from __future__ import annotations

import zipfile
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from attnforge.errors import BuildError
from attnforge.model.plan import UNSTATED, BuildPlan
from attnforge.package.archive import Member, read_members, write_wheel
from attnforge.package.metadata import name_and_version, relabel
from attnforge.package.provenance import documents


def package_wheel(upstream: Path, folder: Path, plan: BuildPlan, builder: str) -> Path:
    """Write our wheel into ``folder`` and return its path.

    Tags are upstream's own (an abi3 or a pure Python wheel stays one). Name and version are the plan's; the version is
    upstream's where only its build could say it. Raises BuildError where upstream packed something else than what was
    planned.
    """
    members = _read(upstream)
    old = _dist_info(members, upstream)
    metadata = members[f"{old}/METADATA"].data.decode()
    name, version = name_and_version(metadata)
    _expect(plan, name, version)
    tags = upstream.name.removesuffix(".whl").split("-")[-3:]
    full = str(Version(f"{Version(version).public}+{plan.label}")) if plan.label else version
    new = f"{old.removesuffix('.dist-info').rsplit('-', 1)[0]}-{full}.dist-info"
    moved = {_moved(path, old, new): member for path, member in members.items()}
    compiled = any(path.endswith(".so") for path in moved)
    labelled = relabel(metadata, full, plan.requires_torch if compiled else "")
    moved[f"{new}/METADATA"] = Member(labelled.encode())
    moved |= {f"{new}/{path}": Member(data) for path, data in documents(plan, builder).items()}
    wheel = folder / f"{new.removesuffix('.dist-info')}-{'-'.join(tags)}.whl"
    write_wheel(wheel, moved, new)
    return wheel


def _read(upstream: Path) -> dict[str, Member]:
    try:
        parse_wheel_filename(upstream.name)
        return read_members(upstream)
    except (InvalidWheelFilename, zipfile.BadZipFile, OSError) as error:
        raise BuildError(f"upstream's build packed {upstream.name}, which is no wheel", why=str(error)) from error


def _dist_info(members: dict[str, Member], upstream: Path) -> str:
    found = {path.split("/")[0] for path in members if path.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise BuildError(f"upstream's wheel {upstream.name} has {len(found)} dist-info folders and not one")
    return found.pop()


def _expect(plan: BuildPlan, name: str, version: str) -> None:
    if plan.version != UNSTATED and Version(version).public != Version(plan.version).public:
        raise BuildError(
            f"upstream's build made version {version} of {name}, and the plan is for {plan.version}",
            why="the source is not the version that its name or index says",
        )


def _moved(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old) if path.startswith(old + "/") else path
