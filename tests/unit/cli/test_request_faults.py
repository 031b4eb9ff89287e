"""Requests that were answered wrong: what is said of them now, and of others of their kind."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnforge.cli import main as program
from attnforge.model.host import Host, Toolkit
from attnforge.workflow import machine as machines

H100 = ("--gpu", "H100")
CUDA_12_4 = Toolkit(home="/usr/local/cuda-12.4", cuda="12.4", nvcc="12.4.131")
CUDA_13_0 = Toolkit(home="/usr/local/cuda-13.0", cuda="13.0", nvcc="13.0.88")
CUDA_12_8 = Toolkit(home="/usr/local/cuda-12.8", cuda="12.8", nvcc="12.8.93")
CUDA_12_6 = Toolkit(home="/usr/local/cuda-12.6", cuda="12.6", nvcc="12.6.85")


class Here:
    """A folder and a machine without network, where commands are run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host]) -> None:
        self.folder, self._patch, self._make_host = folder, monkeypatch, make_host
        self.on()

    def on(self, **changes: Any) -> Here:
        """Change the machine."""
        host = self._make_host(**changes)
        self._patch.setattr(machines, "probe", lambda *_: host)
        return self

    def call(self, *words: str, **environ: str) -> tuple[int, str, str]:
        offline = {
            "HOME": str(self.folder),
            "PIP_CONFIG_FILE": "/dev/null",
            "UV_NO_CONFIG": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "offered"),
            "ATTNFORGE_CACHE": str(self.folder / "cache"),
        }
        out, err = io.StringIO(), io.StringIO()
        code = program.main(words, {**offline, **environ}, out, err)
        return code, out.getvalue(), err.getvalue()

    def plan(self, *words: str, **environ: str) -> dict[str, Any]:
        code, out, err = self.call("plan", *words, "--json", **environ)
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        return document

    def refused(self, *words: str, **environ: str) -> tuple[int, str]:
        code, _, err = self.call("plan", *words, **environ)
        assert code in (2, 3), err
        return code, err

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def offer(self, name: str, **files: str) -> None:
        """Put a source archive NAME-VERSION.tar.gz where the index would have it."""
        (self.folder / "offered").mkdir(exist_ok=True)
        with tarfile.open(self.folder / "offered" / f"{name}.tar.gz", "w:gz") as bundle:
            for path, text in files.items():
                info = tarfile.TarInfo(f"{name}/{path.replace('__', '/').replace('_DOT_', '.')}")
                info.size = len(text)
                bundle.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host]) -> Here:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    return Here(tmp_path, monkeypatch, make_host)


# --- pure Python (F7)

PURE_SETUP = "from setuptools import setup\nsetup(name='thing', version='1.0', packages=['thing'])\n"


