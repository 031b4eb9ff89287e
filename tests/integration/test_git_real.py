"""Git sources with the real git: repositories made on the spot, submodules, tags that move, servers that are gone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.model.events import Message
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.paths import Folders
from attnforge.process import Command, Outcome, run
from attnforge.provision.git import Git, find_git
from attnforge.provision.gitrefs import resolve_ref
from attnforge.provision.gittree import Checkout, checkout, kept_checkout
from attnforge.provision.giturl import GitAddress, parse_address
from attnforge.workflow import machine as machines
from attnforge.workflow.building import build
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan
from standins import house
from standins.forge import Forge

pytest_plugins = ["standins.fixtures"]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")

SETUP = "from setuptools import setup\nsetup(name='small', version='1.0')\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ENVIRON = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_COMMITTER_DATE": "2025-01-01T00:00:00Z",
    "GIT_AUTHOR_DATE": "2025-01-01T00:00:00Z",
}


@dataclass(frozen=True)
class Repository:
    """A repository with a work tree."""

    folder: Path

    def __call__(self, *arguments: str) -> str:
        """Run git in it."""
        words = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *arguments]
        done = subprocess.run(words, cwd=self.folder, env=ENVIRON, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, **files: str | bytes) -> str:
        """Commit files, named with __ for a dot and ___ for a slash; return the commit."""
        for name, content in files.items():
            path = self.folder / name.replace("___", "/").replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", "x")
        return self("rev-parse", "HEAD")

    def address(self, ref: str = "") -> GitAddress:
        """Return its address at a ref."""
        return parse_address(f"git+{self.folder.as_uri()}" + (f"@{ref}" if ref else ""))


def repository(folder: Path, **files: str | bytes) -> Repository:
    folder.mkdir(parents=True)
    made = Repository(folder)
    made("init", "--quiet")
    made.commit(**files)
    return made


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """The git of this machine, with a home and no configuration of anyone's."""
    (tmp_path / "home").mkdir()
    return find_git({"PATH": ENVIRON["PATH"], "HOME": str(tmp_path / "home"), "GIT_CONFIG_NOSYSTEM": "1"})


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache").ensure()


@pytest.fixture
def nested(tmp_path: Path) -> Repository:
    """A repository with a submodule, named relative to it, that has one itself."""
    repository(tmp_path / "inner", inner__h="inner")
    middle = repository(tmp_path / "middle", middle__h="middle")
    add_submodule(middle, "../inner", "third/inner")
    top = repository(tmp_path / "top", setup__py=SETUP)
    add_submodule(top, "../middle", "csrc/middle")
    return top


def add_submodule(parent: Repository, url: str, path: str) -> None:
    source = (parent.folder / url).resolve()
    parent("submodule", "add", "--quiet", str(source), path)
    parent("config", "--file", ".gitmodules", f"submodule.{path}.url", url)
    parent.commit()


def taken(git: Git, folders: Folders, address: GitAddress, *submodules: str) -> Checkout:
    return checkout(git, folders, address, resolve_ref(git, folders, address).commit, submodules)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# --- what is checked out


def test_a_commit_comes_with_its_submodules_and_theirs_and_without_git(
    git: Git, folders: Folders, nested: Repository
) -> None:
    found = taken(git, folders, nested.address())
    assert files(found.path) == {
        ".gitmodules",
        "setup.py",
        "csrc/middle/.gitmodules",
        "csrc/middle/middle.h",
        "csrc/middle/third/inner/inner.h",
    }
    inner = Repository(nested.folder.parent / "inner")("rev-parse", "HEAD")
    assert found.submodules["csrc/middle/third/inner"] == inner


def test_a_submodule_is_at_the_commit_that_is_named_and_not_at_its_newest(
    git: Git, folders: Folders, nested: Repository
) -> None:
    Repository(nested.folder.parent / "middle").commit(middle__h="newer")
    found = taken(git, folders, nested.address())
    assert (found.path / "csrc/middle/middle.h").read_text() == "middle"


