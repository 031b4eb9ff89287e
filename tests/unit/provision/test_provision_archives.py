"""Archives, safe and malicious, made on the spot."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import HostError, RequestError
from attnforge.provision import archives
from attnforge.provision.archives import read_files, unpack

MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
ALL = [*MODES, ".zip"]


def make(path: Path, files: dict[str, bytes], executable: frozenset[str] = frozenset()) -> Path:
    """Make an archive of the kind that its name tells."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in files.items():
                info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
                info.external_attr = (stat.S_IFREG | (0o755 if name in executable else 0o644)) << 16
                bundle.writestr(info, content)
        return path
    mode = next(mode for suffix, mode in MODES.items() if path.name.endswith(suffix))
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            tar.addfile(
                member(name, size=len(content), mode=0o755 if name in executable else 0o644), io.BytesIO(content)
            )
    return path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode, info.mtime = kind, target, size, mode, 1_600_000_000
    return info


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for info in members:
            bundle.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ALL)
def test_every_kind(tmp_path: Path, suffix: str) -> None:
    archive = make(
        tmp_path / f"a-1.0{suffix}", {"a-1.0/setup.py": b"1", "a-1.0/x/run.sh": b"2"}, frozenset({"a-1.0/x/run.sh"})
    )
    top = unpack(archive, tmp_path / "out é")
    assert top == tmp_path / "out é" / "a-1.0"
    assert contents(top) == {"setup.py": b"1", "x/run.sh": b"2"}
    assert stat.S_IMODE((top / "setup.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((top / "x/run.sh").stat().st_mode) == 0o755


def test_what_was_there_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    out = tmp_path / "room" / "out"
    unpack(make(tmp_path / "a.tar.gz", {"a/old": b""}), out)
    unpack(make(tmp_path / "b.tar.gz", {"b/new": b""}), out)
    assert contents(out) == {"b/new": b""}
    assert list(out.parent.iterdir()) == [out]


def test_without_a_single_top_folder_the_folder_itself_is_returned(tmp_path: Path) -> None:
    assert unpack(make(tmp_path / "a.zip", {"setup.py": b"", "x/y": b""}), tmp_path / "out") == tmp_path / "out"


def test_links_inside_stay(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tar.gz",
        member("a/real/file", size=3),
        member("a/x/link", tarfile.SYMTYPE, "../real/file"),
        member("a/x/folder", tarfile.SYMTYPE, "../real"),
        member("a/hard", tarfile.LNKTYPE, "a/real/file"),
        member("./a/dotted", size=1),
    )
    top = unpack(archive, tmp_path / "out")
    assert (top / "x" / "link").readlink() == Path("../real/file")
    assert (top / "x/folder/file").read_bytes() == (top / "hard").read_bytes() == b"xxx"
    assert (top / "dotted").is_file()


def test_a_later_member_replaces_an_earlier_one(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tar.gz", member("a/f", tarfile.SYMTYPE, "g"), member("a/f", size=2), member("a/g", size=1)
    )
    top = unpack(archive, tmp_path / "out")
    assert not (top / "f").is_symlink()
    assert contents(top) == {"f": b"xx", "g": b"x"}


@pytest.mark.parametrize(
    ("written", "kept"), [(0, 315_619_200), (1.6e9, 1_600_000_000), (-5, 315_619_200), (1e18, 4_102_444_800)]
)
def test_times_are_the_archives_within_what_a_wheel_can_say(tmp_path: Path, written: float, kept: int) -> None:
    info = member("a/f")
    info.mtime = written
    top = unpack(tar_of(tmp_path / "a.tar.gz", info, member("a/g")), tmp_path / "out")
    assert (top / "f").stat().st_mtime == kept


LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
MALICIOUS = {
    "absolute": [member("/tmp/attnforge-evil", size=1)],
    "parent": [member("../evil", size=1)],
    "parent inside": [member("a/../../evil", size=1)],
    "parent that stays": [member("a/../a/evil", size=1)],
    "absolute link": [member("a/l", LINK, "/etc/passwd")],
    "link that leaves": [member("a/l", LINK, "../../evil")],
    "link to the top's parent": [member("l", LINK, "..")],
    "empty link": [member("a/l", LINK, "")],
    "link that climbs later": [member("a/b/d", LINK, ".."), member("a/l", LINK, "b/d/../../../evil")],
    "through a link": [member("a/l", LINK, "b"), member("a/l/evil", size=1)],
    "through a link to a folder": [member("a/b/f", size=1), member("a/l", LINK, "b"), member("a/l/evil", size=1)],
    "folder over a link to one": [member("a/b/f", size=1), member("a/l", LINK, "b"), member("a/l", tarfile.DIRTYPE)],
    "folder through a link": [member("a/l", LINK, "b"), member("a/l/c", tarfile.DIRTYPE)],
    "link and folder of one name": [member("a/l", LINK, "b"), member("a/l", tarfile.DIRTYPE)],
    "folder then link": [member("a/l/f", size=1), member("a/l", LINK, "b")],
    "file then folder": [member("a/f", size=1), member("a/f/g", size=1)],
    "hard link outside": [member("a/h", HARD, "/etc/passwd")],
    "hard link that climbs": [member("a/h", HARD, "../etc/passwd")],
    "hard link to a link": [member("a/l", LINK, "b"), member("a/h", HARD, "a/l")],
    "hard link to nothing": [member("a/h", HARD, "a/none")],
    "pipe": [member("a/p", tarfile.FIFOTYPE)],
    "character device": [member("a/c", tarfile.CHRTYPE)],
    "block device": [member("a/b", tarfile.BLKTYPE)],
    "too long a name": [member("a/" + "n" * 300, size=1)],
    "nothing": [],
}


@pytest.mark.parametrize("members", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_malicious_tars_are_refused_and_leave_nothing(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    room = tmp_path / "room"
    archive = tar_of(tmp_path / "bad.tar.gz", *members)
    with pytest.raises(RequestError, match=r"bad\.tar\.gz") as caught:
        unpack(archive, room / "out")
    assert caught.value.why
    assert list(room.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"room", "bad.tar.gz"}


@pytest.mark.parametrize(
    ("name", "mode", "content"),
    [
        ("/etc/evil", stat.S_IFREG, b""),
        ("../evil", stat.S_IFREG, b""),
        ("a/link", stat.S_IFLNK, b"/etc/passwd"),
        ("a/link", stat.S_IFLNK, b"../../etc/passwd"),
        ("a/pipe", stat.S_IFIFO, b""),
        ("a/device", stat.S_IFBLK, b""),
    ],
)
def test_malicious_zips_are_refused(tmp_path: Path, name: str, mode: int, content: bytes) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        bundle.writestr(info, content)
    with pytest.raises(RequestError, match=r"bad\.zip"):
        unpack(archive, tmp_path / "room" / "out")
    assert list((tmp_path / "room").iterdir()) == []


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        info = zipfile.ZipInfo("a/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(info, "file")
        bundle.writestr("a/file", "content")
    assert (unpack(archive, tmp_path / "out") / "link").read_text() == "content"


def test_a_zip_without_a_date(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"a/f": b""})
    data = archive.read_bytes().replace(b"\x21\x50", b"\x00\x00")  # 2020-01-01 as zip writes it
    assert data != archive.read_bytes()
    archive.write_bytes(data)
    assert contents(unpack(archive, tmp_path / "out")) == {"f": b""}


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    files = {f"a/{number}": os.urandom(3000) for number in range(20)}
    archive = make(tmp_path / f"a{suffix}", files)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    if suffix == ".tar" and share == 0.95:  # only the zeros after the end are cut
        archive.write_bytes(data[: 20 * (512 + 3072) - 100])
    with pytest.raises(RequestError, match="a\\" + suffix):
        unpack(archive, tmp_path / "room" / "out")
    assert list((tmp_path / "room").iterdir()) == []


@pytest.mark.parametrize("at", [512, 600, 3584, 3600, 7168, 7300])
def test_a_plain_tar_that_is_cut_anywhere(tmp_path: Path, at: int) -> None:
    archive = make(tmp_path / "a.tar", {f"a/{number}": b"x" * 3000 for number in range(3)})
    archive.write_bytes(archive.read_bytes()[:at])
    with pytest.raises(RequestError):
        unpack(archive, tmp_path / "out")


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.tar", {f"a/{number}": b"x" * 500 for number in range(3)})
    data = bytearray(archive.read_bytes())
    data[1024 + 5] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(RequestError, match="refused"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not an archive", gzip.compress(b"no tar inside", mtime=0)])
@pytest.mark.parametrize("suffix", ALL)
def test_other_content(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(RequestError):
        unpack(tmp_path / f"a{suffix}", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.rar", "a.7z", "a.gz", "a"])
def test_other_kinds(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RequestError, match="not a source archive") as caught:
        unpack(tmp_path / name, tmp_path / "out")
    assert ".tar.gz" in caught.value.hint


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="can't be read"):
        unpack(tmp_path / "none.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 999), ("MAX_MEMBERS", 1)])
def test_too_large(tmp_path: Path, suffix: str, limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, limit, value)
    archive = make(tmp_path / f"a{suffix}", {"a/1": b"x" * 500, "a/2": b"x" * 500})
    with pytest.raises(RequestError, match="refused") as caught:
        unpack(archive, tmp_path / "out")
    assert f"{value:,}" in caught.value.why


def test_a_claimed_size_is_believed_before_it_is_written(tmp_path: Path) -> None:
    """A few hundred bytes of gzip that say 30 GB: refused by the header alone."""
    header = member("a/bomb", size=30 * 10**9).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header))
    with pytest.raises(RequestError) as caught:
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert "20,000,000,000 bytes" in caught.value.why


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_is_not_read_whatever_its_size(tmp_path: Path, kind: bytes) -> None:
    """tarfile would read 30 GB of zeros, which gzip packs into 30 MB, into memory."""
    header = member("a/bomb", kind, size=30 * 10**9).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header))
    for read in (lambda path: unpack(path, tmp_path / "out"), lambda path: read_files(path, ["setup.py"])):
        with pytest.raises(RequestError) as caught:
            read(tmp_path / "a.tar.gz")
        assert "a header of it has 30,000,000,000 bytes" in caught.value.why


def test_a_chain_of_long_links_does_not_lead_out(tmp_path: Path) -> None:
    """CVE-2025-4517: with it tarfile's data filter writes beside the folder before Python 3.11.13."""
    long, steps, path, members = "d" * 247, "abcdefghijklmnop", "", []
    for step in steps:
        members += [member(f"{path}{long}", tarfile.DIRTYPE), member(f"{path}{step}", LINK, long)]
        path += f"{long}/"
    climbing = f"{'/'.join(steps)}/{'l' * 254}"
    members += [member(climbing, LINK, "../" * len(steps)), member("escape", LINK, f"{climbing}/../")]
    archive = tar_of(tmp_path / "a.tar.gz", *members, member("escape/written", size=1))
    with pytest.raises(RequestError, match="refused"):
        unpack(archive, tmp_path / "room" / "out")
    assert not list(tmp_path.rglob("written"))


def test_a_zip_that_says_another_size_than_it_has(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"a/f": b"content"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 24] += 1  # the size in the directory
    archive.write_bytes(data)
    with pytest.raises(RequestError) as caught:
        unpack(archive, tmp_path / "out")
    assert "7 of 8 bytes" in caught.value.why


def test_a_locked_zip(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"a/f": b"content"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the encryption flag, in the local header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(RequestError, match="refused") as caught:
        unpack(archive, tmp_path / "out")
    assert "encrypted" in caught.value.why


def test_a_full_disk_is_the_environments_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = make(tmp_path / "a.tar.gz", {"a/f": b"content"})
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(HostError, match="No space"):
        unpack(archive, tmp_path / "room" / "out")
    assert list((tmp_path / "room").iterdir()) == []


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."} and not name.endswith("/")
)
TREES = st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=200), min_size=1, max_size=8)


@given(tree=TREES, suffix=st.sampled_from([".tar.gz", ".tar.xz"]))
def test_any_safe_tree_comes_out_as_it_went_in(tree: dict[tuple[str, str], bytes], suffix: str) -> None:
    files = {f"top/d{folder}/f{name}": content for (folder, name), content in tree.items()}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        top = unpack(make(room / f"a{suffix}", files), room / "out")
        assert contents(top) == {key.removeprefix("top/"): content for key, content in files.items()}


@given(data=st.data())
def test_any_damage_is_an_error_or_harmless(data: st.DataObject) -> None:
    """Whatever bytes change: the same files, other files in the folder, or our error; nothing else escapes."""
    suffix = data.draw(st.sampled_from([".tar", ".tar.gz", ".zip"]))
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        archive = make(room / f"a{suffix}", {"a/one": b"1" * 100, "a/two": b"2" * 100})
        content = bytearray(archive.read_bytes())
        for place in data.draw(st.lists(st.integers(0, min(len(content), 2000) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        archive.write_bytes(content)
        try:
            unpack(archive, room / "box" / "out")
        except RequestError:
            assert list((room / "box").iterdir()) == []
        assert {path.name for path in room.iterdir()} == {"box", archive.name}


READERS: list[Callable[[Path], Path]] = [
    lambda path: make(path / "a.tar.gz", {"a/PKG-INFO": b"one", "a/x/PKG-INFO": b"two", "a/setup.py": b"three"}),
    lambda path: make(path / "a.zip", {"a/x/PKG-INFO": b"two", "a/PKG-INFO": b"one", "a/setup.py": b"three"}),
]


@pytest.mark.parametrize("archive", READERS)
def test_read_files_takes_those_of_the_top_folder(tmp_path: Path, archive: Callable[[Path], Path]) -> None:
    assert read_files(archive(tmp_path), ("PKG-INFO", "setup.cfg")) == {"PKG-INFO": "one"}


def test_read_files_is_bounded(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.tar.gz", {"a/setup.py": b"x" * 100})
    assert read_files(archive, ("setup.py",), limit=10) == {"setup.py": "x" * 10}
