"""Faults, each provoked for real: what attnforge says, its exit code, and that the next run goes on where it can."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from attnforge.host.probe import probe
from attnforge.model.host import Host, Memory
from attnforge.workflow import compiling
from attnforge.workflow import machine as machines
from standins import house
from standins.forge import TARGET, Forge, wait_until, with_tmpfs
from standins.index import closed_url, serve

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

UNITS = {"scale.cu": 1, "shift.cu": 1, "total.cu": 1}


@pytest.fixture
def source(forge: Forge) -> Path:
    return house.tinykernels(forge.folder / "tinykernels")


# --- several builds, and builds that are ended


def test_two_builds_of_one_plan_at_once(forge: Forge, source: Path) -> None:
    go = forge.folder / "go"
    forge.toolkit.order("scale.cu", wait=str(go))
    first = forge.start("build", source, *TARGET, "--json")
    wait_until(lambda: "scale.cu" in forge.toolkit.calls())
    second = forge.start("build", source, *TARGET, "--json")
    third = forge.start("build", source, *TARGET, "--json")
    said = dict.fromkeys((second, third), "")
    for process in said:
        assert process.stdout is not None
        while "waiting for it" not in said[process]:
            line = process.stdout.readline()
            assert line, "it ended without waiting"
            said[process] += line
    # Who waits can be interrupted, and disturbs no one.
    third.send_signal(signal.SIGINT)
    assert third.wait(timeout=20) == 130
    go.touch()
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, out + err
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, out + err
    assert "GraphReceived" not in out
    assert forge.toolkit.calls() == UNITS
    third.communicate()


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_build_that_is_ended_leaves_nothing_behind_and_resumes(
    forge: Forge, source: Path, how: signal.Signals, code: int
) -> None:
    if signal.getsignal(how) == signal.SIG_IGN:
        pytest.skip(f"whoever started the tests ignores {how.name}, and so does what they start")
    go = forge.folder / "go"
    forge.toolkit.order("total.cu", wait=str(go))
    process = forge.start("build", source, *TARGET)
    wait_until(lambda: forge.objects() == 3 and "total.cu" in forge.toolkit.calls())
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    is_told = how != signal.SIGKILL
    assert ("run the same command again: finished objects are kept" in err) == is_told
    assert ("compile: total.cu stopped after" in out) == is_told
    assert "FAILED" not in out
    wait_until(lambda: forge.processes() == [], 20)
    wait_until(lambda: list(forge.temporary.iterdir()) == [], 20)
    go.touch()
    done = forge.build(source).ok()
    (graph,) = done.seen("GraphReceived")
    assert (graph["compile"], graph["reused"]) == (1, 3)
    assert forge.toolkit.calls() == {**UNITS, "total.cu": 2}


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_build_that_is_ended_while_packages_are_fetched(
    forge: Forge, source: Path, how: signal.Signals, code: int
) -> None:
    with serve(forge.wheels) as index:
        (torch,) = (name for name in index.files if name.startswith("torch-"))
        settings = {**index_settings(index.url), "UV_CACHE_DIR": str(forge.folder / "uv")}
        index.held.add(torch)
        process = forge.start("build", source, *TARGET, **settings)
        assert index.asked.wait(60)
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
        assert process.returncode == code, err
        wait_until(lambda: forge.processes() == [], 20)
        index.held.clear()
        forge.build(source, **settings).ok()


# Has a process of its own session ask for ninja when a build is gone, and waits for that, too. The file "real" tells
# that another ninja was called.
ORPHAN = """
import os, pathlib, subprocess, sys, time
folder = pathlib.Path({folder!r})
real = pathlib.Path(sys.executable).with_name("ninja")
real.write_text(f"#!/bin/sh\\ntouch '{{folder}}/real'\\n")
real.chmod(0o755)
alone = os.fork() == 0
if alone:
    os.setsid()
(folder / ("alone" if alone else "setup")).write_text(str(os.getpid()))
while not (folder / "go").exists():
    time.sleep(0.02)
