"""The commit that a tag, a branch or the beginning of a commit id names, and whether a tag has moved."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from attnforge.errors import HostError, RequestError
from attnforge.files import disk_errors, write_whole
from attnforge.paths import Folders
from attnforge.process import redact
from attnforge.provision.git import Git
from attnforge.provision.gitmirror import mirror_of, place, repository_folder
from attnforge.provision.giturl import GitAddress, check_ref
from attnforge.provision.store import locked

_LISTED = re.compile(r"(?P<commit>[0-9a-f]{40}(?:[0-9a-f]{24})?)\t(?P<ref>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
_NEAR = 4


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit, and how it was found: ``kind`` tag, branch, head or commit.

    ``before`` is the commit that the tag had when it was last asked for here, "" where it is the same or new.
    """

    commit: str
    kind: str
    ref: str = ""
    before: str = ""


def is_commit(text: str) -> bool:
    """Say whether a ref is a whole commit id (SHA-1 or SHA-256), which names its content wherever it is kept."""
    return _COMMIT.fullmatch(text) is not None


def resolve_ref(git: Git, folders: Folders, address: GitAddress) -> Resolved:
    """Return the commit of a tag, a branch, HEAD or a short commit id. A whole commit id is returned unchanged.

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
        return Resolved(mirror_of(git, folders, address).whole(ref), "commit", ref)
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


def _seen(folders: Folders, address: GitAddress) -> dict[str, str]:
    try:
        seen = json.loads((repository_folder(folders, address) / "tags.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _remember(folders: Folders, address: GitAddress, tag: str, commit: str) -> str:
    """Record the commit of a tag; return the one that it had when it was last asked for, "" where that is the same."""
    folder = repository_folder(folders, address)
    with locked(folder), disk_errors(folder):
        folder.mkdir(exist_ok=True)
        before = _seen(folders, address)
        if before.get(tag) != commit:
            write_whole(folder / "tags.json", json.dumps({**before, tag: commit}, indent=1, sort_keys=True) + "\n")
    last = before.get(tag, commit)
    return last if last != commit else ""


def _with_last_seen(error: HostError, folders: Folders, address: GitAddress) -> HostError:
    commit = _seen(folders, address).get(address.ref)
    if commit is None:
        return error
    return HostError(error.what, why=error.why, hint=f"{address.ref} was commit {commit} when last seen: @{commit}")
