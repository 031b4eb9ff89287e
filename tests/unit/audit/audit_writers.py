"""Writes what the audit reads: host libraries, cubins, fatbins and wheels, byte by byte and without a compiler."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lz4.block
import zstandard

STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
FUNC = 2


@dataclass(frozen=True)
class Sym:
    name: str
    defined: bool = False
    bind: int = STB_GLOBAL
    version: tuple[str, str] | None = None  # (library, version)
    other: int = 0


class Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


@dataclass
class Part:
    name: str
    type: int
    data: bytes
    link: str = ""
    entsize: int = 0
    info: int = 0


def assemble(parts: Sequence[Part], *, machine: int, flags: int = 0, abi_version: int = 0, kind: int = 3) -> bytes:
    """Lay sections out after the header and put the section table behind them."""
    names = Strings()
    all_parts = [*parts, Part(".shstrtab", 3, b"")]
    offsets = [names.add(part.name) for part in all_parts]
    all_parts[-1].data = bytes(names.data)
    index = {part.name: number for number, part in enumerate(all_parts, start=1)}
    body = bytearray(64)
    rows = [bytes(64)]
    for name, part in zip(offsets, all_parts, strict=True):
        body += bytes(-len(body) % 16)
        link = index.get(part.link, 0)
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", name, part.type, 0, 0, len(body), len(part.data), link, part.info, 8, part.entsize
            )
        )
        body += part.data
    body += bytes(-len(body) % 16)
    ident = b"\x7fELF\x02\x01\x01\0" + bytes([abi_version]) + bytes(7)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, kind, machine, 1, 0, 0, len(body), flags, 64, 56, 0, 64, len(rows), len(rows) - 1
    )
    body[:64] = header
    return bytes(body) + b"".join(rows)


def library(
    symbols: Iterable[Sym] = (),
    *,
    needed: Iterable[str] = (),
    soname: str = "",
    rpath: str = "",
    fatbin: bytes = b"",
    machine: int = 62,
) -> bytes:
    """A shared library with dynamic symbols, symbol versions, DT_NEEDED and device code."""
    strings = Strings()
    symbols = list(symbols)
    needs = sorted({symbol.version for symbol in symbols if symbol.version})
    numbers = {need: number for number, need in enumerate(needs, start=2)}
    table, versym = bytearray(24), bytearray(struct.pack("<H", 0))
    for symbol in symbols:
        info = symbol.bind << 4 | FUNC
        section = 1 if symbol.defined else 0
        table += struct.pack("<IBBHQQ", strings.add(symbol.name), info, symbol.other, section, 0, 0)
        versym += struct.pack("<H", numbers[symbol.version] if symbol.version else 1)
    verneed = _verneed(needs, numbers, strings)
    dynamic = [(1, strings.add(name)) for name in needed]
    dynamic += [(14, strings.add(soname))] if soname else []
    dynamic += [(29, strings.add(rpath))] if rpath else []
    parts = [
        Part(".dynstr", 3, b""),
        Part(".dynsym", 11, bytes(table), ".dynstr", 24, info=1),
        Part(".gnu.version", 0x6FFFFFFF, bytes(versym), ".dynsym", 2),
        Part(".dynamic", 6, b"".join(struct.pack("<qQ", *row) for row in [*dynamic, (0, 0)]), ".dynstr", 16),
    ]
    if verneed:
        libraries = len({name for name, _ in needs})
        parts.append(Part(".gnu.version_r", 0x6FFFFFFE, verneed, ".dynstr", info=libraries))
    if fatbin:
        parts.append(Part(".nv_fatbin", 1, fatbin))
    parts[0].data = bytes(strings.data)
    return assemble(parts, machine=machine)


def _verneed(needs: Sequence[tuple[str, str]], numbers: Mapping[tuple[str, str], int], strings: Strings) -> bytes:
    libraries = sorted({name for name, _ in needs})
    blocks = []
    for name in libraries:
        versions = [need for need in needs if need[0] == name]
        rows = b""
        for position, need in enumerate(versions):
            following = 16 if position + 1 < len(versions) else 0
            rows += struct.pack("<IHHII", 0, 0, numbers[need], strings.add(need[1]), following)
        size = 16 + len(rows)
        following = size if name != libraries[-1] else 0
        blocks.append(struct.pack("<HHIII", 1, len(versions), strings.add(name), 16, following) + rows)
    return b"".join(blocks)


def cubin(
    number: int, kernels: Iterable[str] = (), *, functions: Iterable[str] = (), abi: int = 8, a: bool = False
) -> bytes:
    """Machine code for one architecture, with the flags of CUDA 12 (abi 7) or 13 (abi 8)."""
    strings = Strings()
    table = bytearray(24)
    for name, other in [*((name, 0x10) for name in kernels), *((name, 0) for name in functions)]:
        table += struct.pack("<IBBHQQ", strings.add(name), STB_GLOBAL << 4 | FUNC, other, 1, 0, 0)
    parts = [Part(".text", 1, bytes(16)), Part(".symtab", 2, bytes(table), ".strtab", 24, info=1)]
    parts.append(Part(".strtab", 3, bytes(strings.data)))
    flags = number << 8 | (0x8 if a else 0) if abi >= 8 else number | number << 16 | (0x800 if a else 0)
    return assemble(parts, machine=190, flags=flags, abi_version=abi, kind=2)


def entry(kind: int, number: int, payload: bytes, *, suffix: str = "", packed: str = "") -> bytes:
    """One image of a fatbin; ``packed`` is lz4, zstd or nothing."""
    flags = 0x11 | {"": 0, "a": 0x100000, "f": 0x200000}[suffix] | {"": 0, "lz4": 0x2000, "zstd": 0x8000}[packed]
    stored = payload
    if packed == "lz4":
        stored = lz4.block.compress(payload, store_size=False)
    elif packed == "zstd":
        stored = zstandard.ZstdCompressor().compress(payload)
    size = len(stored) if packed else 0
    unpacked = len(payload) if packed else 0
    padded = stored + bytes(-len(stored) % 8) if packed else stored
    header = struct.pack(
        "<HHIQIIHHIIIQQQ", kind, 0x101, 64, len(padded), size, 0, 8, 1, number, 0, 0, flags, 0, unpacked
    )
    return header + padded


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def machine_code(number: int, *kernels: str, suffix: str = "", packed: str = "zstd") -> bytes:
    """A container with one cubin."""
    return container(entry(2, number, cubin(number, kernels or ("kernel",)), suffix=suffix, packed=packed))


def record_row(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}"


def record_of(files: Mapping[str, bytes], dist_info: str) -> bytes:
    rows = [record_row(path, data) for path, data in files.items()]
    return "\n".join([*rows, f"{dist_info}/RECORD,,", ""]).encode()


def metadata(
    name: str = "demo_kernels", version: str = "1.0", tag: str = "cp311-cp311-linux_x86_64"
) -> dict[str, bytes]:
    folder = f"{name}-{version}.dist-info"
    tags = "".join(f"Tag: {one}\n" for one in tag.split(" "))
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n".encode(),
        f"{folder}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n{tags}".encode(),
    }


def write_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "demo_kernels-1.0-cp311-cp311-linux_x86_64.whl",
    info: Mapping[str, bytes] | None = None,
    record: bytes | None = None,
) -> Path:
    """Write a wheel with those files, and with METADATA, WHEEL and RECORD that fit unless others are given."""
    contents = {**files, **(metadata() if info is None else info)}
    dist_info = next(path.split("/")[0] for path in contents if ".dist-info/" in path)
    recorded = record_of(contents, dist_info) if record is None else record
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**contents, f"{dist_info}/RECORD": recorded}.items():
            archive.writestr(member, data)
    return path


def torch_site(folder: Path, exports: Iterable[str] = (), *, cuda: str = "13", version: str = "2.11.0+cu130") -> Path:
    """A site-packages folder with a small PyTorch, and NVIDIA's runtime beside it."""
    lib = folder / "torch" / "lib"
    nvidia = folder / "nvidia" / f"cu{cuda}" / "lib"
    lib.mkdir(parents=True)
    nvidia.mkdir(parents=True)
    (folder / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
    (lib / "libc10.so").write_bytes(library([Sym(name, defined=True) for name in exports], soname="libc10.so"))
    (lib / "libtorch_global_deps.so").write_bytes(library(needed=[f"libcudart.so.{cuda}"]))
    runtime = library([Sym("cudaLaunchKernel", defined=True)], soname=f"libcudart.so.{cuda}")
    (nvidia / f"libcudart.so.{cuda}").write_bytes(runtime)
    return folder


# --- universal wheels: two PyTorch minors, two Pythons, and one pair that is not there

HEX = "0123456789abcdef"
LIBRARY = f"libdemo_cuda-{HEX}.so"
LAUNCH = f"_Z10run_kernelPf.{HEX}"
SET_DEVICE = "_ZN3c104cuda9SetDeviceEa"
PAIRS = (("2.11.0", "3.11"), ("2.11.0", "3.12"), ("2.12.1", "3.12"))
UNIVERSAL = "demo_kernels-1.0-py3-none-linux_x86_64.whl"
UNIVERSAL_INFO = "demo_kernels-1.0.dist-info/attnforge"


def pair_path(torch: str = "2.11", python: str = "3.11", folder: str = "demo_cuda") -> str:
    """Where a pair's module lies: ``demo_cuda/torch2.11/demo_cuda.cpython-311-x86_64-linux-gnu.so``."""
    leaf = folder.rpartition("/")[2]
    return f"{folder}/torch{torch}/{leaf}.cpython-{python.replace('.', '')}-x86_64-linux-gnu.so"


def kernels_library(
    exports: Iterable[str] = (LAUNCH,),
    wants: Iterable[Sym] = (),
    *,
    needed: Iterable[str] = ("libstdc++.so.6", "libc.so.6"),
    soname: str = LIBRARY,
    fatbin: bytes | None = None,
) -> bytes:
    """The library of a universal wheel's kernels."""
    symbols = [
        *(Sym(name, defined=True) for name in exports),
        *wants,
        Sym("malloc", version=("libc.so.6", "GLIBC_2.28")),
    ]
    code = machine_code(90, "kernel") if fatbin is None else fatbin
    return library(symbols, needed=needed, soname=soname, fatbin=code)


def thin_module(
    exports: Iterable[str] = ("PyInit_demo_cuda",),
    wants: Iterable[str] = (LAUNCH, SET_DEVICE),
    *,
    needed: Iterable[str] = (LIBRARY, "libc10.so", "libcudart.so.13", "libc.so.6"),
    rpath: str = "$ORIGIN/..",
    fatbin: bytes = b"",
) -> bytes:
    """A pair's module: upstream's host code."""
    symbols = [*(Sym(name, defined=True) for name in exports), *map(Sym, (*wants, "PyModule_Create2"))]
    return library(symbols, needed=needed, rpath=rpath, fatbin=fatbin)


def universal_json(pairs: Iterable[tuple[str, str]] = PAIRS, **module: object) -> bytes:
    """``universal.json`` of a wheel with one module; what is given replaces what it says of that."""
    one = {"name": "demo_cuda", "library": LIBRARY, "shared": ["csrc/kernel.cu"], "symbols": ["_Z10run_kernelPf"]}
    document = {"schema": 1, "pairs": pairs_json(pairs), "modules": [{**one, **module}]}
    return json.dumps(document).encode()


def pairs_json(pairs: Iterable[tuple[str, str]] = PAIRS) -> list[dict[str, str]]:
    return [{"torch": torch, "python": python} for torch, python in pairs]


def universal_files() -> dict[str, bytes]:
    """The files of a good universal wheel, but for METADATA, WHEEL and RECORD."""
    modules = {pair_path(torch.rpartition(".")[0], python): thin_module() for torch, python in PAIRS}
    return {
        "demo/__init__.py": b"import demo_cuda",
        "demo_cuda/__init__.py": b"# the loader",
        f"demo_cuda/{LIBRARY}": kernels_library(),
        **modules,
        f"{UNIVERSAL_INFO}/universal.json": universal_json(),
        f"{UNIVERSAL_INFO}/plan.json": json.dumps({"pairs": pairs_json()}).encode(),
    }


def write_universal(
    folder: Path, changed: Mapping[str, bytes | None] = {}, *, tag: str = "py3-none-linux_x86_64"
) -> Path:
    """Write a good universal wheel but for the files that are given; None takes one out."""
    files = {path: data for path, data in {**universal_files(), **changed}.items() if data is not None}
    return write_wheel(folder, files, name=f"demo_kernels-1.0-{tag}.whl", info=metadata(tag=tag))
