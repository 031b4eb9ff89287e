"""Reads fatbins: the containers of device code that nvcc puts into a host object.

NVIDIA does not document the format. What stands here was read off the output of nvcc and fatbinary 13.0.88 (sm_80 to
sm_121a, PTX, LTO, each ``--compress-mode``) and of wheels made by CUDA 12.6, and agrees with what cuobjdump 13.5 lists:

- container: magic u32, version u16, header size u16, size u64 of the entries that follow
- entry: kind u16, version u16, header size u32, stored size u64 (padded to 8), compressed size u32 (0: not
  compressed), options offset u32, minor u16, major u16 (of the ELF ABI or of PTX), architecture u32, name offset and
  size u32, flags u64, 8 bytes of something else, unpacked size u64; then options, and the payload after the header

An architecture's suffix is in the entry's flags. A cubin's own ELF flags do not tell 90 from 90a since CUDA 13.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from attnforge.elf import Buffer
from attnforge.errors import WheelError

MAGIC = 0xBA55ED50
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")

FLAG_LZ4 = 0x2000  # a raw LZ4 block: CUDA 12, and --compress-mode=speed
FLAG_ZSTD = 0x8000  # a Zstandard frame: CUDA 13
FLAG_SPECIFIC = 0x100000  # suffix "a"
FLAG_FAMILY = 0x200000  # suffix "f"

# More than any compiler emits for one translation unit: what claims to be larger is damaged, and is not allocated.
_MOST_UNPACKED = (1 << 31) - 1


class Kind(IntEnum):
    """What an entry holds. Others (LTO intermediate code is 8) are no code that a driver loads."""

    PTX = 1
    ELF = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of device code. ``number`` is the compute capability, 90 for 9.0; ``size`` is unpacked, in bytes."""

    kind: int
    number: int
    flags: int
    size: int
    stored: bytes = field(repr=False)

    @property
    def suffix(self) -> str:
        """``a`` (only this capability), ``f`` (its family) or nothing."""
        if self.flags & FLAG_SPECIFIC:
            return "a"
        return "f" if self.flags & FLAG_FAMILY else ""

    def payload(self) -> bytes:
        """Return the image, unpacked; WheelError where it is damaged."""
        if not self.flags & (FLAG_LZ4 | FLAG_ZSTD):
            return self.stored
        if self.size > _MOST_UNPACKED:
            raise _damaged(f"an image claims to have {self.size} bytes")
        image = _unpack_lz4(self) if self.flags & FLAG_LZ4 else _unpack_zstd(self)
        if len(image) != self.size:
            raise _damaged(f"an image has {len(image)} bytes in place of {self.size}")
        return image


@dataclass(frozen=True, slots=True)
class Fatbin:
    """All entries of a section, and how many containers or entries in it could not be read."""

    entries: tuple[Entry, ...]
    damaged: int


def read_fatbin(data: Buffer, start: int = 0, end: int | None = None) -> Fatbin:
    """Read every container between two offsets of ``data``. What can't be read is counted and passed over."""
    stop = len(data) if end is None else min(end, len(data))
    entries: list[Entry] = []
    damaged = 0
    at = data.find(_MAGIC_BYTES, start, stop)
    while at >= 0:
        try:
            at = _read_container(data, at, stop, entries)
        except WheelError:
            damaged += 1
            at += len(_MAGIC_BYTES)
        at = data.find(_MAGIC_BYTES, at, stop)
    return Fatbin(tuple(entries), damaged)


def _read_container(data: Buffer, at: int, stop: int, entries: list[Entry]) -> int:
    """Append the entries of the container that begins at ``at``; return where it ends."""
    if at + _CONTAINER.size > stop:
        raise _damaged("a container is cut off")
    _, _, header, size = _CONTAINER.unpack_from(data, at)
    end: int = at + header + size
    if header < _CONTAINER.size or end > stop:
        raise _damaged("a container is larger than its section")
    entries.extend(list(_read_entries(data, at + header, end)))
    return end


def _read_entries(data: Buffer, at: int, end: int) -> Iterator[Entry]:
    while at < end:
        if at + _ENTRY.size > end:
            raise _damaged("an entry is cut off")
        kind, _, header, size, packed, _, _, _, number, _, _, flags, _, unpacked = _ENTRY.unpack_from(data, at)
        if header < _ENTRY.size or at + header + size > end or packed > size:
            raise _damaged("an entry is larger than its container")
        image = at + header
        compressed = flags & (FLAG_LZ4 | FLAG_ZSTD)
        length = packed if compressed else size
        yield Entry(kind, number, flags, unpacked if compressed else size, data[image : image + length])
        at = image + size


def _unpack_lz4(entry: Entry) -> bytes:
    import lz4.block

    if entry.size > 255 * len(entry.stored):  # the most that the format can pack into so little
        raise _damaged(f"an image of {len(entry.stored)} packed bytes claims to have {entry.size}")
    try:
        return bytes(lz4.block.decompress(entry.stored, uncompressed_size=entry.size))
    except lz4.block.LZ4BlockError as error:
        raise _damaged(f"LZ4: {error}") from error


def _unpack_zstd(entry: Entry) -> bytes:
    import zstandard

    try:
        if zstandard.frame_content_size(entry.stored) not in (-1, entry.size):
            raise _damaged("a Zstandard frame has another size than its entry says")
        return zstandard.ZstdDecompressor().decompress(entry.stored, max_output_size=max(entry.size, 1))
    except zstandard.ZstdError as error:
        raise _damaged(f"Zstandard: {error}") from error


def _damaged(why: str) -> WheelError:
    return WheelError("device code can't be read", why=why, hint="build or download the wheel again")
