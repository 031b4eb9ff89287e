"""Where a wheel is tried: a Python with its PyTorch and the wheel, and a program in it that answers questions.

Nothing of the wheel is imported into this process. The program is ``ongpu/child.py``; a crash, a hang or a lost GPU
context ends the program, which is then an outcome and not an error here.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

import attnforge.ongpu
from attnforge import process
from attnforge.audit.universal import told_pairs
from attnforge.embedded import no_wheel, read_plan
from attnforge.errors import AttnforgeError, HostError, RequestError, WheelError
from attnforge.host.active import interpreter_of
from attnforge.knowledge.torch import default_torch, find_torch, is_listed
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair
from attnforge.model.versions import as_version
from attnforge.workflow.asking import torch_requirements
from attnforge.workflow.auditing import cuda_of
from attnforge.workflow.machine import Machine
from attnforge.workflow.torchindex import release_for

_CHILD = Path(attnforge.ongpu.__file__).with_name("child.py")

# What the dynamic linker says of a module that calls the driver itself (SageAttention's for 9.0) where there is none.
NO_DRIVER = "libcuda.so.1: cannot open shared object file"

# Seconds for the program to start and import torch: a cold disk takes its time.
START_SECONDS = 300.0

# What the program gets of the user's environment besides the base: where compilers, drivers and GPUs are.
_PASSED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "CPATH",
    "C_INCLUDE_PATH",
    "CC",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "TRITON_LIBCUDA_PATH",
)


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel and what its name says: ``package`` (canonical), ``version`` with its label, the ``python`` tags."""

    path: Path
    package: str
    version: str
    pythons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """A Python that has torch and the wheel. ``search`` are the folders that the wheel lies in, empty if installed."""

    wheel: WheelFile
    python: Path
    search: tuple[Path, ...]
    folder: Path
    environ: Mapping[str, str]

    @property
    def command(self) -> process.Command:
        """The program that answers requests."""
        return process.Command((str(self.python), "-u", str(_CHILD)), self.folder, self.environ)


def read_name(wheel: Path) -> WheelFile:
    """Read a wheel's name. RequestError where there is no such file, WheelError where that is no wheel's name."""
    if not wheel.is_file():
        raise no_wheel(wheel)
    try:
        name, version, _, tags = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise WheelError(f"{wheel.name} is no wheel's name", why=str(error), hint="give it back its name") from error
    return WheelFile(wheel.resolve(), str(name), str(version), tuple(sorted({tag.interpreter for tag in tags})))


@contextmanager
def trial(machine: Machine, wheel: WheelFile, python: str = "", torch: str = "") -> Iterator[Trial]:
    """Yield where a wheel can be tried, and take it away afterwards.

    ``python`` names an interpreter with PyTorch: nothing is installed, the wheel is unpacked beside it. Else a clean
    environment is made with ``torch``, or with the one that the wheel's plan or metadata asks for; a universal wheel is
    tried as one of its pairs (chosen_pair). Raises RequestError, HostError or WheelError.
    """
    root = machine.folders.ensure().environments
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=root, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if python:
            program = _program(machine, python)
            search = unpack(wheel.path, folder / "wheel")
        else:
            program, search = _clean_environment(machine, wheel, torch, folder / "venv"), ()
        yield Trial(wheel, program, search, folder, _environment(machine, folder, bool(python)))


def unpack(wheel: Path, into: Path) -> tuple[Path, ...]:
    """Unpack a wheel and return the folders that Python has to search. WheelError where it is no whole archive."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)  # it keeps members inside of the folder whatever they are called
    except (OSError, zipfile.BadZipFile) as error:
        raise WheelError(
            f"{wheel.name} can't be unpacked", why=str(error), hint="build or download it again"
        ) from error
    return (into, *sorted(path for part in ("platlib", "purelib") for path in into.glob(f"*.data/{part}")))


def _program(machine: Machine, python: str) -> Path:
    found = interpreter_of(python) or shutil.which(python, path=machine.environ.get("PATH"))
    if found is None:
        raise RequestError(f"there is no interpreter {python}", hint="--python PATH of an interpreter with PyTorch")
    # Not resolved: the link in a virtual environment is what makes it one.
    return Path(found).absolute()


def _clean_environment(machine: Machine, wheel: WheelFile, torch: str, venv: Path) -> Path:
    plan = read_plan(wheel.path)
    python, requirement, backend = _wanted(machine, wheel, plan, torch)
    fitting = [found.path for found in machine.host.interpreters if found.version.startswith(f"{python}.")]
    machine.uv.venv(venv, fitting[0] if fitting else python)
    interpreter = venv / "bin" / "python"
    machine.uv.install(interpreter, (requirement, str(wheel.path)), *backend)
    return interpreter


def _wanted(machine: Machine, wheel: WheelFile, plan: BuildPlan | None, torch: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the Python, the requirement of torch, and uv's options for where it comes from."""
    if plan and plan.is_universal:
        pair = chosen_pair(wheel, plan, torch)
        python, wanted = pair.python, torch or pair.torch
    else:
        python, wanted = _python_of(wheel, plan), torch or (plan.target.torch if plan else "")
    if not wanted:
        return python, _torch_requirement(wheel.path, python), ()
    if plan and plan.installed and not plan.installed.official and not torch:
        raise RequestError(
            f"{wheel.path.name} is for PyTorch {wanted}, which is no official release",
            why="no index has that build, so no environment can be made with it",
            hint="activate the environment that has it, or name it with --env PATH",
        )
    release = release_for(wanted, plan, machine.settings)
    cuda = cuda_of(plan, release)
    backend = () if cuda == release.index_cuda else ("--torch-backend", "cu" + cuda.replace(".", ""))
    return python, f"torch=={release.version}", backend


