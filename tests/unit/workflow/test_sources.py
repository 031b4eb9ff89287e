"""Sources of each kind, and which one a request means."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.errors import BuildError, RequestError
from attnforge.files import file_sha256
from attnforge.model.host import Host
from attnforge.model.plan import SourcePin
from attnforge.model.release import Carrier
from attnforge.model.request import Request
from attnforge.provision.source import open_local
from attnforge.workflow import machine as machines
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.kinds import Archive, Carried, Commit, Folder, Located, Sdist, local_source
from attnforge.workflow.sources.locating import locate, named_in
from attnforge.workflow.sources.words import is_path, name_and_version

SETUP = "from setuptools import setup\nsetup(name='small', version='1.0')\n"
COMMIT = "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine without an index or git: what asks for one fails."""
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    environ = {"HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache"), "PATH": "", "PIP_NO_INDEX": "1"}
    return Machine({**environ, "PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1"})


def written(folder: Path, name: str = "small") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "setup.py").write_text(SETUP)
    return folder / name


def packed(path: Path, **files: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as bundle:
        for name, text in files.items():
            info = tarfile.TarInfo(f"small-1.0/{name.replace('__', '/')}.py")
            info.size = len(text)
            bundle.addfile(info, io.BytesIO(text.encode()))
    return path


def kept(machine: Machine, path: Path) -> str:
    """Put an archive where the cache keeps what was fetched; return its hash."""
    sha256 = file_sha256(path)
    place = machine.folders.sources / sha256
    place.mkdir(parents=True)
    path.rename(place / path.name)
    return sha256


# --- each kind


def test_a_folder_is_used_in_place_and_laid_out_as_a_copy(offline: Machine, tmp_path: Path) -> None:
    source = local_source(open_local(written(tmp_path)))
    assert isinstance(source, Folder)
    assert (source.pin.kind, source.place(offline)) == ("folder", tmp_path / "small")
    laid_out = source.lay_out(offline, tmp_path / "copy")
    assert (laid_out.folder / "setup.py").read_text() == SETUP
    assert laid_out.pointers == ()


def test_an_archive_is_unpacked(offline: Machine, tmp_path: Path) -> None:
    source = local_source(open_local(packed(tmp_path / "small-1.0.tar.gz", setup=SETUP)))
    assert isinstance(source, Archive)
    assert source.place(offline) == tmp_path / "small-1.0.tar.gz"
    assert source.lay_out(offline, tmp_path / "copy").folder == tmp_path / "copy" / "small-1.0"


def test_what_changed_since_it_was_pinned_is_refused(offline: Machine, tmp_path: Path) -> None:
    folder = written(tmp_path)
    source = local_source(open_local(folder))
    (folder / "setup.py").write_text(f"{SETUP}# another\n")
    with pytest.raises(BuildError, match="changed after it was planned"):
        source.lay_out(offline, tmp_path / "copy")


def test_an_sdist_in_the_cache_needs_no_index(offline: Machine, tmp_path: Path) -> None:
    sha256 = kept(offline, packed(tmp_path / "small-1.0.tar.gz", setup=SETUP))
    source = Sdist(SourcePin(kind="sdist", name="small-1.0.tar.gz", sha256=sha256), "small", "1.0")
    assert source.place(offline).name == "small-1.0.tar.gz"
    assert (source.lay_out(offline, tmp_path / "copy").folder / "setup.py").read_text() == SETUP


def test_a_carried_source_is_a_folder_of_the_carriers_archive(offline: Machine, tmp_path: Path) -> None:
    sha256 = kept(offline, packed(tmp_path / "small-1.0.tar.gz", setup=SETUP, third__setup=SETUP))
    told = {"distribution": "small", "version": "1.0", "sha256": sha256, "subdirectory": "third"}
    carrier = Carrier.model_validate({**told, "source": "read there", "files": {"third/version.txt": "3"}})
    source = Carried(SourcePin(kind="sdist", name="x", sha256=sha256, subdirectory="third", carrier=carrier), carrier)
    folder = source.lay_out(offline, tmp_path / "copy").folder
    assert folder == tmp_path / "copy" / "small-1.0" / "third"
    assert (folder / "version.txt").read_text() == "3"


# --- which one a request means


def found(machine: Machine, package: str, source: str = "") -> Located:
    return locate(machine, Request(package=package, source=source, gpus=("H100",)))


def test_each_word_for_a_package_has_its_kind_of_source(offline: Machine, tmp_path: Path) -> None:
    folder, archive = written(tmp_path / "a"), packed(tmp_path / "small-1.0.tar.gz", setup=SETUP)
    kinds = {
        ("flash-attn==2.8.3", ""): Sdist,
        ("flash-attn-3", ""): Carried,
        (f"flash-attn@{COMMIT}", ""): Commit,
        ("flash-attn==2.7.2", "git"): Commit,
        (str(folder), ""): Folder,
        (str(archive), ""): Archive,
        ("flash-attn==2.8.3", str(folder)): Folder,
    }
    for (package, source), kind in kinds.items():
        located = found(offline, package, source)
        assert type(located.source) is kind, package
        assert located.pin == located.source.pin


def test_a_version_that_is_named_counts_and_not_what_the_folder_states(offline: Machine, tmp_path: Path) -> None:
    located = found(offline, "flash-attn==2.8.3", str(written(tmp_path)))
    assert (located.recipe.name, located.version) == ("flash-attn", "2.8.3")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("flash-attn", "flash-attn"),
        ("flash-attn==2.8.3", "flash-attn"),
        ("./x", ""),
        (f"flash-attn@{COMMIT}", "flash-attn"),
    ],
)
def test_a_request_has_a_name_or_a_path(package: str, name: str) -> None:
    assert named_in(Request(package=package)) == name


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("./x", True),
        ("a/b", True),
        (".", True),
        ("my.toml", True),
        ("my.toml==1.0", True),
        ("flash-attn==2.8.3", False),
    ],
)
def test_paths_are_told_from_names(package: str, expected: bool) -> None:
    assert is_path(package) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b", "is no package"),
        ("a[x]==1", "names more than a package and its version"),
        ("a>=1", "is not one version"),
        ("a==1,==2", "is not one version"),
        ("a==2.8.*", "is no version"),
    ],
)
def test_a_word_that_is_no_package_and_version_is_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        name_and_version(text)


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (SETUP.replace("'small'", "'-'"), "can't be the name of a package"),
        (SETUP.replace("1.0", "x y"), "is no version"),
    ],
)
def test_a_source_that_states_an_impossible_name_or_version_is_refused(
    offline: Machine, tmp_path: Path, setup: str, said: str
) -> None:
    folder = written(tmp_path)
    (folder / "setup.py").write_text(setup)
    with pytest.raises(RequestError, match=said):
        found(offline, str(folder))
