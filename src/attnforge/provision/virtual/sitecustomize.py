"""Lets upstream's build see the GPUs of the target instead of the machine's, and has it compile by ninja.

Python imports this file by its name when a build's interpreter starts, since its folder is on PYTHONPATH of that build
and of nothing else. ATTNFORGE_GPUS holds the GPUs as JSON: ``[{"name": "L40S", "major": 8, "minor": 9}]``. Questions
alone are answered: whoever tries to compute on such a GPU gets PyTorch's own error. With ATTNFORGE_NINJA set,
PyTorch's BuildExtension calls ninja also for a setup.py that says ``use_ninja=False``. With ATTNFORGE_NO_PIP set, the
pip of a build's environment changes nothing: builds share it, and a source may require pip.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any


def _index(device: Any) -> int:
    """Return the number of a device as PyTorch's functions take it: None, 1, ``"cuda:1"`` or a torch.device."""
    if device is None or isinstance(device, int):
        return device or 0
    number = getattr(device, "index", None) if not isinstance(device, str) else device.partition(":")[2]
    return int(number or 0)


def pretend(cuda: ModuleType, gpus: list[dict[str, Any]]) -> None:
    """Have the module torch.cuda answer as if the machine had these GPUs."""

    def properties(device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(**gpus[_index(device)])

    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: len(gpus),
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: gpus[_index(device)]["name"],
        "get_device_capability": lambda device=None: (gpus[_index(device)]["major"], gpus[_index(device)]["minor"]),
        "get_device_properties": properties,
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)


def use_ninja(cpp_extension: ModuleType) -> None:
    """Have BuildExtension of the module torch.utils.cpp_extension compile by ninja, whatever a setup.py says.

    Every way of saying it, an option of the class or an assignment, sets the attribute that this property replaces.
    """
    said: list[bool] = []

    def write(_: object, value: object) -> None:
        if not value and not said:
            said.append(True)
            sys.stderr.write("attnforge: setup.py asks for use_ninja=False; it is compiled by ninja all the same\n")

    cpp_extension.BuildExtension.use_ninja = property(lambda _: True, write)


def refuse_install(install: ModuleType) -> None:
    """Have pip's command of the module pip._internal.commands.install refuse."""

    def run(_: object, __: object, arguments: list[str]) -> int:
        sys.stderr.write(
            f"error: pip install {' '.join(arguments)}: attnforge lets no setup.py change an environment; "
        )
        sys.stderr.write("name what its build needs under requirements in a recipe\n")
        return 1

    install.InstallCommand.run = run


def skip_uninstall(uninstall: ModuleType) -> None:
    """Have pip's command of the module pip._internal.commands.uninstall do nothing."""

    def run(_: object, __: object, arguments: list[str]) -> int:
        sys.stderr.write(f"attnforge: skipped: pip uninstall {' '.join(arguments)}: a build uninstalls nothing\n")
        return 0

    uninstall.UninstallCommand.run = run


class _Finder(importlib.abc.MetaPathFinder):
    """Finds some modules as Python does, and changes each right after it was loaded."""

    def __init__(self, changes: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        change = self._changes.get(name)
        if change is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_changes: dict[str, Callable[[ModuleType], None]] = {}
_told = os.environ.get("ATTNFORGE_GPUS")
if _told:
    _gpus = json.loads(_told)
    _changes["torch.cuda"] = lambda cuda: pretend(cuda, _gpus)
if os.environ.get("ATTNFORGE_NINJA"):
    _changes["torch.utils.cpp_extension"] = use_ninja
if os.environ.get("ATTNFORGE_NO_PIP"):
    _changes["pip._internal.commands.install"] = refuse_install
    _changes["pip._internal.commands.uninstall"] = skip_uninstall
if _changes:
    sys.meta_path.insert(0, _Finder(_changes))