if alone:
    done = subprocess.run(["ninja"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (folder / "said.new").write_text(f"{{done.returncode}} {{done.stdout}}")
    (folder / "said.new").rename(folder / "said")
    os._exit(0)
"""


def test_an_orphan_of_a_killed_build_reaches_no_other_ninja(forge: Forge, source: Path) -> None:
    setup = source / "setup.py"
    setup.write_text(ORPHAN.format(folder=str(forge.folder)) + setup.read_text())
    process = forge.start("build", source, *TARGET)
    wait_until(lambda: (forge.folder / "alone").exists() and (forge.folder / "setup").exists())
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: list(forge.temporary.glob("attnforge-*")) == [], 20)
    (forge.folder / "go").touch()
    wait_until((forge.folder / "said").exists, 20)
    said = (forge.folder / "said").read_text()
    assert not (forge.folder / "real").exists()
    assert command_line(int((forge.folder / "setup").read_text())) == b""
    assert said.startswith("1 ninja: the attnforge build that this program belongs to has ended")


def reapers(parent: int) -> list[int]:
    """Return the reapers that a process started."""
    children = Path(f"/proc/{parent}/task").glob("*/children")
    found = [int(word) for path in children for word in path.read_text().split()]
    return [pid for pid in found if b"reaper.py" in command_line(pid)]


def command_line(pid: int) -> bytes:
    """Return the words of a process, none for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_build_goes_on_without_its_reaper(forge: Forge, source: Path) -> None:
    go = forge.folder / "go"
    forge.toolkit.order("every", wait=str(go))
    process = forge.start("build", source, *TARGET)
    wait_until(lambda: len(forge.toolkit.calls()) == 2)
    (first,) = reapers(process.pid)
    subprocess.run(["kill", "-9", str(first)], check=True)
    wait_until(lambda: reapers(process.pid) not in ([], [first]), 20)
    go.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert forge.toolkit.calls() == UNITS
    wait_until(lambda: forge.processes() == [], 20)
    assert list(forge.temporary.iterdir()) == []


def test_a_build_that_is_killed_after_its_reaper_leaves_nothing_behind(forge: Forge, source: Path) -> None:
    forge.toolkit.order("every", wait=str(forge.folder / "go"))
    process = forge.start("build", source, *TARGET)
    wait_until(lambda: len(forge.toolkit.calls()) == 2)
    (first,) = reapers(process.pid)
    subprocess.run(["kill", "-9", str(first)], check=True)
    wait_until(lambda: reapers(process.pid) not in ([], [first]), 20)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: forge.processes() == [], 20)
    wait_until(lambda: list(forge.temporary.iterdir()) == [], 20)


# --- compilers that fail


@pytest.mark.parametrize("end", ["SIGKILL", 137, 254])
def test_a_killed_compiler_is_tried_again(forge: Forge, source: Path, end: object) -> None:
    forge.toolkit.order("shift.cu", end=end, times=1)
    done = forge.build(source).ok()
    (retried,) = done.seen("JobRetried")
    assert retried["name"] == "shift.cu"
    reserved = [event["predicted_bytes"] for event in done.seen("JobStarted") if event["name"] == "shift.cu"]
    assert retried["reserved_bytes"] == 2 * reserved[0]
    assert forge.toolkit.calls() == {**UNITS, "shift.cu": 2}


def test_a_compiler_that_is_always_killed_tells_of_memory(forge: Forge, source: Path) -> None:
    forge.toolkit.order("shift.cu", end="SIGKILL")
    done = forge.build(source, "--memory", "9G")
    assert done.code == 4
    error = done.events[-1]["error"]
    # Twice, or three times if another compiler ran beside the second one.
    assert re.search(r"shift.cu: the compiler was killed (twice|3 times)", error["what"])
    assert re.search(r"hold [\d.]+ GB, with [\d.]+ GB reserved of a budget of 9.7 GB", error["why"])
    assert "no other compiler beside it" in error["why"]
    assert "--memory" in error["hint"]
    # What else was compiled is kept.
    assert forge.objects() >= 1


def test_a_neighbour_that_takes_the_memory_is_named_and_the_build_goes_on(
    forge: Forge, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Memory(total_bytes=16 << 30, limit_bytes=16 << 30, available_bytes=0, limited_by="")
    monkeypatch.setattr(compiling, "usable_memory", lambda root: gone)
    done = forge.main("build", source, *TARGET, "--json").ok()
    (warning,) = (event for event in done.seen("Message") if "less free memory" in event["text"])
    assert warning["level"] == "warning"
    assert forge.toolkit.calls() == UNITS


def test_a_unit_that_fails_is_named_with_its_error_and_a_command(forge: Forge, source: Path) -> None:
    log = (
        'kernels.h(2): warning #177-D: variable "x" was declared but never referenced\n'
        'csrc/shift.cu(4): error: identifier "nonsense" is undefined\n\n'
        'csrc/shift.cu(9): error: expected a ";"\n\n'
        '2 errors detected in the compilation of "csrc/shift.cu".\n'
    )
    forge.toolkit.order("shift.cu", print=log, end=2)
    done = forge.build(source)
    assert done.code == 4
    error = done.events[-1]["error"]
    assert error["what"] == 'shift.cu failed to compile: csrc/shift.cu(4): error: identifier "nonsense" is undefined'
    assert error["what"] in done.err
    # The command works when it is run by hand, from anywhere and with no environment.
    command = shlex.split(error["hint"].partition("run: ")[2])
    by_hand = partial(subprocess.run, command, cwd="/", env={}, capture_output=True, text=True)
    failed = by_hand()
    assert failed.returncode == 2
    assert "nonsense" in failed.stderr
    (forge.toolkit.controls / "shift.cu.json").unlink()
    mended = by_hand()
    assert mended.returncode == 0, mended.stderr
    # What is said of the log is true, and the next build goes on.
    (message,) = (event["text"] for event in done.seen("Message") if event["text"].startswith("log: "))
    assert 'identifier "nonsense" is undefined' in Path(message.removeprefix("log: ")).read_text()
    assert forge.build(source).ok().seen("GraphReceived")[0]["reused"] >= 1


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("csrc/binding.cpp", "return PyModule_Create(&module)", "return nonsense", "binding.cpp failed to compile"),
        ("csrc/binding.cpp", "torch/extension.h", "cute/tensor.hpp", "submodule"),
        ("setup.py", "UNITS = (", "raise RuntimeError('no luck today')\nUNITS = (", "no luck today"),
        ("setup.py", "extra_compile_args", "libraries=['nosuchlibrary'],\n extra_compile_args", "-lnosuchlibrary"),
        ("setup.py", '"total.cu"', '"total.cu", "gone.cu"', "gone.cu"),
        ("setup.py", "CUDAExtension(", "(lambda *a, **b: 5)(", "upstream's build failed"),
    ],
)
def test_upstreams_own_faults(forge: Forge, source: Path, file: str, old: str, new: str, said: str) -> None:
    path = source / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = forge.build(source)
    assert done.code == 4, done.err
    assert said in done.err


