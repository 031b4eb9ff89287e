"""Refs of a repository, and a bare mirror of each in the cache that holds the commits that builds asked for."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.files import disk_errors, write_whole
from attnforge.paths import Folders
from attnforge.process import Outcome, redact
from attnforge.provision.git import FETCH_SECONDS, Git, failure
from attnforge.provision.giturl import GitAddress, check_ref
from attnforge.provision.store import locked

T = TypeVar("T")

_LISTED = re.compile(r"(?P<commit>[0-9a-f]{40}(?:[0-9a-f]{24})?)\t(?P<ref>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
_NEAR = 4

# Answers of servers that give commits only from the tips of refs, or know nothing of shallow copies.
_NOT_SINGLY = re.compile(
    r"not our ref|unadvertised object|does not allow request|could(?:n't| not) find remote ref|no such remote ref"
    r"|does not support shallow|not a valid object|bad object|not a tree object|dumb http|rejected .*shallow",
    re.IGNORECASE,
)
# What a git that was killed leaves, and a disk.
_BROKEN = re.compile(
    r"\.lock': file exists|object file .* is empty|loose object .* is corrupt|packfile .* (?:cannot be|is) "
    r"|bad config|unable to (?:read|find) [0-9a-f]{40}|not a git repository: |missing blob|is corrupt",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit, and what it was found by: ``kind`` tag, branch, head or commit.

    ``before`` is the commit that the same tag had when it was last asked for here, "" where it is the same or new.
    """

    commit: str
    kind: str
    ref: str = ""
    before: str = ""


def is_commit(text: str) -> bool:
    """Say whether a ref is a whole commit id (SHA-1 or SHA-256), which names its content wherever it is kept."""
    return _COMMIT.fullmatch(text) is not None


def resolve_ref(git: Git, folders: Folders, address: GitAddress) -> Resolved:
    """Return the commit that a tag or branch, HEAD or a short commit id has now. A whole commit id asks nobody.

    RequestError where the repository has no such name, or a tag and a branch of that name; HostError where it can't be
    reached.
    """
    ref = check_ref(address.ref)
    if is_commit(ref):
        return Resolved(ref, "commit", ref)
    found = _listed(git, folders, address, ref)
    if ref in ("", "HEAD"):
        return _head(address, found)
    tag = found.get(f"refs/tags/{ref}^{{}}") or found.get(f"refs/tags/{ref}", "")
    branch = found.get(f"refs/heads/{ref}", "") or found.get(ref if ref.startswith("refs/") else "", "")
    if tag and branch and tag != branch:
        raise RequestError(
            f"{ref} is both a tag and a branch of {redact(address.url)}",
            why=f"the tag is commit {tag}, the branch is {branch}",
            hint=f"name the commit: @{tag}",
        )
    if tag:
        return Resolved(tag, "tag", ref, _remember(folders, address, ref, tag))
    if branch:
        return Resolved(branch, "branch", ref)
    if _SHORT.fullmatch(ref):
        return Resolved(_mirror(git, folders, address).whole(ref), "commit", ref)
    raise _missing_ref(git, folders, address)


def _listed(git: Git, folders: Folders, address: GitAddress, ref: str) -> dict[str, str]:
    """Return refs of the repository by their names: those that ``ref`` may mean."""
    patterns = [f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}", f"refs/heads/{ref}", ref] if ref else ["HEAD"]
    folders.ensure()
    try:
        printed = git(["ls-remote", "--quiet", "--", place(address), *patterns], folders.cache, address)
    except HostError as error:
        raise _with_last_seen(error, folders, address) from error
    return {match["ref"]: match["commit"] for match in map(_LISTED.fullmatch, printed.splitlines()) if match}


def _head(address: GitAddress, found: dict[str, str]) -> Resolved:
    if "HEAD" not in found:
        raise RequestError(
            f"{redact(address.url)} has no HEAD", why="it is empty, or a bundle without it", hint="name a tag or commit"
        )
    return Resolved(found["HEAD"], "head")


