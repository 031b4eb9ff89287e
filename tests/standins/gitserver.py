"""A git server on the loopback interface: bare repositories of a folder over HTTP, by git's own http-backend."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from standins.loopback import Handler, served

IDENTITY = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
DATES = {f"GIT_{who}_DATE": "2025-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
_NO_ONES = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


def git(folder: Path, *words: str) -> str:
    """Run git in a folder without anyone's configuration, and return what it prints."""
    environ = {"PATH": os.environ["PATH"], **_NO_ONES, **IDENTITY, **DATES}
    command = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *words]
    done = subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, *tags: str) -> str:
    """Commit all that is in a folder, which becomes a repository; return the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "x")
    for tag in tags:
        git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")


def publish(folder: Path, root: Path, name: str) -> None:
    """Put a repository where a server finds it: ``owner/repository``. Single commits can be fetched, as from GitHub."""
    bare = root / f"{name}.git"
    bare.parent.mkdir(parents=True, exist_ok=True)
    git(folder, "clone", "--quiet", "--bare", str(folder), str(bare))
    for setting in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter", "http.getanyfile"):
        git(bare, "config", setting, "true")


@dataclass
class Server:
    """A server of a folder of bare repositories. ``asked`` are the paths of every request."""

    root: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def instead_of(self, address: str) -> str:
        """Return the text of a git configuration that has this server asked in place of ``address``."""
        return f'[url "{self.url}/"]\n\tinsteadOf = {address}\n'


class _Handler(Handler[Server]):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _answer(self, body: bytes) -> None:
        self.told.asked.append(self.path)
        done = subprocess.run(["git", "http-backend"], input=body, env=self._variables(body), capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _variables(self, body: bytes) -> Mapping[str, str]:
        """What a CGI program is told (RFC 3875)."""
        path, _, query = self.path.partition("?")
        first = path.strip("/").split("/")
        # GitHub's addresses are without .git.
        found = "/".join(first[:2]).removesuffix(".git")
        return {
            "PATH": os.environ["PATH"],
            **_NO_ONES,
            "GIT_PROJECT_ROOT": str(self.told.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": "/" + "/".join((f"{found}.git", *first[2:])),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Serve a folder of bare repositories, OWNER/NAME.git."""
    told = Server(root)
    with served(partial(_Handler, told)) as told.url:
        yield told
