"""Confirms what a wheel of ours says by other means than ours: zipfile, packaging, pyelftools and NVIDIA's cuobjdump.

Nothing of attnforge is imported here. A reader of ours that is wrong would be wrong in the same way in the wheel and in
its audit. Of wheels that lie here: ``python tests/standins/independent.py WHEEL ...``
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
_CUBIN = re.compile(r"\.(?P<sm>sm_\d+[af]?)\.cubin$", re.MULTILINE)
_KERNEL = re.compile(r"^\s*(?:STT_)?FUNC\s+(?:STB_)?\w+\s+.*\bENTRY\s+(?P<name>\S+)\s*$", re.MULTILINE)


def cuobjdump() -> str:
    """Return the program, from PATH or beside the tests' Python; skips the test where it is missing."""
    beside = Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/cuobjdump")
    found = shutil.which("cuobjdump") or next(map(str, beside), "")
    if not found:
        pytest.skip("no cuobjdump on this machine: pip install nvidia-cuda-cuobjdump")
    return found


@dataclass(frozen=True)
class Module:
    """A shared object: what pyelftools says of its host code, and cuobjdump of its device code."""

    path: str
    machine: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    code: frozenset[str]
    ptx: bool
    kernels: frozenset[str]


@dataclass(frozen=True)
class Seen:
    """A wheel as it is."""

    name: str
    members: dict[str, bytes]
    modules: tuple[Module, ...]

    @property
    def dist_info(self) -> str:
        """The one folder."""
        (folder,) = {path.split("/")[0] for path in self.members if ".dist-info/" in path}
        return folder

    def text(self, name: str) -> str:
        """Return a file of dist-info."""
        return self.members[f"{self.dist_info}/{name}"].decode()

    def json(self, name: str) -> dict[str, Any]:
        """Return a document of attnforge's."""
        document: dict[str, Any] = json.loads(self.text(f"attnforge/{name}.json"))
        return document

    @property
    def code(self) -> set[str]:
        """The architectures that any module has machine code for."""
        return {one for module in self.modules for one in module.code}


def look(wheel: Path) -> Seen:
    """Read a wheel with zipfile, its modules with pyelftools and cuobjdump."""
    program = cuobjdump()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert [name for name, count in Counter(names).items() if count > 1] == []
        members = {name: archive.read(name) for name in names}
    images = {name: data for name, data in members.items() if re.search(r"\.so(\.\d+)*$", name)}
    return Seen(wheel.name, members, tuple(_module(program, *image) for image in images.items()))


def confirm(wheel: Path) -> Seen:
    """Assert that name, label, coverage, metadata, RECORD and machine code of a wheel of ours agree; return it."""
    seen = look(wheel)
    _confirm_record(seen)
    _confirm_metadata(seen)
    _confirm_documents(seen)
    _confirm_modules(seen)
    return seen


