"""Addresses of git repositories, as pip writes them: ``git+https://host/owner/repository@REF#subdirectory=FOLDER``."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from attnforge.errors import RequestError
from attnforge.process import redact

PROTOCOLS = ("https", "ssh", "http", "file")
"""The protocols that git may use. Others are refused: ``ext::`` runs a program, ``git://`` is not authenticated."""

_FORM = "git+https://HOST/OWNER/REPOSITORY@TAG, git+ssh://git@HOST/…, or git+file:///FOLDER"

# What git check-ref-format refuses, and the option that a leading "-" would be.
_BAD_REF = re.compile(r"^[-/.]|\.\.|@\{|//|[\x00-\x20\x7f~^:?*\[\\]|(?:\.|/|\.lock)$|^@$")


@dataclass(frozen=True, slots=True)
class GitAddress:
    """A repository, and which part of it is wanted.

    ``url`` has no password in it; ``credentials`` are those that the user wrote into the URL, ``name:token``. ``ref``
    is a tag, a branch or a commit, "" for HEAD. ``subdirectory`` is the folder that is built,
    "" for the top. ``name`` is the package's, where the address says it (``#egg=NAME``).
    """

    url: str
    ref: str = ""
    subdirectory: str = ""
    name: str = ""
    credentials: str = ""

    @property
    def title(self) -> str:
        """The repository's name: the last part of its path."""
        last = posixpath.basename(unquote(urlsplit(self.url).path).rstrip("/"))
        return last.removesuffix(".git").removesuffix(".bundle") or self.url

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine: a folder or a bundle."""
        return self.url.startswith("file:")

    @property
    def path(self) -> Path:
        """The path of a local one."""
        return Path(unquote(urlsplit(self.url).path))

    def __str__(self) -> str:
        return f"git+{self.url}" + (f"@{self.ref}" if self.ref else "")


def is_git(text: str) -> bool:
    """Say whether a user's word for a source is the address of a git repository."""
    return text.startswith("git+")


def parse_address(text: str) -> GitAddress:
    """Read ``git+URL@REF#subdirectory=FOLDER&egg=NAME``; RequestError for anything that is not safe to give to git."""
    if any(character.isspace() or not character.isprintable() for character in text):
        raise _bad(text, "it has a space or a control character in it")
    if "://" not in text:
        raise _bad(text, "it is not a URL")
    parts = _split(text, text.removeprefix("git+"))
    path, at, ref = parts.path.rpartition("@")
    path, ref = (path, unquote(ref)) if at else (parts.path, "")
    if at and not ref:
        raise _bad(text, "there is nothing after the @")
    fragment = dict(parse_qsl(parts.fragment))
    unknown = fragment.keys() - {"subdirectory", "egg"}
    if unknown or (parts.fragment and not fragment):
        raise _bad(text, f"after # only subdirectory=FOLDER and egg=NAME are allowed, not {parts.fragment!r}")
    url, credentials = _checked(text, parts._replace(path=path, fragment="").geturl())
    subdirectory = _subdirectory(text, fragment.get("subdirectory", ""))
    return GitAddress(url, check_ref(ref), subdirectory, fragment.get("egg", ""), credentials)


def check_ref(ref: str) -> str:
    """Return the name of a tag, branch or commit; RequestError for what can't be one (git check-ref-format)."""
    if ref and _BAD_REF.search(ref):
        raise RequestError(
            f"{ref!r} can't be a tag, a branch or a commit",
            why="git's names have no spaces, no .., no ~^:?*[\\ and do not begin with - or /",
            hint="write only the tag, the branch or the commit: …@v1.0",
        )
    return ref


def _checked(text: str, url: str) -> tuple[str, str]:
    """Return the URL without its password, and ``name:password`` where it has one."""
    parts = _split(text, url)
    if parts.scheme not in PROTOCOLS:
        raise _bad(text, f"git may use {', '.join(PROTOCOLS)} here" if parts.scheme else "it names no protocol")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _bad(text, "file:// takes an absolute path: git+file:///FOLDER")
        return f"file://{parts.path}", ""
    user, host = parts.netloc.rpartition("@")[::2]
    if not host or host.startswith(("-", ":")) or user.startswith("-") or parts.path.strip("/") == "":
        raise _bad(text, "it names no host or no repository")
    if parts.path.startswith("/-"):
        raise _bad(text, "its path begins with -")
    if parts.scheme == "ssh":  # there the name is a part of the address and not a secret
        if ":" in user:
            raise _bad(text, "ssh takes no password in an address: use a key")
        return url, ""
    return parts._replace(netloc=host).geturl(), user


def _split(text: str, url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise _bad(text, str(error)) from None


def _subdirectory(text: str, folder: str) -> str:
    if folder.startswith(("/", "-")) or ".." in folder.split("/"):
        raise _bad(text, f"subdirectory={folder} leads out of the repository")
    return folder.strip("/")


def _bad(text: str, why: str) -> RequestError:
    return RequestError(f"{redact(text)!r} is not the address of a git repository", why=why, hint=f"write {_FORM}")
