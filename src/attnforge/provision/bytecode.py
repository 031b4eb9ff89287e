"""Compiles what upstream's builds import, once for each environment, so that no build writes to one.

Environments are shared by builds. A Python that compiles a module while the disk is full may leave half a ``.pyc`` file
(seen with 3.11), and each later import of that module fails: "EOFError: marshal data too short".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnforge.process import Command, Outcome, base_environment
from attnforge.provision.uv import Uv

UNWRITTEN = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Variables for a build's processes, with which Python reads bytecode and writes none."""

# What setup.py files of CUDA extensions import, and setuptools for them. Where one can't be imported, a build says so.
_IMPORTED = (
    "setuptools.build_meta",
    "setuptools.command.bdist_wheel",
    "setuptools.command.build_ext",
    "setuptools.command.build_py",
    "setuptools.command.install",
    "setuptools.command.install_lib",
    "setuptools.command.install_scripts",
    "torch.utils.cpp_extension",
)

# Of what it compiled, it removes what is not whole.
_COMPILE = """
import importlib, marshal, os, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        pass
for module in list(sys.modules.values()):
    path = getattr(getattr(module, "__spec__", None), "cached", None)
    if isinstance(path, str) and os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                marshal.loads(file.read()[16:])
        except (EOFError, ValueError, TypeError):
            os.remove(path)
        except OSError:
            pass
"""


def compile_bytecode(python: Path, uv: Uv, variables: Mapping[str, str]) -> Outcome:
    """Have an interpreter compile what builds import, with these ``variables``; it may fail and does no harm then."""
    environment = base_environment(uv.environ) | dict(variables)
    return uv.runner(Command((str(python), "-c", _COMPILE, *_IMPORTED), python.parent, environment, timeout=600))
