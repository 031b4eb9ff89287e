"""Universal wheels from command to import, in seconds: stand-ins of PyTorch and nvcc, and real uv, seat, g++ and ld.

Each PyTorch has a folder of its own in the paths of what is compiled for it. So a compiler in front of g++
(``compiler``) can do something for one pair alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest

from attnforge import process
from attnforge.host.interpreters import find_interpreters
from attnforge.host.programs import Programs
from attnforge.knowledge.torch import find_torch
from attnforge.model.events import kinds
from attnforge.model.universal import Universal
from attnforge.workflow import answers
from standins import house
from standins.forge import PYTHON, Done, Forge, wait_until
from standins.index import serve

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

UNITS = {"scale.cu": 1, "shift.cu": 1, "total.cu": 1}
TWICE = dict.fromkeys(UNITS, 2)
SUFFIX = f".cpython-{PYTHON.replace('.', '')}-x86_64-linux-gnu.so"
SYSTEM = ("--toolchain", "system", "--jobs", "2")
RUN = "import tinykernels, tinykernels._C as made; print(tinykernels.run(3.0), made.torch_minor, made.__file__)"
ANSWER = "50.0"  # 2 * (3 + 1), and 42 from the library of PyTorch's


@pytest.fixture
def smithy(tmp_path: Path, wheels_of_pairs: Path, uv_cache: Path) -> Forge:
    """A user with an empty cache, a CUDA toolkit, and indexes that have three PyTorch."""
    return Forge(tmp_path, wheels_of_pairs, house.make_toolkit(tmp_path / "cuda"), uv_cache)


@pytest.fixture
def source(smithy: Forge) -> Path:
    return house.shareable(smithy.folder / "tinykernels")


def universal(forge: Forge, source: Path, torches: str, *more: str | Path, **changes: str) -> Done:
    words = ("--gpu", "H100", "--universal", "--torch", torches, "--python", PYTHON, *SYSTEM, "--json")
    return forge.run("build", source, *words, *more, **changes)


def extend(forge: Forge, wheel: Path, source: Path, *more: str | Path, **changes: str) -> Done:
    return forge.run("extend", wheel, "--source", source, *SYSTEM, "--json", "--out", "more", *more, **changes)


def extended(forge: Forge) -> Path:
    (wheel,) = (forge.folder / "more").glob("*.whl")
    return wheel


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def shared_objects(wheel: Path) -> dict[str, bytes]:
    return {name: data for name, data in members(wheel).items() if name.endswith(".so")}


def described(wheel: Path) -> Universal:
    (document,) = (data for name, data in members(wheel).items() if name.endswith("/attnforge/universal.json"))
    return Universal.model_validate_json(document)


def report_of(wheel: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(Path(f"{wheel}.report.json").read_text())
    return loaded


def told(done: Done) -> list[str]:
    return [event["text"] for event in done.seen("Message")]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- what becomes of a build, and of an extension


def test_one_wheel_is_for_two_pytorch(smithy: Forge, source: Path) -> None:
    done = universal(smithy, source, "2.11,2.12").ok()
    wheel = smithy.wheel()
    assert wheel.name == "tinykernels-1.2.0+cu130torch2.11to2.12.py" + PYTHON + ".sm90-py3-none-linux_x86_64.whl"
    (module,) = described(wheel).modules
    assert (module.name, module.own) == ("tinykernels._C", ())
    assert module.shared == tuple(f"csrc/{unit}" for unit in UNITS)
    assert module.symbols == ("_Z5totald",)
    assert set(shared_objects(wheel)) == {
        f"tinykernels/_C/{module.library}",
        f"tinykernels/_C/torch2.11/_C{SUFFIX}",
        f"tinykernels/_C/torch2.12/_C{SUFFIX}",
    }

    # The kernels are compiled once, and of the further pair only its end is told.
    assert smithy.toolkit.calls() == UNITS
    assert [event["name"] for event in done.seen("UnitFinished")].count("binding.cpp") == 1
    (finished,) = done.seen("PairFinished")
    assert (finished["torch"], finished["python"]) == ("2.12.1", PYTHON)
    assert [event["stage"] for event in done.seen("StageFinished")] == [
        "source",
        "environment",
        "toolchain",
        "environments",
        "compile",
        "library",
        "modules",
        "package",
        "import",
        "audit",
    ]
    (audited,) = done.seen("Audited")
    assert audited["verdict"] == "good"
    assert not [finding for finding in audited["findings"] if finding["severity"] in ("error", "warning")]
    report = report_of(wheel)
    (pair,) = report["pairs"]  # type: ignore[misc]
    assert (pair["torch"], pair["python"]) == ("2.12.1", PYTHON)  # type: ignore[has-type]
    assert pair["cpu_seconds"] > 0  # type: ignore[has-type]
    assert report["compile"]["compiled"] == 4  # type: ignore[index]

    for torch, minor in (("2.11.0", "11"), ("2.12.1", "12")):
        answer, built_for, file = smithy.python(smithy.install(wheel, torch), RUN).split()
        assert (answer, built_for) == (ANSWER, minor)
        assert file.endswith(f"tinykernels/_C/torch2.{minor}/_C{SUFFIX}")
    assert list(smithy.temporary.iterdir()) == []

    # The second run gives the finished wheel.
    first = wheel.read_bytes()
    shutil.rmtree(smithy.out)
    again = universal(smithy, source, "2.11,2.12").ok()
    assert again.seen("GraphReceived") == again.seen("PairFinished") == []
    assert smithy.wheel().read_bytes() == first


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory, wheels_of_pairs: Path, uv_cache: Path) -> Path:
    """The wheel for all PyTorch that one build makes, in folders with spaces and letters outside ASCII."""
    folder = tmp_path_factory.mktemp("alles für später")
    forge = Forge(folder, wheels_of_pairs, house.make_toolkit(folder / "cuda 13 ü"), uv_cache)
    universal(forge, house.shareable(folder / "tinykernels"), "2.11-2.13").ok()
    return forge.wheel()


@pytest.mark.parametrize(("first", "added"), [("2.11,2.12", "2.13"), ("2.12-2.13", "2.11")])
def test_an_extended_wheel_has_the_bytes_of_one_build_of_all(
    smithy: Forge, of_all: Path, source: Path, first: str, added: str
) -> None:
    """Also where the PyTorch that is added becomes the first of the wheel, and where all lies in other folders."""
    universal(smithy, source, first).ok()
    wheel = smithy.wheel()
    before = wheel.read_bytes()
    done = extend(smithy, wheel, source, "--torch", added).ok()
    assert wheel.read_bytes() == before
    assert smithy.toolkit.calls() == UNITS
    grown = extended(smithy)
    old, new = shared_objects(wheel), shared_objects(grown)
    assert {name: new[name] for name in old} == old
    assert set(new) - set(old) == {f"tinykernels/_C/torch{added}/_C{SUFFIX}"}

    assert [event["stage"] for event in done.seen("StageFinished")] == [
        "source",
        "look",
        "toolchain",
        "environments",
        "modules",
        "package",
        "import",
        "audit",
    ]
    *events, audited = done.events
    assert (events[-1]["event"], audited["event"], audited["verdict"]) == ("Finished", "Audited", "good")
    for event in events:
        assert tuple(event)[1:] == kinds()[event["event"]]
    report = report_of(grown)
    assert [pair["torch"] for pair in report["pairs"]] == [find_torch(added).version]  # type: ignore[attr-defined]
    assert len(report["plan"]["pairs"]) == 3  # type: ignore[index]

    assert of_all.name == grown.name
    assert of_all.read_bytes() == grown.read_bytes()


def another_python() -> Path:
    """Return an interpreter of another minor version with headers; skip the test where there is none."""
    offered = set(find_torch("2.11.0").pythons) - {PYTHON}
    for found in find_interpreters(Programs(process.run, dict(os.environ)), uv=""):
        if found.has_headers and ".".join(found.version.split(".")[:2]) in offered:
            return Path(found.path)
    pytest.skip("this machine has no second Python with headers")


def test_a_python_is_added(smithy: Forge, source: Path) -> None:
    other = another_python()
    minor = other.name.removeprefix("python")
    usual = smithy.environ()["PATH"]
    universal(smithy, source, "2.11,2.12").ok()
    extend(smithy, smithy.wheel(), source, "--python", minor, PATH=f"{usual}{os.pathsep}{other.parent}").ok()
    assert smithy.toolkit.calls() == UNITS
    grown = extended(smithy)
    assert [(pair.torch_minor, pair.python) for pair in described(grown).pairs] == [
        (torch, python)
        for torch in ("2.11", "2.12")
        for python in sorted((PYTHON, minor), key=lambda text: int(text.partition(".")[2]))
    ]
    for base in ("", str(other)):
        answer, built_for, _ = smithy.python(smithy.install(grown, "2.12.1", base), RUN).split()
        assert (answer, built_for) == (ANSWER, "12")


def test_for_people_each_pair_has_a_line(smithy: Forge, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    universal(smithy, source, "2.11").ok()
    monkeypatch.chdir(smithy.folder)
    done = smithy.main("extend", smithy.wheel(), "--source", source, *SYSTEM, "--torch", "2.12,2.13").ok()
    assert f"  adds       PyTorch 2.12, Python {PYTHON}, PyTorch 2.13, Python {PYTHON}\n" in done.out
    for torch in ("2.12.1", "2.13.0"):
        assert f"modules: PyTorch {torch}, Python {PYTHON} made in " in done.out


# --- kernels that can't be shared


def test_kernels_that_read_pytorch_lie_in_each_pairs_module(smithy: Forge, source: Path) -> None:
    for unit in UNITS:
        change(
            source / "csrc" / unit, "#include <cuda_runtime.h>", "#include <cuda_runtime.h>\n#include <torch/minor.h>"
        )
    done = universal(smithy, source, "2.11,2.12").ok()
    (said,) = (text for text in told(done) if "keeps kernels" in text)
    assert said == (
        "tinykernels._C keeps kernels in each pair's module, since these read headers of PyTorch, or need what does: "
        "scale.cu, shift.cu, total.cu"
    )
    wheel = smithy.wheel()
    (module,) = described(wheel).modules
    assert (module.library, module.shared, module.symbols) == ("", (), ())
    assert module.own == tuple(f"csrc/{unit}" for unit in UNITS)
    assert set(shared_objects(wheel)) == {f"tinykernels/_C/torch2.{minor}/_C{SUFFIX}" for minor in (11, 12)}
    assert smithy.toolkit.calls() == TWICE
    assert smithy.python(smithy.install(wheel, "2.12.1"), RUN).split()[:2] == [ANSWER, "12"]
    # Such a wheel is extended too, by compiling them once more.
    extend(smithy, wheel, source, "--torch", "2.13").ok()
    assert smithy.python(smithy.install(extended(smithy), "2.13.0"), RUN).split()[:2] == [ANSWER, "13"]


def test_one_unit_that_reads_pytorch_leaves_the_others_shared(smithy: Forge, source: Path) -> None:
    both = "#include <cuda_runtime.h>\n#include <torch/minor.h>"
    change(source / "csrc" / "total.cu", "#include <cuda_runtime.h>", both)
    done = universal(smithy, source, "2.11,2.12").ok()
    assert any(text.endswith("since these read headers of PyTorch, or need what does: total.cu") for text in told(done))
    (module,) = described(smithy.wheel()).modules
    assert (module.shared, module.own) == (("csrc/scale.cu", "csrc/shift.cu"), ("csrc/total.cu",))
    assert module.symbols == ("_Z5scaled", "_Z5shiftd")
    assert smithy.toolkit.calls() == {**UNITS, "total.cu": 2}
    assert smithy.python(smithy.install(smithy.wheel(), "2.12.1"), RUN).split()[:2] == [ANSWER, "12"]


def test_without_what_compiles_say_of_headers_nothing_is_shared(smithy: Forge) -> None:
    source = house.shareable(smithy.folder / "tinykernels")
    change(source / "setup.py", 'os.environ.pop("TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES", None)', "")
    universal(smithy, source, "2.11").ok()
    assert described(smithy.wheel()).modules[0].library == ""


class Asking:
    """An adapter that asks whether the PyTorch is 2.12 or older."""

    crossing = ""

    def questions(self) -> dict[str, str]:
        return {"old": "#include <torch/minor.h>\nstatic_assert(STANDIN_TORCH_MINOR <= 12);"}

    def passes(self, *_: object) -> tuple[()]:
        return ()


def test_a_pytorch_that_lays_things_out_in_another_way_is_refused(
    smithy: Forge, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "find_adapter", lambda _: Asking())
    monkeypatch.chdir(smithy.folder)
    words = ("--gpu", "H100", "--universal", "--python", PYTHON, *SYSTEM)
    smithy.main("build", source, *words, "--torch", "2.12").ok()
    assert described(smithy.wheel()).answers == ("old",)
    done = smithy.main("extend", smithy.wheel(), "--source", source, *SYSTEM, "--torch", "2.13", "--out", "more")
    assert done.code == 4
    assert f"PyTorch 2.13, Python {PYTHON}: PyTorch 2.13.0 can't share kernels with the others" in done.err
    assert "attnforge build tinykernels==1.2.0 --torch 2.13.0" in done.err
    assert not (smithy.folder / "more").exists()


# --- what fails, and what is interrupted

_COMPILER = """\
#!/bin/sh
case " $* " in
*" -c "*pairs/torch*binding.cpp*)
    torch=$(echo "$*" | sed 's|.*pairs/torch\\([0-9.]*\\)-.*|\\1|')
    echo "$torch" >> "{controls}/compiled"
    if [ -e "{controls}/$torch" ]; then . "{controls}/$torch"; fi ;;
