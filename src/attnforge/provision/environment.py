"""The environment that upstream's build runs in: one for each set of pins, kept and shared by builds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnforge.errors import HostError
from attnforge.model.host import Interpreter
from attnforge.paths import Folders
from attnforge.process import Command, base_environment
from attnforge.provision.bytecode import compile_bytecode
from attnforge.provision.store import Facts, facts_of, provide
from attnforge.provision.uv import Uv

_LAYOUT = 1  # raised when what is in an environment's folder changes
_LOOK = """
import json, os, platform, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "version": platform.python_version(),
    "site_packages": paths["purelib"],
    "headers": os.path.exists(os.path.join(paths["include"], "Python.h")),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


@dataclass(frozen=True, slots=True)
class EnvironmentPins:
    """What an environment is made of.

    ``python`` is ``3.12``, ``torch`` a full version or "" for none, ``cuda`` the toolkit that this torch has to be
    built with. ``torch_backend`` is "" for the torch of the configured indexes, or ``cu128`` for PyTorch's own.
    """

    python: str
    requirements: tuple[str, ...] = ()
    torch: str = ""
    cuda: str = ""
    torch_backend: str = ""

    def all_requirements(self) -> tuple[str, ...]:
        """Return what is installed, sorted, torch included."""
        torch = {f"torch=={self.torch}"} if self.torch else set()
        return tuple(sorted({*self.requirements, *torch}))

    def digest(self, interpreter: str) -> str:
        """Return the hex digest that names the environment of these pins with that interpreter."""
        made_of = {**asdict(self), "requirements": self.all_requirements(), "interpreter": interpreter, "at": _LAYOUT}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BuildEnvironment:
    """An environment that is ready: its interpreter, where PyTorch is, and what is in it, exactly.

    ``variables`` are those that its interpreter has to be run with. ``headers`` are folders with headers of CUDA's
    libraries, and ``libraries`` shared libraries that its PyTorch loads, beside those that are in ``site_packages``.
    """

    python: Path
    site_packages: Path
    digest: str
    freeze: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    headers: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()


def provide_environment(
    pins: EnvironmentPins, folders: Folders, uv: Uv, interpreters: Iterable[Interpreter] = ()
) -> BuildEnvironment:
    """Return the environment of these pins, made first where it is not there or was left half made.

    Of ``interpreters`` the newest of that minor version with headers is used; where there is none, uv fetches one.
    Two builds may ask at once. RequestError where no such packages exist; HostError where uv, Python or its headers
    are missing, the network or the disk fails, or the indexes deliver a torch for another CUDA than ``pins.cuda``.
    """
    interpreter = choose_interpreter(pins.python, interpreters)
    digest = pins.digest(f"{interpreter.path} {interpreter.version}" if interpreter else "")
    entry = folders.environments / digest[:32]
    facts = provide(entry, lambda folder: _make(folder, pins, interpreter, uv), _healthy)
    return BuildEnvironment(Path(facts["python"]), Path(facts["site_packages"]), digest, tuple(facts["freeze"]))


def kept_torch(folders: Folders, python: str, build: str) -> bool:
    """Say whether an environment of that Python (``3.12``) has a PyTorch (``2.7.1``, ``2.7.1+cu128``).

    Packages are linked from uv's cache, so that further environments with it download it no more.
    """
    for entry in folders.environments.glob("*"):
        facts = facts_of(entry)
        place = f"/python{python}/"
        if f"torch=={build}" in facts.get("freeze", ()) and place in facts.get("site_packages", ""):
            return True
    return False


def choose_interpreter(python: str, interpreters: Iterable[Interpreter]) -> Interpreter | None:
    """Return the newest interpreter of a minor version (``3.12``, ``3.14t``) that can compile extensions, or None."""
    fitting = [
        found for found in interpreters if found.has_headers and _named(found.version, found.free_threaded) == python
    ]
    return max(fitting, key=lambda found: _numbers(found.version), default=None)


