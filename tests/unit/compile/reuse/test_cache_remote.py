"""Shared stores for real: a folder, OpenDAL's file system and memory, WebDAV and S3 with a small server."""

from __future__ import annotations

import base64
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import opendal
import pytest
from cache_stores import MemoryRemote, failing, hanging

from attnforge.compile.reuse.cache import Remote, StepCache, check_remote, open_remote
from attnforge.compile.reuse.cache.remote import FolderRemote, OpenDalRemote, StoreError, summary
from attnforge.errors import HostError, RequestError
from standins.loopback import served


@dataclass
class WebDav:
    """A server that knows what is needed of WebDAV and of S3 to keep files, and one user."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/"})
    user: str = "me:hunter2"
    broken: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"webdav://{self.user}@127.0.0.1:{self.port}/cache"

    @property
    def s3_url(self) -> str:
        return f"s3://bucket/cache?region=eu&endpoint=http://127.0.0.1:{self.port}"

    def knows(self, authorization: str) -> bool:
        """Whether a request is the user's: by password for WebDAV, by name for S3, whose signatures it believes."""
        basic = "Basic " + base64.b64encode(self.user.encode()).decode()
        return authorization == basic or authorization.startswith("AWS4-HMAC-SHA256 Credential=me/")


def handler(dav: WebDav) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not dav.knows(self.headers.get("Authorization", "")):
                self.answer(401)
            elif dav.broken:
                self.answer(503)
            else:
                self.answer(*getattr(self, self.command.lower())(body))

        do_GET = do_PUT = do_DELETE = do_MKCOL = do_PROPFIND = handle_one

        def get(self, body: bytes) -> tuple[int, bytes]:
            return (200, dav.files[self.path]) if self.path in dav.files else (404, b"")

        def put(self, body: bytes) -> tuple[int, bytes]:
            dav.files[self.path] = body
            return 201, b""

        def delete(self, body: bytes) -> tuple[int, bytes]:
            return (204, b"") if dav.files.pop(self.path, None) is not None else (404, b"")

        def mkcol(self, body: bytes) -> tuple[int, bytes]:
            dav.folders.add(self.path)
            return 201, b""

        def propfind(self, body: bytes) -> tuple[int, bytes]:
            if self.path not in dav.folders:
                return 404, b""
            return 207, (
                f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>{self.path}</D:href>'
                "<D:propstat><D:prop><D:getlastmodified>Wed, 01 May 2024 06:39:47 GMT</D:getlastmodified>"
                "<D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status>"
                "</D:propstat></D:response></D:multistatus>"
            ).encode()

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            return

    return Handler


@pytest.fixture
def webdav(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebDav]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # OpenDAL heeds the proxy of the machine
    dav = WebDav()
    with served(handler(dav)) as url:
        dav.port = int(url.rpartition(":")[2])
        yield dav