esac
exec c++ "$@"
"""


class Compiler:
    """A g++ that does as it is told before it compiles the host code of a further pair, and notes for which it did."""

    def __init__(self, folder: Path) -> None:
        self.controls = folder / "told"
        self.controls.mkdir()
        (self.controls / "compiled").touch()
        self.path = folder / "bin" / "g++"
        self.path.parent.mkdir()
        self.path.write_text(_COMPILER.format(controls=self.controls))
        self.path.chmod(0o755)

    def wait(self, torch: str) -> None:
        """Let it wait, longer than any test does, until it is ended."""
        (self.controls / torch).write_text("sleep 100\n")

    def fail(self, torch: str, after: str = "") -> None:
        """Let it fail, once it has been called ``after`` another PyTorch."""
        waiting = f'until grep -q {after} "{self.controls}/compiled"; do sleep 0.05; done\n' if after else ""
        (self.controls / torch).write_text(
            f"{waiting}echo 'binding.cpp:1:1: error: no luck with this one' >&2; exit 1\n"
        )

    def forget(self) -> None:
        """Let it compile as usual from now on."""
        for order in self.controls.glob("2.*"):
            order.unlink()

    def compiled(self) -> list[str]:
        """Return for which PyTorch it was called, in order."""
        return (self.controls / "compiled").read_text().split()


@pytest.fixture
def compiler(smithy: Forge) -> Compiler:
    return Compiler(smithy.folder)


def test_a_pair_that_fails_is_named_and_ends_the_others(smithy: Forge, source: Path, compiler: Compiler) -> None:
    """The first one to fail, whatever its place: 2.12, whose compiler would run for long, comes before it."""
    compiler.wait("2.12")
    compiler.fail("2.13", after="2.12")
    began = time.monotonic()
    done = universal(smithy, source, "2.11-2.13", "--memory", "9G", CXX=str(compiler.path))
    assert time.monotonic() - began < 60
    assert done.code == 4, done.err
    error = done.events[-1]["error"]
    assert error["what"].startswith(f"PyTorch 2.13, Python {PYTHON}: binding.cpp failed to compile")
    assert "no luck with this one" in error["what"]
    assert sorted(compiler.compiled()) == ["2.12", "2.13"]
    assert smithy.processes() == []
    assert list(smithy.temporary.iterdir()) == []
    assert not smithy.out.exists()
    # The error's command compiles that pair's unit again, by hand.
    compiler.forget()
    assert "pairs/torch2.13" in error["hint"]


def test_what_was_finished_before_a_pair_failed_is_used_again(smithy: Forge, source: Path, compiler: Compiler) -> None:
    compiler.fail("2.13")
    alone = ("--jobs", "1", "--memory", "9G")
    failed = universal(smithy, source, "2.11-2.13", *alone, CXX=str(compiler.path))
    assert failed.code == 4, failed.err
    assert [event["torch"] for event in failed.seen("PairFinished")] == ["2.12.1"]
    assert compiler.compiled() == ["2.12", "2.13"]
    compiler.forget()
    done = universal(smithy, source, "2.11-2.13", *alone, CXX=str(compiler.path)).ok()
    assert [event["torch"] for event in done.seen("PairFinished")] == ["2.12.1", "2.13.0"]
    assert compiler.compiled() == ["2.12", "2.13", "2.13"]
    assert smithy.toolkit.calls() == UNITS
    (graph,) = done.seen("GraphReceived")
    assert (graph["compile"], graph["reused"]) == (0, 4)


def test_an_interrupt_while_pairs_are_made_leaves_nothing_behind(
    smithy: Forge, source: Path, compiler: Compiler
) -> None:
    compiler.wait("2.12")
    compiler.wait("2.13")
    words = ("--gpu", "H100", "--universal", "--torch", "2.11-2.13", "--python", PYTHON, *SYSTEM, "--memory", "9G")
    process = smithy.start("build", source, *words, CXX=str(compiler.path))
    wait_until(lambda: len(compiler.compiled()) == 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    wait_until(lambda: smithy.processes() == [], 20)
    wait_until(lambda: list(smithy.temporary.glob("attnforge-*")) == [], 20)
    assert not smithy.out.exists()
    compiler.forget()
    universal(smithy, source, "2.11-2.13", CXX=str(compiler.path)).ok()
    assert smithy.toolkit.calls() == UNITS


def test_an_interrupt_while_a_pairs_pytorch_is_fetched(smithy: Forge, source: Path) -> None:
    universal(smithy, source, "2.11").ok()
    with serve(smithy.wheels) as index:
        index.held.add("torch-2.12.1-py3-none-linux_x86_64.whl")
        settings = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": index.url}
        words = ("--source", source, *SYSTEM, "--torch", "2.12", "--out", "more")
        process = smithy.start("extend", smithy.wheel(), *words, **settings, UV_CACHE_DIR=str(smithy.folder / "uv"))
        assert index.asked.wait(60)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=30)
        finally:
            index.held.clear()
        assert process.returncode == 130, err
        wait_until(lambda: smithy.processes() == [], 20)


def test_what_a_package_without_a_recipe_needs_to_be_built_is_there_for_each_pair(smithy: Forge, source: Path) -> None:
    wheels = smithy.folder / "wheels"
    wheels.mkdir()
    for wheel in smithy.wheels.iterdir():
        (wheels / wheel.name).hardlink_to(wheel)
    house.write_wheel(wheels, "kernelnames", "1.0", "py3-none-any", {"kernelnames.py": b"NAME = 'tinykernels'\n"})
    change(source / "pyproject.toml", '"setuptools", ', '"setuptools", "kernelnames", ')
    change(source / "setup.py", 'name="tinykernels"', "name=__import__('kernelnames').NAME")
    forge = Forge(smithy.folder, wheels, smithy.toolkit, smithy.folder / "uv")
    universal(forge, source, "2.11,2.12").ok()
    extend(forge, forge.wheel(), source, "--torch", "2.13").ok()


# --- what is found out when modules are linked and loaded


def test_kernels_that_call_pytorch_can_not_be_linked_by_themselves(smithy: Forge, source: Path) -> None:
    """Though they read none of its headers: the whole module is linked for each pair instead, and that is told."""
    change(source / "csrc" / "shift.cu", "__global__ ", "namespace c10 { int answer(); }\n__global__ ")
    change(source / "csrc" / "shift.cu", "value + 1", "value + c10::answer() - 41")
    done = universal(smithy, source, "2.11,2.12").ok()
    (said,) = (text for text in told(done) if "keeps its kernels" in text)
    assert said.startswith("tinykernels._C keeps its kernels in each pair's module: the kernels library of")
    assert "c10::answer()" in said
    (module,) = described(smithy.wheel()).modules
    assert (module.library, module.shared) == ("", ())
    assert smithy.toolkit.calls() == TWICE
    assert smithy.python(smithy.install(smithy.wheel(), "2.12.1"), RUN).split()[:2] == [ANSWER, "12"]


def test_host_code_that_lays_out_what_crosses_in_another_way_is_refused(smithy: Forge, source: Path) -> None:
    """Names in our own namespace say sizes and offsets; a pair's host code that wants another has another layout."""
    kernel, host = source / "csrc" / "shift.cu", source / "csrc" / "binding.cpp"
    change(kernel, "__global__ ", "namespace attnforge { int state_8() { return 0; } }\n__global__ ")
    change(
        host,
        "// The sum",
        "#if STANDIN_TORCH_MINOR == 13\n#define STATE state_16\n#else\n#define STATE state_8\n#endif\n"
        "namespace attnforge { int STATE(); }\n// The sum",
    )
    change(host, "c10::answer()", "c10::answer() + attnforge::STATE()")
    universal(smithy, source, "2.12").ok()
    before = smithy.wheel().read_bytes()
    done = extend(smithy, smithy.wheel(), source, "--torch", "2.13")
    assert done.code == 4
    error = done.events[-1]["error"]
    assert f"the host code of PyTorch 2.13, Python {PYTHON} does not fit the kernels" in error["what"]
    assert "state_16" in error["why"]
    assert f"--torch 2.13.0 --python {PYTHON}, without --universal" in error["hint"]
    assert smithy.wheel().read_bytes() == before
    assert not (smithy.folder / "more").exists()


def test_a_module_that_does_not_load_with_a_pair_is_not_delivered(smithy: Forge, source: Path) -> None:
    host = source / "csrc" / "binding.cpp"
    refusing = 'if (STANDIN_TORCH_MINOR == 12) { PyErr_SetString(PyExc_ImportError, "not today"); return nullptr; }'
    change(host, "PyInit__C() {", f"PyInit__C() {{ {refusing} ")
    done = universal(smithy, source, "2.11,2.12")
    assert done.code == 4
    error = done.events[-1]["error"]
    assert error["what"] == f"tinykernels._C does not load with PyTorch 2.12, Python {PYTHON}"
    assert error["why"] == "ImportError: not today"
    # The next run does not take what was packed for a finished wheel.
    assert universal(smithy, source, "2.11,2.12").code == 4
    assert not smithy.out.exists()


def test_a_package_that_compiles_no_module(smithy: Forge, source: Path) -> None:
    change(source / "setup.py", "ext_modules=[", "ext_modules=[] and [")
    done = universal(smithy, source, "2.11,2.12")
    assert done.code == 4
    assert "upstream's build compiled no module" in done.err
    assert "without --universal" in done.err
