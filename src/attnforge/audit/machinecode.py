"""What a cubin holds of each function: its machine code, what that refers to, and the resources that it takes.

NVIDIA does not document these parts of a cubin. What stands here was read off the output of ptxas 12.8 (sm_80, sm_90a)
and 13.0 (sm_80 to sm_120), and agrees with what ``cuobjdump -res-usage`` and ``-elf`` 13.5 say of it:

- ``.text.F``: machine code, from the symbol's value on for its size. CUDA 12 also keeps registers in sh_info's top byte
- ``.nv.info``: records of format u8, attribute u8 and a value; registers and stack as (symbol u32, number u32)
- ``.nv.info.F``: records of how F is launched
- ``.nv.shared.F``, ``.nv.constantN.F``: memory of F's own; ``.nv.constantN``: what all functions of the cubin share
- ``.rel[a]S``: what is patched into section S when it is loaded
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from attnforge.elf import EM_CUDA, Elf
from attnforge.errors import WheelError

_SYMBOL = struct.Struct("<IBBHQQ")
_PAIR = struct.Struct("<II")
_REL, _RELA = struct.Struct("<QQ"), struct.Struct("<QQq")
_HEADER = struct.Struct("<IIQQQQIIQQ")
_WHERE_HEADERS = 0x28  # e_shoff
_SHT_SYMTAB, _STT_FUNC = 2, 2
_PROCESSOR_FLAGS = 20  # from this bit on, sh_flags of a text section hold what CUDA 12 knows of barriers

# Attributes, by the names that cuobjdump gives them.
_FRAME_SIZE, _MIN_STACK_SIZE, _REGCOUNT = 0x11, 0x12, 0x2F
_EXTERNS, _PARAM_CBANK, _CUDA_API_VERSION = 0x0F, 0x0A, 0x37
_SIZED = 4  # the format of a record whose value follows it; others keep it in their own four bytes
# Externs are numbers of symbols, which say nothing by themselves: what the code calls is in its relocations and in
# bank 4. The API's version is that of the toolkit, whose code may well be the same.
_PASSED_OVER = (_EXTERNS, _CUDA_API_VERSION)

_BANK = re.compile(r"\.nv\.constant\d{1,2}")
_BANKS = 32  # an instruction has five bits for the number
# Since compute capability 7.0 an instruction has 16 bytes. In its first eight, bits 9 to 11 tell which operand is of
# which sort; 3 and 5 are those with a constant bank, whose number is in bits 54 to 58.
_ENCODED_SO = 70
_WITH_BANK = (3, 5)

_DIGITS = re.compile(r"(\d+)(?=_INTERNAL_|_GLOBAL__N_)")
_MODULE_ID = re.compile(r"_(?P<kind>INTERNAL|GLOBAL__N)_\w*_[0-9a-f]{8}(?:_\d+)?")
_STATIC = re.compile(r"__nv_static_(\d+)_")
_NUMBERED = re.compile(r"__internal_\d+_|(?<=__)\d+$")


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """All of a function but its name: two of the same shape run alike.

    ``code`` is a digest of the machine code with what it is patched with, ``constants`` one of the constant banks that
    it reads, ``attributes`` one of how it is launched (parameters, barriers, limits). ``registers`` are those of a
    thread; ``shared`` (of a block, without what the launch adds), ``constant`` (parameters included), ``frame`` (of
    a thread, spills included) and ``stack`` (with those that it calls) are bytes.
    """

    code: str
    constants: str = ""
    attributes: str = ""
    registers: int = 0
    shared: int = 0
    constant: int = 0
    frame: int = 0
    stack: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a cubin, by its mangled name."""

    symbol: str
    shape: Shape


def read_functions(image: bytes, number: int) -> Iterator[Function]:
    """Yield the functions of a cubin for a compute capability (90 for 9.0); WheelError where it is damaged."""
    elf = Elf.read(image)
    if elf.machine != EM_CUDA:
        raise _damaged(f"its machine is {elf.machine}")
    try:
        yield from _Image(elf, number).functions()
    except (struct.error, IndexError) as error:
        raise _damaged(str(error)) from error