@pytest.mark.parametrize("new", ["[build-system", "build-system = 3\n[other]"])
def test_a_project_file_that_is_none_is_refused_before_anything_is_made(forge: Forge, source: Path, new: str) -> None:
    path = source / "pyproject.toml"
    path.write_text(path.read_text().replace("[build-system]", new))
    done = forge.build(source)
    assert done.code == 2, done.err
    assert "pyproject.toml can't be read" in done.err
    assert not list(forge.cache.glob("builds/*"))


# --- disks


@pytest.mark.parametrize(
    ("place", "size", "pad"),
    [("cache", "1m", 0), ("cache", "48m", 100_000_000), ("tmp", "4k", 0), ("tmp", "12k", 0), ("dist", "4k", 0)],
    ids=["environment", "objects", "no temporary file", "temporary files", "output"],
)
def test_a_full_disk(forge: Forge, source: Path, place: str, size: str, pad: int) -> None:
    folder = forge.folder / place
    folder.mkdir(exist_ok=True)
    words = with_tmpfs(folder, f"size={size}")
    if pad:
        forge.toolkit.order("scale.cu", pad=pad)
    done = forge.build(source, prefix=words)
    assert done.code == 3, done.err
    assert re.search(r"no space left|No space left", done.err)
    assert "ATTNFORGE_CACHE" in done.err or place == "dist"


