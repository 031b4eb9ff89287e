"""The program that works with a wheel: answers each line of JSON on stdin with a line of JSON on stdout.

A request names a module of this folder and what it gets: ``{"module": "about", "request": {...}}``. That module's
``answer`` returns the answer. An exception is the answer ``{"error": {"type", "text", "trace", "sticky"}}``;
``sticky`` says that the GPU's context is lost: this process can do nothing more on the GPU.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path

# What this folder is called in this process: no name that a package could have.
PACKAGE = "attnforge_ongpu"


def install() -> None:
    """Make this folder the package PACKAGE and take it off the search path: its modules must not hide any other."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != here]
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def answer_to(line: str) -> object:
    """Return the answer to a request (protocol.py); ``Failed`` where it raised."""
    try:
        asked = json.loads(line)
        return importlib.import_module(f"{PACKAGE}.{asked['module']}").answer(asked["request"])
    except Exception as error:
        return {"error": told(error)}


def told(error: BaseException) -> dict[str, object]:
    """Return an exception as ``protocol.Error``. The text is its first 2,000 characters, the trace its last 4,000."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    kind = type(error).__name__
    return {"type": kind, "text": str(error)[:2000], "trace": trace[-4000:], "sticky": context_is_lost()}


def context_is_lost() -> bool:
    """Whether the GPU no longer does anything for this process: a fault in a kernel ends the context for good."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        return bool(torch.ones(1, device="cuda").sum().item() != 1)
    except Exception:
        return True


def end_with(parent: int) -> None:
    """End this process when its parent is gone: a call that hangs would hold the GPU for good."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Answer requests until stdin ends."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    # A crash prints its stack and leaves no core: the core of a process with a GPU is as large as its memory.
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Packages print, and so do libraries below Python. Their output goes to stderr: stdout is only for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    install()
    for line in sys.stdin:
        answers.write(json.dumps(answer_to(line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