def _named(version: str, free_threaded: bool) -> str:
    """Return ``3.12`` of 3.12.7, and ``3.14t`` of a 3.14.2 without the global interpreter lock."""
    return ".".join(version.split(".")[:2]) + ("t" if free_threaded else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _healthy(facts: Facts) -> bool:
    """An environment is a link to its interpreter, which may have been removed since."""
    return Path(facts["python"]).exists() and Path(facts["site_packages"]).is_dir()


def _make(folder: Path, pins: EnvironmentPins, interpreter: Interpreter | None, uv: Uv) -> Facts:
    venv = folder / "venv"
    if interpreter:
        uv.venv(venv, interpreter.path)
    else:  # one of uv's own, since those that were found here lack headers
        uv.venv(venv, pins.python, "--managed-python")
    python = venv / "bin" / "python"
    seen = _look(python, uv)
    _check_interpreter(pins.python, seen)
    if pins.all_requirements():
        backend = ("--torch-backend", pins.torch_backend) if pins.torch_backend else ()
        uv.install(python, pins.all_requirements(), *backend)
    site_packages = Path(seen["site_packages"])
    if pins.torch and pins.cuda:
        _check_torch(pins, torch_cuda(site_packages))
    if pins.all_requirements():
        compile_bytecode(python, uv, {})
    return {"python": str(python), "site_packages": str(site_packages), "freeze": list(uv.freeze(python))}


def _look(python: Path, uv: Uv) -> dict[str, Any]:
    """Ask an interpreter what it is. ``-I`` keeps it from reading anything of the user's."""
    command = Command((str(python), "-I", "-c", _LOOK), python.parent, base_environment(uv.environ), timeout=60)
    outcome = uv.runner(command)
    try:
        seen: dict[str, Any] = json.loads(outcome.output)
    except ValueError:
        raise HostError(
            f"the Python interpreter {python} does not work",
            why=outcome.output.strip()[-500:],
            hint="install Python again, or have uv fetch one: uv python install",
        ) from None
    return seen


def _check_interpreter(python: str, seen: dict[str, Any]) -> None:
    free_threaded = bool(seen.get("free_threaded"))
    if _named(seen["version"], free_threaded) != python:
        kind = ", without the global interpreter lock" if free_threaded else ""
        told = f"Python {python} was asked for and is {seen['version']}{kind}"
        raise HostError(told, hint=f"uv python install {python}")
    if not seen["headers"]:
        raise HostError(
            f"Python {python} has no headers (Python.h), which extension modules are compiled against",
            hint=f"apt install python{python}-dev   (or: uv python install {python})",
        )


def torch_cuda(site_packages: Path) -> str:
    """Return the CUDA version that the installed torch was built with (``13.0``), or "" for a build without CUDA."""
    try:
        text = (site_packages / "torch" / "version.py").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    match = re.search(r"^cuda\b[^=]*=\s*'(?P<cuda>[\d.]+)'", text, re.MULTILINE)
    return match["cuda"] if match else ""


def _check_torch(pins: EnvironmentPins, found: str) -> None:
    if found == pins.cuda:
        return
    raise HostError(
        f"the torch {pins.torch} that was installed is built with {f'CUDA {found}' if found else 'no CUDA'}, "
        f"not with CUDA {pins.cuda}",
        why="the first index or folder that pip and uv are configured with has another build of this version",
        hint=f"remove that build from find-links or the extra index, or choose --cuda {found or pins.cuda}",
    )


def site_include_dirs(environment: BuildEnvironment) -> tuple[Path, ...]:
    """Return the header folders of the CUDA libraries that torch depends on, which a partial toolkit lacks (FA#157)."""
    own = {path for path in environment.site_packages.glob("nvidia/*/include") if path.is_dir()}
    return tuple(sorted(own | set(environment.headers)))