@pytest.mark.parametrize(
    "files",
    [
        {"setup_DOT_py": PURE_SETUP},
        {"pyproject_DOT_toml": '[build-system]\nrequires = ["setuptools"]\n[project]\nname = "thing"\n'},
        {"pyproject_DOT_toml": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'},
        # CUDA sources that are compiled when they are first used are data to the build.
        {"setup_DOT_py": PURE_SETUP, "thing__kernel_DOT_cu": "// compiled later"},
    ],
    ids=["setup.py", "setuptools", "hatchling", "sources as data"],
)
@pytest.mark.parametrize("words", [(), ("--gpu", "B200"), ("--torch", "2.9.0")])
def test_pure_python_needs_no_gpu_and_has_no_label(here: Here, files: dict[str, str], words: tuple[str, ...]) -> None:
    here.offer("thing-1.0", **files)
    planned = here.on(toolkits=(), compilers=()).plan("thing", *words)
    assert planned["wheel"] == "thing-1.0-py3-none-any.whl"
    assert (planned["label"], planned["toolchain"]["origin"], planned["target"]["torch"]) == ("", "none", "")


def test_a_package_that_may_compile_something_is_asked_for_its_gpus(here: Here) -> None:
    setup = "from setuptools import setup\nsetup(name='thing', version='1.0', ext_modules=MODULES)\n"
    here.offer("thing-1.0", setup_DOT_py=setup)
    assert "no GPU is named" in here.refused("thing")[1]
    assert here.plan("thing", *H100)["wheel"].endswith("-linux_x86_64.whl")


@pytest.mark.parametrize("words", [("--profile", "diffusion"), ("--head-dims", "64"), ("--universal",)])
def test_what_has_no_meaning_for_pure_python_is_refused_as_that(here: Here, words: tuple[str, ...]) -> None:
    here.offer("thing-1.0", setup_DOT_py=PURE_SETUP)
    code, said = here.refused("thing", *words)
    assert code == 2 and "pure Python" in said


def test_deepspeed_compiles_nothing_unless_it_is_told_to(here: Here) -> None:
    here.offer("deepspeed-0.19.8", setup_DOT_py="ext_modules = []\n")
    assert here.on(compilers=()).plan("deepspeed")["wheel"] == "deepspeed-0.19.8-py3-none-any.whl"


# --- PyTorch's local version (F8)


@pytest.mark.parametrize(("local", "toolkit"), [("cu128", CUDA_12_8), ("cu126", CUDA_12_6)])
def test_the_cuda_of_a_build_of_pytorch_is_the_targets(here: Here, local: str, toolkit: Toolkit) -> None:
    cuda = f"{local[2:4]}.{local[4]}"
    here.on(toolkits=(toolkit,))
    assert here.plan("flash-attn", *H100, "--torch", f"2.11.0+{local}")["target"]["cuda"] == cuda
    here.on(toolkits=(toolkit,), torch=f"2.11.0+{local}")
    planned = here.plan("flash-attn", *H100)
    assert (planned["target"]["cuda"], planned["target"]["torch"]) == (cuda, "2.11.0")
    # What the user names counts more than what is installed.
    assert here.plan("flash-attn", *H100, "--torch", "2.12.1")["target"]["torch"] == "2.12.1"


@pytest.mark.parametrize("local", ["cpu", "rocm6.4", "xpu", "cpu.cxx11.abi", "foo", "cu999", "cu12"])
def test_a_build_without_a_known_cuda_is_refused(here: Here, local: str) -> None:
    code, said = here.refused("flash-attn", *H100, "--torch", f"2.11.0+{local}")
    assert code == 2 and "--torch 2.11.0" in said
    if local != "cu999":
        assert "+cu130" in said
    code, said = here.on(torch=f"2.11.0+{local}").refused("flash-attn", *H100)
    assert code == 2 and f"2.11.0+{local}" in said


def test_two_cuda_versions_at_once_are_refused(here: Here) -> None:
    code, said = here.refused("flash-attn", *H100, "--torch", "2.11.0+cu128", "--cuda", "13.0")
    assert code == 2 and "name two CUDA versions" in said
    same = here.plan("flash-attn", *H100, "--torch", "2.11.0+cu130", "--cuda", "13.0")
    assert same["target"]["cuda"] == "13.0"


def test_local_versions_of_a_universal_wheel(here: Here) -> None:
    words = ("flash-attn", *H100, "--universal", "--python", "3.12")
    assert here.plan(*words, "--torch", "2.11+cu130,2.12+cu130")["target"]["cuda"] == "13.0"
    assert "different CUDA versions" in here.refused(*words, "--torch", "2.11+cu128,2.12+cu130")[1]
    assert "no build with CUDA" in here.refused(*words, "--torch", "2.11+cu130,2.12+cpu")[1]


def test_the_users_build_counts_more_than_the_named_targets_cuda(here: Here) -> None:
    here.on(toolkits=(CUDA_12_6,))
    planned = here.plan("causal-conv1d==1.7.0", "--target", "hopper", "--torch", "2.11.0+cu126", "--source", "sdist")
    assert planned["target"]["cuda"] == "12.6"


def test_an_unknown_pytorch_beside_attnforge_is_said(here: Here) -> None:
    planned = here.on(torch="2.12.0a0+git1234").plan("flash-attn", *H100)
    assert any("2.12.0a0+git1234" in warning["message"] for warning in planned["warnings"])


# --- ARM hosts (F9)


@pytest.mark.parametrize(
    "gpu", ["GH200", "GB200", "GB300", "DGX Spark", "GB10", "12.1", "nvidia gh200 480gb", "sm_121"]
)
def test_gpus_of_arm_hosts_are_refused(here: Here, gpu: str) -> None:
    code, said = here.refused("causal-conv1d", "--gpu", gpu)
    assert code == 2 and "ARM" in said and "x86_64" in said


@pytest.mark.parametrize("gpu", ["H200", "B200", "B300", "9.0", "10.0", "12.0"])
def test_gpus_of_other_hosts_are_not(here: Here, gpu: str) -> None:
    assert here.plan("causal-conv1d", "--gpu", gpu)["wheel"].endswith("linux_x86_64.whl")


def test_an_arm_machine_compiles_no_wheel_for_another_processor(here: Here) -> None:
    code, said = here.on(machine="aarch64").refused("flash-attn", *H100)
    assert code == 3 and "aarch64" in said


# --- exit codes (F18)


@pytest.mark.parametrize(
    "words",
    [
        ("flash-attn==2.8.*",),
        ("flash-attn==2.8.*,==2.8.3",),
        (f"flash-attn=={'1' * 5000}",),
        ("flash-attn", "--jobs", "999999999999"),
        ("flash-attn", "--groups", "9" * 5000),
        ("flash-attn", "--memory", "1e999"),
        ("flash-attn", "--head-dims", "1" * 5000),
        ("flash-attn", "--torch", "1" * 5000),
        ("flash-attn", "--label", "1" * 5000),
        ("flash-attn", "--label", "x" * 190),
        ("flash-attn", "--cuda", "٣"),
        ("flash-attn", "--python", "3." + "1" * 5000),
        ("a\0b",),
        ("./a\0b",),
        ("\udcff",),
        ("flash-attn", "--label", "\udcff"),
        ("~nobody-here/x",),
        ("./" + "a" * 5000,),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_a_request_that_can_not_be_met_exits_2(here: Here, words: tuple[str, ...]) -> None:
    code, said = here.refused(*words, *H100)
    assert code == 2
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool]\nattnforge = 3\n", "attnforge in"),
        ("tool = 3\n", "tool in"),
        ("[[tool.attnforge]]\n", "attnforge in"),
        ("[tool.attnforge]\nmemory = 48\n", "memory in [tool.attnforge]"),
        ("[tool.attnforge]\nmemory = true\n", "memory in [tool.attnforge]"),
        ("[tool.attnforge]\njobs = true\n", "jobs in [tool.attnforge]"),
        ("[tool.attnforge]\njobs = 1.5\n", "jobs in [tool.attnforge]"),
        ("[tool.attnforge]\npython = 3.10\n", "write it in quotes"),
        ("[tool.attnforge]\ntorch = {a = 1}\n", "write it in quotes"),
        ("[tool.attnforge]\ngpu = [[1]]\n", "gpu in [tool.attnforge]"),
        ("[tool.attnforge]\ngpu = 1979-05-27\n", "gpu in [tool.attnforge]"),
        ("x = " + "[" * 5000, "can't be read"),
        ("\x00", "can't be read"),
    ],
)
def test_a_bad_value_is_said_with_its_file_and_key(here: Here, text: str, said: str) -> None:
    here.write("pyproject.toml", text)
    code, error = here.refused("flash-attn", *(() if "gpu" in text else H100))
    assert code == 2
    assert said in error
    assert "pyproject.toml" in error or "gpu" in text


