"""The libraries that an installed PyTorch brings: its own and those of NVIDIA's packages beside it."""

from __future__ import annotations

import errno
import mmap
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnforge.elf import Elf
from attnforge.errors import HostError, WheelError

# Where they are in site-packages: PyTorch's own, those that auditwheel put beside it, and NVIDIA's packages, which
# have one folder for each library (CUDA 12) or one for all (CUDA 13).
_PATTERNS = ("torch/lib/*.so*", "torch.libs/*.so*", "nvidia/*/lib/*.so*")

# PyTorch loads this one for all modules of the process (torch/__init__.py, _load_global_deps), so that what it needs
# is there also for a module that does not name it.
_GLOBAL = "libtorch_global_deps.so"

# Those that builds with and without CUDA have.
_EVERY = frozenset({"libc10.so", "libtorch.so", "libtorch_cpu.so"})

_AGAIN = "install PyTorch again; an environment of attnforge's own is made again once its folder is removed: {}"

_VERSION = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


def open_elf(path: Path, stack: ExitStack) -> Elf:
    """Map a file and read its headers; the map is closed with ``stack``. WheelError where it is not a whole image."""
    file = stack.enter_context(path.open("rb"))
    if not path.stat().st_size:
        raise WheelError(f"{path.name} is empty", hint="build or download the wheel again")
    return Elf.read(stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


@dataclass(frozen=True, slots=True)
class TorchSite:
    """A site-packages folder with PyTorch: libraries by file name, which is also what modules need them by."""

    folder: Path
    libraries: dict[str, Path]

    @classmethod
    def find(cls, folder: Path | None, more: Iterable[Path] = ()) -> TorchSite | None:
        """Look at a folder; None where it holds no PyTorch. ``more`` are libraries that PyTorch has from elsewhere."""
        if folder is None:
            return None
        found = {path.name: path for path in more}
        found |= {path.name: path for pattern in _PATTERNS for path in sorted(folder.glob(pattern))}
        return cls(folder, found) if "libc10.so" in found else None

    @property
    def torch(self) -> str:
        """The full version of PyTorch (``2.11.0+cu130``), or empty."""
        try:
            match = _VERSION.search((self.folder / "torch" / "version.py").read_text(errors="replace"))
        except OSError:
            return ""
        return match[1] if match else ""

    def sibling(self, library: str) -> str:
        """Return another version of a library that is here: ``libcudart.so.13`` for ``libcudart.so.12``; or empty."""
        stem = library.partition(".so")[0] + ".so"
        return next((name for name in sorted(self.libraries) if name.partition(".so")[0] + ".so" == stem), "")

    def loaded(self, needed: Iterable[str]) -> Iterator[str]:
        """Yield the libraries that are in the process when a module that needs those is loaded, nearest first."""
        queue, seen = [*needed, _GLOBAL], set()
        while queue:
            name = queue.pop(0)
            if name in seen or name not in self.libraries:
                continue
            seen.add(name)
            yield name
            queue.extend(self._needs(name))

    def exports(self, library: str, wanted: Set[str]) -> set[str]:
        """Return those of ``wanted`` that a library defines. HostError where it can't be read."""
        with self._reading(library) as elf:
            return elf.exports(wanted) if elf else set()

    def check_whole(self, needed: Iterable[str]) -> None:
        """Raise HostError where a library that every PyTorch has is needed and is not there."""
        absent = sorted(set(needed) & _EVERY - set(self.libraries))
        if absent:
            raise HostError(
                f"PyTorch can't be read: {self.folder / 'torch' / 'lib' / absent[0]} is not there",
                why="every PyTorch has that library: this one is not whole",
                hint=_AGAIN.format(_environment(self.folder)),
            )

    @property
    def machine(self) -> int:
        """The processor that this PyTorch is for, as ELF numbers it."""
        with self._reading("libc10.so") as elf:
            return elf.machine if elf else 0

    def _needs(self, library: str) -> tuple[str, ...]:
        with self._reading(library) as elf:
            return elf.needed if elf else ()

    @contextmanager
    def _reading(self, library: str) -> Iterator[Elf | None]:
        """Open a library, None for a linker's script. What is wrong with PyTorch is not the wheel's fault."""
        path = self.libraries[library]
        with ExitStack() as stack:
            try:
                yield None if _is_script(path) else open_elf(path, stack)
            except (OSError, WheelError) as error:
                if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                    raise  # audit_wheel says so
                why = f"{error.what}: {error.why}" if isinstance(error, WheelError) and error.why else str(error)
                raise HostError(
                    f"PyTorch can't be read: {path}",
                    why=why.splitlines()[0],
                    hint=_AGAIN.format(_environment(self.folder)),
                ) from error


def _is_script(path: Path) -> bool:
    """Say whether a file is a text for the linker, as libraries for development may be."""
    with path.open("rb") as file:
        return file.read(12).startswith((b"/*", b"INPUT", b"GROUP", b"OUTPUT_FORMA"))


def _environment(site_packages: Path) -> Path:
    """Return the folder of the environment that a site-packages folder is in: three above it."""
    return site_packages.parents[2] if len(site_packages.parents) > 2 else site_packages
