"""The machine that builds, probed once (host.probe) and then only read."""

from __future__ import annotations

from attnforge.model.base import Value
from attnforge.model.target import Gpu


class Toolkit(Value):
    """A CUDA toolkit on this machine. ``cuda`` is ``13.0``, ``nvcc`` its full build version ``13.0.88``.

    ``named_by`` is the variable that names it (CUDA_HOME), "" for one that was found. ``lacks`` says what it has not of
    what a build reads (``nv/target (cuda_cccl)``). ``max_glibc`` is the newest glibc whose headers its own compile with
    (``2.40``), "" where no bound is known.
    """

    home: str
    cuda: str
    nvcc: str
    named_by: str = ""
    lacks: tuple[str, ...] = ()
    max_glibc: str = ""


class HostCompiler(Value):
    """A C++ compiler: ``name`` g++ or clang++, ``version`` ``12.2.0``."""

    path: str
    name: str
    version: str


class Interpreter(Value):
    """A Python interpreter: ``version`` ``3.12.1``; ``has_headers`` whether Python.h is there to compile against.

    ``free_threaded`` is whether it was built without the global interpreter lock: modules are for one or the other.
    """

    path: str
    version: str
    has_headers: bool
    free_threaded: bool = False


class Disk(Value):
    """A folder that attnforge uses: ``purpose`` build, cache or temporary, free bytes, and its device number."""

    purpose: str
    path: str
    free_bytes: int
    device: int
    writable: bool


class Memory(Value):
    """Bytes that this process may use: ``limit`` by cgroup or the machine, ``available`` of it now."""

    total_bytes: int
    limit_bytes: int
    available_bytes: int
    limited_by: str


class Host(Value):
    """A snapshot of the machine.

    ``cpus`` are those that this process may use (affinity, cgroup quota); ``python`` is the version that runs
    attnforge, ``torch`` the one installed beside it, "" for none.
    """

    system: str
    machine: str
    libc: str
    cpus: int
    cpus_total: int
    cpus_limited_by: str
    memory: Memory
    toolkits: tuple[Toolkit, ...]
    compilers: tuple[HostCompiler, ...]
    interpreters: tuple[Interpreter, ...]
    gpus: tuple[Gpu, ...]
    driver: str
    driver_cuda: str
    disks: tuple[Disk, ...]
    pip: str
    uv: str
    git: str
    torch: str
    python: str = ""
