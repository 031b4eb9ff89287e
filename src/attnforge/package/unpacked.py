"""What a wheel is taken apart into, and how it is put together again under another version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from attnforge.errors import AttnforgeError, BuildError
from attnforge.model.plan import UNSTATED, BuildPlan
from attnforge.package.archive import Member, read_members, write_wheel
from attnforge.package.metadata import name_and_version
from attnforge.wheelfile.archive import UNREADABLE
from attnforge.wheelfile.name import WheelName, data_folder, dist_info_in


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The files of a wheel by path: those of its dist-info folder by their paths in it, and all others."""

    name: str
    dist_info: str
    files: Mapping[str, Member]
    information: Mapping[str, Member]

    @property
    def data(self) -> str:
        """The name of the folder with what installs outside of site-packages: that of dist-info with another ending."""
        return data_folder(self.dist_info)

    @property
    def metadata(self) -> str:
        """The text of METADATA."""
        return self.information["METADATA"].data.decode()

    @property
    def tags(self) -> str:
        """``cp312-cp312-linux_x86_64``: the last three parts of the file name."""
        return "-".join(self.name.removesuffix(".whl").split("-")[-3:])


def unpack(wheel: Path, plan: BuildPlan, fault: type[AttnforgeError] = BuildError) -> Unpacked:
    """Read a wheel whole. Raises ``fault`` where it is none, and BuildError where it is of another version than was
    planned.
    """
    if WheelName.parse(wheel.name) is None:
        raise fault(f"{wheel.name} is no wheel", why="its name is not NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    try:
        members = read_members(wheel)
    except UNREADABLE as error:
        raise fault(f"{wheel.name} is no wheel, or a damaged one", why=str(error)) from error
    folder = dist_info_in(members)
    if not folder:
        raise fault(f"the wheel {wheel.name} has not exactly one dist-info folder")
    inside = f"{folder}/"
    information = {path.removeprefix(inside): one for path, one in members.items() if path.startswith(inside)}
    files = {path: member for path, member in members.items() if not path.startswith(inside)}
    missing = [name for name in ("METADATA", "WHEEL") if name not in information]
    if missing:
        raise fault(f"the wheel {wheel.name} has no {missing[0]}")
    unpacked = Unpacked(wheel.name, folder, files, information)
    _expect(plan, *name_and_version(unpacked.metadata))
    return unpacked


def labelled(version: str, label: str) -> str:
    """Return a version with our label in place of its own; without a label it stays."""
    return str(Version(f"{Version(version).public}+{label}")) if label else version


@dataclass(frozen=True, slots=True)
class Named:
    """The names of a wheel that is made: its dist-info folder, its file, and the data folder that it had before."""

    dist_info: str
    file: str
    old_data: str

    @classmethod
    def like(cls, unpacked: Unpacked, version: str, tags: str) -> Named:
        """Return the names of the same project's wheel of another version and other tags."""
        project = unpacked.dist_info.removesuffix(".dist-info").rsplit("-", 1)[0]
        return cls(f"{project}-{version}.dist-info", f"{project}-{version}-{tags}.whl", unpacked.data)

    def write(self, folder: Path, files: Mapping[str, Member], information: Mapping[str, Member]) -> Path:
        """Write the wheel into a folder and return its path. RECORD is made here.

        Scripts and headers are in NAME-VERSION.data, which installers look for under the wheel's own version.
        """
        inside = {f"{self.dist_info}/{path}": member for path, member in information.items()}
        placed = {_moved(path, self.old_data, data_folder(self.dist_info)): member for path, member in files.items()}
        wheel = folder / self.file
        write_wheel(wheel, {**placed, **inside}, self.dist_info)
        return wheel


def _moved(path: str, old: str, new: str) -> str:
    """Return a path whose data folder has the new name. Projects spell theirs in more than one way."""
    folder, slash, rest = path.partition("/")
    return f"{new}/{rest}" if slash and _spelled(folder) == _spelled(old) else path


def _spelled(folder: str) -> tuple[str, str]:
    name, _, version = folder.rpartition("-")
    return canonicalize_name(name), version.lower()


def _expect(plan: BuildPlan, name: str, version: str) -> None:
    if plan.version != UNSTATED and Version(version).public != Version(plan.version).public:
        raise BuildError(
            f"upstream's build made version {version} of {name}, and the plan is for {plan.version}",
            why="the source is not the version that its name or index says",
        )
