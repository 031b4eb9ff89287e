"""The loader of a universal wheel, in a child interpreter, with real extension modules and a stand-in for torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from attnforge.package.universal import loader

PYTHON = sys.executable
SOURCE = Path(__file__).with_name("tiny.c")
WHEEL = "tiny-1.0+cu130-py3-none-linux_x86_64.whl"


@cache
def about() -> tuple[str, str, str]:
    """The minor of the child's Python, the suffix of its modules, and where its headers are."""
    asked = (
        "import sys, sysconfig as s; print(sys.version_info[1], s.get_config_var('EXT_SUFFIX'), s.get_path('include'))"
    )
    said = subprocess.run([PYTHON, "-c", asked], capture_output=True, text=True, check=True).stdout
    minor, suffix, headers = said.split(maxsplit=2)
    return f"3.{minor}", suffix, headers.strip()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile the module once for each set of macros."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path(about()[2], "Python.h").exists():
        pytest.skip("no C compiler, or no headers of this Python")
    folder = tmp_path_factory.mktemp("tiny")

    @cache
    def compile_(*macros: str) -> Path:
        module = folder / f"{len(list(folder.iterdir()))}.so"
        argv = [compiler, "-shared", "-fPIC", "-o", str(module), f"-I{about()[2]}", *macros, str(SOURCE)]
        subprocess.run(argv, check=True)
        return module

    return compile_