def test_only_the_submodules_that_are_needed_are_fetched(git: Git, folders: Folders, nested: Repository) -> None:
    shutil.rmtree(nested.folder.parent / "middle")
    shutil.rmtree(nested.folder / ".git" / "modules")
    assert files(taken(git, folders, nested.address(), "csrc/other").path) == {".gitmodules", "setup.py"}
    with pytest.raises(RequestError, match=r"submodule csrc/middle: there is no git repository"):
        taken(git, folders, nested.address())


def test_files_are_as_they_were_committed_whatever_the_users_settings_and_attributes_say(
    git: Git, folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "hooks").mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (tmp_path / "hooks" / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
        (tmp_path / "hooks" / name).chmod(0o755)
    settings = {
        "core": f"autocrlf = true\n eol = crlf\n hooksPath = {tmp_path}/hooks",
        'filter "up"': "smudge = tr a-z A-Z\n required = true",
        "init": f"templateDir = {tmp_path}/hooks",
        "safe": "bareRepository = explicit",
    }
    text = "".join(f"[{section}]\n {values}\n" for section, values in settings.items())
    (tmp_path / "home" / ".gitconfig").write_text(text)
    attributes = (
        "* text=auto eol=crlf\n*.up filter=up\n*.id ident\n*.gone export-ignore\n*.wide working-tree-encoding=UTF-16\n"
    )
    content = {"a__txt": "a\nb\n", "b__txt": "a\r\nb\r\n", "c__up": "low\n", "d__id": "$Id$\n", "e__gone": "e\n"}
    made = repository(tmp_path / "r", **content)
    # Attributes that come later do not change what was committed before.
    (made.folder / ".gitattributes").write_text(attributes)
    made("add", ".gitattributes")
    made("commit", "--quiet", "--message", "x")
    folder = taken(git, folders, made.address()).path
    for name, text in content.items():
        assert (folder / name.replace("__", ".")).read_bytes() == text.encode()
    assert not (tmp_path / "ran").exists()


def test_links_programs_and_names_of_any_kind_survive(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP)
    (made.folder / "link").symlink_to("setup.py")
    (made.folder / "ü\tö\n").write_text("x")
    (made.folder / os.fsdecode(b"\xff")).write_text("x")
    (made.folder / "run").write_text("#!/bin/sh\n")
    (made.folder / "run").chmod(0o755)
    for name in ("build", "dist", "x.egg-info"):
        (made.folder / name).mkdir()
        (made.folder / name / "kept").touch()
    made.commit()
    folder = taken(git, folders, made.address()).path
    assert files(folder) == {
        "setup.py", "link", "ü\tö\n", os.fsdecode(b"\xff"), "run", "build/kept", "dist/kept", "x.egg-info/kept",
    }  # fmt: skip
    assert (folder / "link").readlink() == Path("setup.py")
    assert os.access(folder / "run", os.X_OK) and not os.access(folder / "setup.py", os.X_OK)


def test_a_repository_with_sha256_ids_is_taken(git: Git, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    made = Repository(tmp_path / "r")
    made("init", "--quiet", "--object-format=sha256")
    commit = made.commit(setup__py=SETUP)
    assert len(commit) == 64
    assert files(taken(git, folders, made.address()).path) == {"setup.py"}


def test_pointers_of_git_lfs_are_told_of(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP, data__bin=LFS, readme=LFS + "x" * 2000)
    assert taken(git, folders, made.address()).pointers == ("data.bin",)


# --- refs and commits


def test_a_ref_of_each_kind_is_a_commit(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r")
    first = made.commit(a="1")
    made("tag", "--annotate", "v1", "--message", "x")
    made("branch", "old")
    newest = made.commit(a="2")
    expected = {"v1": ("tag", first), "old": ("branch", first), "": ("head", newest), "main": ("branch", newest)}
    expected |= {first: ("commit", first), first[:8]: ("commit", first), "HEAD": ("head", newest)}
    for ref, (kind, commit) in expected.items():
        found = resolve_ref(git, folders, made.address(ref))
        assert (found.kind, found.commit) == (kind, commit), ref


def test_a_tag_that_moves_leaves_a_pinned_commit_as_it_is(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    made("tag", "v1")
    pinned = resolve_ref(git, folders, made.address("v1")).commit
    made.commit(a="2")
    made("tag", "--force", "v1")
    moved = resolve_ref(git, folders, made.address("v1"))
    assert moved.before == pinned != moved.commit
    assert (checkout(git, folders, made.address("v1"), pinned).path / "a").read_text() == "1"
    assert (checkout(git, folders, made.address("v1"), moved.commit).path / "a").read_text() == "2"


def test_a_commit_that_no_branch_has_any_more_is_had_by_its_id(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    lost = made.commit(a="2")
    made("reset", "--quiet", "--hard", "HEAD~1")
    assert (checkout(git, folders, made.address(), lost).path / "a").read_text() == "2"


@pytest.mark.parametrize("ref", ["f" * 40, "deadbeef"])
def test_a_commit_that_is_not_there_is_an_error(git: Git, folders: Folders, tmp_path: Path, ref: str) -> None:
    made = repository(tmp_path / "r", a="1")
    with pytest.raises(RequestError, match=f"has no commit {ref}"):
        taken(git, folders, made.address(ref))


def test_a_tag_object_is_no_commit(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    made("tag", "--annotate", "v1", "--message", "x")
    with pytest.raises(RequestError, match="has no commit"):
        checkout(git, folders, made.address(), made("rev-parse", "v1"))


def test_a_tag_that_is_not_there_is_told_with_those_that_are_near(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    for tag in ("v2.7.2", "v2.7.4", "nightly"):
        made("tag", tag)
    with pytest.raises(RequestError, match="no tag or branch 'v2.7.3'") as caught:
        resolve_ref(git, folders, made.address("v2.7.3"))
    assert "v2.7.2" in caught.value.hint and "nightly" not in caught.value.hint


def test_a_folder_that_is_no_repository_is_an_error(git: Git, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no git repository"):
        resolve_ref(git, folders, parse_address(f"git+{tmp_path.as_uri()}@v1"))


# --- how it is fetched


def test_one_commit_comes_without_its_history(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    made.commit(a="2")
    taken(git, folders, made.address())
    (mirror,) = folders.cache.glob("git/r-*/mirror.git")
    assert Repository(mirror)("rev-list", "--all", "--count") == "1"


def test_where_history_has_to_come_it_comes_without_files(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="an old content")
    old = made("rev-parse", "HEAD:a")
    commit = made.commit(a="2")
    made("config", "uploadpack.allowFilter", "true")
    assert files(taken(git, folders, made.address(commit[:9])).path) == {"a"}
    (mirror,) = folders.cache.glob("git/r-*/mirror.git")
    missing = Repository(mirror)("rev-list", "--objects", "--all", "--missing=print")
    assert f"?{old}" in missing
    # A second commit of the same mirror: its file is fetched when it is written.
    first = made("rev-parse", "HEAD~1")
    assert (checkout(git, folders, made.address(), first).path / "a").read_text() == "an old content"


def test_a_server_that_gives_no_single_commits_gives_its_history(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    first = made("rev-parse", "HEAD")
    made.commit(a="2")

    def old_server(command: Command, log: object = None) -> Outcome:
        if "--depth=1" in command.argv:
            return Outcome(128, f"error: Server does not allow request for unadvertised object {first}")
        return run(command)

    found = checkout(Git(git.program, git.environ, old_server), folders, made.address(), first)
    assert (found.path / "a").read_text() == "1"


def test_a_bundle_stands_for_the_network(git: Git, folders: Folders, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", a="1")
    made("tag", "v1")
    commit = made.commit(a="2")
    made("bundle", "create", "--quiet", str(tmp_path / "a b.bundle"), "--all")
    bundle = f"git+{(tmp_path / 'a b.bundle').as_uri()}"
    assert (taken(git, folders, parse_address(f"{bundle}@v1")).path / "a").read_text() == "1"
    assert (taken(git, folders, parse_address(f"{bundle}@{commit}")).path / "a").read_text() == "2"
    with pytest.raises(RequestError, match="has no commit"):
        taken(git, folders, parse_address(f"{bundle}@{'f' * 40}"))


def test_a_bundle_of_a_part_of_the_history_says_how_to_make_a_whole_one(
    git: Git, folders: Folders, tmp_path: Path
) -> None:
    made = repository(tmp_path / "r", a="1")
    made.commit(a="2")
    made("bundle", "create", "--quiet", str(tmp_path / "part.bundle"), "main", "^main~1")
    with pytest.raises(RequestError, match="part of a history") as caught:
        taken(git, folders, parse_address(f"git+{(tmp_path / 'part.bundle').as_uri()}@main"))
    assert "--all" in caught.value.hint


def test_a_file_that_is_no_bundle_is_an_error(git: Git, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "x.bundle").write_text("nothing")
    with pytest.raises(RequestError, match="no git repository"):
        resolve_ref(git, folders, parse_address(f"git+{(tmp_path / 'x.bundle').as_uri()}@v1"))


class _Files(SimpleHTTPRequestHandler):
    """A web server that knows nothing of git: gives a repository's files to who has the password."""

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(b"me:tok").decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="r"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT/PATH of a repository with a submodule beside it."""
    repository(tmp_path / "sub", sub__h="sub")
    made = repository(tmp_path / "r", a="1")
    add_submodule(made, "../sub", "sub")
    made("config", "--file", ".gitmodules", "submodule.sub.url", "../sub.git")
    made.commit()
    for name in ("sub", "r"):
        Repository(tmp_path)("clone", "--quiet", "--bare", name, f"www/{name}.git")
        Repository(tmp_path / "www" / f"{name}.git")("update-server-info")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}/r.git"
    server.shutdown()
    server.server_close()


def test_the_password_of_an_address_reaches_the_server_and_its_submodules_and_is_kept_nowhere(
    git: Git, folders: Folders, served: str
) -> None:
    found = taken(git, folders, parse_address(f"git+http://me:tok@{served}@main"))
    assert files(found.path) == {"a", ".gitmodules", "sub/sub.h"}
    kept = [path for path in folders.cache.rglob("*") if path.is_file()]
    assert len(kept) > 10
    assert not [path for path in kept if b"tok" in path.read_bytes()]


@pytest.mark.parametrize("user", ["", "me:wrong@"])
def test_a_server_that_gives_no_access_is_told_from_one_that_is_away(
    git: Git, folders: Folders, served: str, user: str
) -> None:
    with pytest.raises(HostError, match="refuses access") as caught:
        resolve_ref(git, folders, parse_address(f"git+http://{user}{served}@main"))
    assert "git ls-remote" in caught.value.hint and "wrong" not in str(caught.value)


def test_the_users_own_credentials_are_used(git: Git, folders: Folders, served: str, tmp_path: Path) -> None:
    (tmp_path / "home" / ".netrc").write_text("machine 127.0.0.1 login me password tok\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert files(taken(git, folders, parse_address(f"git+http://{served}")).path) == {"a", ".gitmodules", "sub/sub.h"}


def test_a_clone_gives_its_own_copies_of_submodules(
    git: Git, folders: Folders, nested: Repository, tmp_path: Path
) -> None:
    Repository(tmp_path)("clone", "--quiet", "--recurse-submodules", str(nested.folder), "clone")
    clone = Repository(tmp_path / "clone")
    for name in ("inner", "middle", "top"):
        shutil.rmtree(tmp_path / name)
    found = taken(git, folders, clone.address())
    assert (found.path / "csrc/middle/third/inner/inner.h").read_text() == "inner"


# --- the cache


def test_a_commit_in_the_cache_needs_neither_server_nor_git(git: Git, folders: Folders, nested: Repository) -> None:
    first = taken(git, folders, nested.address())
    commit = nested("rev-parse", "HEAD")
    for name in ("inner", "middle", "top"):
        shutil.rmtree(nested.folder.parent / name)
    assert kept_checkout(folders, commit) == first
    assert kept_checkout(folders, commit, ("csrc/other",)) is None


@pytest.mark.parametrize("change", ["changed", "added", "removed", "executable"])
def test_a_commit_in_the_cache_that_was_changed_is_made_again(
    git: Git, folders: Folders, tmp_path: Path, change: str
) -> None:
    made = repository(tmp_path / "r", a="1", b="2")
    found = taken(git, folders, made.address())
    commit = made("rev-parse", "HEAD")
    if change == "removed":
        (found.path / "a").unlink()
    elif change == "executable":
        (found.path / "a").chmod(0o755)
    else:
        (found.path / ("a" if change == "changed" else "c")).write_text("9")
    assert kept_checkout(folders, commit) is None
    again = taken(git, folders, made.address())
    assert {path.name: path.read_text() for path in again.path.iterdir()} == {"a": "1", "b": "2"}
    assert not os.access(again.path / "a", os.X_OK)


@pytest.mark.parametrize("damage", ["lock", "objects", "config", "half"])
def test_a_mirror_that_a_killed_git_left_is_made_again(git: Git, folders: Folders, tmp_path: Path, damage: str) -> None:
    made = repository(tmp_path / "r", a="1")
    taken(git, folders, made.address())
    (mirror,) = folders.cache.glob("git/r-*/mirror.git")
    if damage == "lock":
        (mirror / "shallow.lock").touch()
    elif damage == "objects":
        for path in mirror.glob("objects/*/*"):
            path.chmod(0o644)
            path.write_bytes(b"")
    elif damage == "config":
        (mirror / "config").write_text("[core\n")
    else:
        (mirror / "attnforge").unlink()
    shutil.rmtree(folders.cache / "git" / "trees")
    made.commit(a="2")
    assert (taken(git, folders, made.address()).path / "a").read_text() == "2"


def with_submodule(made: Repository, url: str, path: str = "sub", commit: str = "e" * 40) -> Repository:
    """Give a repository a submodule whose address nobody has asked yet."""
    (made.folder / ".gitmodules").write_text(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    made("add", ".gitmodules")
    made("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    made("commit", "--quiet", "--message", "x")
    return made


@pytest.mark.parametrize(
    ("stated", "asked"),
    [
        ("../s.git", "http://127.0.0.1:{port}/s.git"),
        ("./s", "http://127.0.0.1:{port}/r.git/s"),
        ("http://127.0.0.1:9/o/s", "http://127.0.0.1:9/o/s"),
        ("git@127.0.0.1:o/s.git", "git@127.0.0.1:o/s.git"),
    ],
)
def test_a_submodule_is_found_from_its_parent(
    git: Git, folders: Folders, served: str, tmp_path: Path, stated: str, asked: str
) -> None:
    address = published(tmp_path, with_submodule(Repository(tmp_path / "r"), stated), served)
    with pytest.raises(AttnforgeError, match="submodule sub") as caught:
        taken(git, folders, address)
    port = served.partition("/")[0].partition(":")[2]
    assert asked.format(port=port) in caught.value.what


def published(tmp_path: Path, made: Repository, served: str) -> GitAddress:
    """Push a repository to the web server; return its address there."""
    made("push", "--quiet", str(tmp_path / "www" / "r.git"), "HEAD:main")
    Repository(tmp_path / "www" / "r.git")("update-server-info")
    return parse_address(f"git+http://me:tok@{served}@main")


@pytest.mark.parametrize(
    "stated",
    [
        "/etc",
        "file:///etc",
        "ext::sh",
        "-u",
        "--upload-pack=id",
        "git://127.0.0.1:9/s",
        "ssh://-x/o/s",
        "ext::sh -c id",
    ],
)
def test_a_repository_from_the_network_can_not_reach_into_this_machine(
    git: Git, folders: Folders, served: str, tmp_path: Path, stated: str
) -> None:
    url = stated
    if stated in ("/etc", "file:///etc"):  # one that could be had
        secret = repository(tmp_path / "secret", word="x")
        url = str(secret.folder) if stated == "/etc" else secret.folder.as_uri()
        made = with_submodule(Repository(tmp_path / "r"), url, commit=secret("rev-parse", "HEAD"))
    else:
        made = with_submodule(Repository(tmp_path / "r"), url)
    address = published(tmp_path, made, served)
    with pytest.raises(AttnforgeError):
        taken(git, folders, address)
    assert not [path for path in folders.cache.rglob("word") if path.is_file()]


def test_files_of_a_submodule_are_as_they_were_committed_too(git: Git, folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (tmp_path / "hooks" / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
        (tmp_path / "hooks" / name).chmod(0o755)
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[core]\n autocrlf = true\n hooksPath = {tmp_path}/hooks\n[filter "up"]\n smudge = tr a-z A-Z\n'
        f"[init]\n templateDir = {tmp_path}/hooks\n[submodule]\n recurse = true\n"
    )
    content = {"a__txt": "a\n", "c__up": "low\n", "d__id": "$Id$\n"}
    sub = repository(tmp_path / "sub", **content)
    sub.commit(__gitattributes="* text=auto eol=crlf\n*.up filter=up\n*.id ident\n")
    made = repository(tmp_path / "r", setup__py=SETUP)
    add_submodule(made, "../sub", "sub")
    # What .gitmodules says of how a submodule is updated does not count.
    made("config", "--file", ".gitmodules", "submodule.sub.update", "none")
    made.commit()
    folder = taken(git, folders, made.address()).path
    for name, text in content.items():
        assert (folder / "sub" / name.replace("__", ".")).read_bytes() == text.encode()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "settings",
    [
        "[submodule]\n active = other\n",
        "[submodule]\n propagateBranches = true\n",
        "[clone]\n defaultRemoteName = upstream\n rejectShallow = true\n filterSubmodules = true\n",
        "[diff]\n ignoreSubmodules = all\n[color]\n ui = always\n[status]\n submoduleSummary = true\n",
    ],
)
def test_the_users_settings_for_submodules_leave_none_out(
    git: Git, folders: Folders, nested: Repository, tmp_path: Path, settings: str
) -> None:
    (tmp_path / "home" / ".gitconfig").write_text(settings)
    found = taken(git, folders, nested.address())
    assert set(found.submodules) == {"csrc/middle", "csrc/middle/third/inner"}
    assert (found.path / "csrc/middle/third/inner/inner.h").read_text() == "inner"


def test_a_mirror_of_an_older_attnforge_is_made_again(
    git: Git, folders: Folders, nested: Repository, tmp_path: Path
) -> None:
    taken(git, folders, nested.address())
    (mirror,) = folders.cache.glob("git/*/mirror.git")
    # It had no template, so that the submodules' repositories would not ignore .gitattributes.
    shutil.rmtree(mirror / "template")
    shutil.rmtree(mirror / "modules")
    Repository(tmp_path / "middle").commit(__gitattributes="*.h text eol=crlf\n", middle__h="a\n")
    nested("-C", "csrc/middle", "pull", "--quiet", str(tmp_path / "middle"), "main")
    nested.commit()
    assert (taken(git, folders, nested.address()).path / "csrc/middle/middle.h").read_bytes() == b"a\n"


def test_a_submodule_that_moved_to_another_address_is_found_there(
    git: Git, folders: Folders, nested: Repository, tmp_path: Path
) -> None:
    taken(git, folders, nested.address())
    shutil.rmtree(nested.folder / ".git" / "modules")
    other = repository(tmp_path / "other", other__h="other")
    shutil.rmtree(tmp_path / "middle")
    nested("config", "--file", ".gitmodules", "submodule.csrc/middle.url", "../other")
    nested("add", ".gitmodules")
    nested("update-index", "--cacheinfo", f"160000,{other('rev-parse', 'HEAD')},csrc/middle")
    nested("commit", "--quiet", "--message", "x")
    assert (taken(git, folders, nested.address()).path / "csrc/middle/other.h").read_text() == "other"


def test_the_submodules_of_a_second_commit_are_fetched_into_the_same_mirror(
    git: Git, folders: Folders, nested: Repository, tmp_path: Path
) -> None:
    taken(git, folders, nested.address())
    newer = Repository(tmp_path / "middle").commit(middle__h="newer")
    nested("update-index", "--cacheinfo", f"160000,{newer},csrc/middle")
    nested("commit", "--quiet", "--message", "x")
    assert (taken(git, folders, nested.address()).path / "csrc/middle/middle.h").read_text() == "newer"
    assert len(list(folders.cache.glob("git/*/mirror.git"))) == 1


@pytest.mark.parametrize("name", ["setup.py", "csrc/middle/third/inner/inner.h"])
def test_files_that_are_not_those_of_the_commit_are_refused(
    git: Git, folders: Folders, nested: Repository, name: str
) -> None:
    """A disk that lies, or names that a file system takes for the same: git is asked again what it wrote."""

    def careless(command: Command, log: object = None) -> Outcome:
        outcome = run(command)
        if "update" in command.argv:
            stat = (command.cwd / name).stat()
            (command.cwd / name).write_text("x" * stat.st_size)
            os.utime(command.cwd / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return outcome

    with pytest.raises(HostError, match="are not those of commit") as caught:
        taken(Git(git.program, git.environ, careless), folders, nested.address())
    assert name.partition("/third")[0] in caught.value.why
    assert not list(folders.cache.glob("git/trees/*/complete.json"))


# --- what is wrong with submodules


def test_a_submodule_without_an_address_is_an_error(git: Git, folders: Folders, nested: Repository) -> None:
    (nested.folder / ".gitmodules").write_text("")
    nested.commit()
    with pytest.raises(RequestError, match="submodule csrc/middle has no address"):
        taken(git, folders, nested.address())


def test_a_submodule_without_files_is_an_error(git: Git, folders: Folders, tmp_path: Path) -> None:
    repository(tmp_path / "void")
    made = repository(tmp_path / "r", setup__py=SETUP)
    add_submodule(made, "../void", "void")
    with pytest.raises(RequestError, match="submodule void is empty"):
        taken(git, folders, made.address())


def test_a_submodule_whose_commit_was_never_pushed_is_an_error(git: Git, folders: Folders, nested: Repository) -> None:
    nested("update-index", "--cacheinfo", f"160000,{'e' * 40},csrc/middle")
    nested("commit", "--quiet", "--message", "x")
    with pytest.raises(RequestError, match=f"submodule csrc/middle: .* has no commit {'e' * 40}"):
        taken(git, folders, nested.address())


def test_a_repository_of_another_user_is_read_only_after_that_is_allowed(
    git: Git, folders: Folders, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    made = repository(tmp_path / "r", a="1")
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(HostError, match="belongs to another user") as caught:
        resolve_ref(git, folders, made.address())
    subprocess.run(caught.value.hint.split(), env={**git.environ, "HOME": str(tmp_path / "home")}, check=True)
    assert resolve_ref(git, folders, made.address()).commit


# --- plans and builds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    (tmp_path / "user").mkdir()
    environ = {"ATTNFORGE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "user"), "PATH": ENVIRON["PATH"]}
    return Machine({**environ, "GIT_CONFIG_NOSYSTEM": "1"})


def test_name_and_version_are_read_from_the_commit(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP)
    made("tag", "v1")
    planned = plan(machine, Request(package=str(made.address("v1")), gpus=("H100",)))
    commit = made("rev-parse", "HEAD")
    assert (planned.plan.package, planned.plan.version) == ("small", "1.0")
    assert planned.plan.source.commit == commit
    assert str(tmp_path) not in planned.plan.model_dump_json()
    assert "the tag v1 of r is this commit" in {decision.reason for decision in planned.resolution.decisions}


def test_the_same_commit_is_the_same_plan_by_whatever_name(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP)
    made("tag", "v1")
    commit = made("rev-parse", "HEAD")
    plans = [plan(machine, Request(package=str(made.address(ref)), gpus=("H100",))) for ref in ("v1", "main", commit)]
    assert len({planned.plan.digest for planned in plans}) == 1


def test_a_plan_whose_commit_is_in_the_cache_is_carried_out_offline(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP)
    commit = made("rev-parse", "HEAD")
    request = Request(package=str(made.address(commit)), gpus=("H100",))
    first = plan(machine, request)
    shutil.rmtree(made.folder)
    again = plan(Machine({**machine.environ, "PATH": ""}), request)
    assert again.plan == first.plan
    assert again.located.pin == again.plan.source
    folder = again.located.source.lay_out(machine, tmp_path / "source").folder
    assert files(folder) == {"setup.py"}


def test_a_plan_warns_of_a_tag_that_moved_and_names_the_former_commit(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP)
    made("tag", "v1")
    request = Request(package=str(made.address("v1")), gpus=("H100",))
    former = plan(machine, request).plan
    made.commit(a="2")
    made("tag", "--force", "v1")
    moved = plan(machine, request)
    (warning,) = moved.resolution.warnings
    assert "the tag v1 moved" in warning.message
    package = warning.hint.partition(": ")[2]
    assert plan(machine, Request(package=package, gpus=("H100",))).plan == former


def test_a_subdirectory_is_built_and_one_that_is_not_there_is_an_error(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", hopper___setup__py=SETUP, readme="x")
    planned = plan(machine, Request(package=f"{made.address()}#subdirectory=hopper", gpus=("H100",)))
    assert planned.located.pin == planned.plan.source
    folder = planned.located.source.lay_out(machine, tmp_path / "source").folder
    assert folder == tmp_path / "source" / "hopper" and (folder.parent / "readme").exists()
    for address in (str(made.address()), f"{made.address()}#subdirectory=other"):
        with pytest.raises(RequestError, match="neither setup.py nor pyproject.toml"):
            plan(machine, Request(package=address, gpus=("H100",)))


def test_a_build_without_network_fails_before_anything_is_made(machine: Machine, tmp_path: Path) -> None:
    commit = "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"
    package = f"flash-attn @ git+https://127.0.0.1:9/o/r@{commit}"
    planned = plan(machine, Request(package=package, gpus=("H100",)))
    with pytest.raises(HostError, match="can't be reached") as caught:
        build(machine, planned, tmp_path / "dist")
    assert f"git+file:///FOLDER@{commit}" in caught.value.hint


def test_a_build_warns_of_files_that_lfs_keeps_elsewhere(machine: Machine, tmp_path: Path) -> None:
    made = repository(tmp_path / "r", setup__py=SETUP, data__bin=LFS)
    planned = plan(machine, Request(package=str(made.address()), gpus=("H100",)))
    told: list[str] = []

    class EnoughError(Exception):
        """Ends the build when the source is there."""

    def observe(event: object) -> None:
        if isinstance(event, Message) and event.level == "warning":
            told.append(event.text)
            raise EnoughError

    with pytest.raises(EnoughError):
        build(machine, planned, tmp_path / "dist", observe)
    assert "data.bin" in told[0]


@pytest.mark.compile
@pytest.mark.network
def test_a_commit_becomes_a_wheel_that_says_where_it_comes_from(forge: Forge) -> None:
    house.tinykernels(forge.folder / "tinykernels")
    made = Repository(forge.folder / "tinykernels")
    made("init", "--quiet")
    commit = made.commit()
    made("tag", "v1.2.0")
    done = forge.build(str(made.address("v1.2.0"))).ok()
    (planned,) = done.seen("Planned")
    assert f".g{commit[:8]}-" in planned["wheel"]
    with zipfile.ZipFile(forge.wheel()) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith("/attnforge/provenance.json")]
        told = json.loads(archive.read(member))
    assert told["source"]["commit"] == commit
    assert str(forge.folder) not in json.dumps(told)
    calls = forge.toolkit.calls()
    # Again, without the repository: the commit is in the cache, and so is the wheel.
    shutil.rmtree(made.folder)
    forge.build(str(made.address(commit))).ok()
    assert forge.toolkit.calls() == calls
