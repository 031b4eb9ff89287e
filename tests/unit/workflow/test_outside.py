"""A source shows that its build compiles by CMake or make before it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.workflow.outside import other_builder, outside_warning


@pytest.mark.parametrize(
    ("setup", "required", "builder"),
    [
        ("", '["scikit-build-core>=0.10"]', "CMake"),
        ("", '["setuptools", "CMake>=3.20; python_version > \'3\'"]', "CMake"),
        ("", '["scikit_build"]', "CMake"),
        ("", '["meson-python"]', "Meson"),
        ("subprocess.check_call(['cmake', source] + args)", "[]", "CMake"),
        ("command = ('cmake', '-S', '.')", "[]", "CMake"),
        ("os.system('cmake --build .')", "[]", "CMake"),
        ("self.spawn(['make', '-j8'])", "[]", "make"),
        ("# cmake is not used\nsetup(ext_modules=[CUDAExtension('a', ['a.cu'])])", '["setuptools", "ninja"]', ""),
        ("setup(description='cmake-free', keywords='cmake')", "[]", ""),
        ("this is no Python ('cmake'", "[]", ""),
        ("", '["not a requirement !!", "cmake"]', ""),  # the build refuses that one
        ("", "no list", ""),
    ],
)
def test_what_compiles_is_seen(setup: str, required: str, builder: str) -> None:
    assert other_builder(setup, f"[build-system]\nrequires = {required}\n") == builder


def test_it_is_said_what_such_a_build_lacks() -> None:
    said = outside_warning("CMake")
    for word in ("CMake", "no progress", "no memory limit", "no cache", "Ctrl-C", "outside = true"):
        assert word in said


@given(st.text(), st.text())
def test_any_text_is_read(setup: str, pyproject: str) -> None:
    assert other_builder(setup, pyproject) in ("", "CMake", "make", "Meson", "Bazel")
