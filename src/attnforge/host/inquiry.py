"""Says what PyTorch an interpreter has. This text is run by that interpreter, which need not be ours.

It uses only the standard library of Python 3.9. Each line of its output that begins with ``MARK`` is a JSON object; a
later one adds to an earlier one. The first comes before torch is imported, so that it is there also where that import
ends the process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "attnforge-inquiry: "

# PyTorch's own and CUDA's, without the driver's (libcuda, libnvidia-ml), which come with the machine.
LIBRARY = re.compile(r"lib(?:c10|torch|shm|caffe2|cu(?!da\.so)|nv(?!idia)|nccl)[^/]*\.so[.\d]*")


def say(**facts: Any) -> None:
    """Write facts as a separate line, whatever else prints."""
    sys.stdout.write("\n" + MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()


def of_python() -> dict[str, Any]:
    """Return what is known of the interpreter."""
    sites = site.getsitepackages() if hasattr(site, "getsitepackages") else []
    if getattr(site, "ENABLE_USER_SITE", False):
        sites = [site.getusersitepackages(), *sites]
    return {
        "python": sys.executable,
        "version": platform.python_version(),
        "prefix": sys.prefix,
        "has_headers": Path(sysconfig.get_paths()["include"], "Python.h").is_file(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        # The first is the current folder, since this text comes by -c.
        "search": [folder for folder in sys.path[1:] if Path(folder).is_absolute()],
        "sites": [folder for folder in sites if Path(folder).is_dir()],
    }


def of_files(torch: Path) -> dict[str, Any]:
    """Return what the files of a PyTorch say, without importing it."""
    values: dict[str, Any] = {}
    exec(compile((torch / "version.py").read_text(encoding="utf-8"), "version.py", "exec"), values)
    said = str(values.get("__version__") or "")
    version, record = distribution()
    return {
        "torch": version or said,
        "calls_itself": said,
        "cuda": values.get("cuda") or "",
        "rocm": values.get("hip") or "",
        "git": values.get("git_version") or "",
        "cxx": standard(torch),
        "digest": digest(torch, record),
    }


def distribution() -> tuple[str, str]:
    """Return the version of the distribution that torch came with, and the text of its RECORD; "" for none."""
    from importlib import metadata

    try:
        found = metadata.distribution("torch")
        return found.version, found.read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        return "", ""


def standard(torch: Path) -> int:
    """Return the C++ standard that the headers ask for, 17 where they ask for none."""
    header = torch / "include/torch/csrc/api/include/torch/all.h"
    text = header.read_text(encoding="utf-8", errors="replace") if header.is_file() else ""
    asked = re.search(r"__cplusplus\s*<\s*20(\d\d)\d\dL", text)
    return int(asked.group(1)) if asked else 17


def digest(torch: Path, record: str) -> str:
    """Return the SHA-256 of the files of torch: of the hashes in its RECORD, or of its headers where that has none."""
    rows = [row for row in record.splitlines() if row.startswith("torch/") and "sha256=" in row]
    # pip adds what it compiled, and uv does not.
    made = hashlib.sha256("\n".join(sorted(row for row in rows if "__pycache__" not in row)).encode())
    for path in [] if rows else headers(torch):
        made.update(str(path.relative_to(torch)).encode() + b"\0")
        made.update(hashlib.sha256(path.read_bytes()).digest())
    return made.hexdigest()


def headers(torch: Path) -> Iterator[Path]:
    """Yield the headers of a PyTorch and the file that states its version, in order."""
    yield torch / "version.py"
    for place, folders, names in os.walk(torch / "include", followlinks=True):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(place, name)).is_file())


def of_import() -> dict[str, Any]:
    """Return what only the library itself says. Raises whatever importing torch raises.

    Bytecode goes to the folder that is the first argument and never beside the source: torch takes seconds to compile,
    and its environment is not ours to change.
    """
    if len(sys.argv) > 1:
        sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False
    import torch

    abi = getattr(getattr(torch, "_C", None), "_GLIBCXX_USE_CXX11_ABI", True)
    return {"cxx11_abi": bool(abi), "cuda": torch.version.cuda or "", "libraries": libraries(), "trouble": ""}


def libraries() -> list[str]:
    """Return the libraries of PyTorch and CUDA in this process, by each name that they have in their folder.

    Modules need them by one of these names, and a system's or conda's CUDA is in no folder that torch would tell.
    """
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    mapped = {Path(line[line.index("/") :]) for line in lines if "/" in line}
    found = {path for path in mapped if LIBRARY.fullmatch(path.name)}
    alike = (other for path in found for other in path.parent.glob(path.name.partition(".so")[0] + ".so*"))
    return sorted(str(other) for other in alike if other.resolve() in found)


def main() -> None:
    """Say what there is, step by step."""
    say(**of_python())
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return
    torch = Path(spec.origin).parent
    try:
        files = of_files(torch)
        # Until it has been imported it may be broken.
        say(folder=str(torch.parent), trouble="importing it ended the process" if files["cuda"] else "", **files)
        if files["cuda"]:
            say(**of_import())
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        say(folder=str(torch.parent), trouble=f"{type(error).__name__}: {lines[0]}"[:400])


if __name__ == "__main__":
    main()
