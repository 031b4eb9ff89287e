"""Reports a compile that failed: the error, and a script that compiles only that unit."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attnforge.errors import AttnforgeError, BuildError, HostError
from attnforge.files import free_bytes, is_full
from attnforge.model.graph import GeneratedFile, Unit
from attnforge.process import redact

_SECRET_NAME = re.compile(r".*(?:TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|_KEY|AUTH).*", re.IGNORECASE)
# Bytes that are free on a disk that is not full; what a step writes is larger.
_FULL = 1 << 20

# Shells can set no other names.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def write_rerun(folder: Path, unit: Unit, environment: Mapping[str, str]) -> Path:
    """Write a script that compiles one unit as the build did, and return its path.

    Variables that may hold credentials are left out, and so is TMPDIR, whose folder is gone by then.
    """
    path = folder / f"rerun-{re.sub(r'[^A-Za-z0-9._-]', '_', unit.name)}.sh"
    settings = [
        shlex.quote(f"{name}={value}")
        for name, value in sorted(environment.items())
        if _NAME.fullmatch(name) and name != "TMPDIR" and not _SECRET_NAME.fullmatch(name) and redact(value) == value
    ]
    lines = [
        "#!/bin/sh",
        f"# Compiles {unit.name} as the build did, and nothing else.".replace("\n", " "),
        f"cd {shlex.quote(unit.cwd)} || exit",
        "exec env -i " + " \\\n  ".join([*settings, shlex.join(unit.argv)]),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    path.chmod(0o700)
    return path


def explain(
    unit: Unit, code: int, log: str, rerun: Path, folders: Iterable[Path], generated: Iterable[GeneratedFile] = ()
) -> AttnforgeError:
    """Return the error for a compile that ended with ``code`` after printing ``log``.

    Where its first error is in one of the ``generated`` files, it is our own fault (exit code 1), and says so.
    """
    from attnforge.compile.run import diagnose

    if diagnose.disk_full(log):
        return no_space(f"{unit.name} could not be compiled: no space left", folders)
    own = _own_file(first_error(log), generated)
    if own:
        return AttnforgeError(
            f"{unit.name} failed to compile, in a file that attnforge generated: {first_error(log)}",
            why=f"attnforge wrote {own}, and this compiler or this PyTorch does not accept it: a fault of attnforge",
            hint=f"please report it, with that file. To compile only this unit, run: sh {shlex.quote(str(rerun))}",
        )
    return diagnose.explain(log, code, unit.name, f"sh {shlex.quote(str(rerun))}")


def _own_file(error: str, generated: Iterable[GeneratedFile]) -> str:
    """Return the generated file that an error's line begins with, as compilers print it; "" if there is none."""
    found = (file.path for file in generated if error.startswith((f"{file.path}:", f"{file.path}(")))
    return next(found, "")


def was_killed(code: int, log: str) -> bool:
    """Say whether a compiler was killed from outside, which on Linux nearly always means memory."""
    from attnforge.compile.run import diagnose

    return diagnose.was_killed(code, log)


def first_error(log: str) -> str:
    """Return the first line of a log's first error, "" if there is none."""
    from attnforge.compile.run import diagnose

    return diagnose.first_error(log).partition("\n")[0]


def no_space(what: str, folders: Iterable[Path]) -> HostError:
    """Return the error for a full disk, with what is free in each folder that a build writes to."""
    free = "; ".join(f"{folder} has {_gb(free_bytes(folder))} free" for folder in folders)
    return HostError(
        what,
        why=free,
        hint="free some space, or move it: ATTNFORGE_CACHE=FOLDER for objects, TMPDIR=FOLDER for the compilers' files",
    )


def host_error(error: OSError, folders: Sequence[Path]) -> HostError:
    """Return the error for what the system refuses in the ``folders`` that a build writes to."""
    if is_full(error):
        return no_space("no space left for the build", folders)
    return HostError(
        f"the build can't work in its folders: {error}",
        why=f"it needs to write to {' and '.join(map(str, folders))}",
        hint="set ATTNFORGE_CACHE and TMPDIR to folders that you can write to",
    )


def full_disk(folder: Path) -> str:
    """Say so where the disk is full: cicc then ends by a segmentation fault, and fatbinary names no reason (13.0)."""
    space = os.statvfs(folder)
    blocks = space.f_bfree if os.geteuid() == 0 else space.f_bavail
    return f"{folder}: No space left on device\n" if blocks * space.f_frsize < _FULL else ""


def out_of_memory(
    unit: Unit, kills: int, peak_bytes: int, reserved_bytes: int, budget_bytes: int, rerun: Path
) -> BuildError:
    """Return the error for a compiler that was killed again, the last time with no other beside it."""
    return BuildError(
        f"{unit.name}: the compiler was killed {'twice' if kills == 2 else f'{kills} times'}",
        why=(
            f"it was seen to hold {_gb(peak_bytes)}, with {_gb(reserved_bytes)} reserved of a budget of"
            f" {_gb(budget_bytes)} and no other compiler beside it: less memory is there than the budget says, or the"
            " unit needs more than all of it"
        ),
        hint=(
            "end other programs, raise the machine's or container's limit, or state what is really free (--memory 16G);"
            f" to compile only this unit: sh {shlex.quote(str(rerun))}"
        ),
        link="https://github.com/Dao-AILab/flash-attention/issues/347",
    )


def no_object(unit: Unit, rerun: Path) -> BuildError:
    """Return the error for a compiler that exited with 0 and left no object, or an empty file."""
    return BuildError(
        f"{unit.name}: the compiler reported success but made no object",
        why=f"{unit.output} is missing or empty",
        hint=f"sh {shlex.quote(str(rerun))}",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
