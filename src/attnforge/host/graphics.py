"""The machine's GPUs and driver, as nvidia-smi lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from attnforge.errors import RequestError
from attnforge.host.programs import Programs
from attnforge.knowledge.gpus import find_gpu
from attnforge.model.target import Architecture, Gpu

# Drivers from 590 on print "CUDA UMD Version" there.
_CUDA = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Graphics:
    """GPUs in the driver's order, the driver's version, and the newest CUDA that it runs; empty without a driver."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    driver_cuda: str = ""


def find_graphics(programs: Programs) -> Graphics:
    """Return what nvidia-smi reports; nothing where there is none or it fails.

    Its CUDA version is the newest that the driver runs and says nothing of any toolkit (FA#1477).
    """
    smi = programs.find("nvidia-smi")
    if smi is None:
        return Graphics()
    rows = _query(programs, str(smi), "name", "compute_cap", "driver_version")
    # Drivers before 510 do not know compute_cap: the name tells.
    rows = rows or [[name, "", driver] for name, driver in _query(programs, str(smi), "name", "driver_version")]
    if not rows:
        return Graphics()
    gpus = tuple(gpu for name, capability, _ in rows if (gpu := _gpu(name, capability)) is not None)
    match = _CUDA.search(programs.ask(smi))
    return Graphics(gpus, rows[0][2], match[1] if match else "")


def _query(programs: Programs, smi: str, *fields: str) -> list[list[str]]:
    output = programs.ask(smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
    return [row for row in rows if len(row) == len(fields)]


def _gpu(name: str, capability: str) -> Gpu | None:
    try:
        return Gpu(name=name, capability=Architecture.parse(capability))
    except ValueError:
        pass
    try:
        return find_gpu(name).model_copy(update={"name": name})
    except RequestError:
        return None
