"""What upstream's build is given, and what it sees of it in its environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.plan import BuildPlan, SourcePin
from attnforge.workflow.inputs import named_folders
from attnforge.workflow.layout import builder_of, text_of
from attnforge.workflow.variables import build_environment, stated_version
from standins.jobs import Bench


@pytest.fixture
def bench(tmp_path: Path, make_plan: Callable[..., BuildPlan]) -> Bench:
    return Bench(tmp_path, make_plan())


def test_folders_have_the_same_names_on_every_machine(bench: Bench) -> None:
    named = named_folders(bench.inputs(), bench.folder / "generated")
    at = {path.removeprefix(f"{bench.folder}/"): name for path, name in named.items()}
    assert at == {
        "source": "source",
        "generated": "generated",
        "env/site": "site-packages",
        "env": "python",
        "cuda": "cuda",
    }


def test_upstream_sees_the_seat_first_and_nothing_of_the_users(bench: Bench) -> None:
    user = {"HOME": "/home/me", "CXXFLAGS": "-O0", "PATH": "/mine", "HTTPS_PROXY": "proxy"}
    seen = build_environment(bench.plan, bench.inputs(), [bench.folder / "seat"], 3, user)
    assert seen["PATH"].split(":")[:2] == [str(bench.folder / "seat"), str(bench.folder / "env/bin")]
    assert (seen["MAX_JOBS"], seen["TORCH_CUDA_ARCH_LIST"], seen["CUDA_HOME"]) == (
        "3",
        "9.0",
        str(bench.folder / "cuda"),
    )
    assert "CXXFLAGS" not in seen
    assert seen["PYTHONDONTWRITEBYTECODE"] == "1"
    assert seen["HOME"] == "/home/me"


@pytest.mark.parametrize(
    ("path", "c_compiler"),
    [
        ("bin/g++", "bin/gcc"),
        ("bin/clang++", "bin/clang"),
        ("bin/x86_64-linux-gnu-g++-12", "bin/x86_64-linux-gnu-gcc-12"),
    ],
)
def test_the_c_compiler_is_the_one_beside_the_cpp_compiler(bench: Bench, path: str, c_compiler: str) -> None:
    (bench.folder / "bin").mkdir()
    inputs = bench.inputs(str(bench.folder / path))
    assert build_environment(bench.plan, inputs, [Path("/seat")], 1, {})["CC"] == str(bench.folder / path)
    (bench.folder / c_compiler).touch()
    assert build_environment(bench.plan, inputs, [Path("/seat")], 1, {})["CC"] == str(bench.folder / c_compiler)


def test_a_path_with_a_space_is_quoted_for_ninja(bench: Bench) -> None:
    bench.folder = bench.folder / "a b"
    nvcc = build_environment(bench.plan, bench.inputs(), [Path("/seat")], 1, {})["PYTORCH_NVCC"]
    assert nvcc == f"'{bench.folder}/cuda/bin/nvcc'"


@pytest.mark.parametrize(("kind", "is_stated"), [("folder", True), ("sdist", False), ("archive", False)])
def test_the_version_is_stated_where_upstream_would_ask_git(bench: Bench, kind: str, is_stated: bool) -> None:
    pin = SourcePin.model_validate({"kind": kind, "name": "x", "sha256": "a" * 64})
    stated = stated_version(bench.plan.model_copy(update={"source": pin}))
    assert stated == ({"SETUPTOOLS_SCM_PRETEND_VERSION": "2.8.3"} if is_stated else {})


def test_the_files_of_a_source_say_by_what_it_is_built(tmp_path: Path) -> None:
    assert (text_of(tmp_path / "setup.py"), builder_of(tmp_path)) == ("", "")
    (tmp_path / "setup.py").write_text("import subprocess\nsubprocess.check_call(['cmake', '.'])\n")
    assert builder_of(tmp_path) == "CMake"
