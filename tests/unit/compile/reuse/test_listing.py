from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.compile.reuse.listing import include_folders, listing_digest


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("-I/a -I b -I./c/../d", ["/a", "/w/b", "/w/d"]),
        ("-isystem /a -isystem/b -iquote c -idirafter /d", ["/a", "/b", "/w/c", "/d"]),
        ("--include-path /a --include-path=/b --system-include /c", ["/a", "/b", "/c"]),
        ("-Xcompiler -I/a -Xcompiler=-isystem,/b --compiler-options -fPIC,-I/c", ["/a", "/b", "/c"]),
        ("-I/a -I/a/", ["/a"]),
        ("-c x.cu -include /a/b.h -O3 -DI=/x", []),
        ("-I", ["/w"]),
    ],
)
def test_the_folders_of_a_command(argv: str, found: list[str]) -> None:
    assert include_folders(argv.split(), (), "/w") == tuple(found)


def test_the_folders_of_variables() -> None:
    assert include_folders(["-I/a"], ["/b:c", ":/d"], "/w") == ("/a", "/b", "/w/c", "/w", "/d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "include/deep").mkdir(parents=True)
    (tmp_path / "include/a.h").write_text("a")
    (tmp_path / "include/deep/b.h").write_text("b")
    return tmp_path / "include"


def settle(folder: Path) -> None:
    """Make folders look as if nothing had changed for an hour."""
    past = time.time() - 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (past, past))


def add(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")

    return change


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("change", "other"),
    [
        (add("new.h"), True),
        (add("deep/new"), True),
        (add("deeper/new.cuh"), True),
        (lambda folder: (folder / "a.h").unlink(), True),
        (lambda folder: (folder / "a.h").rename(folder / "deep/a.h"), True),
        (lambda folder: (folder / "a.h").write_text("changed"), False),
        (add("a.o"), False),
        (add("deep/x.pyc"), False),
        (add(".ninja_log"), False),
        (add(".git/HEAD"), False),
        (lambda folder: (folder / "empty").mkdir(), False),
    ],
)
def test_a_folder_changes_with_the_names_in_it(
    folder: Path, known: bool, change: Callable[[Path], object], other: bool
) -> None:
    if known:
        settle(folder)
    before = listing_digest(str(folder))
    change(folder)
    assert (listing_digest(str(folder)) != before) == other


def test_folders_with_the_same_names_are_alike(folder: Path) -> None:
    other = folder.with_name("other")
    (other / "deep").mkdir(parents=True)
    (other / "deep/b.h").write_text("x")
    (other / "a.h").write_text("y")
    assert listing_digest(str(other)) == listing_digest(str(folder))


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    empty = listing_digest(str(tmp_path / "empty"))
    assert listing_digest(str(tmp_path / "missing")) == listing_digest(str(tmp_path / "file")) == empty


def test_links_are_followed_and_lead_nowhere_twice(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "deep/round").symlink_to(folder)
    before = listing_digest(str(folder))
    (elsewhere / "new.h").write_text("")
    assert listing_digest(str(folder)) != before


def test_what_is_known_is_not_listed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(folder)
    before = listing_digest(str(folder))
    monkeypatch.setattr(os, "scandir", None)
    assert listing_digest(str(folder)) == before