def _module(program: str, path: str, data: bytes) -> Module:
    elf = ELFFile(io.BytesIO(data))
    tags = [tag for part in elf.iter_sections() if isinstance(part, DynamicSection) for tag in part.iter_tags()]
    searches = {"DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
    paths = [str(getattr(tag, searches[tag.entry.d_tag])) for tag in tags if tag.entry.d_tag in searches]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "module.so"
        file.write_bytes(data)

        def said(option: str) -> str:
            # It answers with an error where there is no device code.
            done = subprocess.run([program, option, file], capture_output=True, text=True)
            return done.stdout

        code = frozenset(match["sm"] for match in _CUBIN.finditer(said("--list-elf")))
        kernels = (
            frozenset(match["name"] for match in _KERNEL.finditer(said("--dump-elf-symbols"))) if code else frozenset()
        )
        ptx = ".ptx" in said("--list-ptx")
    needed = tuple(str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED")
    return Module(path, _MACHINES[elf["e_machine"]], needed, tuple(paths), code, ptx, kernels)


def _confirm_record(seen: Seen) -> None:
    rows = {path: (digest, size) for path, digest, size in csv.reader(io.StringIO(seen.text("RECORD")))}
    assert set(rows) == set(seen.members)
    for path, data in seen.members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        own = ("", "") if path == f"{seen.dist_info}/RECORD" else (f"sha256={digest}", str(len(data)))
        assert rows[path] == own, path


def _confirm_metadata(seen: Seen) -> None:
    project, version, _, tags = parse_wheel_filename(seen.name)
    metadata = Parser().parsestr(seen.text("METADATA"), headersonly=True)
    assert canonicalize_name(metadata["Name"]) == project and Version(metadata["Version"]) == version
    folder_project, _, folder_version = seen.dist_info.removesuffix(".dist-info").rpartition("-")
    assert canonicalize_name(folder_project) == project and Version(folder_version) == version
    data = {path.split("/")[0] for path in seen.members if path.split("/")[0].endswith(".data")}
    assert data <= {f"{seen.dist_info.removesuffix('.dist-info')}.data"}
    said: Message = Parser().parsestr(seen.text("WHEEL"))
    told = {str(tag) for line in said.get_all("Tag") or () for tag in parse_wheel_filename(f"x-1-{line}.whl")[3]}
    assert told == {str(tag) for tag in tags}
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist") or ()]
    torch = [one for one in asked if one.name == "torch" and (one.marker is None or "extra" not in str(one.marker))]
    plan = seen.json("plan")
    versions = [pair["torch"] for pair in plan["pairs"]] or [plan["target"]["torch"]]
    if not seen.modules:
        return
    assert torch, "a wheel with modules has to ask for its PyTorch"
    for one in torch:
        assert any(one.specifier.contains(built) for built in versions)
        minors = {".".join(built.split(".")[:2]) for built in versions}
        near = {f"{major}.{int(minor) - 1}.0" for major, minor in (one.split(".") for one in minors)} - {
            f"{m}.0" for m in minors
        }
        assert not any(one.specifier.contains(other) for other in near), "it allows a PyTorch that it was not built for"


def _confirm_documents(seen: Seen) -> None:
    plan, coverage, provenance = (seen.json(name) for name in ("plan", "coverage", "provenance"))
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert provenance["plan"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert plan["wheel"] == seen.name
    _, version, _, _ = parse_wheel_filename(seen.name)
    assert (version.local or "") == plan["label"]
    assert "outside" not in coverage
    assert set(coverage["architectures"]) == seen.code, "coverage names other machine code than cuobjdump finds"
    if not (version.local or "").startswith("cu"):
        return
    parts = (version.local or "").split(".")
    labelled = {re.sub(r"^sm", "sm_", part) for part in parts if re.fullmatch(r"sm\d+[af]?", part)}
    assert labelled == seen.code, "the label names other machine code than cuobjdump finds"
    cuda = plan["target"]["cuda"]
    assert parts[0].startswith(f"cu{cuda.replace('.', '')}torch")
    runtimes = {library for module in seen.modules for library in module.needed if library.startswith("libcudart.so")}
    assert runtimes <= {f"libcudart.so.{cuda.split('.')[0]}"}
    dims = {int(part[2:]) for part in parts if re.fullmatch(r"hd\d+", part)}
    assert dims in (set(), set(coverage["head_dims"]))


def _confirm_modules(seen: Seen) -> None:
    tags = parse_wheel_filename(seen.name)[3]
    for module in seen.modules:
        assert not module.ptx, f"{module.path} holds PTX, and the plan has none"
        assert all(tag.platform.endswith(module.machine) for tag in tags), module.path
        folders = [folder for search in module.search for folder in search.split(":")]
        assert all(folder.startswith("$ORIGIN") for folder in folders), (module.path, folders)
        suffix = re.search(r"\.cpython-(\d+)-", module.path)
        if suffix and not any(tag.abi == "none" for tag in tags):
            assert any(tag.interpreter == f"cp{suffix[1]}" for tag in tags), module.path
        if module.path.endswith(".abi3.so"):
            assert any(tag.abi == "abi3" for tag in tags), module.path
        assert not module.code or module.kernels, f"{module.path} has machine code and no kernel"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        confirmed = confirm(Path(argument))
        count = sum(len(module.kernels) for module in confirmed.modules)
        print(f"{confirmed.name}: {len(confirmed.modules)} modules, {count} kernels, code: {sorted(confirmed.code)}")
