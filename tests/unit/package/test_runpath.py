"""Folders of the build machine are taken out of libraries, and what a linker made still loads and says the same."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from attnforge.elf import Elf
from attnforge.model.plan import BuildPlan
from attnforge.package.runpath import without_build_paths
from attnforge.package.wheel import package_wheel

TEXT = """
#include <math.h>
int answer(void) { return 42; }
int shared(void) { return 7; }      /* the end of the search path "/built/here/shared" */
double root(double x) { return cbrt(x) + answer(); }
"""


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("link")
    (folder / "it.c").write_text(TEXT)
    subprocess.run([compiler, "-c", "-fPIC", "-o", folder / "it.o", folder / "it.c"], check=True)

    def made(search: str, *flags: str) -> bytes:
        out = folder / "it.so"
        words = [f"-Wl,-rpath,{search}"] if search else []
        command = [str(compiler), "-shared", *words, *flags, "-o", str(out), str(folder / "it.o"), "-lm"]
        subprocess.run(command, check=True)
        return out.read_bytes()

    return made


def rows(image: bytes) -> list[tuple[str, object]]:
    """The dynamic section as pyelftools reads it: tags with their values, names for those that are names."""
    section = next(one for one in ELFFile(BytesIO(image)).iter_sections() if isinstance(one, DynamicSection))
    named = {"DT_NEEDED": "needed", "DT_SONAME": "soname", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
    return [
        (tag.entry.d_tag, getattr(tag, named[tag.entry.d_tag]) if tag.entry.d_tag in named else tag.entry.d_val)
        for tag in section.iter_tags()
        if tag.entry.d_tag != "DT_NULL"
    ]


@pytest.mark.parametrize("kind", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.parametrize(
    ("search", "kept"),
    [
        ("/built/here/lib", ""),
        ("/built/here/lib:/usr/local/cuda/lib64", ""),
        ("lib:.:$LIB/x:", ""),  # these go by the current folder of the process
        ("/built/here/lib:$ORIGIN/../torch/lib", "$ORIGIN/../torch/lib"),
        ("$ORIGIN:/built/here/lib:${ORIGIN}/x", "$ORIGIN:${ORIGIN}/x"),
        ("$ORIGINAL/x:/y", ""),
        ("$ORIGIN/../lib", "$ORIGIN/../lib"),
        ("", ""),
    ],
)
def test_only_folders_beside_the_library_stay(
    link: Callable[..., bytes], search: str, kept: str, kind: str, tmp_path: Path
) -> None:
    before = link(search, f"-Wl,{kind}", "-Wl,-soname,libit.so")
    after = without_build_paths(before)
    tag = "DT_RUNPATH" if kind == "--enable-new-dtags" else "DT_RPATH"
    assert [value for name, value in rows(after) if name == tag] == ([kept] if kept else [])
    others = [row for row in rows(before) if row[0] != tag]
    assert [row for row in rows(after) if row[0] != tag] == others
    assert b"/built/here" not in after and len(after) == len(before)
    assert without_build_paths(after) == after
    if kept == search:
        assert after == before
    (tmp_path / "it.so").write_bytes(after)
    loaded = ctypes.CDLL(str(tmp_path / "it.so"))
    loaded.root.restype, loaded.root.argtypes = ctypes.c_double, [ctypes.c_double]
    assert (loaded.answer(), loaded.root(8.0)) == (42, 44.0)


@pytest.mark.parametrize("optimized", [(), ("-Wl,-O2",)])
def test_a_name_that_is_the_end_of_a_search_path_stays(
    link: Callable[..., bytes], tmp_path: Path, optimized: tuple[str, ...]
) -> None:
    after = without_build_paths(link("/built/here/shared", *optimized))
    (tmp_path / "it.so").write_bytes(after)
    assert ctypes.CDLL(str(tmp_path / "it.so")).shared() == 7
    assert Elf.read(after).exports({"shared", "answer", "root"}) == {"shared", "answer", "root"}
    assert b"/built" not in after and Elf.read(after).rpath == ()


def test_where_it_was_built_does_not_change_the_bytes(link: Callable[..., bytes]) -> None:
    one, other = (link(f"/home/{user}/torch/lib", "-Wl,--build-id=none") for user in "ab")
    assert one != other and without_build_paths(one) == without_build_paths(other)


@given(st.binary(max_size=300), st.integers(0, 299), st.binary(min_size=1, max_size=8))
def test_what_is_no_library_is_returned_as_it_is(data: bytes, at: int, patch: bytes) -> None:
    assert without_build_paths(data) == data
    broken = bytearray(b"\x7fELF\x02\x01\x01" + bytes(57) + data)
    broken[7 + at % len(data or b"x") : 8 + at % len(data or b"x")] = patch[:1]
    without_build_paths(bytes(broken))


def test_a_wheel_is_packed_without_them(
    link: Callable[..., bytes], tmp_path: Path, make_plan: Callable[..., BuildPlan]
) -> None:
    upstream = tmp_path / "flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(upstream, "w") as archive:
        archive.writestr("x/_C.cpython-312-x86_64-linux-gnu.so", link("/built/here/lib"))
        archive.writestr("x/lib/libmore.so.1", link("/built/here/lib:$ORIGIN"))
        archive.writestr("flash_attn-2.8.3.dist-info/METADATA", "Name: flash_attn\nVersion: 2.8.3\n")
        archive.writestr("flash_attn-2.8.3.dist-info/WHEEL", "Tag: cp312-cp312-linux_x86_64\n")
    wheel = package_wheel(upstream, tmp_path, make_plan(), "x")
    with zipfile.ZipFile(wheel) as archive:
        images = {name: archive.read(name) for name in archive.namelist() if ".so" in name}
    assert [Elf.read(image).rpath for image in images.values()] == [(), ("$ORIGIN",)]
    assert not [name for name, image in images.items() if b"/built/here" in image]
