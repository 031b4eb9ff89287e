"""Lets upstream's build see the GPUs of the target where it asks PyTorch for those of the machine.

Python imports this file by its name when a build's interpreter starts, since its folder is on PYTHONPATH of that build
and of nothing else. ATTNFORGE_GPUS holds the GPUs as JSON: ``[{"name": "L40S", "major": 8, "minor": 9}]``. Questions
alone are answered: whoever tries to compute on such a GPU gets PyTorch's own error.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
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


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torch.cuda as Python does, and changes it right after it was loaded."""

    def __init__(self, gpus: list[dict[str, Any]]) -> None:
        self._gpus = gpus

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "torch.cuda":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                pretend(module, self._gpus)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_told = os.environ.get("ATTNFORGE_GPUS")
if _told:
    sys.meta_path.insert(0, _Finder(json.loads(_told)))
