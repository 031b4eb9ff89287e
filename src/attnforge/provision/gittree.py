"""A commit checked out: its files and those of its submodules, without .git, checked against git's own hashes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.files import text_sha256
from attnforge.paths import Folders
from attnforge.provision.git import Git
from attnforge.provision.gitmirror import fetch, write_tree
from attnforge.provision.giturl import GitAddress, submodule_url
from attnforge.provision.store import Facts, is_complete, provide

_LISTED = re.compile(r"(?P<mode>\d{6}) (?P<kind>blob|commit) (?P<id>[0-9a-f]+)\t(?P<path>.+)", re.DOTALL)
_KEY = re.compile(r"submodule\.(?P<name>.+)\.(?P<field>path|url)", re.DOTALL)
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_BYTES = 1024
"""A pointer is shorter: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""

_CLONE = (
    "check the network and its proxy, or give a clone that has it (git clone --recurse-submodules): git+file:///CLONE"
)

Files = dict[str, tuple[str, str]]
"""Path to what it is (file, program or link) and git's id of its content."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of a commit. ``pointers`` are those that Git LFS keeps elsewhere: in their place lie pointers.

    ``submodules`` maps their paths to their commits, nested ones as well.
    """

    path: Path
    submodules: Mapping[str, str]
    pointers: tuple[str, ...]


def kept_checkout(folders: Folders, commit: str, submodules: Sequence[str] = ()) -> Checkout | None:
    """Return a checkout that lies in the cache already, or None. Nothing is fetched and git is not asked."""
    entry = _entry(folders, commit, submodules)
    if not entry.exists():
        return None

    def absent(_: Path) -> Facts:
        raise FileNotFoundError

    try:
        return _checkout(entry, provide(entry, absent, lambda facts: _is_whole(entry, facts)))
    except FileNotFoundError:
        return None


def has_checkout(folders: Folders, commit: str, submodules: Sequence[str] = ()) -> bool:
    """Say whether a checkout was finished. Its files are compared with git's hashes when it is used."""
    return is_complete(_entry(folders, commit, submodules))


def checkout(git: Git, folders: Folders, address: GitAddress, commit: str, submodules: Sequence[str] = ()) -> Checkout:
    """Return the files of a commit, from the cache where they lie there and are what git's hashes say.

    ``submodules`` are the paths of those that are needed, () for all of them; each is checked out at the commit that
    its parent names, with all of its own. The folder is the cache's: copy it, and write nothing into it.
    RequestError for a commit or submodule that is not there or empty, HostError where a repository can't be reached.
    """
    entry = _entry(folders, commit, submodules)

    def make(folder: Path) -> Facts:
        found = _Found(git, folders, {}, [])
        found.lay_out(_Place(address, address), commit, folder / "tree", "", submodules)
        digest = _digest(measure(folder / "tree", len(commit)))
        return {"digest": digest, "submodules": found.submodules, "pointers": found.pointers}

    return _checkout(entry, provide(entry, make, lambda facts: _is_whole(entry, facts)))


def _entry(folders: Folders, commit: str, submodules: Sequence[str]) -> Path:
    chosen = hashlib.sha256("\0".join(sorted(submodules)).encode()).hexdigest()[:8] if submodules else "all"
    return folders.cache / "git" / "trees" / f"{commit}-{chosen}"


def _checkout(entry: Path, facts: Facts) -> Checkout:
    return Checkout(entry / "tree", facts["submodules"], tuple(facts["pointers"]))


def _is_whole(entry: Path, facts: Facts) -> bool:
    commit = entry.name.partition("-")[0]
    return bool(facts["digest"] == _digest(measure(entry / "tree", len(commit))))


def copy_checkout(source: Checkout, into: Path) -> Path:
    """Copy a checkout to a folder that upstream's build may write into, and return that."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(source.path, into, symlinks=True)
    return into


def measure(folder: Path, id_length: int) -> Files:
    """Return each file and link of a folder with git's id of it: 40 hex digits of SHA-1, or 64 of SHA-256."""
    return {_name(path, folder): (_kind(path), _blob_id(path, id_length)) for path in _files(folder)}


def _name(path: Path, folder: Path) -> str:
    # As git's list arrives here, read as text.
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "link"
    return "program" if path.stat().st_mode & 0o100 else "file"


def _blob_id(path: Path, length: int) -> str:
    data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    content = b"blob %d\0" % len(data) + data
    # SHA-1 is what git names content by; nothing here rests on it that git itself does not.
    made = hashlib.sha1(content, usedforsecurity=False) if length == 40 else hashlib.sha256(content)
    return made.hexdigest()


