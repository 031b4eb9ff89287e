"""Writes a commit and its submodules into a folder: ``git submodule update`` under our configuration.

Submodules' repositories are kept in the mirror's ``modules``, as in any clone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.process import Outcome
from attnforge.provision.git import FETCH_SECONDS, failure
from attnforge.provision.gitmirror import Mirror, is_refusal, no_commit

_CLONE_HINT = (
    "check the network and its proxy, or give a clone that has it (git clone --recurse-submodules): git+file:///CLONE"
)
_STATUS = re.compile(r"(?P<mark>.)(?P<id>[0-9a-f]+) (?P<path>.+?)(?: \([^()]*\))?")
_ABOUT = re.compile(r"submodule path '(?P<path>[^']*)'")
_CLONE_OF = re.compile(r"clone of '(?P<url>[^']*)' into submodule path")
_NO_ADDRESS = re.compile(r"no url found for submodule path", re.IGNORECASE)
_NO_COMMIT = re.compile(r"did not contain (?P<id>[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A folder for the files of a commit. ``wanted`` are the paths of the submodules that are needed, () for all."""

    mirror: Mirror
    commit: str
    folder: Path
    wanted: Sequence[str]

    def write(self) -> dict[str, str]:
        """Write the files as they are committed, without .git; return the submodules' commits by path.

        Each submodule that is needed comes with all of its own. RequestError for a commit or submodule that is not
        there or empty, HostError where a repository can't be reached and where the files are not those of the commit.
        """
        return self.mirror.working(self._write)

    def _write(self) -> dict[str, str]:
        self.mirror.hold(self.commit)
        self._adopt_modules()
        kept = self._modules.exists()
        outcome = self._attempt("--depth=1")
        if not outcome.ok and kept:  # they may be those of another address
            outcome = self._attempt_again("--depth=1")
        if not outcome.ok and (is_refusal(outcome.output) or _NO_COMMIT.search(outcome.output)):
            outcome = self._attempt_again()
        if not outcome.ok:
            raise self._failure(outcome.output)
        self._check()
        found = self._status()
        self._strip(found)
        (self.mirror.folder / "index").unlink(missing_ok=True)
        return found

    @property
    def _modules(self) -> Path:
        return self.mirror.folder / "modules"

    def _attempt_again(self, *depth: str) -> Outcome:
        shutil.rmtree(self._modules, ignore_errors=True)
        return self._attempt(*depth)

    def _attempt(self, *depth: str) -> Outcome:
        """Write the commit into the folder, emptied, and update its submodules."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.mirror.folder / "index").unlink(missing_ok=True)
        # Addresses are those of this commit's .gitmodules, and not of an earlier one's.
        for key in self.mirror.attempt("config", "--name-only", "--get-regexp", r"^submodule\.").output.splitlines():
            self.mirror.attempt("config", "--unset-all", key)
        self._git("read-tree", "--reset", "-u", self.commit)
        paths = self._paths()
        if not paths:
            return Outcome(0, "")
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout", "--force")
        return self._with_submodules(*update, *depth, "--", *paths)

    def _paths(self) -> list[str]:
        """Return the paths to update: the ones wanted that the commit has."""
        if not self.wanted:
            return ["."]
        listed = self._git("ls-tree", "-z", "--name-only", "--full-tree", self.commit, "--", *self.wanted)
        return [path for path in listed.split("\0") if path]

    @property
    def _here(self) -> tuple[str, str]:
        return f"--git-dir={self.mirror.folder}", f"--work-tree={self.folder}"

    def _git(self, *arguments: str) -> str:
        return self.mirror.git((*self._here, *arguments), self.folder, self.mirror.address, FETCH_SECONDS)

    def _with_submodules(self, *arguments: str) -> Outcome:
        """Run a command of git's that goes into submodules, which may fail."""
        template = ("-c", f"init.templateDir={self.mirror.template}")
        words = (*template, *self._here, *arguments)
        return self.mirror.git.attempt_submodules(words, self.folder, self.mirror.address)

    def _asked(self, *arguments: str) -> str:
        """Return what a command prints that goes into submodules."""
        outcome = self._with_submodules(*arguments)
        if not outcome.ok:
            raise self._failure(outcome.output)
        return outcome.output

    def _check(self) -> None:
        """Have git hash all files again: an index without the times of files says nothing of what is in them."""
        (self.mirror.folder / "index").unlink()
        self._git("read-tree", self.commit)
        self._asked("submodule", "--quiet", "foreach", "--recursive", "git read-tree HEAD")
        self._with_submodules("update-index", "-q", "--refresh")
        words = ("diff-files", "--exit-code", "--name-only", "--ignore-submodules=none")
        outcome = self._with_submodules(*words)
        if not outcome.ok:
            different = outcome.output.splitlines() or [""]
            raise HostError(
                f"the files of {self.mirror.address} are not those of commit {self.commit}",
                why=f"{len(different)} differ, first {different[0]}: the disk, or names that differ only by case",
                hint="set ATTNFORGE_CACHE to a folder on another disk and run the same command again",
            )

    def _status(self) -> dict[str, str]:
        printed = self._asked("submodule", "status", "--recursive")
        matches = (match for match in map(_STATUS.fullmatch, printed.splitlines()) if match)
        return {match["path"]: match["id"] for match in matches if match["mark"] != "-"}

    def _strip(self, submodules: dict[str, str]) -> None:
        """Leave files only: no .git, no empty folder of a submodule that is not wanted."""
        for path in submodules:
            (self.folder / path / ".git").unlink()
        for path, commit in submodules.items():
            if not any(entry.is_file() or entry.is_symlink() for entry in (self.folder / path).rglob("*")):
                raise RequestError(
                    f"submodule {path} is empty",
                    why=f"commit {commit} of its repository holds no file",
                    hint="name a commit that has it, or give a complete folder: --source PATH",
                )
        for folder, _, _ in os.walk(self.folder, topdown=False):
            if folder != str(self.folder) and not any(Path(folder).iterdir()):
                Path(folder).rmdir()

    def _adopt_modules(self) -> None:
        """Fetch from the copies of submodules that a clone on this machine has: they may be nowhere else."""
        if not self.mirror.address.is_local:
            return
        clone = self.mirror.address.path
        kept = (clone / ".git" if (clone / ".git").is_dir() else clone) / "modules"
        for head in sorted(kept.rglob("HEAD")):
            if (head.parent / "objects").is_dir():
                self._adopt(head.parent, self._modules / head.parent.relative_to(kept))

    def _adopt(self, kept: Path, module: Path) -> None:
        git, address = self.mirror.git, replace(self.mirror.address, url=kept.as_uri(), ref="")
        if not module.exists():
            module.mkdir(parents=True)
            git(("init", "--quiet", "--bare", f"--template={self.mirror.template}", str(module)), module, address)
        here = f"--git-dir={module}"
        origin = git.attempt(("config", "--file", str(kept / "config"), "remote.origin.url"), module, address)
        for key, value in (("core.bare", "false"), ("remote.origin.url", origin.output.strip())):
            git((here, "config", key, value), module, address)
        refs = ("+refs/*:refs/kept/*", "+HEAD:refs/kept/HEAD")
        # A copy that can't be read is passed over: the submodule's own address may serve.
        git.attempt((here, "fetch", "--quiet", "--no-tags", "--force", kept.as_uri(), *refs), module, address)

    def _failure(self, output: str) -> AttnforgeError:
        """Return the error that git's messages about a submodule mean."""
        about, commit, cloned = _ABOUT.search(output), _NO_COMMIT.search(output), _CLONE_OF.search(output)
        path = about["path"].removeprefix(f"{self.folder}/") if about else "of this repository"
        if _NO_ADDRESS.search(output):
            return RequestError(
                f"the submodule {path} has no address",
                why=f".gitmodules of {self.mirror.address} names none for it",
                hint="name a commit whose .gitmodules does, or give a complete folder: --source PATH",
            )
        address = replace(self.mirror.address, url=cloned["url"], ref="") if cloned else self.mirror.address
        error = no_commit(address, commit["id"]) if commit else failure(address, output)
        hint = _CLONE_HINT if "can't be reached" in error.what else error.hint
        return type(error)(f"submodule {path}: {error.what}", why=error.why, hint=hint)
