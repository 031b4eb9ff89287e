"""The local folder: whole files, the least recently used go, and a bad disk is a warning."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from attnforge.compile.reuse.cache import local
from attnforge.compile.reuse.cache.local import LocalStore
from attnforge.compile.reuse.cache.notices import Notices
from attnforge.files import write_whole


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warnings: list[str]) -> LocalStore:
    return LocalStore(tmp_path / "cache", 250, Notices(warnings.append))


def age(tmp_path: Path, path: str, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(tmp_path / "cache" / path, (then, then))


def test_what_was_written_is_read(store: LocalStore, tmp_path: Path, warnings: list[str]) -> None:
    assert store.read("ab/c") is None
    assert store.write("ab/c", b"one")
    assert store.write("ab/c", b"two")
    assert store.read("ab/c") == b"two"
    assert [path.name for path in (tmp_path / "cache/ab").iterdir()] == ["c"]
    store.discard("ab/c")
    store.discard("ab/c")
    assert store.read("ab/c") is None
    assert warnings == []


def test_the_least_recently_used_go_first(store: LocalStore, tmp_path: Path) -> None:
    for hours, name in enumerate(("aa/new", "bb/used", "cc/old", "dd/oldest"), start=1):
        store.write(name, bytes(100))
        age(tmp_path, name, hours)
    store.read("bb/used")
    store.read("dd/oldest")
    store.trim()
    assert [store.read(name) is not None for name in ("aa/new", "bb/used", "cc/old", "dd/oldest")] == [
        False,
        True,
        False,
        True,
    ]


def test_nothing_goes_that_fits(store: LocalStore) -> None:
    store.write("aa/a", bytes(125))
    store.write("bb/b", bytes(125))
    store.trim()
    assert store.read("aa/a") and store.read("bb/b")


def test_half_written_files_of_killed_builds_go(store: LocalStore, tmp_path: Path) -> None:
    store.write("aa/a", b"whole")
    for name in (".new-killed", ".new-running"):
        (tmp_path / "cache/aa" / name).write_bytes(bytes(1000))
    age(tmp_path, "aa/.new-killed", 48)
    store.trim()
    assert sorted(path.name for path in (tmp_path / "cache/aa").iterdir()) == [".new-running", "a"]


def test_what_is_not_ours_stays(store: LocalStore, tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "cache/aa/folder").mkdir(parents=True)
    (tmp_path / "cache/notes.txt").write_bytes(bytes(1000))
    store.trim()
    assert (tmp_path / "cache/aa/folder").is_dir()
    assert (tmp_path / "cache/notes.txt").exists()
    assert warnings == []


def test_two_builds_do_not_wait_for_each_other_to_trim(store: LocalStore, tmp_path: Path, warnings: list[str]) -> None:
    store.write("aa/a", bytes(1000))
    with FileLock(tmp_path / "cache/.lock"):
        store.trim()
    assert store.read("aa/a")
    store.trim()
    assert store.read("aa/a") is None
    assert warnings == []


def test_a_folder_that_was_never_written_is_not_made(store: LocalStore, tmp_path: Path) -> None:
    store.trim()
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_one_warning(
    store: LocalStore, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert not store.write("aa/a", b"one")
    assert not store.write("bb/b", b"two")
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
    assert str(tmp_path / "cache") in warnings[0]
    assert list((tmp_path / "cache/aa").iterdir()) == []


def test_a_file_in_the_way_is_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    """As root, who may write into a read-only folder, this is what can be had of an unusable one."""
    (tmp_path / "cache").write_text("a file")
    store = LocalStore(tmp_path / "cache", 100, Notices(warnings.append))
    assert not store.write("aa/a", b"one")
    assert store.read("aa/a") is None
    store.trim()
    assert len(warnings) == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_folder_that_can_not_be_used_is_a_warning(
    code: int, store: LocalStore, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    store.write("aa/a", b"one")
    for name in ("open", "mkdir", "unlink", "glob"):
        monkeypatch.setattr(Path, name, refuse)
    for _ in range(2):
        assert store.read("aa/a") is None
        assert not store.write("aa/a", b"two")
        store.discard("aa/a")
        store.trim()
    assert sorted(text.split("can't be ")[1].split(":")[0] for text in warnings) == ["read", "trimmed", "written"]


def test_a_folder_that_is_only_readable_serves(
    store: LocalStore, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EROFS, "read-only")

    store.write("aa/a", b"one")
    monkeypatch.setattr(os, "utime", refuse)
    assert store.read("aa/a") == b"one"
    assert warnings == []


def test_no_more_is_read_than_an_entry_can_have(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("aa/a", bytes(100))
    monkeypatch.setattr(local, "MAX_ENTRY_BYTES", 10)
    assert len(store.read("aa/a") or b"") == 11


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "aa/a", b"one")
    assert list((tmp_path / "aa").iterdir()) == []
