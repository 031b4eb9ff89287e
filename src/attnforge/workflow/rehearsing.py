"""Tries upstream's link and packaging, and ours, while kernels compile: what fails there fails in the first minute.

Upstream's build runs twice in the same folder. The first run is a rehearsal: its calls of ninja are answered when host
code is compiled, with objects without content where kernels are missing (``compile.rehearsal``). It links and packs,
and the wheel is audited as far as it can be without kernels. In the second run the calls are answered when all of the
objects are there. Where little is left to compile no call is answered early, and the first run is the only one.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attnforge.audit.wheel import audit_wheel
from attnforge.compile.run.engine import Engine
from attnforge.errors import BuildError, WheelError
from attnforge.model.events import Message, Observer, Rehearsed
from attnforge.model.finding import Severity
from attnforge.model.plan import UNSTATED
from attnforge.package.sbom import vendored
from attnforge.package.wheel import package_wheel
from attnforge.process.guard import temporary_folder
from attnforge.version import BUILDER
from attnforge.workflow.inputs import Inputs
from attnforge.workflow.job import Job
from attnforge.workflow.verdict import bad_wheel, expected_of


@dataclass(frozen=True, slots=True)
class Rehearsing:
    """What a rehearsal needs beside upstream's build.

    ``folder`` is where the source was laid out, ``lay_out`` does it again. ``check`` audits the rehearsal's wheel,
    whose modules lack kernels: BuildError or WheelError where it is bad. ``trusted`` says that upstream's build is
    known (it has a recipe): what fails in its rehearsal would fail later. Of other packages,
    only few failures prove that.
    """

    folder: Path
    check: Callable[[Path], object]
    lay_out: Callable[[], object]
    trusted: bool


def build_rehearsed(
    engine: Engine, source: Path, run: Callable[[], Path], rehearsing: Rehearsing, observe: Observer
) -> Path:
    """Return the wheel of upstream's build, which ``run`` runs in ``source``; rehearsed where kernels take long.

    The engine's error where compiling failed; BuildError or WheelError where anything else did, with kernels still
    being compiled: the caller ends these by leaving the engine.
    """
    began, before = time.monotonic(), Tree.look(rehearsing.folder, source)
    engine.rehearse()
    try:
        wheel, doubt = _try(engine, run, rehearsing)
    except (BuildError, WheelError):
        if engine.rehearsed and engine.error is None:
            observe(Message("info", "this was found while kernels compile; finished objects are kept"))
        raise
    if wheel is not None and not engine.rehearsed:
        return wheel
    _let_kernels_fail(engine)
    observe(Rehearsed(time.monotonic() - began, not doubt, doubt))
    _clear(before, engine, rehearsing)
    engine.perform()
    wheel = run()
    if not engine.performed:
        raise BuildError(
            "upstream's build did not ask for its objects again when it was run for the second time",
            why="the first run got objects without content for kernels, to try its link and packaging early",
            hint="does its setup.py keep modules outside of its folder? remove these and run the same command again",
        )
    return wheel


def _try(engine: Engine, run: Callable[[], Path], rehearsing: Rehearsing) -> tuple[Path | None, str]:
    """Return the wheel of the rehearsal, or None and why its failure may be no failure of the build."""
    try:
        wheel = run()
    except BuildError as error:
        doubt = _doubt(error, engine, trusted=rehearsing.trusted)
        if not doubt:
            raise
        return None, doubt
    if engine.rehearsed:
        rehearsing.check(wheel)
    return wheel, ""


def _let_kernels_fail(engine: Engine) -> None:
    """Raise the error of a kernel that failed meanwhile, when what ran beside it has ended, so that it is kept."""
    if engine.error is not None:
        engine.drain()
        raise engine.error


# --- what a failure means

# A linker or loader that looks for what kernels define, or a setup.py that imports the module that it has built.
_NEEDS_KERNELS = re.compile(r"undefined (?:reference|symbol)|unresolved|ImportError|cannot open shared object", re.I)

# No object can change that.
_WITHOUT_KERNELS = re.compile(r"cannot find -l|unable to find library -l")


def _doubt(error: BuildError, engine: Engine, *, trusted: bool) -> str:
    """Return why a failure of the rehearsal may not be one of the build; "" where it is one."""
    if engine.error is not None or not engine.rehearsed:
        return ""
    told = f"{error.what}\n{error.why}"
    if _WITHOUT_KERNELS.search(told):
        return ""
    return error.what if _NEEDS_KERNELS.search(told) or not trusted else ""


# What an audit finds wrong in a wheel without kernels is wrong in the whole one, by its code.
_CONCLUSIVE = {
    "wheel-name", "metadata-name", "dist-info", "dist-info-name", "wheel-tags", "unsafe-path", "duplicate-files",
    "record-malformed", "record-missing-file", "record-unlisted-file", "record-weak-hash", "record-hash",
    "module-machine", "module-suffix", "module-unreadable", "driver-inside", "library-version", "library-absent",
    "platform-tag", "planned-modules", "planned-python",
}  # fmt: skip


def check_rehearsed(wheel: Path, job: Job, inputs: Inputs) -> None:
    """Pack and audit upstream's wheel as it will be, as far as its kernels don't matter.

    What is made, in the job's folder, is removed. Another name than the plan's is a warning: it may be as good.
    BuildError where the wheel is not what was planned, WheelError where it is bad.
    """
    plan = job.plan
    job.folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder("rehearsal-", job.folder) as place:
        made = package_wheel(wheel, place, plan, BUILDER, vendored(inputs.source))
        # The plan of a universal wheel says what all pairs have together, which upstream's wheel of one has not.
        expected = None if plan.is_universal else expected_of(plan, job.recipe)
        site, libraries = inputs.environment.site_packages, inputs.environment.libraries
        report = audit_wheel(made, torch_site=site, libraries=libraries, recipe=job.recipe, expected=expected)
        wrong = tuple(one for one in report.findings if one.severity is Severity.ERROR and one.code in _CONCLUSIVE)
        if wrong:
            raise bad_wheel(report.model_copy(update={"findings": wrong}))
        if plan.wheel not in ("", made.name) and plan.version != UNSTATED:
            job.warn(f"the wheel's name will be {made.name}, and the plan says {plan.wheel}")


# --- upstream's folder, between the two runs

# Where setuptools puts what it makes. Compiles read nothing of it, unless a setup.py puts sources or headers there.
_MADE_AT_TOP = {"build", "dist"}
_READ_BY_COMPILES = re.compile(r"\.(?:h|hh|hpp|hxx|cuh|inl|inc|ipp|tcc|c|cc|cpp|cxx|cu|ptx)", re.I)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a folder by their relative paths, with what tells that one was changed; contents of ``egg-info``.

    ``project`` is the folder in it, or the folder itself, that has upstream's setup.py.
    """

    folder: Path
    project: Path
    files: Mapping[str, tuple[int, ...]]
    information: Mapping[str, bytes]

    @classmethod
    def look(cls, folder: Path, project: Path) -> Tree:
        """Read what is there now."""
        files = dict(_files(folder))
        information = {path: (folder / path).read_bytes() for path in files if _is_information(path)}
        return cls(folder, project, files, information)

    def restore(self) -> bool:
        """Bring the folder back to what it was; False, and nothing is done, where compiles may read what changed.

        Folders stay, since a compile may run in one.
        """
        now = dict(_files(self.folder))
        differing = [path for path in {*now, *self.files} if now.get(path) != self.files.get(path)]
        if not all(_is_information(path) or self._is_made(path) for path in differing):
            return False
        for path in differing:
            (self.folder / path).unlink(missing_ok=True)
            if path in self.information:
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).write_bytes(self.information[path])
        return True

    def _is_made(self, path: str) -> bool:
        """Say whether a file is a new one that no compile reads."""
        parts = PurePosixPath(path).parts
        here = (self.folder / path).is_relative_to(self.project)
        at_top = here and (self.folder / path).relative_to(self.project).parts[0] in _MADE_AT_TOP
        unread = _READ_BY_COMPILES.fullmatch(PurePosixPath(path).suffix) is None
        return path not in self.files and ("__pycache__" in parts or (at_top and unread))


def _clear(before: Tree, engine: Engine, rehearsing: Rehearsing) -> None:
    """Take away what the rehearsal left in upstream's folder.

    Kernels that still compile read upstream's files. Where the rehearsal left more than what compiles never read, they
    are waited for and the source is laid out again.
    """
    if not before.restore():
        engine.drain()
        _let_kernels_fail(engine)
        rehearsing.lay_out()


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            seen = path.lstat()
            stamp = (seen.st_size, seen.st_mtime_ns, seen.st_ino, stat.S_IMODE(seen.st_mode))
            yield str(path.relative_to(folder)), stamp


def _is_information(path: str) -> bool:
    return any(part.endswith(".egg-info") for part in PurePosixPath(path).parent.parts)
