"""Digests and copies of source folders."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import RequestError
from attnforge.provision.trees import copy_tree, files_sha256, tree_sha256


def grow(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = grow(tmp_path / "tree", {"setup.py": b"1", "src/a.cu": b"2", "src/b.cu": b"3"})
    (folder / "link").symlink_to("src/a.cu")
    return folder


def test_the_format_of_the_digest(tree: Path) -> None:
    """Spelt out, since digests outlive releases: one that changes makes every kept build of a folder a stranger."""
    (tree / "src/b.cu").chmod(0o755)
    one, two, three, target = (hashlib.sha256(text).hexdigest().encode() for text in (b"1", b"2", b"3", b"src/a.cu"))
    lines = [
        b"link\0link " + target,
        b"setup.py\0file " + one,
        b"src/a.cu\0file " + two,
        b"src/b.cu\0program " + three,
    ]
    assert tree_sha256(tree) == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()


def test_the_digest_of_all_files_covers_what_a_build_makes_too(tree: Path) -> None:
    assert files_sha256(tree) == tree_sha256(tree)
    grow(tree, {"build/a.o": b"4"})
    (tree / "empty").mkdir()
    with_build = files_sha256(tree)
    assert with_build != tree_sha256(tree)
    (tree / "build/a.o").chmod(0o755)
    assert files_sha256(tree) != with_build


def test_a_digest_from_the_shell(tmp_path: Path) -> None:
    """printf 'a\\0file %s\\n' $(printf '' | sha256sum | cut -d' ' -f1) | sha256sum."""
    folder = grow(tmp_path / "t", {"a": b""})
    assert tree_sha256(folder) == "3eb07e1e59a7d52e2e85628d8e5be118686a5e9f107153859b9ae1fea2e10ef5"


def relink(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def unlink(link: Path) -> None:
    link.unlink()
    link.write_bytes(b"2")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda tree: (tree / "setup.py").write_bytes(b"x"),
    "name": lambda tree: (tree / "setup.py").rename(tree / "setup2.py"),
    "place": lambda tree: (tree / "src/a.cu").rename(tree / "a.cu"),
    "executable": lambda tree: (tree / "setup.py").chmod(0o755),
    "new file": lambda tree: (tree / "src/new").write_bytes(b""),
    "gone": lambda tree: (tree / "src/b.cu").unlink(),
    "link target": lambda tree: relink(tree / "link", "src/b.cu"),
    "link to file": lambda tree: unlink(tree / "link"),
    "swapped": lambda tree: (tree / "src/a.cu").write_bytes(b"3") and (tree / "src/b.cu").write_bytes(b"2"),
    "a nested build folder": lambda tree: grow(tree, {"src/build/x": b""}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changes_that_count(tree: Path, change: Callable[[Path], object]) -> None:
    before = tree_sha256(tree)
    change(tree)
    assert tree_sha256(tree) != before


HARMLESS: dict[str, Callable[[Path], object]] = {
    "time": lambda tree: os.utime(tree / "setup.py", (1, 1)),
    "group bits": lambda tree: (tree / "setup.py").chmod(0o664),
    "empty folder": lambda tree: (tree / "empty").mkdir(),
    "git": lambda tree: grow(tree, {".git/HEAD": b"x", "src/.git/HEAD": b"y"}),
    "git file of a submodule": lambda tree: grow(tree, {"src/.git": b"gitdir: x"}),
    "build": lambda tree: grow(tree, {"build/x.o": b"x", "dist/x.whl": b"y"}),
    "caches": lambda tree: grow(tree, {"src/__pycache__/a.pyc": b"x", "a.egg-info/PKG-INFO": b"y"}),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_changes_that_do_not_count(tree: Path, change: Callable[[Path], object]) -> None:
    before = tree_sha256(tree)
    change(tree)
    assert tree_sha256(tree) == before


def test_a_link_is_not_followed(tree: Path) -> None:
    (tree / "loop").symlink_to(".")
    (tree / "dangling").symlink_to("nowhere")
    assert tree_sha256(tree)


def test_a_pipe_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(RequestError, match="pipe"):
        tree_sha256(tree)


def test_a_copy_has_the_digest_of_its_original(tree: Path, tmp_path: Path) -> None:
    grow(tree, {".git/HEAD": b"x", "build/old.o": b"x"})
    (tree / "setup.py").chmod(0o555)
    copy = copy_tree(tree, tmp_path / "room é" / "copy")
    assert tree_sha256(copy) == tree_sha256(tree)
    assert (copy / "link").readlink() == Path("src/a.cu")
    assert not (copy / ".git").exists()
    assert not (copy / "build").exists()
    assert os.access(copy / "setup.py", os.W_OK)
    assert (copy / "setup.py").stat().st_mode & 0o200


def test_a_copy_replaces_what_was_there(tree: Path, tmp_path: Path) -> None:
    grow(tmp_path / "copy", {"old": b""})
    copy_tree(tree, tmp_path / "copy")
    assert not (tmp_path / "copy" / "old").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "copy"}


def test_writing_into_the_copy_leaves_the_original(tree: Path, tmp_path: Path) -> None:
    before = tree_sha256(tree)
    (copy_tree(tree, tmp_path / "copy") / "setup.py").write_bytes(b"changed")
    assert tree_sha256(tree) == before


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "src/../../outside"])
def test_links_that_leave_are_refused(tree: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_bytes(b"")
    (tree / "evil").symlink_to(target)
    with pytest.raises(RequestError, match="evil"):
        copy_tree(tree, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "outside"}


FILES = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=6).filter(lambda name: name not in {".", ".."}),
    st.binary(max_size=20),
    max_size=6,
)


@given(files=FILES, data=st.data())
def test_order_of_creation_does_not_count(files: dict[str, bytes], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(files.items()))))
    with tempfile.TemporaryDirectory() as name:
        one, two = Path(name) / "one", Path(name) / "two"
        one.mkdir()
        two.mkdir()
        assert tree_sha256(grow(one, files)) == tree_sha256(grow(two, shuffled))
        shutil.rmtree(two)


@given(one=FILES, two=FILES)
def test_other_files_other_digest(one: dict[str, bytes], two: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "one", Path(name) / "two"
        first.mkdir()
        second.mkdir()
        assert (tree_sha256(grow(first, one)) == tree_sha256(grow(second, two))) == (one == two)
