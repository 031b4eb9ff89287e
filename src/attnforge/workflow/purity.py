"""Whether a located source without a recipe compiles anything: looked at before a GPU or a compiler is asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from attnforge.errors import RequestError
from attnforge.model.plan import SourcePin
from attnforge.provision.archives import member_names, read_files
from attnforge.provision.giturl import GitAddress
from attnforge.provision.metadata import build_requires
from attnforge.provision.purity import why_pure
from attnforge.provision.source import fetch_sdist
from attnforge.provision.trees import tree_names
from attnforge.workflow.fromgit import built_folder, check_out
from attnforge.workflow.machine import Machine

_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def known_pure(
    machine: Machine, package: str, version: str, pin: SourcePin, path: Path | None, address: GitAddress | None
) -> str:
    """Return how it is known that a source compiles nothing, "" where it may.

    An archive of the index or a commit is fetched for that; the build takes it from the cache then. Raises what
    fetching raises, and RequestError for a pyproject.toml that no build can read.
    """
    if pin.kind == "git":
        assert address is not None
        return _of_folder(
            built_folder(check_out(machine, address, pin.commit, pin.submodules).path, pin.subdirectory, address)
        )
    if pin.kind == "sdist":
        path = fetch_sdist(package, version, pin.sha256, machine.folders.ensure(), machine.settings)
    assert path is not None
    return _of_folder(path) if path.is_dir() else _of_files(read_files(path, _FILES), member_names(path), path)


def _of_folder(folder: Path) -> str:
    files = {name: (folder / name).read_text("utf-8", "replace") for name in _FILES if (folder / name).is_file()}
    return _of_files(files, tree_names(folder), folder)


def _of_files(files: Mapping[str, str], names: Collection[str], place: Path) -> str:
    try:
        build_requires(files.get("pyproject.toml", ""))
    except ValueError as error:
        raise RequestError(
            f"{place}/pyproject.toml can't be read",
            why=str(error),
            hint="correct it, and build from the folder",
        ) from error
    return why_pure(files, names)
