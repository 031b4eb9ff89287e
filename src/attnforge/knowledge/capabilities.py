"""What GPUs of a compute capability have, as far as kernels choose by it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from attnforge.model.target import Architecture


@dataclass(frozen=True, slots=True)
class Capability:
    """A compute capability with its shared memory, in bytes: of a multiprocessor, and what one block can have of it."""

    architecture: Architecture
    shared_memory: int

    @property
    def block_shared_memory(self) -> int:
        """What cudaDevAttrMaxSharedMemoryPerBlockOptin says: all but 1 KiB, which the system reserves."""
        return self.shared_memory - 1024


# KiB of shared memory of a multiprocessor. Source: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability", https://docs.nvidia.com/cuda/cuda-c-programming-guide/#features-and-technical-specifications
_SHARED_KIB = {
    "8.0": 164,
    "8.6": 100,
    "8.7": 164,
    "8.9": 100,
    "9.0": 228,
    "10.0": 228,
    "10.3": 228,
    "12.0": 100,
    "12.1": 100,
}


@cache
def capabilities() -> tuple[Capability, ...]:
    """Return those that are known."""
    return tuple(Capability(Architecture.parse(text), size * 1024) for text, size in _SHARED_KIB.items())


def capabilities_of(code: Architecture) -> tuple[Capability, ...]:
    """Return the known capabilities of GPUs that run machine code of an architecture."""
    return tuple(known for known in capabilities() if code.runs_on(known.architecture))