class Site:
    """A folder with universal packages and a torch, and the child interpreter that has it on its path."""

    def __init__(self, folder: Path, compiled: Callable[..., Path]) -> None:
        self.folder, self._compiled = folder, compiled
        folder.mkdir()

    def torch(self, version: str = "2.11.0+cu130", cuda: str | None = "13.0") -> None:
        package = self.folder / "torch"
        package.mkdir(exist_ok=True)
        text = (
            f"from types import SimpleNamespace\n__version__ = {version!r}\nversion = SimpleNamespace(cuda={cuda!r})\n"
        )
        (package / "__init__.py").write_text(text)

    def module(self, torch: str, *macros: str, name: str = "tiny", phases: int = 2, suffix: str = "") -> Path:
        """Put the module of a pair where a universal wheel has it."""
        package, leaf = self.package(name), name.rpartition(".")[2]
        path = package / f"torch{torch}" / (leaf + (suffix or about()[1]))
        path.parent.mkdir(exist_ok=True)
        answer = f'-DANSWER="for {torch}"'
        shutil.copy(self._compiled(f"-DNAME={leaf}", f"-DPHASES={phases}", answer, *macros), path)
        return path

    def package(self, name: str = "tiny") -> Path:
        package = self.folder / name.replace(".", "/")
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_bytes(loader(WHEEL, "13.0"))
        for parent in package.relative_to(self.folder).parents:
            if parent.name:
                (self.folder / parent / "__init__.py").touch()
        return package

    def run(self, code: str) -> str:
        """Run a program that has nothing but the standard library and this folder, and return what it prints."""
        start = f"import sys; sys.path.insert(0, {str(self.folder)!r})\n"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        ran = subprocess.run(
            [PYTHON, "-S", "-c", start + code], capture_output=True, text=True, timeout=60, env=environment
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def refusal(self, name: str = "tiny", before: str = "") -> dict[str, str]:
        """Import what can't be, and return the ImportError's text, name and path. Nothing may be left of it."""
        parent, _, leaf = name.rpartition(".")
        code = f"""{before}
import importlib, json
try:
    importlib.import_module({name!r})
except ImportError as error:
    found = {{"text": str(error), "name": error.name, "path": error.path, "kind": type(error).__name__}}
assert {name!r} not in sys.modules
assert not {parent!r} or not hasattr(sys.modules[{parent!r}], {leaf!r})
print(json.dumps(found))
"""
        found: dict[str, str] = json.loads(self.run(code))
        return found


@pytest.fixture
def site(tmp_path: Path, compiled: Callable[..., Path]) -> Site:
    return Site(tmp_path / "site", compiled)


each_way_to_start = pytest.mark.parametrize("phases", [1, 2])


@each_way_to_start
def test_the_package_becomes_the_module_of_the_running_pair(site: Site, phases: int) -> None:
    site.torch("2.12.1+cu130")
    for torch in ("2.11", "2.12", "2.13"):
        path = site.module(torch, phases=phases)
    path = site.folder / "tiny" / "torch2.12" / path.name
    code = f"""
import tiny
assert tiny.answer() == "for 2.12"
assert type(tiny.answer).__name__ == "builtin_function_or_method"
assert sys.modules["tiny"] is tiny and not hasattr(tiny, "load") and not hasattr(tiny, "__path__")
assert tiny.__name__ == tiny.__spec__.name == "tiny" and tiny.__package__ == ""
assert tiny.__file__ == tiny.__spec__.origin == {str(path)!r}
assert type(tiny.__loader__).__name__ == type(tiny.__spec__.loader).__name__ == "ExtensionFileLoader"
first = tiny
import tiny
from tiny import answer
assert tiny is first and answer is tiny.answer and tiny.times_loaded() == 1
import importlib.util
assert importlib.util.find_spec("tiny") is tiny.__spec__
print("good")
"""
    assert site.run(code) == "good"


@each_way_to_start
def test_a_module_inside_a_package_is_its_attribute(site: Site, phases: int) -> None:
    site.torch()
    site.module("2.11", name="a.b._C", phases=phases)
    code = """
from a.b import _C
import a.b, a.b._C as again
assert _C is again is a.b._C is sys.modules["a.b._C"]
assert _C.answer() == "for 2.11"
assert _C.__name__ == _C.__spec__.name == "a.b._C" and _C.__package__ == "a.b"
print("good")
"""
    assert site.run(code) == "good"


def test_it_is_found_before_it_is_imported(site: Site) -> None:
    site.torch()
    site.module("2.11")
    code = """
import importlib.util
spec = importlib.util.find_spec("tiny")
assert "tiny" not in sys.modules and "torch" not in sys.modules
module = importlib.util.module_from_spec(spec)
print(spec.name, __import__("tiny").answer())
"""
    assert site.run(code) == "tiny for 2.11"


@each_way_to_start
def test_threads_that_import_at_once_all_have_the_module(site: Site, phases: int) -> None:
    site.torch()
    site.module("2.11", "-DSLOW", phases=phases)
    site.module("2.11", "-DSLOW", name="a._C", phases=phases)
    code = """
import threading, time
import a
said = []
def first():
    import tiny, a._C
    said.append((tiny.answer(), tiny.times_loaded(), tiny.__spec__.origin, a._C.answer()))
def second():
    from tiny import answer, times_loaded, __spec__
    from a import _C
    said.append((answer(), times_loaded(), __spec__.origin, _C.answer()))
def third():
    import importlib
    tiny, _C = importlib.import_module("tiny"), importlib.import_module("a._C")
    said.append((tiny.answer(), tiny.times_loaded(), tiny.__spec__.origin, _C.answer()))
threads = [threading.Thread(target=target) for target in (first, second, third) * 4]
[thread.start() for thread in threads[:6]]
# The others come when the package is there already, and the module is not.
while "tiny" not in sys.modules:
    time.sleep(0.001)
[thread.start() for thread in threads[6:]]
[thread.join() for thread in threads]
assert len(said) == 12 and len(set(said)) == 1, said
print(*said[0][:2])
"""
    assert site.run(code) == "for 2.11 1"


@pytest.mark.parametrize("name", ["tiny", "a.b._C"])
def test_without_pytorch_it_says_which_it_is_for(site: Site, name: str) -> None:
    for torch in ("2.13", "2.11"):
        site.module(torch, name=name)
    found = site.refusal(name)
    assert found["kind"] == "ImportError"
    assert found["name"] == name
    assert found["path"] == str(site.package(name) / "__init__.py")
    assert "torch is not installed; the wheel is for PyTorch 2.11, 2.13" in found["text"]
    assert found["text"].endswith("hint: python -m pip install 'torch==2.13.*'")


def test_the_pytorch_to_install_is_one_that_has_a_module_for_this_python(site: Site) -> None:
    site.module("2.11")
    site.module("2.13", suffix=".cpython-399-x86_64-linux-gnu.so")
    assert site.refusal()["text"].endswith("hint: python -m pip install 'torch==2.11.*'")


def test_what_pip_left_of_a_torch_is_none(site: Site) -> None:
    site.module("2.11")
    (site.folder / "torch" / "lib").mkdir(parents=True)
    assert "the torch that is found is an empty folder" in site.refusal()["text"]


def test_a_torch_that_can_not_be_imported_says_itself_why(site: Site) -> None:
    site.module("2.11")
    site.torch()
    (site.folder / "torch" / "__init__.py").write_text("import typing_extensions_standin\n")
    found = site.refusal()
    assert found["text"] == "No module named 'typing_extensions_standin'"


@pytest.mark.parametrize(
    ("version", "cuda", "why"),
    [
        ("2.11.0+cpu", None, "torch 2.11.0+cpu is built without CUDA"),
        ("2.11.0+cu128", "12.8", "torch 2.11.0+cu128 is built with CUDA 12.8"),
        ("2.10.0+cu12", "12", "torch 2.10.0+cu12 is built with CUDA 12"),
    ],
)
def test_another_cuda_major_is_told(site: Site, version: str, cuda: str | None, why: str) -> None:
    site.torch(version, cuda)
    site.module("2.11")
    site.module("2.12")
    text = site.refusal()["text"]
    assert "tiny can't be loaded: it needs a PyTorch that is built with CUDA 13.0\n" in text
    assert f"why: {why}\n" in text
    assert text.endswith("hint: install torch 2.11 or 2.12 in its build for CUDA 13.0")


def test_another_cuda_minor_is_none(site: Site) -> None:
    site.torch("2.11.0+cu132", "13.2")
    site.module("2.11")
    assert site.run("import tiny; print(tiny.answer())") == "for 2.11"


@pytest.mark.parametrize("version", ["2.11.0a0+5228986c39.nv25.11", "2.11", "2.11.0rc3"])
def test_the_minor_of_an_unusual_version_is_read(site: Site, version: str) -> None:
    site.torch(version)
    site.module("2.11")
    assert site.run("import tiny; print(tiny.answer())") == "for 2.11"


def test_where_no_module_fits_it_says_what_there_is_and_how_to_add_one(site: Site) -> None:
    python = about()[0]
    site.torch("2.9.1+cu130")
    site.module("2.11")
    site.module("2.2")
    site.module("2.11", suffix=".cpython-39-x86_64-linux-gnu.so")
    (site.package() / "torch2.11" / "libother.so").touch()
    (site.package() / "torch2.7").mkdir()
    found = site.refusal()
    assert (found["name"], found["path"]) == ("tiny", str(site.package() / "__init__.py"))
    assert found["text"] == (
        f"tiny can't be loaded: it has no module for Python {python} with PyTorch 2.9\n"
        f"why: the wheel has PyTorch 2.2 with Python {python}; PyTorch 2.11 with Python 3.9, {python}\n"
        f"hint: attnforge extend {WHEEL} --torch 2.9 --python {python}"
    )


def test_a_pytorch_that_may_have_no_build_with_the_wheels_cuda_is_not_sent_to_extend_alone(site: Site) -> None:
    python = about()[0]
    site.torch("2.9.1+cu132", "13.2")
    site.module("2.11")
    hint = site.refusal()["text"].partition("hint: ")[2]
    assert hint.startswith(f"attnforge build {WHEEL.split('-')[0].replace('_', '-')} --torch 2.9 --python {python}")
    assert f"where PyTorch 2.9 has a build with CUDA 13.0: attnforge extend {WHEEL}" in hint


def test_an_interpreter_without_a_global_lock_takes_no_module_of_one_with_it(site: Site) -> None:
    site.torch()
    site.module("2.11")
    before = """
import importlib.machinery
sys.abiflags = "t"
importlib.machinery.EXTENSION_SUFFIXES[0] = ".cpython-399t-x86_64-linux-gnu.so"
"""
    text = site.refusal(before=before)["text"]
    assert "(.cpython-399t-x86_64-linux-gnu.so) with PyTorch 2.11" in text
    assert "extend" not in text
    site.module("2.11", suffix=".cpython-399t-x86_64-linux-gnu.so")
    assert site.run(f"{before}import tiny; print(tiny.__file__[-4:], tiny.answer())") == "u.so for 2.11"


def test_a_module_that_does_not_load_says_why_itself(site: Site) -> None:
    site.torch()
    path = site.module("2.11", "-DUNDEFINED")
    found = site.refusal()
    assert "undefined symbol: no_library_has_this" in found["text"]
    assert found["text"].endswith(f"why: this is the module of {WHEEL} for PyTorch 2.11 and Python {about()[0]}")
    assert (found["name"], found["path"]) == ("tiny", str(path))


@each_way_to_start
def test_what_a_module_raises_comes_through(site: Site, phases: int) -> None:
    site.torch()
    site.module("2.11", phases=phases)
    code = """
import os
os.environ["TINY_FAILS"] = "1"
try:
    import tiny
except RuntimeError as error:
    print(error)
assert "tiny" not in sys.modules
del os.environ["TINY_FAILS"]
import tiny
print(tiny.answer(), tiny.times_loaded())
"""
    assert site.run(code) == "asked to fail\nfor 2.11 1"


@pytest.mark.parametrize("name", ["tiny", "a.b._C"])
def test_after_a_failure_a_later_import_works(site: Site, name: str, tmp_path: Path) -> None:
    site.module("2.11", name=name)
    later = Site(tmp_path / "later", site._compiled)
    later.torch()
    code = f"""
import importlib
for _ in range(2):
    try:
        importlib.import_module({name!r})
    except ImportError as error:
        assert "torch is not installed" in str(error)
    assert {name!r} not in sys.modules
sys.path.append({str(later.folder)!r})
importlib.invalidate_caches()
module = importlib.import_module({name!r})
print(module.answer(), module.__name__)
"""
    assert site.run(code) == f"for 2.11 {name}"


def test_the_suffix_of_this_python_is_the_first_that_it_looks_for() -> None:
    import importlib.machinery

    assert importlib.machinery.EXTENSION_SUFFIXES[0] == sysconfig.get_config_var("EXT_SUFFIX")