def chosen_pair(wheel: WheelFile, plan: BuildPlan, torch: str = "") -> Pair:
    """Return the pair that a universal wheel is tried as: of ``torch``, else of the last PyTorch that it is for.

    Of its Pythons it is the one that runs attnforge, else the newest. RequestError where the wheel has no such pair.
    """
    torch = torch or plan.pairs[-1].torch
    known = find_torch(torch).version if is_listed(torch) or as_version(torch) is None else torch
    minor = ".".join(known.split("+")[0].split(".")[:2])
    held = [pair for pair in plan.pairs if pair.torch_minor == minor]
    if not held:
        raise RequestError(
            f"{wheel.path.name} has no modules for PyTorch {minor}",
            why=f"it holds those for {told_pairs(pair.key for pair in plan.pairs)}",
            hint=f"add them: attnforge extend {wheel.path.name} --torch {minor}",
        )
    return next((pair for pair in held if pair.python == _ours()), held[-1])


def _ours() -> str:
    """Return the Python that runs this: ``3.12``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python_of(wheel: WheelFile, plan: BuildPlan | None) -> str:
    """Return the Python to try it with: the plan's, that of its tag, or for a wheel for any the one that runs this."""
    if plan and plan.target.python_tag in wheel.pythons:
        return plan.target.python
    exact = [tag.removeprefix("cp3") for tag in wheel.pythons if tag.startswith("cp3")]
    ours = _ours()
    if not exact or "abi3" in wheel.path.name:
        return ours
    return ours if ours.removeprefix("3.") in exact else f"3.{exact[-1]}"


def _torch_requirement(wheel: Path, python: str) -> str:
    """Return the PyTorch that attnforge takes by default, unless the wheel's metadata asks for another there."""
    default = default_torch().version
    wanted = SpecifierSet()
    for asked in torch_requirements(wheel, python):
        wanted &= asked.specifier
    return f"torch=={default}" if wanted.contains(default) else f"torch{wanted}"


def _environment(machine: Machine, folder: Path, foreign: bool) -> dict[str, str]:
    """Return the program's environment. An interpreter of the user's keeps PYTHONPATH: its torch may lie there."""
    names = (*_PASSED, "PYTHONPATH") if foreign else _PASSED
    kept = {name: machine.environ[name] for name in names if name in machine.environ}
    if foreign:
        # It is not ours to change. What was compiled of its PyTorch when it was looked at is read from our cache.
        kept |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(machine.folders.bytecode)}
    # Triton keeps what it compiled; kernels that another version of the wheel left must not be found.
    return {**process.base_environment(machine.environ), **kept, "TRITON_CACHE_DIR": str(folder / "triton")}


class Child:
    """The program in a trial, started when it is first asked and again after it died."""

    def __init__(self, place: Trial) -> None:
        self._place = place
        self._running: process.Conversation | None = None
        self._opened = False

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, module: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Return what ``answer(request)`` of a module of ongpu/ returns, or how it failed.

        A failure is ``{"error": {"type", "text", "trace", "sticky"}}``. Where the program died, ``type`` is ``Crash``
        and ``code`` its exit code or negative signal; where no answer came within ``timeout`` seconds, ``type`` is
        ``Hang``. In both, and where ``sticky`` is true, the next call starts a new program. Raises HostError where it
        can't be started at all.
        """
        if self._running is None:
            self._start()
        found = self._told(module, request, timeout)
        if found.get("error", {}).get("sticky"):
            self.stop()
        return found

    def stop(self) -> None:
        """End the program."""
        if self._running is not None:
            self._running.__exit__()
            self._running = None

    def _start(self) -> None:
        try:
            self._running = process.Conversation(self._place.command)
        except OSError as error:
            raise HostError(f"{self._place.python} can't be started", why=str(error)) from error
        place = {"search": [str(folder) for folder in self._place.search]}
        found = self._told("about", {"do": "place", **place}, START_SECONDS)
        if "error" in found:
            self.stop()
            raise _unusable(self._place.python, found["error"])

    def _told(self, module: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        assert self._running is not None
        line = json.dumps({"module": module, "request": dict(request)})
        try:
            found: dict[str, Any] = json.loads(self._running.ask(line, timeout))
            return found
        except TimeoutError:
            code, kind, text = self._running.end(grace=0), "Hang", f"no answer within {timeout:g} seconds"
        except EOFError:
            code = self._running.end()
            kind, text = "Crash", f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = self._running.last_words()
        self.stop()
        return {"error": {"type": kind, "text": text, "trace": words, "sticky": True, "code": code}}


def _unusable(python: Path, error: Mapping[str, Any]) -> AttnforgeError:
    lines = [line for line in str(error.get("trace", "")).splitlines() if line.strip()]
    return HostError(
        f"{python} has no PyTorch that can be imported",
        why=str(error["text"]) if error["type"] not in ("Crash", "Hang") else " ".join((error["text"], *lines[-2:])),
        hint="name an interpreter with PyTorch: --python PATH; or leave it out, to have an environment made",
    )
