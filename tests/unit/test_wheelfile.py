"""Reading wheels: names, documents, METADATA, also of files that are damaged or hostile."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from attnforge.wheelfile import archive
from attnforge.wheelfile.archive import UNREADABLE, document
from attnforge.wheelfile.metadata import fields_of, read_metadata, torch_requirements
from attnforge.wheelfile.name import WheelName, data_folder, dist_info_in
from attnforge.wheelfile.record import parse_record, record_of


def wheel(folder: Path, **files: str) -> Path:
    path = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(f"demo-1.0.dist-info/{name}", text)
    return path


@pytest.mark.parametrize(
    ("tags", "python"),
    [
        ("cp312-cp312-linux_x86_64", "3.12"),
        ("cp39-abi3-linux_x86_64", ""),
        ("py3-none-linux_x86_64", ""),
        ("cp311.cp312-none-any", ""),
    ],
)
def test_the_one_python_of_a_wheel(tags: str, python: str) -> None:
    name = WheelName.parse(f"demo-1.0-{tags}.whl")
    assert name is not None
    assert name.python == python


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a-1.dist-info/METADATA", "a/b.py"], "a-1.dist-info"),
        (["a-1.dist-info/METADATA", "b-1.dist-info/METADATA"], ""),
        (["a/b-1.dist-info/METADATA"], ""),
        ([], ""),
    ],
)
def test_the_dist_info_folder(paths: list[str], found: str) -> None:
    assert dist_info_in(paths) == found


def test_the_data_folder() -> None:
    assert data_folder("demo-1.0.dist-info") == "demo-1.0.data"


def test_a_document_is_read_from_dist_info_only(tmp_path: Path) -> None:
    path = wheel(tmp_path, METADATA="Name: demo")
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("deep/other.dist-info/WHEEL", "no")
    assert document(path, "METADATA") == b"Name: demo"
    assert document(path, "WHEEL") is None


def test_a_document_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_LONGEST_TEXT", 10)
    path = wheel(tmp_path, METADATA="Name: demonstration")
    with pytest.raises(UNREADABLE, match="more than 10 bytes"):
        document(path, "METADATA")
    assert read_metadata(path) == ""


def test_metadata_of_what_is_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "text.whl").write_text("text")
    assert read_metadata(tmp_path / "text.whl") == ""
    assert read_metadata(tmp_path / "absent.whl") == ""
    assert read_metadata(wheel(tmp_path)) == ""


def test_requirements_of_torch_by_python_and_without_extras() -> None:
    text = (
        "Name: demo\nRequires-Dist: torch>=2.4\nRequires-Dist: Torch==2.11.*; python_version == '3.12'\n"
        "Requires-Dist: torch; extra == 'cpu'\nRequires-Dist: numpy\nRequires-Dist: is no requirement\n"
        "Requires-Dist: torch; python_version ~= 'nonsense'\n\nRequires-Dist: torch==1\n"
    )
    assert [str(one) for one in torch_requirements(text, "3.11")] == ["torch>=2.4"]
    both = ["torch>=2.4", 'Torch==2.11.*; python_version == "3.12"']
    assert [str(one) for one in torch_requirements(text, "3.12.3")] == both
    assert [str(one) for one in torch_requirements(text, "3.12")] == both


def test_fields_that_are_there_twice_are_left_out() -> None:
    assert fields_of("Name: a\nName: b\nVersion: 1\n") == {"version": "1"}


@pytest.mark.parametrize("kind", ["multipart/mixed; boundary=x", "message/rfc822"])
def test_metadata_is_one_text_whatever_content_type_it_states(kind: str) -> None:
    text = "Name: a\n{}Version: 1\n\nFrom: x\n\n--x\n\nbody\n--x--\n"
    assert fields_of(text.format(f"Content-Type: {kind}\n")) == fields_of(text.format(""))


def test_what_record_states_is_read_again() -> None:
    rows, bad = parse_record(record_of({"b": b"2", "a, with comma": b""}, "RECORD").decode())
    assert list(rows) == ["a, with comma", "b", "RECORD"]
    assert (rows["b"].algorithm, rows["b"].size, rows["b"].strong) == ("sha256", "1", True)
    assert not rows["RECORD"].strong
    assert bad == ()
