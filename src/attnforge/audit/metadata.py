"""Compares a wheel's name with its METADATA, its WHEEL file and the suffixes of its modules."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from email import message_from_string
from pathlib import PurePosixPath

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name

from attnforge.audit.record import LINK
from attnforge.elf import EM_AARCH64, EM_X86_64, Elf
from attnforge.model.finding import Finding, Severity
from attnforge.model.universal import LIBRARY, pair_of
from attnforge.model.versions import as_version
from attnforge.wheelfile.metadata import fields_of
from attnforge.wheelfile.name import WheelName

_TAGGED = re.compile(r"\.(?P<implementation>cpython|pypy)-?(?P<digits>\d+)(?P<flags>[a-z]*)(?:-[\w-]+)?\.so$")
MACHINES = {EM_X86_64: "x86_64", EM_AARCH64: "aarch64"}
_HINT = "build the wheel again, or rename it with `python -m wheel tags`, which keeps name and contents together"


def check_name(file_name: str, name: WheelName | None) -> Iterator[Finding]:
    """Say whether the file name is one that pip and uv accept."""
    if name is None:
        means = "installers refuse a file whose name is not NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        yield _error("wheel-name", file_name, "not a valid name of a wheel", means)


def check_metadata(name: WheelName, dist_info: str, text: str) -> Iterator[Finding]:
    """Compare project name and version of the file name, the dist-info folder and METADATA."""
    metadata = fields_of(text)
    project, version = metadata.get("name", ""), metadata.get("version", "")
    if not _same(name, project, version):
        seen = f"{project or 'no name'} {version or 'no version'}"
        yield _error("metadata-name", "METADATA", seen, f"the file name says {name.project} {name.version}")
    folder, _, folder_version = dist_info.removesuffix(".dist-info").rpartition("-")
    if not _same(name, folder, folder_version):
        yield _error("dist-info-name", dist_info, dist_info, f"the file name says {name.project} {name.version}")


def check_tags(name: WheelName, text: str, *, compiled: bool) -> Iterator[Finding]:
    """Compare the tags of the file name with those of the WHEEL file."""
    wheel = message_from_string(text)
    tags = frozenset(tag for line in wheel.get_all("Tag", []) for tag in _expand(str(line)))
    if tags != name.tags:
        seen = ", ".join(sorted(map(str, tags))) or "no tags"
        means = f"the file name says {', '.join(sorted(map(str, name.tags)))}"
        yield _error("wheel-tags", "WHEEL", seen, means)
    if compiled and str(wheel.get("Root-Is-Purelib", "")).strip().lower() == "true":
        means = "a wheel with compiled modules belongs into the folder for platform libraries"
        yield _warning("purelib", "WHEEL", "Root-Is-Purelib: true", means)


def check_module(name: WheelName, path: str, elf: Elf, pythons: Container[str] = ()) -> Iterator[Finding]:
    """Compare one module's machine and suffix with the tags of the file name.

    ``pythons`` are those of a universal wheel's pairs (``3.12``): it is for any Python, and each module for one.
    """
    machine = MACHINES.get(elf.machine, f"machine {elf.machine}")
    if not any(platform.endswith(machine) for platform in name.platforms):
        yield _error("module-machine", path, f"made for {machine}", f"the file name says {', '.join(name.platforms)}")
    tags = module_tags(path)
    if _is_of_a_pair(name, path, pythons):
        return
    if tags and not any(_imports(tag, *tags) for tag in name.tags):
        wanted = ", ".join(sorted({f"{tag.interpreter}-{tag.abi}" for tag in name.tags}))
        means = f"the wheel is for {wanted}, whose Python does not find a module of this name"
        yield _error("module-suffix", path, PurePosixPath(path).name, means)


def _is_of_a_pair(name: WheelName, path: str, pythons: Container[str]) -> bool:
    pair = pair_of(path)
    return bool(pair and pair[1] in pythons and any((tag.interpreter, tag.abi) == ("py3", "none") for tag in name.tags))


def module_tags(path: str) -> tuple[str, str] | None:
    """Return (interpreter, abi) of a module's suffix: (cp313, cp313t), (``""``, abi3); None for a plain .so."""
    if path.endswith(".abi3.so"):
        return "", "abi3"
    match = _TAGGED.search(path)
    if match is None:
        return None
    interpreter = ("cp" if match["implementation"] == "cpython" else "pp") + match["digits"]
    return interpreter, interpreter + match["flags"]


def import_name(path: str) -> str:
    """Return the name that a module of a wheel is imported by: ``flash_attn_3/_C.abi3.so`` is ``flash_attn_3._C``.

    A pair's module of a universal wheel, and the library of its kernels, have the name of the module that they make up.
    """
    parts = [part for part in PurePosixPath(path).parts if not part.endswith(".data") and part not in _SCHEMES]
    leaf, folders = parts[-1].partition(".")[0], parts[:-1]
    if pair_of(path) and folders[-2:-1] == [leaf]:
        return ".".join(folders[:-1])
    kernels = LIBRARY.fullmatch(parts[-1])
    if kernels and folders[-1:] == [kernels["module"]]:
        return ".".join(folders)
    return ".".join([*folders, leaf])


_SCHEMES = ("platlib", "purelib")


def _imports(tag: Tag, interpreter: str, abi: str) -> bool:
    """Say whether an interpreter of a tag finds a module: CPython 3 with its global lock also takes ``.abi3.so``."""
    if abi == "abi3":
        return tag.interpreter.startswith(("cp3", "py3")) and not tag.abi.endswith("t")
    return tag.interpreter == interpreter and tag.abi in (abi, "none")


def _same(name: WheelName, project: str, version: str) -> bool:
    return canonicalize_name(project) == name.project and as_version(version) == name.version


def _expand(line: str) -> Iterable[Tag]:
    try:
        return parse_tag(line.strip())
    except ValueError:
        return ()


def _error(code: str, subject: str, seen: str, means: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, subject=subject, seen=seen, means=means, hint=_HINT, link=LINK)


def _warning(code: str, subject: str, seen: str, means: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, subject=subject, seen=seen, means=means, hint=_HINT, link=LINK)
