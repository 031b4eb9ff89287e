"""What this Python, its PyTorch and its GPUs are; whether the wheel's modules load and its functions are there."""

from __future__ import annotations

import importlib
import inspect
import platform
import sys
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``{"do": "place" | "look" | "load" | "signatures", ...}``."""
    return {"place": _place, "look": _look, "load": _load, "signatures": _signatures}[request["do"]](request)


def _place(request: dict[str, Any]) -> dict[str, Any]:
    """Put the wheel's folders first on the search path, and import torch. ``search`` are these folders."""
    sys.path[:0] = request["search"]
    return {"torch": importlib.import_module("torch").__version__}


def _look(request: dict[str, Any]) -> dict[str, Any]:
    """Say what is here; ``gpus`` is empty where torch sees none, memory in bytes, ``site`` the folder that has
    torch."""
    import torch

    gpus = []
    # Without a driver is_available() is False; it does not raise.
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        gpus.append({"name": found.name, "capability": f"{found.major}.{found.minor}", "memory": found.total_memory})
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "site": str(Path(torch.__file__).resolve().parent.parent),
        "gpus": gpus,
    }


def _load(request: dict[str, Any]) -> dict[str, Any]:
    """Import modules by name. Returns where each was found."""
    return {"files": {name: _file(importlib.import_module(name)) for name in request["modules"]}}


def _file(module: Any) -> str:
    return str(getattr(module, "__file__", "") or "")


def _signatures(request: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a module's functions: those that are named, or all that are public and callable."""
    module = importlib.import_module(request["module"])
    names = request.get("names") or [name for name in sorted(vars(module)) if not name.startswith("_")]
    found = {}
    for name in names:
        function = getattr(module, name, None)
        if not callable(function):
            continue
        try:
            found[name] = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):  # built in: it does not say
            found[name] = []
    return {"functions": found}