def _digest(files: Files) -> str:
    text = "".join(f"{path}\0{kind} {name}\n" for path, (kind, name) in sorted(files.items()))
    return text_sha256(text)


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository by the address that is stated for it, and the one that it is fetched from: a copy of it, or it."""

    stated: GitAddress
    fetched: GitAddress


@dataclass(frozen=True, slots=True)
class _Found:
    """What a checkout comes upon on its way: submodules by path, and pointers of Git LFS."""

    git: Git
    folders: Folders
    submodules: dict[str, str]
    pointers: list[str]

    def lay_out(self, place: _Place, commit: str, into: Path, prefix: str, wanted: Sequence[str]) -> None:
        """Write a commit's files, check them, and go on with its submodules. ``prefix`` is its path in the checkout."""
        into.mkdir(parents=True, exist_ok=True)
        listed = write_tree(self.git, self.folders, place.fetched, commit, into)
        blobs, links = parse_tree(listed)
        files = measure(into, len(commit))
        _compare(place.fetched, commit, blobs, files)
        self.pointers.extend(f"{prefix}{name}" for name in sorted(files) if _is_pointer(into / name))
        modules = self._modules(place.fetched, into) if links else {}
        for path, linked in links.items():
            if wanted and path not in wanted:
                (into / path).rmdir()
                continue
            self._submodule(place, modules.get(path), linked, into / path, prefix + path)

    def _submodule(self, parent: _Place, stated: tuple[str, str] | None, commit: str, into: Path, path: str) -> None:
        if stated is None:
            raise RequestError(
                f"the submodule {path} has no address",
                why=f".gitmodules of {parent.stated} names none for it",
                hint="name a commit whose .gitmodules does, or give a complete folder: --source PATH",
            )
        try:
            place = self._reached(parent, *stated, commit)
            self.submodules[path] = commit
            self.lay_out(place, commit, into, f"{path}/", ())
        except (HostError, RequestError) as error:
            if error.what.startswith("submodule "):
                raise
            hint = _CLONE if "can't be reached" in error.what else error.hint
            raise type(error)(f"submodule {path}: {error.what}", why=error.why, hint=hint) from error
        if not any(_files(into)):
            raise RequestError(
                f"submodule {path} is empty",
                why=f"commit {commit} of {place.stated.url} holds no file",
                hint="name a commit that has it, or give a complete folder: --source PATH",
            )

    def _reached(self, parent: _Place, name: str, url: str, commit: str) -> _Place:
        """Return where a submodule's commit is had: a clone on this machine has its own copy."""
        known = submodule_url(parent.stated.url, url)
        same_host = urlsplit(known)[:2] == urlsplit(parent.stated.url)[:2]
        stated = GitAddress(known, credentials=parent.stated.credentials if same_host else "")
        kept = _kept_module(parent.fetched, name)
        if kept is not None:
            try:
                fetch(self.git, self.folders, kept, commit)
            except AttnforgeError:
                pass
            else:
                return _Place(stated, kept)
        return _Place(stated, stated)

    def _modules(self, address: GitAddress, tree: Path) -> dict[str, tuple[str, str]]:
        """Return name and URL of the submodules that .gitmodules states, by their paths."""
        file = tree / ".gitmodules"
        if file.is_symlink() or not file.is_file():
            return {}
        words = ("config", "--file", str(file), "--no-includes", "-z", "--list")
        return parse_modules(self.git(words, tree, address))


def _kept_module(parent: GitAddress, name: str) -> GitAddress | None:
    if not parent.is_local or not name or ".." in name.split("/") or name.startswith("/"):
        return None
    folder = parent.path / ".git" if (parent.path / ".git").is_dir() else parent.path
    kept = folder / "modules" / name
    return replace(parent, url=kept.as_uri(), ref="", subdirectory="", name="") if kept.is_dir() else None


def parse_tree(listed: str) -> tuple[Files, dict[str, str]]:
    """Read ``git ls-tree -r -z``: files with their ids, and the commits of submodules by path."""
    blobs: Files = {}
    links: dict[str, str] = {}
    for entry in filter(None, listed.split("\0")):
        match = _LISTED.fullmatch(entry)
        if match is None:
            raise HostError(f"git lists a file in a way that is not known: {entry!r}", hint="install git 2.31 or newer")
        if match["kind"] == "commit":
            links[match["path"]] = match["id"]
        else:
            kind = "link" if match["mode"] == "120000" else "program" if int(match["mode"], 8) & 0o100 else "file"
            blobs[match["path"]] = (kind, match["id"])
    return blobs, links


def parse_modules(listed: str) -> dict[str, tuple[str, str]]:
    """Read ``git config -z --list`` of a .gitmodules file: path to name and URL."""
    stated: dict[str, dict[str, str]] = {}
    for entry in filter(None, listed.split("\0")):
        key, _, value = entry.partition("\n")
        match = _KEY.fullmatch(key)
        if match:
            stated.setdefault(match["name"], {})[match["field"]] = value
    return {
        fields["path"].rstrip("/"): (name, fields["url"])
        for name, fields in stated.items()
        if fields.keys() >= {"path", "url"}
    }


def _compare(address: GitAddress, commit: str, wanted: Files, found: Files) -> None:
    different = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    if different:
        raise HostError(
            f"the files of {address} are not those of commit {commit}",
            why=f"{len(different)} differ, first {different[0]}: the disk, or names that differ by case alone",
            hint="set ATTNFORGE_CACHE to a folder on another disk and run the same command again",
        )


def _is_pointer(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size >= _LFS_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS
