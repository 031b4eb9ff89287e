"""Modules share the C++ library of the process, where the compiler would link a copy into each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from attnforge.audit.module import check_cxx_runtime
from attnforge.elf import Elf
from attnforge.process import Command, Outcome
from attnforge.provision.cxxruntime import RUNTIME, shared_runtime

SOURCE = """
#include <sstream>
#include <stdexcept>
extern "C" void fail(long n) { std::ostringstream text; text << "bad: " << n; throw std::runtime_error(text.str()); }
"""


def compiler(files: Mapping[str, Path]) -> object:
    """Return a runner for a compiler that has these files; it answers with the bare name where it has none."""

    def run(command: Command, log: object = None) -> Outcome:
        name = command.argv[1].removeprefix("-print-file-name=")
        return Outcome(0, f"{files.get(name, name)}\n")

    return run


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "lib" / "libstdc++.so.6.0.33"
    path.parent.mkdir()
    path.write_text("the library")
    return path


def options(folder: Path, files: Mapping[str, Path]) -> tuple[str, ...]:
    folder.mkdir(exist_ok=True)
    return shared_runtime("/usr/bin/g++", folder, compiler(files), {})  # type: ignore[arg-type]


def test_a_compiler_that_has_the_shared_library_is_left_alone(tmp_path: Path, library: Path) -> None:
    assert options(tmp_path / "stubs", {"libstdc++.so": library, RUNTIME: library}) == ()
    assert list((tmp_path / "stubs").iterdir()) == []


def test_one_that_has_the_archive_alone_gets_the_name_for_the_linker(tmp_path: Path, library: Path) -> None:
    folder = tmp_path / "stubs"
    for _ in range(2):  # once more in the same folder, as for a second pair of a universal wheel
        assert options(folder, {RUNTIME: library}) == (f"-L{folder}",)
        assert (folder / "libstdc++.so").resolve() == library.resolve()


def test_a_library_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    gone = dict.fromkeys(("libstdc++.so", RUNTIME), tmp_path / "gone")
    assert options(tmp_path / "stubs", gone) == ()
    assert options(tmp_path / "stubs", {}) == ()


# An image without libstdc++.so, for the time of two commands: a copy that lacks it hides the compiler's folder.
_SCRIPT = """
set -e
mount --bind "$COPY" "$OWN"
g++ -shared -fPIC fail.cpp -o without.so
g++ -shared -fPIC $OPTIONS fail.cpp -o with.so
"""


def test_a_real_compiler_without_the_shared_library(tmp_path: Path) -> None:
    """The module of such a compiler exports a C++ library of its own; with the options it needs the shared one."""
    gxx, unshare = shutil.which("g++"), shutil.which("unshare")
    if not gxx or not unshare:
        pytest.skip("g++ and unshare are needed")
    archive = Path(_printed(gxx, "libstdc++.a"))
    shared = Path(_printed(gxx, RUNTIME))
    if not (archive.is_absolute() and shared.is_absolute()):
        pytest.skip("this g++ has no libstdc++.a or no libstdc++.so.6")
    copy = tmp_path / "copy"
    shutil.copytree(archive.parent, copy, symlinks=True)
    (copy / "libstdc++.so").unlink(missing_ok=True)
    (tmp_path / "fail.cpp").write_text(SOURCE)
    (tmp_path / "stubs").mkdir()
    found = options(tmp_path / "stubs", {RUNTIME: shared})
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "COPY": str(copy), "OWN": str(archive.parent)}
    environ["OPTIONS"] = " ".join(found)
    run = subprocess.run(
        [unshare, "-rm", "sh", "-c", _SCRIPT], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    if run.returncode and "ermi" in run.stderr:
        pytest.skip(f"no mount namespaces here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    without, fixed = (Elf.read((tmp_path / name).read_bytes()) for name in ("without.so", "with.so"))
    assert RUNTIME not in without.needed
    assert [finding.code for finding in check_cxx_runtime("without.so", without)] == ["cxx-runtime-inside"]
    assert RUNTIME in fixed.needed
    assert list(check_cxx_runtime("with.so", fixed)) == []


def _printed(gxx: str, name: str) -> str:
    return subprocess.run([gxx, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
