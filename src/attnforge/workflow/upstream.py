"""Runs upstream's own build: its PEP 517 backend, or its setup.py through setuptools' one."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnforge import process
from attnforge.compile.run.diagnose import disk_full, first_error, known_cause
from attnforge.compile.run.engine import Engine
from attnforge.errors import AttnforgeError, BuildError, HostError, RequestError
from attnforge.process.guard import removed
from attnforge.provision.metadata import build_requires

# Upstream's build leaves no date and no order of a hash table in what it packs.
REPRODUCIBLE = {"SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}

FROM_SOURCE = {
    "CAUSAL_CONV1D_FORCE_BUILD": "TRUE",
    "DG_FORCE_BUILD": "1",
    "FAHOPPER_FORCE_BUILD": "TRUE",
    "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
    "GPTQMODEL_FORCE_BUILD": "1",
    "INFLLM_V2_FORCE_BUILD": "TRUE",
    "MAMBA_FORCE_BUILD": "TRUE",
    "NVTE_JAX_FORCE_BUILD": "TRUE",
    "NVTE_PYTORCH_FORCE_BUILD": "TRUE",
}
"""Variables without which a setup.py downloads a prebuilt wheel, and the values that it compares them with: each from
the setup.py of the package that reads it. The wheel is named after its package or after the project that has it, so
they are set for every build."""

# FlashAttention's setup.py prints the first line when it asks for a prebuilt wheel, then the second when it has one or
# the third when it has none. Those of Mamba, causal-conv1d, DeepGEMM and Transformer Engine follow its example.
_ASKED = re.compile(r"^.*Guessing wheel URL.*$", re.MULTILINE)
_GOT = re.compile(r"^.*Raw wheel path.*$", re.MULTILINE)
_NONE = re.compile(r"Precompiled wheel not found|[Bb]uilding from source")


def prebuilt(log: str, *, compiled: bool) -> str:
    """Return the line of a successful build's log that says that it packed a prebuilt wheel, "" for none.

    ``compiled`` says whether it compiled something: then a question for a wheel proves nothing.
    """
    got = _GOT.search(log)
    if got is not None:
        return got[0].strip()
    asked = _ASKED.search(log)
    found = asked is not None and not compiled and not _NONE.search(log, asked.end())
    return asked[0].strip() if asked is not None and found else ""


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
    source: Path,
    python: Path,
    environment: Mapping[str, str],
    engine: Engine | None,
    folder: Path,
    log: IO[str],
    told: Callable[[str], object] = str,
) -> Path:
    """Build the wheel of an unpacked source and return its path, in ``folder``/upstream.

    ``told`` gets what a build that succeeds prints. The seat has to be first on PATH in ``environment``; a package that
    compiles nothing has no ``engine``. Raises the engine's error where compiling failed, HostError where the disk is
    full, BuildError where anything else of its build failed, or where it packed a prebuilt wheel that it downloaded.
    """
    out = folder / "upstream"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    wheel, output = _built(source, python, out, _LoggedRunner(environment, log), engine)
    told(output)
    downloaded = prebuilt(output, compiled=engine is not None and bool(engine.summary.units))
    if downloaded:
        raise BuildError(
            "upstream's setup.py downloaded a prebuilt wheel and built nothing",
            why=f"its log says: {downloaded}",
            hint="set the variable of its setup.py that forces a build under [settings] of a recipe (docs/recipes.md)",
        )
    return wheel


def _built(source: Path, python: Path, out: Path, runner: _LoggedRunner, engine: Engine | None) -> tuple[Path, str]:
    """Return the wheel that upstream's backend makes, and what it printed."""
    from build import BuildBackendException, BuildException, ProjectBuilder

    try:
        with warnings.catch_warnings():
            # The backend's warnings, which `build` repeats; they are for upstream, and are in the log.
            warnings.simplefilter("ignore")
            builder = ProjectBuilder(source, python_executable=str(python), runner=runner)
            return Path(builder.build("wheel", out)), runner.output
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
        # The last word is a temporary folder of the package `build`, with what is asked and answered.
        with removed(Path(cmd[-1])) if is_temporary(cmd[-1]) else nullcontext():
            outcome = process.run(command, self._log)
        self.output = outcome.output
        if not outcome.ok:
            raise _UpstreamFailedError(f"exit code {outcome.code}")


def is_temporary(word: str) -> bool:
    """Say whether a word is the path of something in the folder for temporary files: nothing else may be removed."""
    return Path(word).is_absolute() and Path(word).parent == Path(tempfile.gettempdir())


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