def plain_name(symbol: str) -> str:
    """Return a name without what differs from one translation unit to another.

    That is the module id in names of internal linkage (hash and file name of the unit, and a process id in CUDA 12),
    and the numbers of the compiler's own helpers.
    """
    symbol = _without_static(symbol)
    for match in reversed(list(_DIGITS.finditer(symbol))):
        symbol = _without_id(symbol, match)
    return _NUMBERED.sub("", symbol) if "$" in symbol else symbol


def _without_static(symbol: str) -> str:
    match = _STATIC.search(symbol)
    if match is None:
        return symbol
    end = match.end() + int(match[1][:4])
    return symbol[: match.start()] + "__nv_static" + symbol[end:]


def _without_id(symbol: str, digits: re.Match[str]) -> str:
    """Cut out the name whose length stands before it: the last digits of them, since a name may end in others."""
    for start in range(digits.end() - 1, max(digits.start(), digits.end() - 4) - 1, -1):
        end = digits.end() + int(symbol[start : digits.end()])
        match = _MODULE_ID.fullmatch(symbol, digits.end(), end)
        if match and end <= len(symbol):
            return f"{symbol[:start]}_{match['kind']}_{symbol[end:]}"
    return symbol


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    kind: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class _Header:
    flags: int
    size: int
    info: int


class _Image:
    """A cubin with its tables read."""

    def __init__(self, elf: Elf, number: int) -> None:
        self._elf = elf
        self._number = number
        self._named = {section.name: section for section in elf.sections}
        self._headers = dict(zip((section.name for section in elf.sections), _headers(elf), strict=True))
        self._symbols = list(_symbols(elf))
        self._numbers = dict(_numbers(self._content(".nv.info")))
        self._variables: dict[str, list[tuple[int, str]]] = {}
        for symbol in self._symbols:
            if symbol.name:
                places = self._variables.setdefault(self._section_name(symbol), [])
                places.append((symbol.value, plain_name(symbol.name)))
        banks = (section.name for section in elf.sections if _BANK.fullmatch(section.name))
        self._shared_banks = {name: _digest(*self._bank(name)) for name in banks}

    def functions(self) -> Iterator[Function]:
        for index, symbol in enumerate(self._symbols):
            if symbol.kind == _STT_FUNC and 0 < symbol.section < len(self._elf.sections):
                yield Function(symbol.name, self._shape(index, symbol))

    def _shape(self, index: int, symbol: _Symbol) -> Shape:
        text = self._elf.sections[symbol.section].name
        header = self._headers[text]
        code = self._content(text)[symbol.value :][: symbol.size or None]
        own = [name for bank in range(_BANKS) if (name := f".nv.constant{bank}.{symbol.name}") in self._named]
        read = [bank for name, bank in self._shared_banks.items() if self._reads(code, name)]
        shared = self._headers.get(f".nv.shared.{symbol.name}")
        launch = _attributes(self._content(f".nv.info.{symbol.name}"))
        return Shape(
            code=_digest(code, *self._patches(text, symbol.value, len(code))),
            constants=_digest(*read, *(part for name in own for part in self._bank(name, symbol.name))),
            attributes=_digest(header.flags >> _PROCESSOR_FLAGS, *launch),
            registers=self._numbers.get((_REGCOUNT, index), header.info >> 24),
            shared=shared.size if shared else 0,
            constant=sum(self._named[name].size for name in own),
            frame=self._numbers.get((_FRAME_SIZE, index), 0),
            stack=self._numbers.get((_MIN_STACK_SIZE, index), 0),
        )

    def _reads(self, code: bytes, bank: str) -> bool:
        """Say whether code may read a bank. Which places of it is unknown: an address may be computed."""
        if self._number < _ENCODED_SO or len(code) % 16:
            return True
        wanted = int(bank.removeprefix(".nv.constant"))
        words = struct.unpack(f"<{len(code) // 8}Q", code)[::2]
        return any(word >> 54 & 31 == wanted and word >> 9 & 7 in _WITH_BANK for word in words)

    def _bank(self, name: str, function: str = "") -> Iterator[object]:
        """Yield what makes a bank what it is: its bytes, the variables in it, and the addresses that it is given."""
        yield name.removesuffix(f".{function}")
        yield self._content(name)
        yield from self._patches(name, 0, self._named[name].size)
        yield from sorted(self._variables.get(name, ()))

    def _patches(self, section: str, start: int, size: int) -> Iterator[object]:
        """Yield what is patched into a part of a section: where, how, and with the address of what."""
        for offset, kind, symbol, addend in sorted(self._relocations(section)):
            if start <= offset < start + size:
                yield offset - start, kind, *self._identity(self._symbols[symbol]), addend

    def _relocations(self, section: str) -> Iterator[tuple[int, int, int, int]]:
        for prefix, row in ((".rela", _RELA), (".rel", _REL)):
            data = self._content(prefix + section)
            for offset, info, *addend in row.iter_unpack(data[: len(data) - len(data) % row.size]):
                yield offset, info & 0xFFFFFFFF, info >> 32, addend[0] if addend else 0

    def _identity(self, symbol: _Symbol) -> tuple[str, bytes]:
        """Return a symbol's name and what it is initialized with. Strings are numbered: they go by their bytes."""
        section = self._section_name(symbol)
        if symbol.kind == _STT_FUNC or not section:
            return plain_name(symbol.name), b""
        # A section's own symbol has no size: an address inside of it is that many bytes into all of them.
        content = self._content(section)[symbol.value :][: symbol.size or None]
        name = "" if content and symbol.name.startswith("$str") else symbol.name or section
        return plain_name(name), content

    def _section_name(self, symbol: _Symbol) -> str:
        sections = self._elf.sections
        return sections[symbol.section].name if 0 < symbol.section < len(sections) else ""

    def _content(self, name: str) -> bytes:
        section = self._named.get(name)
        return self._elf.data[section.offset : section.offset + section.size] if section else b""


