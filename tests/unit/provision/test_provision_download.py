"""Downloads by size and hash, from a server of our own that does things wrong on order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.model.events import Downloaded, Downloading, Event
from attnforge.provision.download import Wanted, download
from attnforge.provision.indexes import IndexSettings
from standins.redist import Fault, Server, serve

QUICK = IndexSettings(timeout=0.3)
DATA = {name: bytes([65 + number]) * (50_000 + number) for number, name in enumerate(("one", "two", "three"))}
HINT = "name a mirror"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "root"
    root.mkdir()
    for name, data in DATA.items():
        (root / name).write_bytes(data)
    with serve(root) as told:
        yield told


def wanted(server: Server, *names: str) -> list[Wanted]:
    names = names or tuple(DATA)
    return [
        Wanted(name, f"{server.url}/{name}", len(DATA[name]), hashlib.sha256(DATA[name]).hexdigest()) for name in names
    ]


def fetch(server: Server, folder: Path, *names: str, events: list[Event] | None = None) -> dict[str, bytes]:
    """Download, and return what is there by name."""
    asked = wanted(server, *names)
    observe = events.append if events is not None else (lambda _: None)
    got = download(asked, folder, QUICK, observe, hint=HINT, pause=0.01)
    return {one.name: got[one.sha256].read_bytes() for one in asked}


def ranges(server: Server, name: str) -> list[str]:
    return [asked for path, asked in server.asked if path == f"/{name}"]


def test_all_are_there_and_told_of(server: Server, tmp_path: Path) -> None:
    events: list[Event] = []
    assert fetch(server, tmp_path / "f", events=events) == DATA
    assert sorted(event.name for event in events if isinstance(event, Downloaded)) == sorted(DATA)
    total = sum(map(len, DATA.values()))
    assert events[-1] == Downloading(total, total)
    assert not list((tmp_path / "f").glob("*.part"))


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path / "f")
    server.asked.clear()
    events: list[Event] = []
    assert fetch(server, tmp_path / "f", events=events) == DATA
    assert server.asked == []
    assert all(event.kept_bytes == event.size_bytes for event in events if isinstance(event, Downloaded))


def test_a_kept_file_that_was_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path / "f", "one")
    (kept,) = (path for path in (tmp_path / "f").iterdir() if path.suffix == "")
    kept.write_bytes(b"x" * len(DATA["one"]))
    assert fetch(server, tmp_path / "f", "one") == {"one": DATA["one"]}


def test_a_connection_that_breaks_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.faults["two"] = Fault(cut=20_000, times=2)
    assert fetch(server, tmp_path / "f")["two"] == DATA["two"]
    assert ranges(server, "two") == ["", "bytes=20000-", "bytes=40000-"]


def test_a_server_that_stalls_goes_on_where_it_stalled(server: Server, tmp_path: Path) -> None:
    server.faults["two"] = Fault(cut=30_000, stall=2, times=1)
    assert fetch(server, tmp_path / "f", "two")["two"] == DATA["two"]
    assert ranges(server, "two") == ["", "bytes=30000-"]


def test_what_a_killed_process_left_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (one,) = wanted(server, "one")
    (tmp_path / "f" / f"{one.sha256}.part").write_bytes(DATA["one"][:12_345])
    events: list[Event] = []
    assert fetch(server, tmp_path / "f", "one", events=events) == {"one": DATA["one"]}
    assert ranges(server, "one") == ["bytes=12345-"]
    assert [event.kept_bytes for event in events if isinstance(event, Downloaded)] == [12_345]


@pytest.mark.parametrize("length", [1_000, len(DATA["one"]), len(DATA["one"]) + 5])
def test_a_rest_of_something_else_is_fetched_again_whole(server: Server, tmp_path: Path, length: int) -> None:
    (tmp_path / "f").mkdir()
    (one,) = wanted(server, "one")
    (tmp_path / "f" / f"{one.sha256}.part").write_bytes(b"?" * length)
    assert fetch(server, tmp_path / "f", "one") == {"one": DATA["one"]}


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (one,) = wanted(server, "one")
    (tmp_path / "f" / f"{one.sha256}.part").write_bytes(DATA["one"][:10])
    server.faults["one"] = Fault(ranges=False)
    assert fetch(server, tmp_path / "f", "one") == {"one": DATA["one"]}
    assert ranges(server, "one") == ["bytes=10-", ""]


@pytest.mark.parametrize("ranges_work", [True, False])
def test_one_that_always_ends_early_is_given_up(server: Server, tmp_path: Path, ranges_work: bool) -> None:
    server.faults["one"] = Fault(cut=20_000, ranges=False) if not ranges_work else Fault(status=503)
    with pytest.raises(HostError, match="could not be fetched|ends early") as caught:
        fetch(server, tmp_path / "f")
    assert caught.value.hint == HINT
    assert len(ranges(server, "one")) < 12


def test_a_server_that_is_busy_at_first_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.faults["one"] = Fault(status=503, times=2)
    assert fetch(server, tmp_path / "f") == DATA


@pytest.mark.parametrize("status", [404, 403])
def test_one_that_is_not_there_is_asked_for_once(server: Server, tmp_path: Path, status: int) -> None:
    server.faults["two"] = Fault(status=status)
    with pytest.raises(HostError, match=f"two can't be downloaded: the server answers {status}") as caught:
        fetch(server, tmp_path / "f")
    assert caught.value.hint == HINT
    assert len(ranges(server, "two")) == 1


def test_another_size_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    server.faults["one"] = Fault(other=DATA["two"])  # two archives in each other's place
    with pytest.raises(HostError, match="one is refused: its size is not the pinned one"):
        fetch(server, tmp_path / "f", "one")
    assert len(ranges(server, "one")) == 1


def test_another_content_of_the_same_size_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.faults["one"] = Fault(other=b"!" * len(DATA["one"]))
    with pytest.raises(HostError, match="its SHA-256 is not the pinned one") as caught:
        fetch(server, tmp_path / "f", "one")
    assert hashlib.sha256(b"!" * len(DATA["one"])).hexdigest() in caught.value.why
    assert [path.suffix for path in (tmp_path / "f").iterdir()] == [".lock"]


def test_nobody_listens(tmp_path: Path) -> None:
    one = Wanted("one", "http://127.0.0.1:9/one", 10, "0" * 64)
    with pytest.raises(HostError, match="one could not be fetched") as caught:
        download([one], tmp_path / "f", QUICK, hint=HINT, pause=0.01)
    assert caught.value.hint == HINT


def test_a_folder_serves_as_well(server: Server, tmp_path: Path) -> None:
    one = wanted(server, "one")[0]
    place = str(server.root / "one")
    for url in (place, f"file://{place}"):
        folder = tmp_path / str(hash(url))
        got = download([Wanted("one", url, one.size, one.sha256)], folder, QUICK, hint=HINT)
        assert got[one.sha256].read_bytes() == DATA["one"]
    with pytest.raises(HostError, match="size is not the pinned one"):
        download([Wanted("one", place, one.size + 1, "1" * 64)], tmp_path / "f", QUICK, hint=HINT)
    with pytest.raises(HostError, match="not in the mirror"):
        download([Wanted("one", f"{place}x", one.size, "1" * 64)], tmp_path / "f", QUICK, hint=HINT)
    assert server.asked == []


def test_two_that_want_the_same_file_fetch_it_once(server: Server, tmp_path: Path) -> None:
    results: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(server, tmp_path / "f", "one"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [{"one": DATA["one"]}] * 3
    assert len(ranges(server, "one")) == 1


def test_credentials_of_a_mirror_are_not_shown(server: Server, tmp_path: Path) -> None:
    address = server.url.removeprefix("http://")
    one = Wanted("one", f"http://user:secret@{address}/nothing", 10, "0" * 64)
    with pytest.raises(HostError) as caught:
        download([one], tmp_path / "f", QUICK, hint=HINT)
    assert "secret" not in str(caught.value.why) + caught.value.what
