"""The libraries that an installed PyTorch brings: its own and those of NVIDIA's packages beside it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from attnforge.elf import Elf
from attnforge.errors import WheelError

# Where they lie in site-packages: PyTorch's own, those that auditwheel put beside it, and NVIDIA's packages, which
# have one folder for each library (CUDA 12) or one for all (CUDA 13).
_PATTERNS = ("torch/lib/*.so*", "torch.libs/*.so*", "nvidia/*/lib/*.so*")

# PyTorch loads this one for all modules of the process (torch/__init__.py, _load_global_deps), so that what it needs
# is there also for a module that does not name it.
_GLOBAL = "libtorch_global_deps.so"

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
    def find(cls, folder: Path | None) -> TorchSite | None:
        """Look at a folder; None where it holds no PyTorch."""
        if folder is None:
            return None
        found = {path.name: path for pattern in _PATTERNS for path in sorted(folder.glob(pattern))}
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
        """Return those of ``wanted`` that a library defines. One that can't be read defines nothing."""
        with ExitStack() as stack:
            try:
                return open_elf(self.libraries[library], stack).exports(wanted)
            except (OSError, WheelError):
                return set()

    def _needs(self, library: str) -> tuple[str, ...]:
        with ExitStack() as stack:
            try:
                return open_elf(self.libraries[library], stack).needed
            except (OSError, WheelError):
                return ()
