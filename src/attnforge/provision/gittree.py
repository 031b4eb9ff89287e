"""A commit checked out: its files and those of its submodules, without .git, kept by the commit's id."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnforge.paths import Folders
from attnforge.provision.git import Git
from attnforge.provision.gitmirror import mirror_of
from attnforge.provision.giturl import GitAddress
from attnforge.provision.gitworktree import WorkTree
from attnforge.provision.store import Facts, facts_of, is_complete, provide
from attnforge.provision.trees import files_sha256

_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_BYTES = 1024
"""A pointer is shorter: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of a commit. ``pointers`` are the paths of files whose contents Git LFS keeps elsewhere.

    ``submodules`` maps their paths to their commits, nested ones as well.
    """

    path: Path
    submodules: Mapping[str, str]
    pointers: tuple[str, ...]


def kept_checkout(folders: Folders, commit: str, submodules: Sequence[str] = ()) -> Checkout | None:
    """Return a checkout that is in the cache already, or None. Nothing is fetched and git is not asked."""
    entry = _entry(folders, commit, submodules)
    facts = facts_of(entry)
    return _checkout(entry, facts) if _is_whole(entry, facts) else None


def has_checkout(folders: Folders, commit: str, submodules: Sequence[str] = ()) -> bool:
    """Say whether a checkout was finished. Its files are checked when it is used."""
    return is_complete(_entry(folders, commit, submodules))


def checkout(git: Git, folders: Folders, address: GitAddress, commit: str, submodules: Sequence[str] = ()) -> Checkout:
    """Return the files of a commit, from the cache where they are there and unchanged.

    ``submodules`` are the paths of those that are needed, () for all of them; each is checked out at the commit that
    its parent names, with all of its own. The folder is the cache's: copy it, and write nothing into it. Raises what
    ``WorkTree.write`` raises.
    """
    entry = _entry(folders, commit, submodules)

    def make(folder: Path) -> Facts:
        tree = folder / "tree"
        found = WorkTree(mirror_of(git, folders, address), commit, tree, submodules).write()
        return {"sha256": files_sha256(tree), "submodules": found, "pointers": sorted(_pointers(tree))}

    return _checkout(entry, provide(entry, make, lambda facts: _is_whole(entry, facts)))


def _entry(folders: Folders, commit: str, submodules: Sequence[str]) -> Path:
    chosen = hashlib.sha256("\0".join(sorted(submodules)).encode()).hexdigest()[:8] if submodules else "all"
    return folders.cache / "git" / "trees" / f"{commit}-{chosen}"


def _checkout(entry: Path, facts: Facts) -> Checkout:
    return Checkout(entry / "tree", facts["submodules"], tuple(facts["pointers"]))


def _is_whole(entry: Path, facts: Facts) -> bool:
    try:
        return "sha256" in facts and bool(facts["sha256"] == files_sha256(entry / "tree"))
    except OSError:  # a file that can't be read
        return False


def copy_checkout(source: Checkout, into: Path) -> Path:
    """Copy a checkout to a folder that upstream's build may write into, and return that."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(source.path, into, symlinks=True)
    return into


def _pointers(tree: Path) -> Iterator[str]:
    """Yield the paths of files that stand for contents which Git LFS keeps elsewhere."""
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < _LFS_BYTES:
            with path.open("rb") as file:
                if file.read(len(_LFS)) == _LFS:
                    yield str(path.relative_to(tree))
