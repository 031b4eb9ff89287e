"""Reads cubins: the ELF images of machine code for one GPU architecture."""

from __future__ import annotations

from dataclasses import dataclass

from attnforge.elf import EM_CUDA, Elf
from attnforge.errors import WheelError

# e_flags, from LLVM's llvm/include/llvm/BinaryFormat/ELF.h (EF_CUDA_*). ABI 7 is CUDA 12's, ABI 8 CUDA 13's.
# Measured: ptxas 12.8 sets the first for sm_90a; ptxas 13.0 leaves the second unset there, so that a fatbin entry's
# flags are the better witness.
_ABI_8 = 8
_ACCELERATORS_ABI_7 = 0x800
_ACCELERATORS_ABI_8 = 0x8

_STO_CUDA_ENTRY = 0x10  # st_other of a function that the host can launch (seen with ptxas 12.8 and 13.0)


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code: ``number`` 90 for 9.0, ``suffix`` as far as the image states it, and mangled function names."""

    number: int
    suffix: str
    kernels: tuple[str, ...]
    functions: tuple[str, ...]


def read_cubin(image: bytes) -> Cubin:
    """Read a cubin; WheelError for anything else."""
    elf = Elf.read(image)
    if elf.machine != EM_CUDA:
        raise WheelError(
            "a fatbin holds an ELF image that is no machine code of a GPU",
            why=f"its machine is {elf.machine}",
            hint="build or download the wheel again",
        )
    number, suffix = _architecture(elf)
    functions = tuple(elf.functions())
    kernels = tuple(function.name for function in functions if function.other & _STO_CUDA_ENTRY)
    return Cubin(number, suffix, kernels, tuple(function.name for function in functions))


def _architecture(elf: Elf) -> tuple[int, str]:
    if elf.abi_version >= _ABI_8:
        return elf.flags >> 8 & 0xFF, "a" if elf.flags & _ACCELERATORS_ABI_8 else ""
    return elf.flags & 0xFF, "a" if elf.flags & _ACCELERATORS_ABI_7 else ""
