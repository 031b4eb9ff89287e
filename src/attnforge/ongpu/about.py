"""What this Python, its PyTorch and its GPUs are; whether the wheel's modules load and its functions are there."""

from __future__ import annotations

import importlib
import inspect
import platform
import sys
from pathlib import Path

from .protocol import AboutRequest, GpuFound, Loaded, Look, Signatures


def answer(request: AboutRequest) -> object:
    """Answer a request by its ``do``."""
    return {"place": _place, "look": _look, "load": _load, "signatures": _signatures}[request["do"]](request)


def _place(request: AboutRequest) -> dict[str, str]:
    """Put the folders of ``search``, which have the wheel, first on the search path, and import torch."""
    sys.path[:0] = request["search"]
    return {"torch": importlib.import_module("torch").__version__}


def _look(request: AboutRequest) -> Look:
    """Return the versions of Python and PyTorch, and the GPUs that PyTorch sees."""
    import torch

    gpus: list[GpuFound] = []
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


def _load(request: AboutRequest) -> Loaded:
    """Import ``modules`` by name; return the file of each."""
    return {"files": {name: _file(importlib.import_module(name)) for name in request["modules"]}}


def _file(module: object) -> str:
    return str(getattr(module, "__file__", "") or "")


def _signatures(request: AboutRequest) -> Signatures:
    """Return the parameters of a ``module``'s functions: of those in ``names``, or of all public ones."""
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
