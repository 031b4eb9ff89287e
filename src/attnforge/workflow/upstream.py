"""Runs upstream's own build: its PEP 517 backend, or its setup.py through setuptools' one."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge import process
from attnforge.compile.diagnose import disk_full, first_error, known_cause
from attnforge.compile.engine import Engine
from attnforge.errors import AttnforgeError, BuildError, HostError, RequestError
from attnforge.provision.metadata import build_requires

# Upstream's build leaves no date and no order of a hash table in what it packs.
REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}


def build_requirements(source: Path) -> tuple[str, ...]:
    """Return what a source's pyproject.toml says that its build needs, without torch: the plan pins that one."""
    try:
        text = (source / "pyproject.toml").read_text(encoding="utf-8")
        required = build_requires(text)
    except FileNotFoundError:
        return ()
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"{source.name}/pyproject.toml can't be read",
            why=str(error),
            hint="correct it in the source, and build from the folder",
        ) from error
    return tuple(text for text in required if canonicalize_name(Requirement(text).name) != "torch")


def build_wheel(
    source: Path, python: Path, environment: Mapping[str, str], engine: Engine | None, folder: Path, log: IO[str]
) -> Path:
    """Build the wheel of an unpacked source and return its path, in ``folder``/upstream.

    The seat has to be first on PATH in ``environment``; a package that compiles nothing has no ``engine``. Raises the
    engine's error where compiling failed, HostError where the disk is full, BuildError where anything else of its
    build failed.
    """
    from build import BuildBackendException, BuildException, ProjectBuilder

    out = folder / "upstream"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    runner = _LoggedRunner(environment, log)
    try:
        with warnings.catch_warnings():
            # The backend's warnings, which `build` repeats; they are for upstream and stand in the log.
            warnings.simplefilter("ignore")
            builder = ProjectBuilder(source, python_executable=str(python), runner=runner)
            return Path(builder.build("wheel", out))
    except (BuildException, BuildBackendException) as error:
        if engine is not None and engine.error is not None:
            raise engine.error from None
        raise _failed(runner, error) from error


class _UpstreamFailedError(Exception):
    """Upstream's build exited with another code than 0."""


class _LoggedRunner:
    """The runner that ``build`` calls for each hook of the backend: explicit environment, output into the log."""

    def __init__(self, environment: Mapping[str, str], log: IO[str]) -> None:
        self._environment = environment
        self._log = log
        self.output = ""

    def __call__(
        self, cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        command = process.Command(
            tuple(cmd), Path(cwd or "/"), {**self._environment, **(extra_environ or {})}, timeout=None
        )
        self._log.write(f"+ {command}\n")
        outcome = process.run(command, self._log)
        self.output = outcome.output
        if not outcome.ok:
            raise _UpstreamFailedError(f"exit code {outcome.code}")


def _failed(runner: _LoggedRunner, error: Exception) -> AttnforgeError:
    if not runner.output:
        return BuildError("upstream's build could not be started", why=str(error))
    what = f"upstream's build failed: {first_error(runner.output) or error}"
    cause = known_cause(runner.output)
    if cause is None:
        hint = "the log has all that it printed"
        return BuildError(what, why="its own setup ended with that error, and no compiler did", hint=hint)
    kind = HostError if disk_full(runner.output) else BuildError
    return kind(what, why=f"{cause.what}: {cause.why}", hint=cause.hint, link=cause.link)
