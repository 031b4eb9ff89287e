"""Files and folders: replaced whole or not at all; digests; what a disk refuses."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from attnforge.errors import HostError
from attnforge.files import (
    UNFINISHED,
    disk_errors,
    existing,
    file_sha256,
    free_bytes,
    known_sha256,
    replacing,
    replacing_folder,
    text_sha256,
    unfinished,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_and_nothing_left_beside(tmp_path: Path) -> None:
    write_whole(tmp_path / "in" / "a.json", "one")
    write_whole(tmp_path / "in" / "a.json", b"two")
    assert names(tmp_path / "in") == ["a.json"]
    assert (tmp_path / "in" / "a.json").read_text() == "two"


def test_a_name_of_the_longest_kind_can_be_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), "long")
    assert names(tmp_path) == ["n" * 255]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as made:
        made.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_may_be_replaced_by_a_link_to_itself(tmp_path: Path) -> None:
    """rename(2) between two links of one file does nothing, and leaves both names."""
    (tmp_path / "a").write_text("same")
    with replacing(tmp_path / "a") as made:
        made.hardlink_to(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_an_unfinished_file_need_not_be_written(tmp_path: Path) -> None:
    with unfinished(tmp_path) as made:
        assert made.parent == tmp_path
    assert names(tmp_path) == []


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with replacing_folder(tmp_path / "in" / "folder") as made:
            (made / name).touch()
    assert names(tmp_path / "in") == ["folder"]
    assert names(tmp_path / "in" / "folder") == ["two"]


def test_a_folder_that_fails_half_way_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "folder") as made:
        (made / "half").touch()
        raise RuntimeError
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["old"]


def test_a_digest_that_is_known_is_read_again_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for text in ("one", "three"):
        path.write_text(text)
        assert known_sha256(str(path)) == file_sha256(path) == hashlib.sha256(text.encode()).hexdigest()
        os.utime(path, ns=(1, 1))


def test_the_digest_of_a_text_with_a_file_name_that_is_no_utf_8() -> None:
    assert text_sha256(os.fsdecode(b"\xff")) == hashlib.sha256(b"\xff").hexdigest()


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR],
)
def test_what_the_disk_refuses_is_the_environments_fault(tmp_path: Path, number: int) -> None:
    with pytest.raises(HostError, match=os.strerror(number)) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in caught.value.what
    assert "ATTNFORGE_CACHE" in caught.value.hint


def test_the_file_that_was_refused_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="/there/file") as caught, disk_errors(tmp_path, "hint"):
        raise OSError(errno.ENOSPC, "No space left on device", "/there/file")
    assert caught.value.hint == "hint"


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), disk_errors(tmp_path):
        raise IsADirectoryError(errno.EISDIR, "x")


def test_the_space_for_a_folder_is_that_of_the_nearest_one_that_exists(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert free_bytes(tmp_path / "a" / "b") > 0
    (tmp_path / "link").symlink_to("nothing")
    assert existing(tmp_path / "link" / "b") == tmp_path / "link"


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power there is the old file or the whole new one."""
    steps: list[str] = []
    replace = Path.replace

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("folder" if path == tmp_path else path.read_text())

    def replaced(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_whole(tmp_path / "it", "content")
    assert steps == ["content", "rename", "folder"]
    with replacing(tmp_path / "it", lasting=False) as made:
        made.touch()
    assert steps[3:] == ["rename"]


def test_what_the_disk_does_not_take_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "it").write_text("old")
    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "it", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("it", "old")]


def test_a_copy_that_fails_is_told_by_what_is_written(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/read", None, "/written")
    with pytest.raises(HostError, match=r"^/written can't be written"), disk_errors(tmp_path):
        raise error


def test_the_folder_is_told_of_a_file_that_has_no_name_yet(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", f"/folder/{UNFINISHED}1234")
    with pytest.raises(HostError, match=r"^/folder can't be written"), disk_errors(tmp_path):
        raise error
