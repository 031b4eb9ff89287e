"""A universal wheel: one file for several PyTorch minors and several Pythons.

Its kernels are in a shared library that needs neither. Next to it is, for each pair of PyTorch and Python, a thin
extension module with upstream's host code. In place of upstream's module is a package of the module's name::

    flash_attn_2_cuda/__init__.py                        the loader: becomes the module that fits, or raises ImportError
    flash_attn_2_cuda/libflash_attn_2_cuda-0123456789abcdef.so                                           the kernels
    flash_attn_2_cuda/torch2.11/flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so          upstream's module for a pair

A module whose sources all read headers of PyTorch has no library: its kernels are in each pair's module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, field_validator

from attnforge.model.base import Value

DOCUMENT = "attnforge/universal.json"
"""The file in dist-info that says what a universal wheel has."""

LIBRARY = re.compile(r"lib(?P<module>\w+)-(?P<digest>[0-9a-f]{16})\.so", re.ASCII)
"""The file name of a module's library, which is its soname: the module's own name, and what names just this library."""

_TORCH_FOLDER = re.compile(r"torch(?P<minor>\d+\.\d+)")
_SUFFIX_OF_CPYTHON = re.compile(r"\.cpython-3(?P<minor>\d+)-[\w-]+\.so$")


class Pair(Value):
    """A Python (``3.12``) and a PyTorch (``2.11.0``) that a module is compiled for.

    ``host_compiler`` is that of its host code where it is another than the plan's: a pair may be added elsewhere.
    """

    python: str
    torch: str
    host_compiler: str = ""

    @field_validator("python")
    @classmethod
    def _two_numbers(cls, value: str) -> str:
        if not re.fullmatch(r"3\.[0-9]{1,3}", value):
            raise ValueError(f"{value!r} is not a Python version such as 3.12")
        return value

    @field_validator("torch")
    @classmethod
    def _a_release(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(\+[\w.]+)?", value, re.ASCII):
            raise ValueError(f"{value!r} is not a PyTorch version such as 2.11.0")
        return value

    @property
    def torch_minor(self) -> str:
        """``2.11``: what modules are chosen by."""
        return ".".join(self.torch.split("+")[0].split(".")[:2])

    @property
    def folder(self) -> str:
        """``torch2.11``: the folder of the modules of this PyTorch."""
        return f"torch{self.torch_minor}"

    @property
    def slug(self) -> str:
        """``torch2.11-py3.12``: a name for files and messages."""
        return f"{self.folder}-py{self.python}"

    @property
    def key(self) -> tuple[str, str]:
        """(``2.11``, ``3.12``): what a module is chosen by."""
        return self.torch_minor, self.python

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts by PyTorch, then by Python, as numbers."""
        return (*numbers(self.torch_minor), *numbers(self.python))

    def __str__(self) -> str:
        return f"PyTorch {self.torch_minor}, Python {self.python}"


class UniversalModule(Value):
    """One extension module of a universal wheel.

    ``name`` is the name that it is imported by (``flash_attn_2_cuda``, ``sageattention._fused``), ``library`` the file
    name of the library beside its loader, "" for none. ``shared`` are upstream's sources whose objects are in the
    library, relative to the source's top; ``own`` the CUDA sources whose kernels are in each pair's module, because
    they read headers of PyTorch or Python. ``symbols`` are the functions that cross the boundary, by upstream's names.
    """

    name: str
    library: str = ""
    shared: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()

    # A wheel from elsewhere must not say where files go, nor add words to what the linker's tools read.
    @field_validator("name")
    @classmethod
    def _an_import_name(cls, value: str) -> str:
        if not all(part.isidentifier() and part.isascii() for part in value.split(".")):
            raise ValueError(f"{value!r} is not the name of a module")
        return value

    @field_validator("library")
    @classmethod
    def _a_file_name(cls, value: str) -> str:
        if value and not LIBRARY.fullmatch(value):
            raise ValueError(f"{value!r} is not the name of a library of kernels")
        return value

    @field_validator("shared", "own")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in map(PurePosixPath, value):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{path} is not a path in the source")
        return value

    @field_validator("symbols")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in value:
            if not re.fullmatch(r"[\w.$@]+", symbol, re.ASCII):
                raise ValueError(f"{symbol!r} is not a symbol")
        return value

    @property
    def folder(self) -> str:
        """The package in place of upstream's module, as a path in the wheel."""
        return self.name.replace(".", "/")

    @property
    def leaf(self) -> str:
        """The last part of its name: ``_fused``."""
        return self.name.rpartition(".")[2]

    @property
    def library_path(self) -> str:
        """The path of the library in the wheel."""
        return f"{self.folder}/{self.library}"

    @property
    def digest(self) -> str:
        """The hex digits in the library's name, which what crosses to it ends in; "" where there is none."""
        found = LIBRARY.fullmatch(self.library)
        return found["digest"] if found else ""


class Universal(Value):
    """The contents of a universal wheel.

    ``answers`` are the recipe's questions that its PyTorch answers with yes. Each PyTorch has to answer the same,
    because the answers say how it lays out what is passed to the kernels.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    pairs: tuple[Pair, ...]
    modules: tuple[UniversalModule, ...]
    answers: tuple[str, ...] = ()


def sorted_pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return pairs in the one order that wheels and plans have them in."""
    return tuple(sorted(pairs, key=lambda pair: pair.order))


def pair_of(path: str) -> tuple[str, str] | None:
    """Return (``2.11``, ``3.12``) of a pair's module by its path in a wheel; None for any other file."""
    place = PurePosixPath(path)
    folder, suffix = _TORCH_FOLDER.fullmatch(place.parent.name), _SUFFIX_OF_CPYTHON.search(place.name)
    return (folder["minor"], f"3.{suffix['minor']}") if folder and suffix else None


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: (2, 11) for ``2.11``."""
    return tuple(int(part) for part in version.split("."))