def _missing_ref(git: Git, folders: Folders, address: GitAddress) -> RequestError:
    from difflib import get_close_matches

    printed = git(["ls-remote", "--quiet", "--refs", "--tags", "--", place(address)], folders.cache, address)
    tags = [line.partition("refs/tags/")[2] for line in printed.splitlines() if "\trefs/tags/" in line]
    near = get_close_matches(address.ref, tags, n=_NEAR, cutoff=0.4) or tags[-_NEAR:]
    return RequestError(
        f"{redact(address.url)} has no tag or branch {address.ref!r}",
        hint=f"its tags: {', '.join(near)}" if near else "it has no tags: name a branch or a commit",
    )


def place(address: GitAddress) -> str:
    """Return the repository as git's commands take it: a bundle by its path, since git knows no URL of one."""
    return str(address.path) if address.is_local and address.path.is_file() else address.url


def _room(folders: Folders, address: GitAddress) -> Path:
    name = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    return folders.cache / "git" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', address.title)}-{name}"


def _seen(folders: Folders, address: GitAddress) -> dict[str, str]:
    try:
        seen = json.loads((_room(folders, address) / "tags.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _remember(folders: Folders, address: GitAddress, tag: str, commit: str) -> str:
    """Note which commit a tag has, and return the other one that it had when it was asked for last."""
    room = _room(folders, address)
    with locked(room), disk_errors(room):
        room.mkdir(exist_ok=True)
        before = _seen(folders, address)
        if before.get(tag) != commit:
            write_whole(room / "tags.json", json.dumps({**before, tag: commit}, indent=1, sort_keys=True) + "\n")
    last = before.get(tag, commit)
    return last if last != commit else ""


def _with_last_seen(error: HostError, folders: Folders, address: GitAddress) -> HostError:
    commit = _seen(folders, address).get(address.ref)
    if commit is None:
        return error
    return HostError(error.what, why=error.why, hint=f"{address.ref} was commit {commit} when last seen: @{commit}")


def fetch(git: Git, folders: Folders, address: GitAddress, commit: str) -> Path:
    """Return the bare mirror of a repository that holds a commit, which is fetched where it does not.

    Where the server gives single commits, only that commit comes, without its history. Else all branches and tags do,
    without files' contents where the server can leave them out; those of the commit come when it is checked out.
    RequestError where the repository has no such commit; HostError where it can't be reached.
    """
    return _mirror(git, folders, address).holding(commit)


def write_tree(git: Git, folders: Folders, address: GitAddress, commit: str, into: Path) -> str:
    """Write the files of a commit of the mirror into an empty folder as they are committed, and return their list.

    The list is that of ``git ls-tree -r -z``. Files whose contents a partial copy has not yet are fetched first.
    """
    return _mirror(git, folders, address).written(commit, into)


def _mirror(git: Git, folders: Folders, address: GitAddress) -> _Mirror:
    return _Mirror(git, address, _room(folders, address) / "mirror.git")


@dataclass(frozen=True, slots=True)
class _Mirror:
    """A bare repository. The git commands of one mirror run one after the other: each holds its lock."""

    git: Git
    address: GitAddress
    folder: Path

    @property
    def _here(self) -> tuple[str, ...]:
        # Named, since git may be set to look for no bare repository by itself, or to ask whose the folder is.
        return (f"--git-dir={self.folder}",)

    def holding(self, commit: str) -> Path:
        with locked(self.folder), disk_errors(self.folder):
            self._mended(lambda: self._hold(commit))
        return self.folder

    def _hold(self, commit: str) -> None:
        self._prepare(commit)
        if self._has(commit):
            return
        refusal = self._single(commit)
        if not self._has(commit):
            self._all(refusal)
            if not self._has(commit):
                raise self._no_commit(commit)

    def written(self, commit: str, into: Path) -> str:
        def write() -> str:
            self._hold(commit)
            index = self.folder / "index"
            index.unlink(missing_ok=True)
            words = (*self._here, f"--work-tree={into}", "read-tree", "--reset", "-u", commit)
            self.git(words, into, self.address, FETCH_SECONDS)
            index.unlink(missing_ok=True)
            return self._do("ls-tree", "-r", "-z", "--full-tree", commit)

        with locked(self.folder), disk_errors(self.folder):
            return self._mended(write)

    def _mended(self, work: Callable[[], T]) -> T:
        """Work; where the mirror turns out to be damaged (a killed git, a disk), make it anew and work again."""
        try:
            return work()
        except AttnforgeError as error:
            if not _BROKEN.search(error.why):
                raise
            shutil.rmtree(self.folder, ignore_errors=True)
            return work()

    def whole(self, short: str) -> str:
        """Return the commit whose id begins so."""
        with locked(self.folder), disk_errors(self.folder):
            self._mended(lambda: self._filled("0" * 40))
            printed = self._try("rev-parse", f"--disambiguate={short}").output.split()
            commits = [name for name in printed if self._try("cat-file", "-t", name).output.strip() == "commit"]
        if len(commits) == 1:
            return commits[0]
        if not commits:
            raise self._no_commit(short)
        raise RequestError(
            f"{short} is the beginning of {len(commits)} commits", why=", ".join(commits), hint="write the whole id"
        )

    def _filled(self, like: str) -> None:
        self._prepare(like)
        self._all(self._single("HEAD"))

    def _prepare(self, commit: str) -> None:
        """Make the mirror where there is none. Nothing of git's templates is in it: no hook, no configuration."""
        if not (self.folder / "attnforge").exists():  # it is written last
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            kind = "sha256" if len(commit) == 64 else "sha1"
            words = ("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(self.folder))
            self.git(words, self.folder, self.address)
            self._do("config", "remote.origin.url", place(self.address))
            (self.folder / "info").mkdir(exist_ok=True)
            # The strongest of git's attributes: files are written as they are committed, whatever .gitattributes says.
            attributes = "* -text !eol !ident !filter !working-tree-encoding\n"
            (self.folder / "info" / "attributes").write_text(attributes, encoding="utf-8")
            (self.folder / "attnforge").touch()

    def _single(self, commit: str) -> str:
        """Fetch one commit without its history; return why the server does not do that, "" where it did."""
        if self._is_bundle:
            return "a bundle"
        return self._fetch("--depth=1", "origin", f"+{commit}:refs/attnforge/{commit}")

    def _all(self, refusal: str) -> None:
        """Fetch all branches and tags; ``refusal`` is what the server answered to the wish for one commit."""
        deepen = ["--unshallow"] if (self.folder / "shallow").exists() else []
        # A server of plain files can leave nothing out: git 2.39 would ask it for what is missing without end.
        plain = self._is_bundle or "dumb http" in refusal
        partial = [] if plain else ["--filter=blob:none"]
        self._fetch(
            *partial, *deepen, "origin", *(f"+refs/{name}/*:refs/origin/{name}/*" for name in ("heads", "tags"))
        )

    @property
    def _is_bundle(self) -> bool:
        return self.address.is_local and self.address.path.is_file()

    def _fetch(self, *arguments: str) -> str:
        """Fetch; where the server has not what was asked for, or does not give it in that way, return its answer."""
        words = (*self._here, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", *arguments)
        outcome = self.git.attempt(words, self.folder, self.address, FETCH_SECONDS)
        if outcome.ok:
            return ""
        if _NOT_SINGLY.search(outcome.output):
            return outcome.output
        raise failure(self.address, outcome.output)

    def _has(self, commit: str) -> bool:
        # Without a promisor nothing is fetched to answer this.
        words = ("-c", "remote.origin.promisor=false", *self._here, "cat-file", "-t", commit)
        asked = self.git.attempt(words, self.folder, self.address)
        return asked.ok and asked.output.strip() == "commit"

    def _do(self, *arguments: str) -> str:
        return self.git((*self._here, *arguments), self.folder, self.address)

    def _try(self, *arguments: str) -> Outcome:
        return self.git.attempt((*self._here, *arguments), self.folder, self.address)

    def _no_commit(self, commit: str) -> RequestError:
        return RequestError(
            f"{redact(self.address.url)} has no commit {commit}",
            why="no branch or tag of it leads there, and the server does not give it",
            hint=f"git ls-remote '{self.address.url}' lists what it has; a fork's commit is in the fork's repository",
        )