def test_a_bad_value_of_a_variable_is_said_with_its_name(here: Here) -> None:
    assert "ATTNFORGE_MEMORY can't be '48'" in here.refused("flash-attn", *H100, ATTNFORGE_MEMORY="48")[1]


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX"])
@pytest.mark.parametrize("url", ["notaurl", "https://", "http://[::1", "http://h:port/simple", "ftp://h/simple"])
def test_an_index_that_is_no_url_is_the_environments_fault(here: Here, variable: str, url: str) -> None:
    code, said = here.refused("some-package", *H100, PIP_NO_INDEX="", **{variable: url})
    assert code == 3
    assert repr(url) in said and "PIP_INDEX_URL" in said


@pytest.mark.parametrize("variable", ["PIP_FIND_LINKS", "UV_FIND_LINKS"])
@pytest.mark.parametrize("url", ["http://[::1", "https://", "http://h:port/wheels", "ftp://h/wheels"])
def test_a_place_of_archives_that_is_no_url_is_the_environments_fault(here: Here, variable: str, url: str) -> None:
    code, said = here.refused("some-package", *H100, **{variable: url})
    assert code == 3
    assert repr(url) in said and "PIP_FIND_LINKS" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("PKG-INFO", "Metadata-Version: 2.1\nName: foo\nVersion: 1.2.0+!!\n"),
        ("PKG-INFO", f"Metadata-Version: 2.1\nName: foo\nVersion: {'1' * 5000}\n"),
        ("PKG-INFO", "Metadata-Version: 2.1\nName: ../../foo\nVersion: 1.0\n"),
        ("pyproject.toml", "build-system = 3\n"),
        ("pyproject.toml", "[build-system]\nrequires = 3\n"),
        ("pyproject.toml", "[build-system]\nbuild-backend = []\n"),
        ("pyproject.toml", '[build-system]\nrequires = ["==1"]\n'),
        ("pyproject.toml", '[project]\nname = "foo"\nversion = "no"\n'),
        ("setup.cfg", "[metadata]\nname = a b\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_source_that_states_nonsense_is_refused(here: Here, file: str, text: str, packed: bool) -> None:
    here.write(f"tree/{file}", text)
    here.write("tree/setup.py", "")
    with zipfile.ZipFile(here.folder / "tree.zip", "w") as bundle:
        bundle.write(here.folder / "tree" / file, f"tree/{file}")
        bundle.writestr("tree/setup.py", "")
    code, said = here.refused("./tree.zip" if packed else "./tree", *H100)
    assert code == 2, said


@pytest.mark.parametrize("at", range(0, 120, 3))
def test_a_damaged_zip_is_refused_or_read(here: Here, at: int) -> None:
    with zipfile.ZipFile(here.folder / "tree.zip", "w") as bundle:
        bundle.writestr("tree/PKG-INFO", "Metadata-Version: 2.1\nName: foo\nVersion: 1.0\n")
        bundle.writestr("tree/setup.py", "")
    data = bytearray((here.folder / "tree.zip").read_bytes())
    data[-at - 4 : -at or None] = b"\xff\xfe\xfd\xfc"
    (here.folder / "tree.zip").write_bytes(data)
    assert here.call("plan", "./tree.zip", *H100)[0] in (0, 2)


def test_a_current_folder_that_was_removed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = here.folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, said = here.refused("flash-attn", *H100)
    assert code == 2 and "current folder" in said


# --- checked before work begins (F19)


@pytest.mark.parametrize("store", ["ftp://x", "s3://", "redis://h:99999/0", "nonsense", "file://host/x"])
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_store_that_can_not_be_used_is_refused_first(here: Here, store: str, verb: str) -> None:
    code, _, said = here.call(verb, "not-on-any-index", *H100, "--store", store)
    assert code == 2
    assert "not-on-any-index" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label", "a b"), "can't be a local version label"),
        (("--profile", "difusion"), "diffusion"),
        (("--toolchain", "conda"), "no toolchain 'conda'"),
        (("--toolchain", "nvidia==12.8"), "--toolchain nvidia==12.8.1"),
        (("--groups", "many"), "--groups auto"),
        (("--target", "hoper"), "hopper"),
        (("--torch", "99"), "--torch 2.15.0"),
        (("--torch", "2.11.0+cpu"), "no build with CUDA"),
    ],
)
def test_options_are_checked_before_the_index_is_asked(here: Here, words: tuple[str, ...], said: str) -> None:
    code, error = here.refused("not-on-any-index", *H100, *words)
    assert code == 2 and said in error and "not-on-any-index" not in error