# Runs a command, and says on standard error what it left in a folder: the name before the command.
SAYING_WHAT_IS_LEFT = ["sh", "-c", 'left=$1; shift; "$@"; code=$?; ls -A "$left" >&2; exit $code', "sh"]


@pytest.mark.parametrize("spare", [-4096, 0], ids=["wheel", "report"])
def test_a_full_output_folder_is_named_and_no_half_file_stays(forge: Forge, source: Path, spare: int) -> None:
    forge.build(source).ok()
    pages = -(-forge.wheel().stat().st_size // 4096) * 4096
    full = forge.folder / "full"
    full.mkdir()
    words = [*with_tmpfs(full, f"size={pages + spare}"), *SAYING_WHAT_IS_LEFT, str(full)]
    for _ in range(2):  # what is up to date, and what is packed again
        done = forge.build(source, "--out", full, prefix=words)
        assert done.code == 3, done.err
        assert re.search(rf"{full}\S* can't be written or read: No space left", done.err)
        assert f"free some space in {full}, or choose another folder with --out" in done.err
        assert "ATTNFORGE_CACHE" not in done.err
        assert ".new-" not in done.err
        for report in forge.cache.glob("builds/*/wheels/*.report.json"):
            report.unlink()
    forge.build(source).ok()


def test_a_build_writes_no_bytecode_into_an_environment_that_is_shared(forge: Forge, source: Path) -> None:
    setup = source / "setup.py"
    setup.write_text(f"import setuptools.command.rotate\n{setup.read_text()}")
    forge.build(source).ok()
    (compiled,) = forge.cache.glob("environments/*/venv/lib/python3*/site-packages/setuptools/command/__pycache__")
    names = {path.name.partition(".")[0] for path in compiled.iterdir()}
    assert "build_ext" in names  # when the environment was made
    assert "rotate" not in names


def test_a_read_only_home(forge: Forge, source: Path) -> None:
    home = forge.folder / "home"
    home.mkdir()
    words = with_tmpfs(home, "ro")
    bare = {"ATTNFORGE_CACHE": "", "UV_CACHE_DIR": ""}
    done = forge.build(source, prefix=words, **bare)
    assert done.code == 3, done.err
    assert "ATTNFORGE_CACHE" in done.err
    # Planning writes nothing, so it needs nothing.
    assert forge.run("plan", source, *TARGET, prefix=words, **bare).ok()
    elsewhere = {**bare, "ATTNFORGE_CACHE": str(forge.folder / "elsewhere")}
    assert forge.build(source, prefix=words, **elsewhere).ok()


def test_a_read_only_output_folder(forge: Forge, source: Path) -> None:
    forge.out.mkdir()
    done = forge.build(source, prefix=with_tmpfs(forge.out, "ro"))
    assert done.code == 3
    assert str(forge.out.name) in done.err


def test_an_output_folder_that_is_a_file(forge: Forge, source: Path) -> None:
    forge.out.write_text("")
    done = forge.build(source, "--out", "dist/wheels")
    assert done.code == 2
    assert "dist is a file" in done.err
    assert not (forge.cache / "builds").exists()


def test_a_disk_that_is_too_small_for_the_kernels(forge: Forge) -> None:
    source = house.flash_attn(forge.folder / "flash-attention")
    forge.temporary.mkdir()
    done = forge.build(source, prefix=with_tmpfs(forge.temporary, "size=64m"))
    assert done.code == 3
    # Two compiles at once.
    assert f"140 MB in {forge.temporary}" in done.err
    assert "TMPDIR=FOLDER" in done.err
    assert done.seen("StageStarted") == []


# --- the machine's tools


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with nothing in it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


@pytest.fixture
def no_local_toolkits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without CUDA toolkits in /usr/local."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("proc", "sys"):
        (root / name).symlink_to(f"/{name}")
    monkeypatch.setattr(machines, "probe", partial(probe, root=root))


def program(folder: Path, name: str, prints: str, code: int = 0) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {shlex.quote(prints)}\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_no_compiler(forge: Forge, source: Path, tools: Path) -> None:
    done = forge.build(source, PATH=str(tools))
    assert done.code == 3
    assert "no C++ compiler" in done.err
    assert "apt-get install g++" in done.err


def test_a_host_compiler_that_is_too_new(forge: Forge, source: Path, tools: Path) -> None:
    program(tools, "g++", "99.0.0")
    done = forge.build(source, PATH=str(tools))
    assert done.code == 3
    assert "g++ 99.0.0: nvcc of CUDA 13.0 takes g++ 6 to 15" in done.err
    assert "apt-get install g++-15" in done.err


@pytest.mark.parametrize("nvcc", ["12.8.93", "11.2.67", "broken"], ids=["another major", "too old", "does not run"])
def test_an_nvcc_that_will_not_do(
    forge: Forge, source: Path, tools: Path, no_local_toolkits: None, tmp_path: Path, nvcc: str
) -> None:
    program(tools, "g++", "12.2.0")
    toolkit = house.make_toolkit(tmp_path / "other", nvcc)
    if nvcc == "broken":
        program(toolkit.home / "bin", "nvcc", "cannot execute", 1)
    environ = {"PATH": str(tools), "CUDA_HOME": str(toolkit.home)}
    done = forge.main("build", source, *TARGET, **environ)
    assert done.code == 3
    assert "no nvcc of CUDA 13 is on this machine" in done.err
    assert (f"{nvcc.rpartition('.')[0]} in {toolkit.home}" if nvcc != "broken" else "no nvcc") in done.err
    assert "set CUDA_HOME" in done.err
    # Where the user does not insist on the system's, the package index has one.
    anywhere = [word for word in TARGET if word not in ("--toolchain", "system")]
    planned = forge.main("plan", source, *anywhere, "--explain", **environ).ok()
    assert "pypi: nvcc 13.0" in planned.out


def test_an_nvcc_of_another_minor_is_warned_of(
    forge: Forge, source: Path, tools: Path, no_local_toolkits: None, tmp_path: Path
) -> None:
    program(tools, "g++", "12.2.0")
    home = house.make_toolkit(tmp_path / "newer", "13.2.51").home
    done = forge.main("plan", source, *TARGET, PATH=str(tools), CUDA_HOME=str(home)).ok()
    assert "the chosen nvcc is 13.2" in done.out


def test_an_nvcc_that_is_replaced_while_planning(forge: Forge, source: Path) -> None:
    """The version is looked at again when it is used: what the plan says is what compiles."""
    counter = forge.folder / "asked"
    nvcc = forge.toolkit.home / "bin" / "nvcc"
    release = "release %s, V%s.1"
    nvcc.write_text(
        f'#!/bin/sh\nif mkdir "{counter}" 2>/dev/null; then echo "{release % ("13.0", "13.0")}"; '
        f'else echo "{release % ("12.4", "12.4")}"; fi\n'
    )
    done = forge.build(source)
    assert done.code == 3
    assert "is 12.4.1, not 13.0" in done.err


# --- sources and packages


def test_no_network(forge: Forge, source: Path) -> None:
    closed = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": closed_url()}
    for package in ("tinykernels==1.2.0", source):
        done = forge.build(package, **closed)
        assert done.code == 3, done.err
        assert "HTTPS_PROXY" in done.err


def test_credentials_are_never_shown(forge: Forge, source: Path) -> None:
    url = closed_url().replace("//", "//user:hunter2@")
    for package in ("tinykernels==1.2.0", source):
        done = forge.build(package, PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL=url)
        assert done.code == 3
        assert "hunter2" not in done.out + done.err
    assert not any("hunter2" in log.read_text() for log in forge.cache.glob("builds/*/log.txt"))


def index_settings(url: str) -> dict[str, str]:
    return {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": url}


def test_an_sdist_with_another_hash(forge: Forge, source: Path) -> None:
    sdist = house.archive(source, forge.folder / "sdists", "tinykernels-1.2.0")
    with serve(sdist, forge.wheels, hashes={sdist.name: "0" * 64}) as index:
        done = forge.build("tinykernels==1.2.0", **index_settings(index.url))
    assert done.code == 3
    assert "its SHA-256 is not the one that was asked for" in done.err
    assert not [path for path in (forge.cache / "sources").rglob("*") if path.suffix == ".gz"]


def test_a_dependency_with_another_hash(forge: Forge, source: Path) -> None:
    (torch,) = forge.wheels.glob("torch-*.whl")
    with serve(forge.wheels, hashes={torch.name: "0" * 64}) as index:
        # uv's shared cache holds the true one already.
        cache = str(forge.folder / "uv")
        done = forge.build(source, **index_settings(index.url), UV_CACHE_DIR=cache)
    assert done.code == 3, done.err
    assert "wrong hash" in done.err


def test_a_torch_for_another_cuda(forge: Forge, source: Path) -> None:
    """The first index that has the version may have it for another CUDA."""
    found = forge.folder / "other wheels"
    found.mkdir()
    files = {"torch/__init__.py": b"", "torch/version.py": b"__version__ = '2.11.0+cu126'\ncuda = '12.6'\n"}
    house.write_wheel(found, "torch", "2.11.0", "py3-none-any", files)
    for wheel in forge.wheels.glob("*.whl"):
        if not wheel.name.startswith("torch-"):
            (found / wheel.name).hardlink_to(wheel)
    done = forge.build(source, PIP_FIND_LINKS=found.as_uri(), UV_CACHE_DIR=str(forge.folder / "uv"))
    assert done.code == 3
    assert "is built with CUDA 12.6, not with CUDA 13.0" in done.err


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside", size=3)],
        [member("evil-1.0/../../outside", size=3)],
        [member("/tmp/attnforge-outside", size=3)],
        [member("evil-1.0/link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("evil-1.0/link", tarfile.SYMTYPE, "../../..")],
        [member("evil-1.0/link", tarfile.SYMTYPE, "."), member("evil-1.0/link/x", size=3)],
        [member("evil-1.0/hard", tarfile.LNKTYPE, "../../../etc/passwd")],
        [member("evil-1.0/null", tarfile.CHRTYPE)],
        [member("evil-1.0/pipe", tarfile.FIFOTYPE)],
    ],
    ids=["parent", "inner parent", "absolute", "link", "link up", "through a link", "hard link", "device", "pipe"],
)
def test_hostile_archives(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], members: list[tarfile.TarInfo]
) -> None:
    on_a_host(monkeypatch, make_host)
    archive = house.hostile_archive(forge.folder / "evil-1.0.tar.gz", members)
    before = {path for path in forge.folder.rglob("*") if path.name.endswith("outside")}
    done = forge.main("build", archive, "--gpu", "H100", "--torch", "2.11.0")
    assert done.code == 2, done.err
    assert "evil-1.0.tar.gz: it is refused" in done.err
    assert {path for path in forge.folder.rglob("*") if path.name.endswith("outside")} == before
    assert not Path("/tmp/attnforge-outside").exists()
    assert not list(forge.cache.glob("builds/*/source/*"))


def on_a_host(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host]) -> None:
    """Leave out the look at this machine, which is not what the test is about."""
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "zip that leaves", "a folder without a build"])
def test_sources_that_are_none(
    forge: Forge, source: Path, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], damage: str
) -> None:
    on_a_host(monkeypatch, make_host)
    broken = forge.folder / "broken-1.0.tar.gz"
    if damage == "truncated":
        whole = house.archive(source, forge.folder / "sdists", "broken-1.0").read_bytes()
        broken.write_bytes(whole[: len(whole) // 2])
    elif damage == "not gzip":
        broken.write_bytes(b"<html>404</html>")
    elif damage == "zip that leaves":
        broken = forge.folder / "broken-1.0.zip"
        with zipfile.ZipFile(broken, "w") as bundle:
            bundle.writestr("broken-1.0/setup.py", "")
            bundle.writestr("broken-1.0/../../outside", "x")
    else:
        broken = forge.folder / "empty"
        broken.mkdir()
    done = forge.main("build", broken, "--gpu", "H100")
    assert done.code == 2, done.err
    assert broken.name in done.err


# --- wheels that are audited


@pytest.fixture(scope="module")
def small_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"plain.py": b"x = 1\n" * 99}
    return house.write_wheel(tmp_path_factory.mktemp("wheel"), "plain", "1.0", "py3-none-any", files)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -60])
