"""Where a wheel is tried: a Python with PyTorch and the wheel, in a clean environment or one of the user's.

Nothing of the wheel is imported into this process: child.py starts a program there. A crash, a hang or a lost GPU
context ends that program; here it is a result and no error.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attnforge import process
from attnforge.errors import RequestError, WheelError
from attnforge.host.active import interpreter_of
from attnforge.process.guard import temporary_folder
from attnforge.workflow.fitting import WheelFile, wanted
from attnforge.workflow.machine import Machine

# What the program gets of the user's environment besides the base: where compilers, drivers and GPUs are.
_PASSED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CC",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "TRITON_LIBCUDA_PATH",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A Python that has torch and the wheel. ``search`` are the wheel's folders, empty if it is installed."""

    wheel: WheelFile
    python: Path
    search: tuple[Path, ...]
    folder: Path
    environ: Mapping[str, str]


@contextmanager
def trial(machine: Machine, wheel: WheelFile, python: str = "", torch: str = "") -> Iterator[Trial]:
    """Yield a place where a wheel can be tried; it is removed afterwards.

    ``python`` names an interpreter with PyTorch: nothing is installed, the wheel is unpacked beside it. Else a clean
    environment is made with ``torch``, or with the one that the wheel's plan or metadata asks for; a universal wheel is
    tried as one of its pairs (chosen_pair). Raises RequestError, HostError or WheelError.
    """
    root = machine.folders.ensure().environments
    root.mkdir(exist_ok=True)
    with temporary_folder("trial-", root) as folder:
        if python:
            program = _program(machine, python)
            search = unpack(wheel.path, folder / "wheel")
        else:
            program, search = _clean_environment(machine, wheel, torch, folder / "venv"), ()
        yield Trial(wheel, program, search, folder, _environment(machine, folder, bool(python)))


def unpack(wheel: Path, into: Path) -> tuple[Path, ...]:
    """Unpack a wheel and return the folders that Python has to search. WheelError where it is no whole archive."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)  # it keeps members inside of the folder whatever they are called
    except (OSError, zipfile.BadZipFile) as error:
        raise WheelError(
            f"{wheel.name} can't be unpacked", why=str(error), hint="build or download it again"
        ) from error
    return (into, *sorted(path for part in ("platlib", "purelib") for path in into.glob(f"*.data/{part}")))


def _program(machine: Machine, python: str) -> Path:
    found = interpreter_of(python) or shutil.which(python, path=machine.environ.get("PATH"))
    if found is None:
        raise RequestError(f"there is no interpreter {python}", hint="--python PATH of an interpreter with PyTorch")
    # Not resolved: the link in a virtual environment is what makes it one.
    return Path(found).absolute()


def _clean_environment(machine: Machine, wheel: WheelFile, torch: str, venv: Path) -> Path:
    python, requirement, backend = wanted(machine, wheel, torch)
    fitting = [found.path for found in machine.host.interpreters if found.version.startswith(f"{python}.")]
    machine.uv.venv(venv, fitting[0] if fitting else python)
    interpreter = venv / "bin" / "python"
    machine.uv.install(interpreter, (requirement, str(wheel.path)), *backend)
    return interpreter


def _environment(machine: Machine, folder: Path, foreign: bool) -> dict[str, str]:
    """Return the program's environment. An interpreter of the user's keeps PYTHONPATH: its torch may be there."""
    names = (*_PASSED, "PYTHONPATH") if foreign else _PASSED
    kept = {name: machine.environ[name] for name in names if name in machine.environ}
    if foreign:
        # The user's environment is only read. Bytecode of its PyTorch is in our cache.
        kept |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(machine.folders.bytecode)}
    # Triton keeps what it compiled; kernels that another version of the wheel left must not be found.
    return {**process.base_environment(machine.environ), **kept, "TRITON_CACHE_DIR": str(folder / "triton")}
