"""Source releases, found through unearth on indexes that are made on the spot."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from attnforge.errors import HostError, RequestError
from attnforge.files import file_sha256
from attnforge.provision.indexes import IndexSettings, SdistRelease, local_path, offered
from standins.loopback import Handler, served

HASH = "ab" * 32


def index(root: Path, name: str, *anchors: str) -> IndexSettings:
    """Make a simple index of files and return settings that ask it alone."""
    folder = root / "simple" / name
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<html><body>" + "".join(anchors) + "</body></html>")
    return IndexSettings(index_urls=((root / "simple").as_uri(),), keeps_default=False)


def anchor(filename: str, sha256: str = HASH, extra: str = "") -> str:
    return f'<a href="../../files/{filename}#sha256={sha256}" {extra}>{filename}</a>'


def test_releases_are_newest_first_with_what_the_index_states(tmp_path: Path) -> None:
    settings = index(
        tmp_path,
        "flash-attn",
        anchor("flash_attn-2.7.2.post1.tar.gz"),
        anchor("flash_attn-2.10.0.tar.gz", extra='data-requires-python="&gt;=3.99"'),
        anchor("flash_attn-2.8.3.zip", extra='data-yanked="broken"'),
        anchor("flash_attn-2.9.0-cp312-cp312-linux_x86_64.whl"),
    )
    all_of_it = offered("Flash_Attn", settings)
    found = all_of_it.sdists
    assert [release.version for release in found] == ["2.10.0", "2.8.3", "2.7.2.post1"]
    assert [release.yanked for release in found] == [False, True, False]
    assert {release.sha256 for release in found} == {HASH}
    assert all_of_it.newest == "2.10.0"
    assert found[0].requires_python == ">=3.99"
    assert found[0].filename == "flash_attn-2.10.0.tar.gz"
    assert "#" not in found[0].url


def test_a_folder_of_archives_works_without_any_index(tmp_path: Path) -> None:
    archive = tmp_path / "with space é" / "thing-1.0.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"content")
    settings = IndexSettings(find_links=(str(archive.parent),), keeps_default=False)
    (release,) = offered("thing", settings).sdists
    assert release.sha256 == hashlib.sha256(b"content").hexdigest()
    assert Path(local_path(release.url)) == archive


def test_a_missing_folder_is_passed_over(tmp_path: Path) -> None:
    settings = index(tmp_path, "thing", anchor("thing-1.0.tar.gz"))
    both = IndexSettings(index_urls=settings.index_urls, find_links=(str(tmp_path / "none"),), keeps_default=False)
    assert len(offered("thing", both).sdists) == 1


def test_an_unknown_name_comes_with_suggestions(tmp_path: Path) -> None:
    settings = index(tmp_path, "flash-attn", anchor("flash_attn-1.0.tar.gz"))
    with pytest.raises(RequestError, match="flash-atn") as caught:
        offered("flash-atn", settings, ("flash-attn",))
    assert "did you mean flash-attn?" in caught.value.hint


@pytest.mark.parametrize(
    ("wheels", "newest"),
    [
        ([anchor("thing-0.50.2-py3-none-manylinux_2_24_x86_64.whl")], "0.50.2"),
        ([anchor("thing-0.41-py3-none-any.whl")], "0.42.0"),
        ([anchor("thing-0.50.2-py3-none-any.whl", extra='data-yanked=""')], "0.42.0"),
        ([anchor("thing-0.51.0rc1-py3-none-any.whl"), anchor("thing-0.50.2-py3-none-any.whl")], "0.50.2"),
    ],
)
def test_the_newest_release_is_known_whatever_files_it_has(tmp_path: Path, wheels: list[str], newest: str) -> None:
    found = offered("thing", index(tmp_path, "thing", anchor("thing-0.42.0.tar.gz"), *wheels))
    assert found.newest == newest
    assert len(found.wheels) == len(wheels)
    assert [one.version for one in found.sdists] == ["0.42.0"]


def test_only_wheels_is_another_error(tmp_path: Path) -> None:
    settings = index(tmp_path, "thing", anchor("thing-1.0-py3-none-any.whl"))
    with pytest.raises(RequestError, match="no source archive"):
        offered("thing", settings)


def test_no_index_and_no_folder_asks_nobody() -> None:
    with pytest.raises(RequestError):
        offered("thing", IndexSettings(keeps_default=False))


def test_a_refused_connection_is_the_environments_fault() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}/simple"
        with pytest.raises(HostError) as caught:
            offered("thing", IndexSettings(index_urls=(url,), keeps_default=False, timeout=5))
    assert "PIP_INDEX_URL" in caught.value.hint
    assert "secret" not in str(caught.value)


@contextmanager
def server(status: int) -> Iterator[str]:
    class Answers(Handler[None]):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

    with served(partial(Answers, None)) as url:
        yield f"{url.replace('://', '://user:secret@')}/simple"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, RequestError), (403, HostError), (500, HostError), (503, HostError)]
)
def test_an_index_that_fails_is_told_from_one_that_lacks_the_package(
    status: int, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with server(status) as url, pytest.raises(kind) as caught:
        offered("thing", IndexSettings(index_urls=(url,), keeps_default=False))
    assert "secret" not in str(caught.value)


def test_unearths_logger_is_left_as_it_was(tmp_path: Path) -> None:
    before = list(logging.getLogger("unearth").handlers)
    offered("thing", index(tmp_path, "thing", anchor("thing-1.0.tar.gz")))
    assert logging.getLogger("unearth").handlers == before


def test_a_certificate_file_that_is_not_there(tmp_path: Path) -> None:
    settings = IndexSettings(index_urls=("https://127.0.0.1:9/simple",), keeps_default=False, cert=str(tmp_path / "no"))
    with pytest.raises(HostError, match="certificates") as caught:
        offered("thing", settings)
    assert "PIP_CERT" in caught.value.hint


def test_a_release_does_not_show_its_url() -> None:
    release = SdistRelease("1.0", "a-1.0.tar.gz", "https://u:secret@a.test/a-1.0.tar.gz", HASH, "", False)
    assert "secret" not in repr(release)


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(("place", "path"), [("file:///a%20b/c", "/a b/c"), ("/a b", "/a b"), ("file:///%C3%A9", "/é")])
def test_local_path(place: str, path: str) -> None:
    assert local_path(place) == path
