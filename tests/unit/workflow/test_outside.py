"""A source shows that its build compiles by CMake or make before it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.workflow.outside import generator, other_builder, outside_warning


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


@pytest.mark.parametrize("builder", ["CMake", "make", "Meson", "Bazel"])
def test_it_is_said_what_such_a_build_lacks(builder: str) -> None:
    said = outside_warning(builder)
    for word in (builder, "no progress", "no memory limit", "no cache", "Ctrl-C", "unless a recipe says"):
        assert word in said
    assert ("made to call this build's ninja" in said) == bool(generator(builder)) == (builder == "CMake")
    chosen = outside_warning(builder, chosen=True)
    assert "its recipe says `outside = true`" in chosen and "refuses" not in chosen and "made to" not in chosen


@pytest.mark.parametrize(
    "setup",
    [
        "run(['cmake', '.'])\nrun(['make', '-j'])",
        "run(['make'])\nrun(['cmake', '.'])",
        "run(['cmake', '-G', 'Unix Makefiles', '.'])",
    ],
)
def test_what_make_compiles_is_left_to_make(setup: str) -> None:
    """CMake would write files for ninja, and make would find none."""
    assert other_builder(setup, "") == other_builder(setup, "[build-system]\nrequires = ['cmake']\n") == "make"
    assert generator("make") == {}


@given(st.text(), st.text())
def test_any_text_is_read(setup: str, pyproject: str) -> None:
    assert other_builder(setup, pyproject) in ("", "CMake", "make", "Meson", "Bazel")
