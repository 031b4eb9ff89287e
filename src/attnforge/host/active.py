"""The environment that the user is in, and the PyTorch in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnforge.errors import HostError, RequestError
from attnforge.host import inquiry
from attnforge.host.programs import Programs, is_executable
from attnforge.model.host import Active, Installed
from attnforge.model.versions import shortened
from attnforge.process import Command, Outcome, base_environment

SECONDS = 180.0
"""How long an environment may take to say what it has: importing PyTorch from a cold network disk takes a minute."""

# Where an interpreter finds its own: what a container, a conda environment and pyenv set.
_PASSED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONUSERBASE",
    "PYTHONNOUSERSITE",
    "CONDA_PREFIX",
    "PYENV_ROOT",
    "PYENV_VERSION",
)

_TEXT = Path(inquiry.__file__)
_NAMES = ("python3", "python")


@dataclass(frozen=True, slots=True)
class Inquirer:
    """Asks interpreters what PyTorch they have. ``bytecode`` is a folder of ours for what Python compiles meanwhile.

    ``own`` is the prefix of the environment that attnforge runs in, and ``own_torch`` the PyTorch in it, "" for none.
    """

    programs: Programs
    bytecode: Path
    own: Path = Path(sys.prefix)
    own_torch: str = ""

    def active(self) -> Active:
        """Return the environment that is active.

        The first of VIRTUAL_ENV, CONDA_PREFIX and the ``python3`` or ``python`` on PATH decides, and attnforge's own
        comes after these. attnforge's own counts where it has a PyTorch for CUDA, and is passed over otherwise.
        """
        seen = Active()
        for python, named_by in self._candidates():
            found = self._asked(python, named_by)
            if isinstance(found, Installed) and not found.shortcoming:
                return seen.model_copy(update={"installed": found})
            seen = _passing(seen, found, f"{python} ({named_by})")
        return seen

    def look_at(self, place: str) -> Installed:
        """Return what is in an environment that the user names: its folder, or its interpreter.

        RequestError where there is no such interpreter, HostError where it does not answer.
        """
        python = self._interpreter_of(place)
        found = self._asked(python, "--env")
        if isinstance(found, Installed):
            return found
        raise HostError(
            f"the interpreter {python} does not work",
            why=found,
            hint=f"{python} -c 'import sys; print(sys.version)' shows it",
        )

    def _candidates(self) -> Iterator[tuple[Path, str]]:
        """Yield the interpreter that decides, and attnforge's own where it has a PyTorch."""
        named = next((one for one in self._named() if self.own_torch or not self._is_own(one[0])), None)
        if named:
            yield named
        if self.own_torch and not (named and self._is_own(named[0])):
            yield self.own / "bin" / "python", "the environment of attnforge"

    def _named(self) -> Iterator[tuple[Path, str]]:
        for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
            folder = self.programs.environ.get(variable, "")
            python = interpreter_in(Path(folder)) if folder else None
            if python:
                yield python, variable
        for place in self.programs.folders:
            name = next((name for name in _NAMES if is_executable(place / name)), "")
            if name:
                yield place / name, f"{name} on PATH"

    def _is_own(self, python: Path) -> bool:
        return python.parent.resolve() == (self.own / "bin").resolve()

    def _interpreter_of(self, place: str) -> Path:
        try:
            path = Path(place).expanduser().absolute()
            is_folder = path.is_dir()
            found = interpreter_in(path) if is_folder else path if is_executable(path) else None
        except (OSError, RuntimeError, ValueError) as error:
            raise _no_environment(place, str(error)) from error
        if found is None and "/" not in place:
            found = self.programs.find(place)
        if found is None:
            raise _no_environment(
                place, "it has no bin/python" if is_folder else "it is neither a folder nor a program"
            )
        # Not resolved: the link in a virtual environment is what makes it one.
        return found

    def _asked(self, python: Path, named_by: str) -> Installed | str:
        """Return what an interpreter says, or in words why it says nothing."""
        env = _environment(self.programs.environ)
        command = Command(
            (str(python), "-B", "-c", _TEXT.read_text(encoding="utf-8"), str(self.bytecode)), Path("/"), env, SECONDS
        )
        try:
            outcome = self.programs.runner(command)
        except OSError as error:
            return str(error)
        return read_answer(outcome, python, named_by)


def _no_environment(place: str, why: str) -> RequestError:
    return RequestError(
        f"there is no environment {shortened(place)}",
        why=why,
        hint="--env PATH of a virtual environment, a conda environment or an interpreter",
    )


def _passing(seen: Active, found: Installed | str, place: str) -> Active:
    """Return what was seen so far with one environment more that does not count."""
    if isinstance(found, str):
        return seen.model_copy(update={"passed": (*seen.passed, (place, found))})
    passed = (*seen.passed, (found.place, found.shortcoming))
    return seen.model_copy(update={"passed": passed, "unfit": seen.unfit or found})


def interpreter_in(prefix: Path) -> Path | None:
    """Return the interpreter of an environment, by its folder; None for another folder."""
    return next((path for name in _NAMES[::-1] if is_executable(path := prefix / "bin" / name)), None)


def interpreter_of(place: str) -> Path | None:
    """Return the interpreter of an environment that is named by its folder; None for any other text."""
    try:
        return interpreter_in(Path(place).expanduser())
    except (OSError, RuntimeError, ValueError):
        return None


def read_answer(outcome: Outcome, python: Path, named_by: str) -> Installed | str:
    """Return what an interpreter said of itself, or in words why that can't be told."""
    facts: dict[str, Any] = {}
    for line in outcome.output.splitlines():
        if line.startswith(inquiry.MARK):
            facts |= _object(line.removeprefix(inquiry.MARK))
    if not facts or (outcome.timed_out and "torch" not in facts):
        return _no_answer(outcome)
    if facts.get("trouble") and (outcome.timed_out or outcome.code < 0):
        late = f"not done after {SECONDS:g} seconds"
        facts["trouble"] = late if outcome.timed_out else f"{facts['trouble']} (signal {-outcome.code})"
    facts["cuda"] = ".".join(str(facts.get("cuda", "")).split(".")[:2])
    try:
        return Installed.model_validate({**facts, "named_by": named_by})
    except ValidationError as error:
        return f"{python} says what can't be understood: {str(error)[:200]}"


def _no_answer(outcome: Outcome) -> str:
    if outcome.timed_out:
        return f"no answer within {SECONDS:g} seconds"
    return next(iter(outcome.output.strip().splitlines()[-1:]), f"exit code {outcome.code}")[:300]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return base_environment(environ) | {name: environ[name] for name in _PASSED if name in environ}
