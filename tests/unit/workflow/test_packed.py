"""A library that lies in the source and in the wheel was not compiled by the build (F2)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from attnforge.errors import WheelError
from attnforge.workflow.packed import compiled_files, refuse_packed, refuse_pure


def made(folder: Path, members: dict[str, bytes], tags: str = "cp312-cp312-linux_x86_64") -> Path:
    wheel = folder / f"x-1.0-{tags}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return wheel


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("lib/prebuilt.so", "lib/k.cubin", "tests/data.so", "x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("name", ["x/_C.so", "x/renamed.so.1", "x/k.cubin"])
def test_it_is_known_by_its_bytes_whatever_its_name(tmp_path: Path, source: Path, name: str) -> None:
    """Also beside modules that were compiled: the architectures may be the same."""
    data = b"lib/k.cubin" if name.endswith("cubin") else b"lib/prebuilt.so"
    wheel = made(tmp_path, {"x/compiled.so": b"new", name: data})
    with pytest.raises(WheelError, match="compiled before this build: x/") as caught:
        refuse_packed(wheel, compiled_files(source))
    assert name in caught.value.what and "outside = true" in caught.value.hint


def test_what_was_compiled_and_data_of_tests_pass(tmp_path: Path, source: Path) -> None:
    wheel = made(tmp_path, {"x/_C.so": b"new", "tests/data.so": b"tests/data.so", "x.py": b"x.py"})
    refuse_packed(wheel, compiled_files(source))


def test_several_are_counted(tmp_path: Path, source: Path) -> None:
    wheel = made(tmp_path, {f"x/{number}.so": b"lib/prebuilt.so" for number in range(3)})
    with pytest.raises(WheelError, match=r"x/0\.so and 2 more"):
        refuse_packed(wheel, compiled_files(source))


def test_a_wheel_for_any_python_is_not_what_was_planned(tmp_path: Path) -> None:
    """F7: gptqmodel and flashinfer compile where they run, and their files do not say so for certain."""
    with pytest.raises(WheelError, match="compiled nothing: x-1.0-py3-none-any.whl") as caught:
        refuse_pure(made(tmp_path, {"x.py": b"", "x/k.cu": b""}, "py3-none-any"), "x")
    assert "compiled = false" in caught.value.hint


@pytest.mark.parametrize("tags", ["cp312-cp312-linux_x86_64", "py3-none-linux_x86_64", "py3-none-any"])
def test_one_with_modules_is_left_to_the_audit(tmp_path: Path, tags: str) -> None:
    refuse_pure(made(tmp_path, {"x/lib.so": b""}, tags), "x")
