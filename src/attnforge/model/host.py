"""The machine that builds, probed once (host.probe) and then only read."""

from __future__ import annotations

from attnforge.model.base import Value
from attnforge.model.target import Gpu


class Toolkit(Value):
    """A CUDA toolkit on this machine. ``cuda`` is ``13.0``, ``nvcc`` its full build version ``13.0.88``.

    ``named_by`` is the variable that names it (CUDA_HOME), "" for one that was found. ``lacks`` says what is missing of
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
    """A C++ compiler: ``name`` g++ or clang++, ``version`` ``12.2.0``.

    ``has_shared_cxx`` is false where it has no libstdc++.so and so links a copy of that library into each module.
    """

    path: str
    name: str
    version: str
    has_shared_cxx: bool = True


class Interpreter(Value):
    """A Python interpreter: ``version`` ``3.12.1``; ``has_headers`` whether Python.h is there to compile against.

    ``free_threaded`` is whether it was built without the global interpreter lock: modules are for one or the other.
    """

    path: str
    version: str
    has_headers: bool
    free_threaded: bool = False


class Installed(Value):
    """A Python environment of the user's and the PyTorch in it, as its interpreter said (host.inquiry).

    ``python`` is the path of the interpreter, ``version`` its version (``3.12.1``), ``prefix`` the folder of the
    environment and ``named_by`` what names it (``VIRTUAL_ENV``, ``--env``, ``python3 on PATH``). ``has_headers`` says
    whether Python.h is there. ``search`` is where this Python looks for modules, ``sites`` those of these folders whose
    ``.pth`` files count.

    ``torch`` is PyTorch's version as installers see it (``2.11.0``), "" for none, and ``calls_itself`` what it says
    itself (``2.11.0+cu130``). ``cuda`` (``13.0``) and ``rocm`` are what it is built with, "" for neither. ``git`` is
    its commit, ``cxx11_abi`` its C++ ABI, ``cxx`` the C++ standard that its headers need (17). ``folder`` has the
    package torch in it. ``digest`` is the SHA-256 of what is compiled against. ``libraries`` are those of
    PyTorch and CUDA in a process that has imported it. ``trouble`` says why it can't be imported, "" where it can be.
    """

    python: str
    version: str
    prefix: str
    named_by: str
    has_headers: bool = True
    free_threaded: bool = False
    search: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    torch: str = ""
    calls_itself: str = ""
    cuda: str = ""
    rocm: str = ""
    git: str = ""
    cxx11_abi: bool = True
    cxx: int = 17
    folder: str = ""
    digest: str = ""
    libraries: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def minor(self) -> str:
        """``3.12``, or ``3.14t`` of a free-threaded Python."""
        return ".".join(self.version.split(".")[:2]) + ("t" if self.free_threaded else "")

    @property
    def shortcoming(self) -> str:
        """Why its PyTorch is not one to build for, as people read it; "" where it is one for CUDA that works."""
        if not self.torch:
            return f"it has no PyTorch that can be imported: {self.trouble}" if self.trouble else "it has no PyTorch"
        if self.trouble:
            return f"its PyTorch {self.calls_itself} can't be imported: {self.trouble}"
        if self.rocm:
            return f"its PyTorch {self.calls_itself} is built for AMD GPUs (ROCm {self.rocm})"
        return "" if self.cuda else f"its PyTorch {self.calls_itself} is built without CUDA"

    @property
    def place(self) -> str:
        """The environment as people read it: ``/opt/venv (VIRTUAL_ENV)``."""
        return f"{self.prefix} ({self.named_by})"

    def __str__(self) -> str:
        """``PyTorch 2.11.0+cu130 of /opt/venv (VIRTUAL_ENV)``."""
        return f"PyTorch {self.calls_itself} of {self.place}"


class Active(Value):
    """The environment that a user is in, as far as it matters.

    ``installed`` is the one whose PyTorch counts, None where no active environment has one for CUDA that works.
    ``passed`` has the place of each other that was checked, with the reason. ``unfit`` is the first of these that has
    a Python that answers.
    """

    installed: Installed | None = None
    passed: tuple[tuple[str, str], ...] = ()
    unfit: Installed | None = None


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
