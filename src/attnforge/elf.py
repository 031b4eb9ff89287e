"""Reads 64-bit little-endian ELF images: host libraries and the cubins inside them.

Symbol tables are unpacked from raw bytes, because libtorch's have tens of thousands of rows and an audit needs only a
few of these. Layouts: System V ABI, chapters 4 and 5, and the GNU symbol versioning supplement (LSB, chapter 10.7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Set
from dataclasses import dataclass
from mmap import mmap

from attnforge.errors import WheelError

Buffer = bytes | mmap

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_VERNEED = struct.Struct("<HHIII")
_VERNAUX = struct.Struct("<IHHII")
_VERDEF = struct.Struct("<HHHHIII")
_VERDAUX = struct.Struct("<II")

DYNAMIC_ROW = _DYNAMIC.size
"""Bytes of a row of the dynamic section."""

_SHT_SYMTAB, _SHT_STRTAB, _SHT_DYNAMIC, _SHT_NOBITS, _SHT_DYNSYM = 2, 3, 6, 8, 11
_SHT_VERDEF, _SHT_VERNEED, _SHT_VERSYM = 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_PROCESSOR_KINDS = 7  # the top digit of SHT_LOPROC to SHT_HIPROC
_SHN_XINDEX = 0xFFFF
_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 14, 15, 29
_DT_AUXILIARY, _DT_FILTER = 0x7FFFFFFD, 0x7FFFFFFF
_STB_LOCAL, _STB_WEAK = 0, 2
_STT_FUNC = 2
_HIDDEN_VISIBILITIES = (1, 2)  # STV_INTERNAL, STV_HIDDEN
_VERSION_INDEX = 0x7FFF  # the top bit says "hidden", the rest is the index

EM_X86_64, EM_AARCH64, EM_CUDA = 62, 183, 190


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the section table; ``offset`` and ``size`` in bytes of the file, both 0 where it has none there."""

    name: str
    type: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function that an image defines, with its st_other, in which cubins mark kernels."""

    name: str
    other: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of an object that other objects may define or use: ``defined`` here, or wanted from one of them."""

    name: str
    defined: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A symbol that must come from elsewhere, with the library and version it is bound to, or both empty."""

    symbol: str
    library: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class SearchPath:
    """A list of folders where other libraries are looked for: ``text`` is unchanged, its folders joined by colons.

    ``row`` and ``table_end`` are where its row of the dynamic section begins and where that section ends, ``start`` is
    where the text begins; all in bytes of the file.
    """

    text: str
    row: int
    start: int
    table_end: int


@dataclass(frozen=True, slots=True)
class Elf:
    """An ELF image over bytes or a mapped file, which must stay open while it is used."""

    data: Buffer
    machine: int
    abi_version: int
    flags: int
    sections: tuple[Section, ...]

    @classmethod
    def read(cls, data: Buffer) -> Elf:
        """Read the headers; WheelError for anything that is not a whole 64-bit little-endian ELF image."""
        if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
            raise _damaged("it does not begin as an ELF image does")
        ident, _, machine, _, _, _, offset, flags, _, _, _, row, count, names = _HEADER.unpack_from(data, 0)
        if ident[4:6] != b"\x02\x01":
            raise _damaged("it is not 64-bit little-endian")
        sections = _sections(data, offset, row, count, names) if offset else ()
        return cls(data, machine, ident[8], flags, sections)

    def section(self, name: str) -> Section | None:
        """Return the section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    @property
    def has_dynamic_symbols(self) -> bool:
        """Whether there is a table of dynamic symbols (a file without sections hides it)."""
        return self._of_type(_SHT_DYNSYM) is not None

    @property
    def needed(self) -> tuple[str, ...]:
        """DT_NEEDED, in order."""
        return self._dynamic(_DT_NEEDED)

    @property
    def soname(self) -> str:
        """DT_SONAME, or empty."""
        return next(iter(self._dynamic(_DT_SONAME)), "")

    @property
    def rpath(self) -> tuple[str, ...]:
        """The folders of DT_RPATH and DT_RUNPATH."""
        joined = (*self._dynamic(_DT_RPATH), *self._dynamic(_DT_RUNPATH))
        return tuple(folder for text in joined for folder in text.split(":") if folder)

    def search_paths(self) -> tuple[SearchPath, ...]:
        """Return DT_RPATH and DT_RUNPATH with where they are in the file."""
        table = self._table(_SHT_DYNAMIC, _DYNAMIC)
        stop = table.offset + table.size
        return tuple(
            SearchPath(table.text(value), table.offset + index * _DYNAMIC.size, table.strings + value, stop)
            for index, (tag, value) in enumerate(table.rows())
            if tag in (_DT_RPATH, _DT_RUNPATH)
        )

    def dynamic_names(self) -> tuple[int, ...]:
        """Return where in the file the names begin that the dynamic linker reads, except those of the search paths.

        A linker lets a name be the end of another string, so that two may share bytes.
        """
        table = self._table(_SHT_DYNAMIC, _DYNAMIC)
        if not table.size:
            return ()
        named = (_DT_NEEDED, _DT_SONAME, _DT_AUXILIARY, _DT_FILTER)
        offsets = {value for tag, value in table.rows() if tag in named}
        offsets |= {row[0] for row in self._table(_SHT_DYNSYM, _SYMBOL).rows()}
        return tuple(sorted(table.strings + offset for offset in offsets | self._version_names()))

    def _version_names(self) -> set[int]:
        """Return the names of symbol versions, needed and defined, as offsets into the string table."""
        offsets: set[int] = set()
        for library, _, version in self._needed_versions():
            offsets |= {library, version}
        defined = self._of_type(_SHT_VERDEF)
        if defined is not None:
            stop = defined.offset + defined.size
            for at, (*_, auxiliary, _) in _chain(self.data, _VERDEF, defined.offset, stop):
                offsets |= {row[0] for _, row in _chain(self.data, _VERDAUX, at + auxiliary, stop)}
        return offsets

    def functions(self) -> Iterator[Function]:
        """Yield the functions that the static symbol table defines: in a cubin, kernels and device functions."""
        table = self._table(_SHT_SYMTAB, _SYMBOL)
        for name, info, other, section, _, _ in table.rows():
            if info & 15 == _STT_FUNC and section:
                yield Function(table.text(name), other)

    def symbols(self) -> Iterator[Symbol]:
        """Yield the symbols of an object file that take part in linking: those that are not local to it."""
        table = self._table(_SHT_SYMTAB, _SYMBOL)
        for name, info, _, section, _, _ in table.rows():
            if name and info >> 4 != _STB_LOCAL:
                yield Symbol(table.text(name), bool(section))

    def requirements(self) -> tuple[tuple[str, str], ...]:
        """Return (library, version) for each symbol version that the image asks for."""
        return tuple(sorted(set(self._versions().values())))

    def references(self) -> tuple[Reference, ...]:
        """Return the undefined dynamic symbols that must be found; weak ones may stay undefined."""
        table = self._table(_SHT_DYNSYM, _SYMBOL)
        versions, indices = self._versions(), self._version_indices(table.size // _SYMBOL.size)
        return tuple(
            Reference(table.text(name), *versions.get(index & _VERSION_INDEX, ("", "")))
            for (name, info, _, section, _, _), index in zip(table.rows(), indices, strict=True)
            if name and not section and info >> 4 not in (_STB_LOCAL, _STB_WEAK)
        )

    def exports(self, wanted: Set[str]) -> set[str]:
        """Return those of ``wanted`` that the image defines for others."""
        table, data, found = self._table(_SHT_DYNSYM, _SYMBOL), self.data, set()
        names = {name.encode() for name in wanted}
        for offset in _exported(table) if names else ():
            start = table.strings + offset
            stop = data.find(b"\0", start, table.end)
            if stop >= 0 and data[start:stop] in names:
                found.add(data[start:stop].decode())
        return found

    def exported(self) -> Iterator[str]:
        """Yield all that the image defines for others."""
        table = self._table(_SHT_DYNSYM, _SYMBOL)
        return map(table.text, _exported(table))

    def _dynamic(self, wanted: int) -> tuple[str, ...]:
        table = self._table(_SHT_DYNAMIC, _DYNAMIC)
        return tuple(table.text(value) for tag, value in table.rows() if tag == wanted)

    def _needed_versions(self) -> Iterator[tuple[int, int, int]]:
        """Yield library, version index and version; library and version as offsets into the string table."""
        needed = self._of_type(_SHT_VERNEED)
        if needed is None:
            return
        stop = needed.offset + needed.size
        for at, (_, _, library, auxiliary, _) in _chain(self.data, _VERNEED, needed.offset, stop):
            for _, (_, _, index, version, _) in _chain(self.data, _VERNAUX, at + auxiliary, stop):
                yield library, index, version

    def _versions(self) -> dict[int, tuple[str, str]]:
        """Return (library, version) by version index."""
        table = self._table(_SHT_VERNEED, _VERNEED)
        return {index: (table.text(one), table.text(version)) for one, index, version in self._needed_versions()}

    def _version_indices(self, count: int) -> tuple[int, ...]:
        table = self._of_type(_SHT_VERSYM)
        if table is None or table.size != 2 * count:
            return (0,) * count
        return struct.unpack_from(f"<{count}H", self.data, table.offset)

    def _table(self, kind: int, row: struct.Struct) -> _Table:
        """Return a table with its strings; one without rows where the image has no such table."""
        found = self._of_type(kind)
        if found is None:
            return _Table(self.data, 0, 0, row, 0, 0)
        if found.link >= len(self.sections) or self.sections[found.link].type != _SHT_STRTAB:
            raise _damaged("a table names a string table that is not there")
        strings = self.sections[found.link]
        return _Table(self.data, found.offset, found.size, row, strings.offset, strings.offset + strings.size)

    def _of_type(self, wanted: int) -> Section | None:
        return next((section for section in self.sections if section.type == wanted), None)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of rows of one form, with its names from ``strings`` to ``end``; all in bytes of the file."""

    data: Buffer
    offset: int
    size: int
    row: struct.Struct
    strings: int
    end: int

    def rows(self) -> Iterator[tuple[int, ...]]:
        """Yield the rows that are whole."""
        return self.row.iter_unpack(self.data[self.offset : self.offset + self.size - self.size % self.row.size])

    def text(self, offset: int) -> str:
        """Return the name at an offset into the strings."""
        return _text(self.data, self.strings + offset, self.end)


def _exported(table: _Table) -> Iterator[int]:
    """Yield where the names of the symbols are, in the table's strings, that others can bind to."""
    for name, info, other, section, _, _ in table.rows():
        if section and info >> 4 != _STB_LOCAL and other & 3 not in _HIDDEN_VISIBILITIES:
            yield name


def _damaged(why: str) -> WheelError:
    return WheelError("not a readable ELF image", why=why, hint="build or download the wheel again")


def _sections(data: Buffer, offset: int, row: int, count: int, names: int) -> tuple[Section, ...]:
    if row != _SECTION.size or offset + row > len(data):
        raise _damaged("its section table is outside of the file")
    first = _SECTION.unpack_from(data, offset)
    count = count or first[5]  # more than 65,279 sections: the number is in the first row
    names = first[6] if names == _SHN_XINDEX else names
    if offset + count * row > len(data) or names >= count:
        raise _damaged("its section table is outside of the file")
    rows = [
        (name, kind, *_extent(kind, at, size, len(data)), link)
        for name, kind, _, _, at, size, link, *_ in _SECTION.iter_unpack(data[offset : offset + count * row])
    ]
    _, _, start, length, _ = rows[names]
    return tuple(Section(_text(data, start + name, start + length), *rest) for name, *rest in rows)


def _extent(kind: int, at: int, size: int, length: int) -> tuple[int, int]:
    """Return a section's offset and size in the file, (0, 0) where it has no bytes there.

    NVIDIA has its own kinds for device memory without contents (seen in cubins of libnccl.so.2), in the range that
    the ABI leaves to processors, whose size says nothing of the file's.
    """
    if kind == _SHT_NOBITS:
        return 0, 0
    if at + size <= length:
        return at, size
    if kind >> 28 == _PROCESSOR_KINDS:
        return 0, 0
    raise _damaged("a section is outside of the file: it was cut off")


def _chain(data: Buffer, row: struct.Struct, at: int, stop: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Follow rows that end with the distance to the next one, 0 for none. A distance is positive, so this ends."""
    while at + row.size <= stop:
        fields = row.unpack_from(data, at)
        yield at, fields
        if not fields[-1]:
            return
        at += fields[-1]


def _text(data: Buffer, start: int, end: int) -> str:
    stop = data.find(b"\0", start, end)
    if start > end or stop < 0:
        raise _damaged("a name is outside of its string table")
    return data[start:stop].decode("utf-8", errors="replace")
