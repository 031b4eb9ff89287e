"""Sources: fetched by hash, and local ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from attnforge.errors import HostError, RequestError
from attnforge.paths import Folders
from attnforge.provision.indexes import IndexSettings, SdistRelease
from attnforge.provision.source import fetch_sdist, open_local
from attnforge.provision.trees import tree_sha256
from standins.loopback import Handler, served

CONTENT = b"an archive"
HASH = hashlib.sha256(CONTENT).hexdigest()
OFFLINE = IndexSettings(keeps_default=False)


class Index:
    """An index that holds one release and counts how often it is asked."""

    def __init__(self, url: str, sha256: str = HASH, version: str = "1.0") -> None:
        self.release = SdistRelease(version, "thing-1.0.tar.gz", url, sha256, "", False)
        self.asked = 0

    def __call__(self, name: str, settings: IndexSettings) -> tuple[SdistRelease, ...]:
        self.asked += 1
        return (self.release,)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache é")


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "files é" / "thing-1.0.tar.gz"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path.as_uri()


def kept(folders: Folders) -> list[str]:
    return sorted(path.name for path in folders.sources.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_fetched_once_and_kept_by_hash(folders: Folders, url: str) -> None:
    index = Index(url)
    path = fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, index)
    assert path == folders.sources / HASH / "thing-1.0.tar.gz"
    assert path.read_bytes() == CONTENT
    assert fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, index) == path
    assert index.asked == 1


def test_a_kept_file_that_was_changed_is_fetched_again(folders: Folders, url: str) -> None:
    index = Index(url)
    path = fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, index)
    path.write_bytes(b"tampered")
    assert fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, index).read_bytes() == CONTENT
    assert index.asked == 2


@pytest.mark.parametrize("stated", ["0" * 64, "", HASH])
def test_another_hash_than_asked_is_refused_and_not_kept(folders: Folders, url: str, stated: str) -> None:
    wanted = "1" * 64
    with pytest.raises(HostError, match="refused") as caught:
        fetch_sdist("thing", "1.0", wanted, folders, OFFLINE, Index(url, stated))
    assert wanted in caught.value.why
    assert (stated or HASH) in caught.value.why
    assert not folders.sources.exists() or kept(folders) == []


def test_an_index_that_lies_about_its_file_is_refused(folders: Folders, url: str) -> None:
    with pytest.raises(HostError, match="refused"):
        fetch_sdist("thing", "1.0", "", folders, OFFLINE, Index(url, "2" * 64))
    assert kept(folders) == []


def test_no_hash_known_anywhere(folders: Folders, url: str) -> None:
    path = fetch_sdist("thing", "1.0", "", folders, OFFLINE, Index(url, ""))
    assert path == folders.sources / HASH / "thing-1.0.tar.gz"


@pytest.mark.parametrize("asked", ["1.0", "1.0.0", "v1.0"])
def test_versions_are_compared_as_versions(folders: Folders, url: str, asked: str) -> None:
    assert fetch_sdist("thing", asked, HASH, folders, OFFLINE, Index(url)).is_file()


def test_a_version_that_is_not_there(folders: Folders, url: str) -> None:
    with pytest.raises(RequestError, match=r"thing 9\.9") as caught:
        fetch_sdist("thing", "9.9", HASH, folders, OFFLINE, Index(url))
    assert "1.0" in caught.value.hint


def test_a_file_name_can_not_leave_the_folder(folders: Folders, url: str) -> None:
    index = Index(url)
    index.release = SdistRelease("1.0", "../../evil.tar.gz", url, HASH, "", False)
    path = fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, index)
    assert path == folders.sources / HASH / "evil.tar.gz"


@contextmanager
def server(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """Serve the content, or cut the connection for status 0; notes what was asked for."""
    answers = list(statuses)
    asked: list[str] = []

    class Answers(Handler[None]):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Accept-Encoding", ""))
            status = answers.pop(0)
            self.send_response(status or 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if status == 200 else CONTENT[:3])

    with served(partial(Answers, None)) as url:
        yield f"{url}/thing-1.0.tar.gz", asked


def test_a_broken_connection_is_tried_again(folders: Folders) -> None:
    with server(0, 200) as (url, asked):
        path = fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, Index(url))
    assert path.read_bytes() == CONTENT
    assert asked == ["identity", "identity"]


def test_a_network_that_stays_broken_is_the_environments_fault(folders: Folders) -> None:
    with server(0, 0, 0) as (url, _), pytest.raises(HostError, match="could not be downloaded"):
        fetch_sdist("thing", "1.0", HASH, folders, OFFLINE, Index(url))
    assert kept(folders) == []


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return path


def test_open_folder(tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text("setup(name='a', version='1.0')")
    source = open_local(tmp_path)
    assert (source.kind, source.path, source.name, source.version) == ("folder", tmp_path, "a", "1.0")
    assert source.sha256 == tree_sha256(tmp_path)


def test_open_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar.gz", {"a-1.0/PKG-INFO": b"Name: a\nVersion: 1.0\n\n"})
    source = open_local(path)
    assert (source.kind, source.name, source.version) == ("archive", "a", "1.0")
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [("flash_attn-2.8.3.tar.gz", "flash_attn", "2.8.3"), ("a-b-1.0.TAR.GZ", "a-b", "1.0"), ("main.tar.gz", "", "")],
)
def test_the_file_name_tells_where_nothing_else_does(tmp_path: Path, filename: str, name: str, version: str) -> None:
    source = open_local(archive(tmp_path / filename, {"a/setup.py": b"setup(**x)"}))
    assert (source.name, source.version) == (name, version)


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a-1.0-py3-none-any.whl").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    (tmp_path / "broken.tar.gz").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for name, says in {
        "a-1.0-py3-none-any.whl": "is a wheel",
        "notes.txt": "not a source archive",
        "broken.tar.gz": "refused",
        "folder": "neither setup.py nor pyproject.toml",
        "none": "does not exist",
    }.items():
        with pytest.raises(RequestError, match=says) as caught:
            open_local(tmp_path / name)
        assert caught.value.hint
