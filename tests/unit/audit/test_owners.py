"""Files that two wheels own: found in wheels and in an environment, and told apart from what is replaced whole."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.audit.owners import Owner, check_owners, owner_of_wheel, owners_in
from attnforge.cli.main import main
from attnforge.model.finding import Severity
from attnforge.package.archive import Member, write_wheel

CUTE = "flash_attn/cute/__init__.py"


def wheel(folder: Path, name: str, version: str, **files: str) -> Path:
    """Write a wheel; in the names of files __ stands for a slash and _DOT_ for a dot."""
    info = f"{name}-{version}.dist-info"
    members = {path.replace("__", "/").replace("_DOT_", "."): text for path, text in files.items()}
    members |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    write_wheel(path, {name: Member(text.encode()) for name, text in members.items()}, info)
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return wheel(tmp_path, "flash_attn", "2.8.3", flash_attn__init_DOT_py="", flash_attn__cute__mask_DOT_py="2")


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return wheel(tmp_path, "flash_attn_4", "4.0.0", flash_attn__cute__mask_DOT_py="4")


def test_a_file_of_two_wheels_is_found_from_both_sides(two: Path, four: Path) -> None:
    owners = [owner_of_wheel(two), owner_of_wheel(four)]
    for owner, other in (owners, owners[::-1]):
        assert owner is not None and other is not None
        (finding,) = check_owners(owner, [owner, other])
        assert (finding.code, finding.severity) == ("shared-files", Severity.WARNING)
        assert finding.subject == "flash_attn/cute/mask.py"
        assert finding.seen == f"in {other.name} too, with another content"


def test_the_same_file_in_both_is_told_and_no_warning(tmp_path: Path) -> None:
    first, second = (wheel(tmp_path, name, "1.0", shared__a_DOT_py="x") for name in ("one", "two"))
    owner, other = owner_of_wheel(first), owner_of_wheel(second)
    assert owner is not None and other is not None
    (finding,) = check_owners(owner, [other])
    assert (finding.severity, finding.subject) == (Severity.INFO, "shared/a.py")


def test_another_version_of_the_same_project_takes_its_place(tmp_path: Path, two: Path) -> None:
    later = wheel(tmp_path, "Flash.Attn", "2.8.4", flash_attn__cute__mask_DOT_py="5")
    owner, other = owner_of_wheel(two), owner_of_wheel(later)
    assert owner is not None and other is not None
    assert list(check_owners(owner, [other])) == []


def test_parts_of_data_folders_go_where_installers_put_them(tmp_path: Path) -> None:
    path = wheel(
        tmp_path,
        "one",
        "1.0",
        **{
            "one-1.0_DOT_data__purelib__pure_DOT_py": "",
            "one-1.0_DOT_data__platlib__plat_DOT_so": "",
            "one-1.0_DOT_data__scripts__tool": "",
            "one-1.0_DOT_data__data__share__man": "",
        },
    )
    owner = owner_of_wheel(path)
    assert owner is not None
    assert sorted(owner.files) == ["bin/tool", "plat.so", "pure.py"]


@pytest.mark.parametrize("name", ["none-1.0-py3-none-any.whl", "no wheel", "broken-1.0-py3-none-any.whl"])
def test_what_is_no_wheel_owns_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 and no more")
    assert owner_of_wheel(tmp_path / name) is None


def test_what_is_installed_owns_what_its_record_says(tmp_path: Path) -> None:
    info = tmp_path / "flash_attn-2.8.3+cu130.dist-info"
    info.mkdir()
    lines = (
        f"{CUTE},sha256=abc,3",
        "flash_attn/__pycache__/__init__.cpython-312.pyc,,",
        "../../../bin/tool,sha256=def,3",
        "../../../share/doc,,",
        f"{info.name}/RECORD,,",
    )
    (info / "RECORD").write_text("\n".join(lines))
    (tmp_path / "without.dist-info").mkdir()
    (owner,) = owners_in(tmp_path)
    assert owner.project == "flash-attn"
    assert owner.files == {CUTE: "sha256=abc", "bin/tool": "sha256=def"}
    assert "2.8.3+cu130" in owner.name


def test_the_command_says_it_of_several_wheels(two: Path, four: Path, tmp_path: Path) -> None:
    import io

    out, err = io.StringIO(), io.StringIO()
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    assert main(["audit", str(two)], environ, out, err) in (0, 6)
    assert "too, with another content" not in out.getvalue()
    main(["audit", str(two), str(four)], environ, out, err)
    assert out.getvalue().count("too, with another content") == 2


names = st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=3)
owners = st.builds(Owner, names, names, st.dictionaries(names, st.sampled_from(["", "sha256=a", "sha256=b"])))


@given(owners, owners)
def test_both_sides_say_the_same(one: Owner, other: Owner) -> None:
    said = [
        [(finding.severity, finding.subject) for finding in check_owners(*pair)]
        for pair in ((one, [other]), (other, [one]))
    ]
    assert said[0] == said[1]
    shares = one.project != other.project and bool(one.files.keys() & other.files.keys())
    assert bool(said[0]) is shares