AWS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.fixture(params=["file", "fs", "memory", "webdav", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "file":
        return open_remote((tmp_path / "shared folder").as_uri(), {})
    if request.param in ("webdav", "s3"):
        server: WebDav = request.getfixturevalue("webdav")
        return open_remote(server.url if request.param == "webdav" else server.s3_url, AWS)
    options = {"root": str(tmp_path)} if request.param == "fs" else {}
    return OpenDalRemote("test://", opendal.Operator(request.param, **options))


def test_what_was_written_is_read(remote: Remote) -> None:
    big = bytes(range(256)) * 40_000  # more than a piece
    assert remote.read("ab/c") is None
    remote.write("ab/c", b"one")
    remote.write("ab/c", big)
    remote.write("ab/empty", b"")
    assert remote.read("ab/c") == big
    assert remote.read("ab/empty") == b""
    remote.delete("ab/c")
    remote.delete("ab/c")
    assert remote.read("ab/c") is None


def test_a_store_that_works_passes_its_check(remote: Remote) -> None:
    assert check_remote(remote, 30).startswith(f"{remote.name}: wrote, read and deleted a probe in ")


def test_two_caches_share_a_store(remote: Remote, tmp_path: Path) -> None:
    warnings: list[str] = []
    first, second = (
        StepCache(tmp_path / name, limit_bytes=2**20, remote=remote, secret=b"s", warn=warnings.append)
        for name in ("one", "two")
    )
    first.put("a" * 64, {"cubin": b"machine code"})
    first.close()
    assert second.get("b" * 64) is None
    assert second.get("a" * 64) == {"cubin": b"machine code"}
    assert second.stats.hits_remote == 1
    assert warnings == []


def test_a_shared_folder_is_made_when_something_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    remote = open_remote(f"file://{folder}", {})
    assert remote.name == f"file://{folder}"
    assert remote.read("ab/c") is None
    assert not folder.exists()
    remote.write("ab/c", b"one")
    assert (folder / "ab" / "c").read_bytes() == b"one"


@pytest.mark.parametrize("url", ["file://", "file:///", "file://host/share", "file://relative"])
def test_a_shared_folder_is_an_absolute_path(url: str) -> None:
    with pytest.raises(RequestError, match="absolute"):
        open_remote(url, {})


def test_the_password_goes_to_the_server_and_nowhere_else(webdav: WebDav) -> None:
    remote = open_remote(webdav.url, {})
    remote.write("ab/c", b"one")
    assert webdav.files == {"/cache/ab/c": b"one"}
    assert remote.name == f"webdav://127.0.0.1:{webdav.port}/cache"
    webdav.user = "other:password"
    with pytest.raises(HostError) as caught:
        check_remote(remote, 30)
    assert remote.name in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_user_and_password_come_from_the_environment(webdav: WebDav) -> None:
    environ = {"ATTNFORGE_STORE_USER": "me", "ATTNFORGE_STORE_PASSWORD": "hunter2"}
    check_remote(open_remote(f"webdav://127.0.0.1:{webdav.port}", environ), 30)


def test_a_server_error_is_a_failure_and_not_a_miss(webdav: WebDav) -> None:
    remote = open_remote(webdav.url, {})
    webdav.broken = True
    with pytest.raises(StoreError) as reading:
        remote.read("ab/c")
    with pytest.raises(StoreError) as writing:
        remote.write("ab/c", b"")
    for text in (str(reading.value), str(writing.value)):
        assert "\n" not in text
        assert "hunter2" not in text


@pytest.mark.parametrize("scheme", ["redis", "webdav"])
def test_no_error_of_a_store_that_is_down_shows_its_password(scheme: str, tmp_path: Path) -> None:
    remote = open_remote(f"{scheme}://me:hunter2@127.0.0.1:1/0", {})
    with pytest.raises(HostError) as caught:
        check_remote(remote, 0.5)
    assert f"{scheme}://127.0.0.1:1/0" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "ATTNFORGE_STORE_PASSWORD" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/prefix?region=eu&endpoint=http://127.0.0.1:1",
        "s3://bucket?region=eu&anonymous=true&virtual_host=true",
        "gs://bucket/prefix",
        "azblob://container?account=name",
        "redis://host:1/3",
        "rediss://host",
        "webdavs://host/path",
    ],
)
def test_opendal_takes_the_options_of_each_service(url: str) -> None:
    assert open_remote(url, {}).name == url.partition("?")[0]


def test_what_opendal_refuses_is_a_request_error() -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "hunter2", "AZURE_STORAGE_KEY": "hunter2 is not base64"}
    with pytest.raises(RequestError, match="azblob://box can't be opened") as caught:
        open_remote("azblob://box?account=name", environ)
    assert "hunter2" not in str(caught.value)


def test_without_opendal_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("opendal"):
            raise ImportError(f"No module named {name}")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(HostError, match="without OpenDAL") as caught:
        open_remote("webdav://me:hunter2@host/x", {})
    assert "pip install" in caught.value.hint
    assert "hunter2" not in str(caught.value)
    assert isinstance(open_remote(f"file://{tmp_path}", {}), FolderRemote)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_store_that_fails_does_not_pass_its_check(operation: str) -> None:
    with pytest.raises(HostError, match="refused") as caught:
        check_remote(MemoryRemote(failing(operation)), 30)
    assert "hunter2" not in str(caught.value)


def test_a_store_that_hangs_does_not_pass_its_check() -> None:
    with hanging("read") as before, pytest.raises(HostError, match="no answer within 0.05 s"):
        check_remote(MemoryRemote(before), 0.05)


def test_a_store_that_forgets_does_not_pass_its_check() -> None:
    remote = MemoryRemote()
    remote.before = lambda operation, path: remote.blobs.clear() if operation == "read" else None
    with pytest.raises(HostError, match="does not return"):
        check_remote(remote, 30)


def test_a_store_that_deletes_nothing_passes() -> None:
    assert "could not delete a probe" in check_remote(MemoryRemote(failing("delete")), 30)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Unexpected (temporary) at read => send http request\n\nContext:\n   url: http://h?sig=s3cret\n\n"
            "Source:\n   connection refused\n\nBacktrace:\n   0: x",
            "Unexpected: send http request: connection refused",
        ),
        (
            "NotFound (permanent) at read, context: { url: http://h?sig=s3cret } => gone, source: x",
            "NotFound: gone, source: x",
        ),
        ("Unexpected (permanent) at write => key s3cret and a%2Fb is bad", "Unexpected: key *** and *** is bad"),
        ("words", "words"),
    ],
)
def test_an_error_of_opendal_becomes_one_line(text: str, line: str) -> None:
    assert summary(text, ["s3cret", "a/b"]) == line
