from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from audit_writers import STB_LOCAL, STB_WEAK, Part, Sym, assemble, cubin, library
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from attnforge.audit.cubin import read_cubin
from attnforge.elf import Elf, Reference
from attnforge.errors import WheelError

MALLOC = Sym("malloc", version=("libc.so.6", "GLIBC_2.2.5"))
SAMPLE = library(
    [
        MALLOC,
        Sym("log2f", version=("libm.so.6", "GLIBC_2.27")),
        Sym("memcpy", version=("libc.so.6", "GLIBC_2.14")),
        Sym("_ZN3c105ErrorE"),
        Sym("__gmon_start__", bind=STB_WEAK),
        Sym("ours", defined=True),
        Sym("static", defined=True, bind=STB_LOCAL),
        Sym("hidden", defined=True, other=2),
        Sym("default_of_ours", defined=True, bind=STB_WEAK),
    ],
    needed=["libc10.so", "libc.so.6"],
    soname="libours.so",
    rpath="$ORIGIN/lib:/home/builder/lib",
)


def test_dynamic_section() -> None:
    elf = Elf.read(SAMPLE)
    assert elf.needed == ("libc10.so", "libc.so.6")
    assert elf.soname == "libours.so"
    assert elf.rpath == ("$ORIGIN/lib", "/home/builder/lib")


def test_references_are_strong_undefined_symbols_with_their_versions() -> None:
    assert Elf.read(SAMPLE).references() == (
        Reference("malloc", "libc.so.6", "GLIBC_2.2.5"),
        Reference("log2f", "libm.so.6", "GLIBC_2.27"),
        Reference("memcpy", "libc.so.6", "GLIBC_2.14"),
        Reference("_ZN3c105ErrorE"),
    )


def test_requirements_are_all_versions_by_library() -> None:
    assert Elf.read(SAMPLE).requirements() == (
        ("libc.so.6", "GLIBC_2.14"),
        ("libc.so.6", "GLIBC_2.2.5"),
        ("libm.so.6", "GLIBC_2.27"),
    )


def test_exports_are_what_others_can_bind_to() -> None:
    names = {"ours", "static", "hidden", "default_of_ours", "malloc", "absent"}
    assert Elf.read(SAMPLE).exports(names) == {"ours", "default_of_ours"}


def test_all_exports_are_named() -> None:
    assert list(Elf.read(SAMPLE).exported()) == ["ours", "default_of_ours"]
    assert list(Elf.read(cubin(90, ["kernel"])).exported()) == []


def test_another_reader_agrees() -> None:
    """The writer of these tests and the reader could share a mistake; pyelftools shares none with either."""
    other: Any = ELFFile(io.BytesIO(SAMPLE))
    tags = other.get_section_by_name(".dynamic").iter_tags()
    assert Elf.read(SAMPLE).needed == tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED")
    versions = other.get_section_by_name(".gnu.version_r").iter_versions()
    pairs = {(need.name, auxiliary.name) for need, rows in versions for auxiliary in rows}
    assert set(Elf.read(SAMPLE).requirements()) == pairs
    undefined = [
        symbol.name
        for symbol in other.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
    ]
    assert [reference.symbol for reference in Elf.read(SAMPLE).references()] == undefined


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begin"),
        (b"!<arch>\n" + bytes(100), "begin"),
        (b"\x7fELF\x01\x01" + bytes(100), "64-bit"),
        (b"\x7fELF\x02\x02" + bytes(100), "64-bit"),
        (SAMPLE[:-1], "outside"),
        (SAMPLE[: len(SAMPLE) // 2], "outside"),
    ],
)
def test_what_is_no_whole_image_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(WheelError) as caught:
        Elf.read(data)
    assert why in caught.value.why
    assert caught.value.hint


def test_an_image_without_sections_is_readable_and_says_that_it_has_no_symbols() -> None:
    bare = bytearray(SAMPLE[:64])
    bare[40:48] = bytes(8)
    elf = Elf.read(bytes(bare))
    assert not elf.has_dynamic_symbols
    assert (elf.needed, elf.references(), elf.exports({"ours"}), elf.requirements()) == ((), (), set(), ())


@given(st.data())
@settings(max_examples=300)
def test_damage_is_survived(data: st.DataObject) -> None:
    image = bytearray(data.draw(st.sampled_from([SAMPLE, cubin(90, ["kernel"])])))
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        elf = Elf.read(bytes(image))
        _ = (elf.needed, elf.rpath, elf.references(), elf.exports({"ours"}), list(elf.functions()), elf.requirements())
    except WheelError as error:
        assert error.why


@pytest.mark.parametrize(("abi", "a", "suffix"), [(7, True, "a"), (7, False, ""), (8, True, "a"), (8, False, "")])
@pytest.mark.parametrize("number", [75, 80, 89, 90, 100, 120, 121])
def test_cubin_architecture(number: int, abi: int, a: bool, suffix: str) -> None:
    code = read_cubin(cubin(number, ["kernel"], functions=["helper"], abi=abi, a=a))
    assert (code.number, code.suffix) == (number, suffix)
    assert (code.kernels, code.functions) == (("kernel",), ("kernel", "helper"))


def test_a_host_library_is_no_cubin() -> None:
    with pytest.raises(WheelError, match="no machine code"):
        read_cubin(SAMPLE)


def test_more_sections_than_the_header_can_count() -> None:
    image = bytearray(SAMPLE)
    (offset,) = struct.unpack_from("<Q", image, 40)
    count, names = struct.unpack_from("<HH", image, 60)
    image[60:64] = struct.pack("<HH", 0, 0xFFFF)
    image[offset + 32 : offset + 40] = struct.pack("<Q", count)
    image[offset + 40 : offset + 44] = struct.pack("<I", names)
    assert Elf.read(bytes(image)).needed == ("libc10.so", "libc.so.6")


@pytest.mark.parametrize(("kind", "readable"), [(8, True), (0x70000015, True), (1, False)])
def test_sections_without_bytes_in_the_file(kind: int, readable: bool) -> None:
    """NVIDIA's own kinds of section for device memory claim sizes that the file does not have."""
    image = assemble([Part(".big", kind, b"")], machine=190)
    (offset,) = struct.unpack_from("<Q", image, 40)
    image = image[: offset + 64 + 32] + struct.pack("<Q", 1 << 62) + image[offset + 64 + 40 :]
    if readable:
        section = Elf.read(image).section(".big")
        assert section is not None
        assert (section.offset, section.size) == (0, 0)
    else:
        with pytest.raises(WheelError, match="not a readable ELF"):
            Elf.read(image)
