"""What certainly compiles nothing, and what may."""

from __future__ import annotations

import pytest

from attnforge.provision.purity import compiled_before, why_pure

SETUP = "from setuptools import setup, find_packages\nsetup(name='x', version='1', packages=find_packages())\n"
SETUPTOOLS = (
    '[build-system]\nrequires = ["setuptools>=75", "setuptools-scm>=8"]\nbuild-backend = "setuptools.build_meta"\n'
)
NAMES = ("setup.py", "x/__init__.py")


def backend(name: str, more: str = "", requires: str = "") -> dict[str, str]:
    asked = requires or f'"{name.partition(".")[0]}"'
    return {"pyproject.toml": f'[build-system]\nrequires = [{asked}]\nbuild-backend = "{name}"\n{more}'}


@pytest.mark.parametrize(
    "files",
    [
        {"setup.py": SETUP},
        {"setup.py": SETUP, "pyproject.toml": SETUPTOOLS},
        {"pyproject.toml": SETUPTOOLS + "[tool.setuptools]\npackages = ['x']\n"},
        {"pyproject.toml": "[project]\nname = 'x'\n"},
        {"setup.cfg": "[metadata]\nname = x\n"},
        backend("flit_core.buildapi"),
        backend("hatchling.build"),
        backend("hatchling.build", "[tool.hatch.build.targets.wheel]\npackages = ['x']\n"),
        backend("poetry.core.masonry.api"),
        backend("pdm.backend"),
        backend("uv_build"),
        # Anything could happen there, and nothing is there that it could happen to.
        {"setup.py": "import subprocess\n" + SETUP},
        {"setup.py": "exec(open('x/version.py').read())\n" + SETUP},
        {"setup.py": "try:\n    import torch\nexcept ImportError:\n    torch = None\n" + SETUP},
    ],
)
def test_pure(files: dict[str, str]) -> None:
    assert why_pure(files, NAMES)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"setup.py": SETUP.replace("packages=", "ext_modules=[], packages=")},
        {"setup.py": SETUP.replace("packages=", "**OPTIONS, packages=")},
        {"setup.py": "OPTIONS = {'ext_modules': []}\n" + SETUP},
        {"setup.py": "from torch.utils.cpp_extension import CUDAExtension\n" + SETUP},
        {"setup.py": SETUP.replace("packages=", "cffi_modules=['b.py:f'], packages=")},
        {"setup.py": "from Cython.Build import cythonize\n" + SETUP},
        {"setup.py": "from skbuild import setup\nsetup(name='x')\n"},
        {"setup.py": "this is no Python"},
        {"setup.py": "print('no call of it')\n"},
        {"setup.py": "(" * 5000},
        {"setup.py": SETUP, "setup.cfg": "[build_ext]\ninplace = 1\n"},
        {"setup.py": SETUP, "pyproject.toml": SETUPTOOLS.replace("setuptools-scm>=8", "torch")},
        {"setup.py": SETUP, "pyproject.toml": SETUPTOOLS.replace("setuptools-scm>=8", "Cython>=3")},
        {"setup.py": SETUP, "pyproject.toml": "build-system = 3\n"},
        {"setup.py": SETUP, "pyproject.toml": "no TOML"},
        {"setup.py": SETUP, "pyproject.toml": "x = " + "[" * 5000},
        {"pyproject.toml": SETUPTOOLS + "[[tool.setuptools.ext-modules]]\nname = 'x'\n"},
        backend("hatchling.build", "[tool.hatch.build.hooks.custom]\n"),
        backend("hatchling.build", "[tool.hatch.build.targets.wheel.hooks.cython]\n"),
        backend("poetry.core.masonry.api", "[tool.poetry.build]\nscript = 'b.py'\n"),
        backend("pdm.backend", "[tool.pdm.build]\nrun-setuptools = true\n"),
        backend("hatchling.build", requires='"hatchling", "torch"'),
        backend("scikit_build_core.build"),
        backend("mesonpy"),
        {"pyproject.toml": "[build-system]\nbuild-backend = ['setuptools.build_meta']\n"},
        backend("maturin"),
        backend("own_backend", 'backend-path = ["."]\n'),
    ],
)
def test_it_may_compile_something(files: dict[str, str]) -> None:
    assert not why_pure(files, NAMES)


@pytest.mark.parametrize("name", ["x/k.cu", "csrc/a.cpp", "x/lib.so", "CMakeLists.txt", "src/lib.rs", "x/k.CU"])
def test_a_setup_that_can_do_anything_may_compile_what_is_there(name: str) -> None:
    files = {"setup.py": "import subprocess\n" + SETUP}
    assert not why_pure(files, (*NAMES, name))
    # One that does nothing of that kind has sources as data.
    assert bool(why_pure({"setup.py": SETUP}, (*NAMES, name))) == (name != "x/lib.so")


PACKED = ["x/lib.so", "x/libx_cuda123.so", "x/lib.so.12.1", "x/k.cubin", "x/k.FATBIN"]


@pytest.mark.parametrize("files", [{"setup.py": SETUP}, backend("hatchling.build"), backend("flit_core.buildapi")])
@pytest.mark.parametrize("name", PACKED)
def test_compiled_code_in_the_source_is_not_pure_python(files: dict[str, str], name: str) -> None:
    """A variant of F2: bitsandbytes 0.42.0 has 20 libraries in its sdist, and its setup.py packs them."""
    assert compiled_before((*NAMES, name)) == (name,)
    assert not why_pure(files, (*NAMES, name))


@pytest.mark.parametrize("name", ["tests/data/lib.so", "x/test/lib.so.1", "x/so.py", "x/lib.dll", "x/so", "x/a.so.txt"])
def test_other_files_and_those_of_tests_are_no_compiled_code_of_the_package(name: str) -> None:
    assert compiled_before((*NAMES, name)) == ()
    assert why_pure({"setup.py": SETUP}, (*NAMES, name))


@pytest.mark.parametrize("name", ["hatch_build.py", "hatch.toml"])
def test_a_hook_in_a_file_of_its_own(name: str) -> None:
    assert not why_pure(backend("hatchling.build"), (*NAMES, name))
