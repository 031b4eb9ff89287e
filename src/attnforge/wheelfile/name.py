"""Names: of wheels, and of the folders and modules in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

SHARED_OBJECT = re.compile(r"\.so(?:\.\d+)*$")
"""How the path of a shared object ends: ``_C.abi3.so``, ``libcudart.so.13``."""

_DIST_INFO = ".dist-info"
_KNOWN_PLATFORM = re.compile(r"any|(?:linux|manylinux[\w.]*)_(?:x86_64|aarch64)")


@dataclass(frozen=True, slots=True)
class WheelName:
    """What a wheel's file name says: canonical project name, version, and the tags that it stands for."""

    project: str
    version: Version
    tags: frozenset[Tag]

    @classmethod
    def parse(cls, file_name: str) -> WheelName | None:
        """Read a file name, None where it is not a wheel's."""
        try:
            project, version, _, tags = parse_wheel_filename(file_name)
        except InvalidWheelFilename:
            return None
        return cls(project, version, tags)

    @property
    def interpreters(self) -> tuple[str, ...]:
        """The Python tags, sorted: ``cp312``, ``py3``."""
        return tuple(sorted({tag.interpreter for tag in self.tags}))

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags, sorted."""
        return tuple(sorted({tag.platform for tag in self.tags}))

    @property
    def is_foreign(self) -> bool:
        """Whether the wheel is only for other systems than Linux with glibc on x86-64 or ARM."""
        return bool(self.tags) and not any(map(_KNOWN_PLATFORM.fullmatch, self.platforms))

    @property
    def python(self) -> str:
        """The one Python (``3.12``) that the wheel is for, "" where it is for several."""
        tags = {tag.interpreter for tag in self.tags if tag.abi != "abi3"}
        tag = tags.pop() if len(tags) == 1 else ""
        return f"3.{tag.removeprefix('cp3')}" if tag.startswith("cp3") and tag[3:].isdecimal() else ""

    def serves(self, python: str) -> bool:
        """Say whether the wheel installs on a Python: by its own tag, or by a stable ABI from below it.

        ``python`` is ``cp312``, or ``cp314t`` for one without the global interpreter lock, which loads no stable ABI.
        """
        free = python.endswith("t")
        interpreter = python.removesuffix("t")
        return any(
            tag.interpreter == "py3"
            or (tag.interpreter == interpreter and tag.abi.endswith("t") == free)
            or (not free and tag.abi == "abi3" and _minor(tag.interpreter) <= _minor(python))
            for tag in self.tags
        )


def dist_info_in(paths: Iterable[str]) -> str:
    """Return the name of the dist-info folder, "" unless there is exactly one."""
    found = {folder for path in paths for folder, slash, _ in [path.partition("/")] if slash and _is_dist_info(folder)}
    return found.pop() if len(found) == 1 else ""


def is_in_dist_info(path: str, place: str) -> bool:
    """Say whether a path is that of a file (``METADATA``) in a dist-info folder."""
    folder, _, rest = path.partition("/")
    return rest == place and _is_dist_info(folder)


def data_folder(dist_info: str) -> str:
    """Return the name of the folder with what installs outside of site-packages: ``NAME-VERSION.data``."""
    return f"{dist_info.removesuffix(_DIST_INFO)}.data"


def _is_dist_info(folder: str) -> bool:
    return folder.endswith(_DIST_INFO)


def _minor(interpreter: str) -> int:
    digits = re.sub(r"\D", "", interpreter)
    return int(digits[1:] or 0)