@pytest.mark.parametrize("origin", ["system", "pypi", "nvidia", "nvidia==13.0.2"])
def test_every_toolchain_that_is_offered_can_be_asked_for(here: Here, origin: str) -> None:
    """The early check refused NVIDIA's, which the resolver takes: both ask the same function now."""
    here.on(toolkits=(CUDA_13_0,))
    planned = here.plan("flash-attn", *H100, "--torch", "2.11.0", "--python", "3.12", "--toolchain", origin)
    assert planned["toolchain"]["origin"] == origin.partition("==")[0]


# --- estimates (F20)


def test_what_is_not_known_is_said_as_unknown(here: Here) -> None:
    here.offer("flash_attn-2.7.1.post4", setup_DOT_py="ext_modules = []\n")
    code, out, _ = here.call("plan", "flash-attn==2.7.1.post4", *H100)
    assert code == 0
    assert "expected   unknown" in out
    assert "does not cover 2.7.1.post4" in out
    planned = here.plan("flash-attn==2.7.1.post4", *H100)
    assert planned["estimate"] | {"slots": 0} == {"seconds": 0, "peak_bytes": 0, "slots": 0, "known": False}
    assert here.plan("flash-attn", *H100)["estimate"]["known"]


# --- hints that help (F21, F27)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--torch", "99"), "--torch 2.15.0"),
        (("--torch", "1.13"), "--torch 2.4.0"),
        (("--torch", "2.99"), "--torch 2.15.0"),
        (("--torch", "2.11.7"), "--torch 2.11.0"),
        (("--python", "3.15t"), "--python 3.14t"),
        (("--torch", "2.6.0", "--python", "3.13t"), "--python 3.13"),
        (("--python", "3.99"), "--python 3.14"),
        (("--python", "4.0"), "--python 3.14"),
        (("--python", "2.7"), "--python 3.10"),
        (("--memory", "-5G"), "--memory=SIZE"),
        (("--head-dims", "100"), "--head-dims 128"),
        (("--without", "zzz"), "--without alibi,"),
        (("--cuda", "99"), "--cuda 13.0"),
    ],
)
def test_what_is_near_is_named(here: Here, words: tuple[str, ...], hint: str) -> None:
    code, said = here.refused("flash-attn", *H100, *words)
    assert code == 2
    assert hint in said.partition("hint:")[2]


