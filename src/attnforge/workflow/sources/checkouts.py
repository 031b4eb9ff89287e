"""Commits of git repositories as folders of files."""

from __future__ import annotations

from pathlib import Path

from attnforge.errors import RequestError
from attnforge.provision.git import find_git
from attnforge.provision.gittree import Checkout, checkout, kept_checkout
from attnforge.provision.giturl import GitAddress
from attnforge.workflow.machine import Machine


def check_out(machine: Machine, address: GitAddress, commit: str, submodules: tuple[str, ...]) -> Checkout:
    """Return the files of a commit; one that is in the cache needs neither git nor network."""
    kept = kept_checkout(machine.folders, commit, submodules)
    if kept is not None:
        return kept
    git = find_git(machine.environ, machine.runner)
    return checkout(git, machine.folders.ensure(), address, commit, submodules)


def built_folder(tree: Path, subdirectory: str, address: GitAddress) -> Path:
    """Return the folder of a tree that is built; RequestError where it has nothing to build."""
    folder = tree / subdirectory
    if not any((folder / name).is_file() for name in ("setup.py", "pyproject.toml")):
        where = f"{subdirectory}/ of {address}" if subdirectory else str(address)
        raise RequestError(
            f"{where} holds neither setup.py nor pyproject.toml",
            hint=f"name the folder that does: '{address}#subdirectory=FOLDER'",
        )
    return folder
