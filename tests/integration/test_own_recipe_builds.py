"""Builds by a recipe of the user's own: a pure Python package, and a compiled one, with the stand-ins."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from standins import house
from standins.forge import PYTHON, Forge

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

PURE = """\
name = "pure-kernels"
title = "Pure kernels"
summary = "kernels that are compiled when they run"
default_version = "1.0"
requirements = ["setuptools==80.9.0", "wheel==0.45.1"]
[settings]
PURE_WORD = "by the recipe"
[[releases]]
versions = ">=1,<2"
compiled = false
"""
SETUP = """\
import os
from setuptools import setup
open("pure_kernels/word.py", "w").write(f"WORD = {os.environ['PURE_WORD']!r}\\n")
setup(name="pure-kernels", version="1.0", packages=["pure_kernels"])
"""

TINY = """\
name = "tinykernels"
title = "Tiny kernels"
summary = "three kernels"
modules = ["tinykernels._C"]
requirements = ["setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0", "ninja==1.13.0"]
[[releases]]
versions = ">=1,<2"
architectures = ["90"]
"""


def project(folder: Path, setup: str = SETUP) -> Path:
    (folder / "pure_kernels").mkdir(parents=True)
    (folder / "pure_kernels" / "__init__.py").write_text("from pure_kernels.word import WORD\n")
    (folder / "setup.py").write_text(setup)
    return folder


def recipe(folder: Path, text: str) -> Path:
    path = folder / "my-recipe.toml"
    path.write_text(text)
    return path


def test_a_pure_python_package_needs_no_toolchain_and_no_torch(forge: Forge) -> None:
    source, own = project(forge.folder / "project"), recipe(forge.folder, PURE)
    bare = {"CUDA_HOME": "", "PATH": str(Path(sys.executable).resolve().parent)}
    done = forge.run("build", own, "--source", source, "--python", PYTHON, "--json", **bare).ok()
    assert [event["stage"] for event in done.seen("StageFinished")] == [
        "source",
        "environment",
        "compile",
        "package",
        "audit",
    ]
    wheel = forge.wheel()
    assert wheel.name == "pure_kernels-1.0-py3-none-any.whl"
    assert done.seen("Audited")[0]["verdict"] == "good"
    report = json.loads(Path(f"{wheel}.report.json").read_text())
    assert report["compile"] is None
    assert not [package for package in report["environment"] if package.startswith("torch")]
    assert forge.python(forge.install(wheel), "import pure_kernels; print(pure_kernels.WORD)") == "by the recipe"

    first = wheel.read_bytes()
    again = forge.run("build", own, "--source", source, "--python", PYTHON, "--json", **bare).ok()
    assert "compile" not in [event["stage"] for event in again.seen("StageFinished")]
    assert wheel.read_bytes() == first
    assert forge.run("audit", wheel).code == 0


def test_a_recipe_that_calls_a_compiled_package_pure_is_found_out(forge: Forge) -> None:
    setup = SETUP + "# and one for this Python and platform\n"
    setup = setup.replace(
        "setup(name", "from setuptools import Extension\nsetup(ext_modules=[Extension('m', ['m.c'])], name"
    )
    source = project(forge.folder / "project", setup)
    (source / "m.c").write_text(
        '#include <Python.h>\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "m"};\n'
        "PyMODINIT_FUNC PyInit_m(void) { return PyModule_Create(&m); }\n"
    )
    done = forge.run("build", recipe(forge.folder, PURE), "--source", source, "--python", PYTHON)
    assert done.code == 4
    assert "its recipe says that it is pure Python" in done.err
    assert "compiled = false" in done.err
    assert not list(forge.out.glob("*.whl"))


def test_a_compiled_package_by_a_recipe_of_ones_own(forge: Forge) -> None:
    source, own = house.tinykernels(forge.folder / "tinykernels"), recipe(forge.folder, TINY)
    done = forge.build(own, "--source", source).ok()
    assert [module["architectures"] for module in done.seen("Audited")[0]["modules"]] == [["sm_90"]]
    with zipfile.ZipFile(forge.wheel()) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/attnforge/plan.json")]
        assert json.loads(archive.read(name))["requirements"] == [
            "setuptools==80.9.0",
            "wheel==0.45.1",
            "packaging==25.0",
            "ninja==1.13.0",
        ]


def test_modules_that_the_recipe_names_have_to_be_there(forge: Forge) -> None:
    source = house.tinykernels(forge.folder / "tinykernels")
    own = recipe(forge.folder, TINY.replace("tinykernels._C", "tinykernels._D"))
    done = forge.build(own, "--source", source)
    assert done.code == 5
    assert "no tinykernels._D" in done.err