@pytest.mark.parametrize(("name", "near"), [("flash-atn", "flash-attn"), ("nosuchpackagexyz", "")])
def test_an_unknown_package_is_answered_with_what_is_near_and_nothing_else(here: Here, name: str, near: str) -> None:
    code, said = here.refused(name, *H100)
    assert code == 2
    assert ("did you mean" in said) == bool(near)
    assert near in said
    assert "mamba" not in said


@pytest.mark.parametrize(
    ("package", "torch", "cuda"),
    [
        ("flash-attn-3", "2.6", ""),
        ("flash-attn-3", "2.7.1", ""),
        ("flash-attn-3", "2.8", "12.9"),
        ("mamba-ssm", "2.7", ""),
    ],
)
def test_the_target_that_a_hint_names_can_be_planned(here: Here, package: str, torch: str, cuda: str) -> None:
    toolkits = tuple(
        Toolkit(home=f"/cuda-{one}", cuda=one, nvcc=f"{one}.1") for one in ("12.4", "12.6", "12.8", "12.9")
    )
    words = (package, *H100, "--torch", torch, *(("--cuda", cuda) if cuda else ()))
    code, said = here.on(toolkits=toolkits).refused(*words)
    assert code == 2
    hint = said.partition("hint: ")[2].splitlines()[0].split()
    assert hint[0] == "--torch"
    assert here.plan(package, *H100, *hint)["package"] == package


def test_the_reason_names_what_pytorch_has(here: Here) -> None:
    _, said = here.on(toolkits=(CUDA_12_4,)).refused("flash-attn-3", *H100, "--torch", "2.6")
    assert "PyTorch 2.6.0 is built with 11.8, 12.4, 12.6, none of which is enough" in said
    assert "--torch 2.7.1 --cuda 12.8" in said


# --- universal wheels take what single ones take (F26)


def test_an_nvcc_of_the_same_major_will_do_for_several_pytorch_too(here: Here) -> None:
    here.on(toolkits=(CUDA_12_4,))
    single = here.plan("flash-attn", *H100, "--torch", "2.7", "--cuda", "12.6", "--python", "3.12")
    both = here.plan("flash-attn", *H100, "--universal", "--torch", "2.6,2.7", "--python", "3.12")
    assert both["target"]["cuda"] == single["target"]["cuda"] == "12.6"
    assert both["toolchain"] == single["toolchain"]


def test_no_toolchain_of_that_major_is_said_so(here: Here) -> None:
    code, said = here.on(toolkits=()).refused(
        "flash-attn", *H100, "--universal", "--torch", "2.6,2.7", "--toolchain", "system"
    )
    assert code in (2, 3)
    assert "no nvcc" in said or "no toolkit" in said


def test_without_a_toolkit_several_pytorch_get_the_one_that_a_single_one_gets(here: Here) -> None:
    here.on(toolkits=())
    both = here.plan("flash-attn", *H100, "--universal", "--torch", "2.6,2.7", "--python", "3.12")
    cuda = both["target"]["cuda"]
    single = here.plan("flash-attn", *H100, "--torch", "2.7", "--cuda", cuda, "--python", "3.12")
    assert both["toolchain"]["origin"] == "nvidia"
    assert both["toolchain"] == single["toolchain"]
