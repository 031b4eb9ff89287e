"""Libraries of other projects that extensions have in their source and compile in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Library:
    """A library, and where a source states its version.

    ``folders`` are relative to the folder that is built. ``header`` is a path in one of them; ``macros`` are those of
    the header whose numbers, joined by dots, are the version. The header's SPDX line has the license.
    """

    name: str
    folders: tuple[str, ...]
    header: str
    macros: tuple[str, ...]


# FlashAttention 3 is built in hopper/, so that its CUTLASS is beside that folder.
LIBRARIES = (
    Library(
        name="cutlass",
        folders=("csrc/cutlass", "../csrc/cutlass", "third_party/cutlass"),
        header="include/cutlass/version.h",
        macros=("CUTLASS_MAJOR", "CUTLASS_MINOR", "CUTLASS_PATCH"),
    ),
)
