"""What a wheel is built for."""

from __future__ import annotations

import re
from functools import total_ordering
from typing import Any

from pydantic import field_validator, model_validator

from attnforge.model.base import Value

# The compute capabilities of Tegra, whose GPUs run no machine code for another capability, and whose code runs on no
# other: CUDA C++ Programming Guide, "Binary Compatibility", https://docs.nvidia.com/cuda/cuda-c-programming-guide/
_TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)}

_WRITTEN = re.compile(r"(?:(?:sm|compute)_?)?(?P<digits>\d{2,3}|\d{1,2}\.\d)(?P<suffix>[af]?)", re.IGNORECASE)


@total_ordering
class Architecture(Value):
    """A code architecture: compute capability major.minor, and the suffix of architecture-specific features.

    ``suffix`` is "" (runs on every later minor of the same major), "a" (only this capability) or "f" (its family).
    """

    major: int
    minor: int
    suffix: str = ""

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read ``8.9``, ``89``, ``sm_89``, ``compute_90``, ``90a`` or ``10.0``; ValueError for anything else."""
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a compute capability (write 8.9, sm_89 or 90a)")
        digits = match["digits"].replace(".", "")
        return cls(major=int(digits[:-1]), minor=int(digits[-1]), suffix=match["suffix"].lower())

    @property
    def digits(self) -> str:
        """``90a``: as nvcc writes it after ``sm_``."""
        return f"{self.major}{self.minor}{self.suffix}"

    @property
    def sm(self) -> str:
        """``sm_90a``: machine code."""
        return f"sm_{self.digits}"

    @property
    def dotted(self) -> str:
        """``9.0a``: as TORCH_CUDA_ARCH_LIST writes it."""
        return f"{self.major}.{self.minor}{self.suffix}"

    def runs_on(self, gpu: Architecture) -> bool:
        """Say whether machine code for this architecture runs on a GPU of that compute capability.

        Source: CUDA C++ Programming Guide, "Binary Compatibility" and "Feature-specific targets".
        """
        mine, other = (self.major, self.minor), (gpu.major, gpu.minor)
        if self.suffix == "a" or mine in _TEGRA or other in _TEGRA:
            return mine == other
        return self.major == gpu.major and self.minor <= gpu.minor

    def __lt__(self, other: Architecture) -> bool:
        return (self.major, self.minor, self.suffix) < (other.major, other.minor, other.suffix)

    def __str__(self) -> str:
        return self.sm


def is_free_threaded(python: str) -> bool:
    """Say whether a Python (``3.14t``) is one without the global interpreter lock."""
    return python.endswith("t")


class Gpu(Value):
    """A GPU that the wheel must serve: the name that was asked for and its compute capability (``sm_90`` for 9.0)."""

    name: str
    capability: Architecture


class Target(Value):
    """The machine that the wheel is for.

    ``python`` is ``3.12``, or ``3.14t`` without the global interpreter lock, ``torch`` a full version ``2.11.0``,
    ``cuda`` the toolkit that torch was built with (``13.0``). ``architectures`` is the machine code that the package is
    compiled to, which need not be the capabilities of the GPUs that were named: FlashAttention 2 serves an L40S (8.9)
    with sm_80 code. A pure Python package is for any of these: ``torch`` and ``cuda`` are "", ``platform`` is ``any``,
    and ``python`` is the one that runs its build.
    """

    python: str
    torch: str
    cuda: str
    architectures: tuple[Architecture, ...]
    platform: str = "linux_x86_64"

    @model_validator(mode="before")
    @classmethod
    def _without_gpus(cls, value: Any) -> Any:
        """Take out what plans once said beside the architectures: the names of the GPUs that were asked for."""
        return {key: one for key, one in value.items() if key != "gpus"} if isinstance(value, dict) else value

    @field_validator("python")
    @classmethod
    def _two_numbers(cls, value: str) -> str:
        if not re.fullmatch(r"3\.\d+t?", value):
            raise ValueError(f"{value!r} is not a Python version such as 3.12")
        return value

    @property
    def capabilities(self) -> tuple[Architecture, ...]:
        """The compute capabilities that the machine code is for, each once: 9.0 for ``sm_90a``.

        The GPUs that were asked for may have others: FlashAttention 2 serves 8.9 with sm_80. What is built follows
        from these only, so that it is the same for all GPUs that run the same code.
        """
        plain = (one.model_copy(update={"suffix": ""}) for one in self.architectures)
        return tuple(dict.fromkeys(plain))

    @property
    def python_tag(self) -> str:
        """``cp312``; ``cp314`` of the free-threaded 3.14t."""
        return self.abi_tag.removesuffix("t")

    @property
    def abi_tag(self) -> str:
        """``cp312``, ``cp314t``: what the file names of its modules and wheels say beside ``python_tag``."""
        return "cp" + self.python.replace(".", "")

    @property
    def torch_minor(self) -> str:
        """``2.11``: the part of torch's version that decides its C++ ABI (FA#723)."""
        return ".".join(self.torch.split("+")[0].split(".")[:2])

    @property
    def cuda_tag(self) -> str:
        """``cu130``."""
        return "cu" + self.cuda.replace(".", "")
