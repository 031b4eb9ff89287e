"""Stands in for nvcc: compiles a .cu file as C++ and adds a fatbin that names its kernels for each architecture.

A function whose name holds "kernel" counts as one of the device's. The fatbin has the form that attnforge.audit reads.

What it is asked most often, ``--version`` and ``--dryrun``, a shell script in front of it answers (house.make_toolkit).

Files in the folder ``controls`` of the toolkit tell it what to do, since a build's environment passes nothing on:
``calls`` gets the name of each unit that it is called for, and ``UNIT.json``, or ``every.json`` for those without one,
may hold ``wait`` (a path that has to exist before it goes on), ``print`` (to standard error), ``end`` (an exit code, or
"SIGKILL"), ``times`` (for so many calls only) and ``pad`` (bytes that the object gets in addition).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

LONGEST_WAIT = 120.0

_EM_CUDA, _ABI, _ENTRY_POINT, _GLOBAL_FUNCTION = 190, 8, 0x10, 0x12
_ELF_IMAGE, _MAGIC = 2, 0xBA55ED50


def main(home: Path, arguments: list[str]) -> int:
    controls = home / "controls"
    call = Call(arguments)
    with (controls / "calls").open("a") as calls:
        calls.write(call.source.name + "\n")
    ended = obey(controls, call.source.name)
    return call.compile(home, padding(controls, call.source.name)) if ended is None else ended


def orders(controls: Path, unit: str) -> dict[str, object]:
    for name in (unit, "every"):
        try:
            loaded: dict[str, object] = json.loads((controls / f"{name}.json").read_text())
        except FileNotFoundError:
            continue
        return loaded
    return {}


def padding(controls: Path, unit: str) -> int:
    return int(str(orders(controls, unit).get("pad", 0)))


def obey(controls: Path, unit: str) -> int | None:
    """Do what is ordered for a unit; return the exit code where it is not to be compiled."""
    told = orders(controls, unit)
    called = (controls / "calls").read_text().split("\n").count(unit)
    if called > int(str(told.get("times", called))):
        return None
    deadline = time.monotonic() + LONGEST_WAIT
    while told.get("wait") and not Path(str(told["wait"])).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    print(told.get("print", ""), end="", file=sys.stderr, flush=True)
    if told.get("end") == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(str(told["end"])) if "end" in told else None


class Call:
    """A command line of nvcc's, as far as PyTorch's builds use it."""

    def __init__(self, arguments: list[str]) -> None:
        self.host: list[str] = []
        self.architectures: list[str] = []
        self.compiler = "c++"
        self.depfile = ""
        self.output = self.source = Path()
        rest = list(arguments)
        while rest:
            self._read(rest.pop(0), rest)

    def _read(self, word: str, rest: list[str]) -> None:
        if word in ("-gencode", "-Xcompiler", "--compiler-options", "-o", "-ccbin", "-MF", "-include", "-isystem"):
            self._pair(word, rest.pop(0))
        elif word.startswith("-gencode="):
            self._pair("-gencode", word.partition("=")[2])
        elif word.endswith(".cu"):
            self.source = Path(word)
        elif re.match(r"-(?:[IDUO]|std=)", word):
            self.host.append(word)

    def _pair(self, option: str, value: str) -> None:
        if option == "-gencode":
            self.architectures += re.findall(r"code=sm_(\w+)", value)
        elif option in ("-Xcompiler", "--compiler-options"):
            # As nvcc 13.0 does: apart at commas without a backslash, and through a shell.
            for part in re.split(r"(?<!\\),", value):
                self.host += shlex.split(part.replace(r"\,", ","))
        elif option == "-o":
            self.output = Path(value)
        elif option == "-ccbin":
            self.compiler = value
        elif option == "-MF":
            self.depfile = value
        else:
            self.host += [option, value]

    def compile(self, home: Path, pad: int) -> int:
        words = ["-D__CUDACC__", "-D__global__=", "-D__device__=", "-D__host__=", f"-I{home / 'include'}"]
        with tempfile.TemporaryDirectory() as folder:
            made, fatbin = Path(folder) / "host.o", Path(folder) / "fatbin"
            command = [self.compiler, "-x", "c++", *words, *self.host, "-c", str(self.source), "-o", str(made)]
            if self.depfile:
                # As nvcc's -MD does, with headers of the system.
                command += ["-MD", "-MF", self.depfile, "-MT", str(self.output)]
            code = subprocess.run(command).returncode
            if code:
                return code
            kernels = kernels_of(made)
            fatbin.write_bytes(container(image(name, cubin(name, kernels)) for name in self.architectures) + bytes(pad))
            section = ["--add-section", f".nv_fatbin={fatbin}", "--set-section-flags", ".nv_fatbin=alloc,readonly,data"]
            subprocess.run(["objcopy", *section, str(made)], check=True)
            return write(self.output, made.read_bytes())


def write(output: Path, data: bytes) -> int:
    try:
        output.write_bytes(data)
    except OSError as error:
        # As the assembler says it.
        print(f"Fatal error: can't write {len(data)} bytes to {output}: '{error.strerror}'", file=sys.stderr)
        return 1
    return 0


def kernels_of(made: Path) -> list[str]:
    listed = subprocess.run(["nm", "--defined-only", "-P", str(made)], capture_output=True, text=True, check=True)
    symbols = (line.split() for line in listed.stdout.splitlines())
    return sorted(name for name, kind, *_ in symbols if kind in "TW" and "kernel" in name)


def number_of(architecture: str) -> int:
    return int(re.sub(r"\D", "", architecture))


def cubin(architecture: str, kernels: list[str]) -> bytes:
    """An ELF image with a symbol for each kernel: text, symbols, strings, section names."""
    names = b"\0" + b"".join(kernel.encode() + b"\0" for kernel in kernels)
    symbols = bytearray(24)
    at = 1
    for kernel in kernels:
        symbols += struct.pack("<IBBHQQ", at, _GLOBAL_FUNCTION, _ENTRY_POINT, 1, 0, 0)
        at += len(kernel) + 1
    titles = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    parts = [(1, 1, bytes(16), 0, 0), (7, 2, bytes(symbols), 3, 24), (15, 3, names, 0, 0), (23, 3, titles, 0, 0)]
    body, rows = bytearray(64), [bytes(64)]
    for title, kind, data, link, size in parts:
        body += bytes(-len(body) % 16)
        rows.append(struct.pack("<IIQQQQIIQQ", title, kind, 0, 0, len(body), len(data), link, 1, 8, size))
        body += data
    body += bytes(-len(body) % 16)
    ident = b"\x7fELF\x02\x01\x01\0" + bytes([_ABI]) + bytes(7)
    flags = number_of(architecture) << 8 | (0x8 if architecture.endswith("a") else 0)
    counts = (64, 56, 0, 64, len(rows), len(rows) - 1)
    body[:64] = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, _EM_CUDA, 1, 0, 0, len(body), flags, *counts)
    return bytes(body) + b"".join(rows)


def image(architecture: str, payload: bytes) -> bytes:
    """One entry of a fatbin: not compressed, its size a multiple of 8."""
    payload += bytes(-len(payload) % 8)
    flags = 0x11 | {"a": 0x100000, "f": 0x200000}.get(architecture[-1], 0)
    number = number_of(architecture)
    sizes = (64, len(payload), 0, 0, 8, 1, number, 0, 0, flags, 0, 0)
    return struct.pack("<HHIQIIHHIIIQQQ", _ELF_IMAGE, 0x101, *sizes) + payload


def container(images: Iterable[bytes]) -> bytes:
    body = b"".join(images)
    return struct.pack("<IHHQ", _MAGIC, 1, 16, len(body)) + body


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