def _headers(elf: Elf) -> Iterator[_Header]:
    """Yield what Elf leaves out of the section table: sizes in device memory, of sections without bytes in the file."""
    if not elf.sections:
        return
    (start,) = struct.unpack_from("<Q", elf.data, _WHERE_HEADERS)
    for number in range(len(elf.sections)):
        _, _, flags, _, _, size, _, info, _, _ = _HEADER.unpack_from(elf.data, start + number * _HEADER.size)
        yield _Header(flags, size, info)


def _symbols(elf: Elf) -> Iterator[_Symbol]:
    table = next((section for section in elf.sections if section.type == _SHT_SYMTAB), None)
    if table is None:
        return
    names = elf.sections[table.link]
    strings = elf.data[names.offset : names.offset + names.size]
    rows = elf.data[table.offset : table.offset + table.size - table.size % _SYMBOL.size]
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(rows):
        text = strings[name : max(strings.find(b"\0", name), name)]
        yield _Symbol(text.decode("utf-8", errors="replace"), info & 15, section, value, size)


def _numbers(info: bytes) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield the numbers that .nv.info has for symbols: ((attribute, symbol), number)."""
    for attribute, value in _records(info):
        if attribute in (_REGCOUNT, _FRAME_SIZE, _MIN_STACK_SIZE) and len(value) == _PAIR.size:
            symbol, number = _PAIR.unpack(value)
            yield (attribute, symbol), number


def _attributes(info: bytes) -> list[tuple[int, bytes]]:
    """Return how a function is launched. The bank of its parameters is named by a symbol's number, which is cut off."""
    records = (record for record in _records(info) if record[0] not in _PASSED_OVER)
    return sorted((attribute, value[4:] if attribute == _PARAM_CBANK else value) for attribute, value in records)


def _records(info: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(info):
        form, attribute, short = struct.unpack_from("<BBH", info, at)
        sized = short if form == _SIZED else 0
        yield attribute, info[at + 4 : at + 4 + sized] if form == _SIZED else info[at + 2 : at + 4]
        at += 4 + sized


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _damaged(why: str) -> WheelError:
    return WheelError("machine code can't be read", why=why, hint="build or download the wheel again")
