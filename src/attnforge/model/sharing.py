"""Machine code for one architecture from the PTX of another: what a plan says of it, and the proofs that allow it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from attnforge.model.base import Value, digest_of
from attnforge.model.fields import ArchitectureText, CanonicalName, Sha256, VersionText

PART_DIGITS = 32
"""How many hex digits of a SHA-256 name a file or a part of a PTX in a proof: 128 bits."""


def _parts(digests: tuple[str, ...]) -> tuple[str, ...]:
    if list(digests) != sorted(set(digests)):
        raise ValueError("the digests are not sorted, or one is there twice")
    wrong = [one for one in digests if len(one) != PART_DIGITS or not set(one) <= set("0123456789abcdef")]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no digest of {PART_DIGITS} hexadecimal digits")
    return digests


Digests = Annotated[tuple[str, ...], AfterValidator(_parts)]


class ProvenUnit(Value):
    """Units of upstream's that were compiled, as one, for both architectures, and the result.

    ``units`` are the names of their kernels, or the file name where the recipe knows none. ``versions`` are upstream's,
    with whose sources that was done, and ``features`` the optional ones that they were compiled with. ``functions``
    counts those of the later architecture, ``left_out`` those that its code does without. ``ptx`` and ``code`` are the
    SHA-256 of the PTX and of the cubin for it. ``reordered`` says that cicc writes its functions in another order.
    """

    units: tuple[str, ...]
    versions: tuple[VersionText, ...]
    features: tuple[str, ...] = ()
    functions: int = Field(ge=1)
    left_out: int = Field(default=0, ge=0)
    ptx: Sha256
    code: Sha256
    reordered: bool = False


class Proof(Value):
    """Units whose PTX is the same for two architectures, except the target and functions that are left out.

    ``of`` is the architecture that cicc is run for, ``code`` the one whose PTX follows. ``parts`` are the digests of
    all that the PTX of the units is made of (compile.ptx), ``files`` those of all files that they read of upstream,
    CUDA and PyTorch: a build shares where each of its files and parts is here, whatever the units are called. ``nvcc``
    is the build of the compiler, and ``commands`` made the proof.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    package: CanonicalName
    nvcc: str
    of: ArchitectureText
    code: ArchitectureText
    commands: tuple[str, ...]
    units: tuple[ProvenUnit, ...]
    files: Digests
    parts: Digests

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what a build looks up."""
        return digest_of({"files": list(self.files), "parts": list(self.parts)})

    def proves(self, unit: str, version: str, features: tuple[str, ...]) -> bool:
        """Say whether a unit of a version was proven with all of these features.

        With fewer features a unit has fewer functions; those that stay are the same.
        """
        return any(
            unit in one.units and version in one.versions and set(features) <= set(one.features) for one in self.units
        )


def merged(one: Proof, other: Proof) -> Proof:
    """Return what two proofs for the same compiler and architectures prove together; ValueError for others."""
    if _subject(one) != _subject(other):
        raise ValueError(f"proofs of {_subject(one)} and of {_subject(other)}")
    return one.model_copy(
        update={
            "commands": tuple(dict.fromkeys((*one.commands, *other.commands))),
            "units": _merged_units((*one.units, *other.units)),
            "files": tuple(sorted({*one.files, *other.files})),
            "parts": tuple(sorted({*one.parts, *other.parts})),
        }
    )


def _subject(proof: Proof) -> tuple[str, ...]:
    return proof.package, proof.nvcc, proof.of, proof.code


def _merged_units(units: tuple[ProvenUnit, ...]) -> tuple[ProvenUnit, ...]:
    """Return units in order; those that differ in nothing but their versions become one."""
    versions: dict[ProvenUnit, set[str]] = {}
    for unit in units:
        versions.setdefault(unit.model_copy(update={"versions": ()}), set()).update(unit.versions)
    found = [unit.model_copy(update={"versions": tuple(sorted(all_))}) for unit, all_ in versions.items()]
    return tuple(sorted(found, key=lambda unit: (unit.units, unit.features, unit.ptx)))


class Shared(Value):
    """What a plan says of sharing: the code of architecture ``code`` comes from the PTX for ``of`` in these ``units``.

    Units are named as in proofs. ``proof`` is the digest of what each build looks up before it shares.
    """

    of: ArchitectureText
    code: ArchitectureText
    units: tuple[str, ...]
    proof: Sha256
