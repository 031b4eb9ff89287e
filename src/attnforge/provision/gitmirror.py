"""A bare mirror of each repository in the cache: it holds the commits that builds asked for, and the repositories of
their submodules."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from attnforge.errors import AttnforgeError, RequestError
from attnforge.files import disk_errors
from attnforge.paths import Folders
from attnforge.process import Outcome, redact
from attnforge.provision.git import FETCH_SECONDS, LOOK_SECONDS, Git, failure
from attnforge.provision.giturl import GitAddress
from attnforge.provision.store import locked

T = TypeVar("T")

# Answers of servers that give commits only from the tips of refs, or do not support shallow copies.
_NOT_SINGLY = re.compile(
    r"not our ref|unadvertised object|does not allow request|could(?:n't| not) find remote ref|no such remote ref"
    r"|does not support shallow|not a valid object|bad object|not a tree object|dumb http|rejected .*shallow",
    re.IGNORECASE,
)
# Messages about a mirror that a killed git or a bad disk has damaged.
_BROKEN = re.compile(
    r"\.lock': file exists|object file .* is empty|loose object .* is corrupt|packfile .* (?:cannot be|is) "
    r"|bad config|unable to (?:read|find) [0-9a-f]{40}|not a git repository: |missing blob|is corrupt",
    re.IGNORECASE,
)


def place(address: GitAddress) -> str:
    """Return the repository as git's commands take it: a bundle by its path, since git knows no URL of one."""
    return str(address.path) if address.is_local and address.path.is_file() else address.url


def repository_folder(folders: Folders, address: GitAddress) -> Path:
    """Return the folder of the cache for what is known of a repository."""
    name = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    return folders.cache / "git" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', address.title)}-{name}"


def mirror_of(git: Git, folders: Folders, address: GitAddress) -> Mirror:
    """Return the mirror of a repository, which is made when it is first used."""
    return Mirror(git, address, repository_folder(folders, address) / "mirror.git")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A bare repository. The git commands of one mirror run one after the other: each holds its lock."""

    git: Git
    address: GitAddress
    folder: Path

    @property
    def template(self) -> Path:
        """The files that each new repository gets in place of git's templates and the user's: no hook."""
        return self.folder / "template"

    def working(self, work: Callable[[], T]) -> T:
        """Work under the lock. A mirror that turns out to be damaged (a killed git, a disk) is made again first."""
        with locked(self.folder), disk_errors(self.folder):
            try:
                return work()
            except AttnforgeError as error:
                if not _BROKEN.search(error.why):
                    raise
                shutil.rmtree(self.folder, ignore_errors=True)
                return work()

    def hold(self, commit: str) -> None:
        """Fetch a commit that is not there. Called under the lock.

        Only that commit is fetched, without its history, where the server allows it. Else all branches and tags are
        fetched, without the contents of files where the server can leave them out; a checkout fetches those it needs.
        RequestError where the repository has no such commit; HostError where it can't be reached.
        """
        self._prepare(commit)
        if self._has(commit):
            return
        refusal = self._single(commit)
        if not self._has(commit):
            self._all(refusal)
            if not self._has(commit):
                raise no_commit(self.address, commit)

    def whole(self, short: str) -> str:
        """Return the commit whose id begins with ``short``; RequestError where there is none, or several."""
        commits = self.working(lambda: self._beginning(short))
        if len(commits) == 1:
            return commits[0]
        if not commits:
            raise no_commit(self.address, short)
        raise RequestError(
            f"{short} is the beginning of {len(commits)} commits", why=", ".join(commits), hint="write the whole id"
        )

    def _beginning(self, short: str) -> list[str]:
        self._prepare("0" * 40)
        self._all(self._single("HEAD"))
        found = self.attempt("rev-parse", f"--disambiguate={short}").output.split()
        return [name for name in found if self.attempt("cat-file", "-t", name).output.strip() == "commit"]

    def _prepare(self, commit: str) -> None:
        """Make the mirror where there is no complete one."""
        # The mark is written last. Mirrors of the first versions have it, and no template.
        if (self.folder / "attnforge").exists() and self.template.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.template / "info").mkdir(parents=True)
        # The strongest of git's attributes: files are written as they are committed, whatever .gitattributes says.
        attributes = "* -text !eol !ident !filter !working-tree-encoding\n"
        (self.template / "info" / "attributes").write_text(attributes, encoding="utf-8")
        kind = "sha256" if len(commit) == 64 else "sha1"
        words = ("init", "--quiet", "--bare", f"--template={self.template}", f"--object-format={kind}")
        self.git((*words, str(self.folder)), self.folder, self.address)
        self.run("config", "remote.origin.url", place(self.address))
        (self.folder / "attnforge").touch()

    def _single(self, commit: str) -> str:
        """Fetch one commit without its history; return why the server refuses that, "" where it does not."""
        if self._is_bundle:
            return "a bundle"
        return self._fetch("--depth=1", "origin", f"+{commit}:refs/attnforge/{commit}")

    def _all(self, refusal: str) -> None:
        """Fetch all branches and tags; ``refusal`` is the server's answer to the request for one commit."""
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
        """Fetch; where the server lacks what was asked for, or does not give it in that way, return its answer."""
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", *arguments)
        outcome = self.attempt(*words, timeout=FETCH_SECONDS)
        if outcome.ok:
            return ""
        if is_refusal(outcome.output):
            return outcome.output
        raise failure(self.address, outcome.output)

    def _has(self, commit: str) -> bool:
        # Without a promisor nothing is fetched to answer this.
        words = ("-c", "remote.origin.promisor=false", *self._here, "cat-file", "-t", commit)
        asked = self.git.attempt(words, self.folder, self.address)
        return asked.ok and asked.output.strip() == "commit"

    @property
    def _here(self) -> tuple[str, ...]:
        # Named, since git may be set to look for no bare repository by itself, or to ask whose the folder is.
        return (f"--git-dir={self.folder}",)

    def run(self, *arguments: str) -> str:
        """Run a git command on the mirror and return its output; raise the error of ``failure`` where it fails."""
        return self.git((*self._here, *arguments), self.folder, self.address)

    def attempt(self, *arguments: str, timeout: float = LOOK_SECONDS) -> Outcome:
        """Run a command on the mirror that may fail."""
        return self.git.attempt((*self._here, *arguments), self.folder, self.address, timeout)


def is_refusal(output: str) -> bool:
    """Say whether a server does not give single commits, or no copies without history: it may give all."""
    return _NOT_SINGLY.search(output) is not None


def no_commit(address: GitAddress, commit: str) -> RequestError:
    """Return the error of a commit that a repository does not have."""
    return RequestError(
        f"{redact(address.url)} has no commit {commit}",
        why="no branch or tag of it leads there, and the server does not give it",
        hint=f"git ls-remote '{address.url}' lists what it has; a fork's commit is in the fork's repository",
    )