def test_truncated_wheels(forge: Forge, small_wheel: Path, kept: int) -> None:
    cut = forge.folder / small_wheel.name
    cut.write_bytes(small_wheel.read_bytes()[:kept])
    done = forge.main("audit", cut)
    assert done.code == 5, done.out
    assert "truncated" in done.err


def test_a_wheel_with_a_changed_byte(forge: Forge, small_wheel: Path) -> None:
    data = bytearray(small_wheel.read_bytes())
    data[data.index(b"x = 1")] = ord("y")
    changed = forge.folder / small_wheel.name
    changed.write_bytes(data)
    assert forge.main("audit", changed).code == 5


def test_a_wheel_that_is_not_there(forge: Forge) -> None:
    assert forge.main("audit", forge.folder / "none-1.0-py3-none-any.whl").code == 2


# --- words that mean nothing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flash-attn", "--gpu", "H1000"], "H100"),
        (["flash-attn", "--gpu", "T4"], "T4"),
        (["flash-attn", "--gpu", "H100", "--head-dims", "65"], "--head-dims 96"),
        (["flash-attn", "--gpu", "H100", "--head-dims", "many"], "--head-dims"),
        (["flash-attn", "--gpu", "H100", "--dtypes", "fp61"], "--dtypes fp16"),
        (["flash-attn", "--gpu", "H100", "--without", "dropot"], "--without dropout"),
        (["flash-attn", "--gpu", "H100", "--profile", "diffuson"], "--profile diffusion"),
        (["flash-attn", "--gpu", "H100", "--torch", "2.99"], "nearest: --torch"),
        (["flash-attn", "--gpu", "H100", "--torch", "2.11.0", "--python", "3.2"], "--python 3."),
        (["flash-attn", "--gpu", "H100", "--torch", "2.11.0", "--cuda", "11.8"], "--cuda 12."),
        (["flash-attn", "--target", "refrence"], "--target reference"),
        (["flash-attn", "--profil", "full"], "--profile"),
        (["flash-attn", "--gpu", "H100", "--jobs", "0"], "--jobs"),
        (["flash-attn", "--gpu", "H100", "--memory", "lots"], "--memory"),
        (["./nowhere"], "does not exist"),
    ],
)
def test_unknown_words(
    forge: Forge,
    monkeypatch: pytest.MonkeyPatch,
    make_host: Callable[..., Host],
    arguments: list[str],
    said: str,
) -> None:
    on_a_host(monkeypatch, make_host)
    done = forge.main("build", *arguments)
    assert done.code == 2, done.err
    assert said in done.err.partition("hint:")[2] or said in done.err.splitlines()[0]
    assert not forge.cache.exists()


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("flash-atn", "did you mean flash-attn"),
        ("tinykernels==9.9", "tinykernels==1.2.0"),
        ("flash-attn==9.9", "`attnforge packages`"),
        ("torch", "no source archive"),
    ],
)
def test_unknown_packages_and_versions(
    forge: Forge,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_host: Callable[..., Host],
    package: str,
    said: str,
) -> None:
    on_a_host(monkeypatch, make_host)
    sdist = house.archive(source, forge.folder / "sdists", "tinykernels-1.2.0")
    with serve(sdist, forge.wheels) as index:
        done = forge.main("build", package, "--gpu", "H100", **index_settings(index.url))
    assert done.code == 2, done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("table", "variable", "said"),
    [
        ("head-dim = [64]", "", "did you mean head-dims?"),
        ("head-dims = ['x']", "", "head-dims in [tool.attnforge] of "),
        ("profile = ", "", "pyproject.toml can't be read"),
        ("", "ATTNFORGE_PROFIL", "did you mean ATTNFORGE_PROFILE?"),
        ("", "ATTNFORGE_JOBS", "ATTNFORGE_JOBS can't be"),
    ],
)
def test_unknown_option_keys(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, table: str, variable: str, said: str
) -> None:
    (forge.folder / "pyproject.toml").write_text(f"[tool.attnforge]\n{table}\n")
    monkeypatch.chdir(forge.folder)
    done = forge.main("plan", "flash-attn", "--gpu", "H100", **({variable: "x"} if variable else {}))
    assert done.code == 2
    assert said in done.err
