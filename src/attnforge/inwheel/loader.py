"""Loads the extension module that fits this Python and this PyTorch, in place of the package that it is in.

Beside this file there is a folder for each PyTorch minor (``torch2.11``) with a module for each Python.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import ModuleType

_PYTHON = f"3.{sys.version_info[1]}"


def load(name: str, file: str, wheel: str, cuda: str) -> None:
    """Put the extension module into ``sys.modules[name]``, where the package with this code stands until then.

    ``file`` is the package's ``__init__.py``, ``wheel`` the file name of the wheel, ``cuda`` the version (``13.0``)
    that its kernels are compiled with. Raises ImportError where PyTorch is missing, is built for another CUDA major, or
    is one that the wheel has no module for.
    """
    stand_in, package, leaf = sys.modules[name], Path(file).parent, name.rpartition(".")[2]
    try:
        minor = _torch_minor(cuda, package, leaf)
        # The first suffix names one kind of interpreter exactly: cpython-313t has no global lock, cpython-313 has it.
        path = package / f"torch{minor}" / (leaf + EXTENSION_SUFFIXES[0])
        if not path.is_file():
            raise _none_fits(minor, wheel, cuda, _held(package, leaf))
    except _UnfitError as unfit:
        raise ImportError(f"{name} can't be loaded: {unfit}", name=name, path=file) from None
    module = _load_extension(name, path, f"this is the module of {wheel} for PyTorch {minor} and Python {_PYTHON}")
    # A thread that waited for this import gets the package, and not what is in sys.modules then.
    vars(stand_in).update(vars(module))
    sys.modules[name] = module


class _UnfitError(Exception):
    """What keeps every module of the wheel from being loaded here: what, why, and a hint that fixes it."""

    def __init__(self, what: str, why: str, hint: str) -> None:
        super().__init__(f"{what}\nwhy: {why}\nhint: {hint}")


def _torch_minor(cuda: str, package: Path, leaf: str) -> str:
    """Return the ``2.11`` of the installed PyTorch, which has to be built with the same major of CUDA."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise _no_torch("torch is not installed", _held(package, leaf)) from None
    # What pip leaves of a package that it removed is found as one without contents.
    if not hasattr(torch, "__version__"):
        raise _no_torch("the torch that is found is an empty folder", _held(package, leaf))
    version, built_with = str(torch.__version__), torch.version.cuda
    if (built_with or "").split(".")[0] != cuda.split(".")[0]:
        raise _UnfitError(
            f"it needs a PyTorch that is built with CUDA {cuda}",
            f"torch {version} is built {f'with CUDA {built_with}' if built_with else 'without CUDA'}",
            f"install torch {' or '.join(_held(package, leaf))} in its build for CUDA {cuda}",
        )
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else version


def _no_torch(why: str, held: dict[str, list[str]]) -> _UnfitError:
    fitting = [minor for minor, pythons in held.items() if _PYTHON in pythons] or list(held)
    command = f"python -m pip install 'torch=={fitting[-1]}.*'" if fitting else "install the wheel again"
    return _UnfitError("it needs PyTorch", f"{why}; the wheel is for PyTorch {', '.join(held)}", command)


def _none_fits(minor: str, wheel: str, cuda: str, held: dict[str, list[str]]) -> _UnfitError:
    pairs = "; ".join(f"PyTorch {torch} with Python {', '.join(pythons)}" for torch, pythons in held.items())
    if sys.implementation.name == "cpython" and not sys.abiflags:
        python, hint = _PYTHON, f"attnforge extend {wheel} --torch {minor} --python {_PYTHON}"
        if _running_cuda() != cuda:
            # Not every PyTorch of the same CUDA major has a build with the wheel's own minor.
            own = f"attnforge build {wheel.split('-')[0].replace('_', '-')} --torch {minor} --python {_PYTHON}"
            hint = f"{own}, for a separate wheel; where PyTorch {minor} has a build with CUDA {cuda}: {hint}"
    else:
        # attnforge compiles for no such interpreter.
        python, hint = f"{_PYTHON} ({EXTENSION_SUFFIXES[0]})", f"run the usual build of CPython {_PYTHON}"
    what = f"it has no module for Python {python} with PyTorch {minor}"
    return _UnfitError(what, f"the wheel has {pairs or 'none'}", hint)


def _running_cuda() -> str:
    """Return the CUDA that the installed PyTorch is built with: ``13.0``."""
    import torch

    return ".".join((torch.version.cuda or "").split(".")[:2])


def _held(package: Path, leaf: str) -> dict[str, list[str]]:
    """Return the PyTorch minors that have modules here, each with its Pythons, in order."""
    named = re.compile(rf"torch(\d+)\.(\d+)/{re.escape(leaf)}\.cpython-3(\d+)-[^/]*\.so")
    found = (named.fullmatch(path.relative_to(package).as_posix()) for path in package.glob("torch*/*.so"))
    held: dict[str, list[str]] = {}
    for torch, minor, python in sorted(tuple(map(int, match.groups())) for match in found if match):
        held.setdefault(f"{torch}.{minor}", []).append(f"3.{python}")
    return held


def _load_extension(name: str, path: Path, which: str) -> ModuleType:
    """Load a module under its full name, as Python itself does with one that is on its search path."""
    spec = importlib.util.spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
    assert spec is not None and spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        error.msg = f"{error}\nwhy: {which}"
        raise
    return module
