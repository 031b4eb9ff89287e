"""A build delivers what its wheel's name says, or nothing: with setups that nobody has written a recipe for."""

from __future__ import annotations

import json
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

from attnforge.elf import Elf
from standins import house
from standins.forge import PYTHON, Forge, wait_until

pytest_plugins = ["standins.fixtures"]
pytestmark = [pytest.mark.compile, pytest.mark.network]

# Both kinds of setup that a name once covered: compiled without ninja for its own architecture, and packed.
# PyTorch's own way of saying so is no longer one that works: see the test of it.
WITHOUT_NINJA = 'type("Own", (BuildExtension,), {"use_ninja": property(lambda _: False, lambda *_: None)})'
OWN_CODE = '["-O1", "-gencode", "arch=compute_80,code=sm_80"]'
RUN = "import tinykernels; print(tinykernels.run(3.0))"


def project(forge: Forge, name: str = "tinykernels", *changes: tuple[str, str]) -> Path:
    folder = house.tinykernels(forge.folder / name)
    setup = folder / "setup.py"
    text = setup.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    setup.write_text(text)
    return folder


def of(*gpus: str) -> list[str]:
    return ["--gpu", ",".join(gpus), "--torch", "2.11.0", "--python", PYTHON, "--toolchain", "system", "--jobs", "2"]


def test_code_of_the_setups_own_choice_is_refused(forge: Forge) -> None:
    """F1: planned sm_89 and sm_90, found sm_80, and no compile went through the seat."""
    source = project(
        forge,
        "it",
        ('{"build_ext": BuildExtension}', f'{{"build_ext": {WITHOUT_NINJA}}}'),
        ('"nvcc": ["-O1"]', f'"nvcc": {OWN_CODE}'),
    )
    done = forge.run("build", source, *of("L40S", "H100"), "--plain")
    assert done.code == 5
    assert "architectures: sm_80: the plan says sm_89, sm_90" in done.err
    assert "no compile went through attnforge's ninja" in done.err
    assert not list(forge.out.glob("*")) and not list(forge.cache.glob("builds/*/wheel/*/*.whl"))


def test_the_right_code_that_was_compiled_elsewhere_is_a_choice(forge: Forge) -> None:
    """The architectures are the plan's. That the scheduler saw nothing is still an error, unless a recipe says so."""
    source = project(forge, "it", ('{"build_ext": BuildExtension}', f'{{"build_ext": {WITHOUT_NINJA}}}'))
    done = forge.run("build", source, *of("H100"), "--plain")
    assert done.code == 5
    assert "no compile went through attnforge's ninja" in done.err and "outside = true" in done.err
    assert "the plan says" not in done.err

    recipe = forge.folder / "tinykernels.toml"
    recipe.write_text(
        """schema = 1
name = "tinykernels"
title = "Tiny kernels"
summary = "compiled without ninja"
sources = ["folder"]
outside = true
requirements = ["setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0", "ninja==1.13.0"]
"""
    )
    done = forge.run("build", recipe, "--source", source, *of("H100"), "--json")
    assert done.code == 0, done.err
    wheel = forge.wheel()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("/coverage.json")]
        assert json.loads(archive.read(name))["outside"] is True
    assert "compiled-outside" in [one["code"] for one in done.seen("Audited")[0]["findings"]]
    assert forge.python(forge.install(wheel), RUN) == "50.0"


@pytest.mark.parametrize("gpu", ["H100", "A100"])
def test_a_module_that_was_packed_and_not_compiled_is_refused(forge: Forge, gpu: str) -> None:
    """F2: a prebuilt sm_80 module; also where sm_80 is what was asked for."""
    forge.run("build", project(forge, "first"), *of("A100"), "--plain").ok()
    wheel = forge.wheel()
    source = forge.folder / "packed"
    source.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("tinykernels/"):
                archive.extract(name, source)
    wheel.unlink()
    (source / "setup.py").write_text(
        """from setuptools import Distribution, setup
from torch.utils.cpp_extension import CUDA_HOME


class Binary(Distribution):
    def has_ext_modules(self):
        return True


setup(name="packed", version="1.0", packages=["tinykernels"], package_data={"": ["*.so"]}, distclass=Binary)
"""
    )
    done = forge.run("build", source, *of(gpu), "--plain")
    assert done.code == 5
    assert "holds code that was compiled before this build: tinykernels/" in done.err
    assert not list(forge.out.glob("*.whl"))


def test_two_gpus_with_the_same_code_give_the_same_bytes(forge: Forge) -> None:
    """F10 and F28: names of GPUs and the order of a list change nothing; nothing is compiled twice."""
    source = project(forge)
    first = forge.run("build", source, *of("A100", "H100"), "--json").ok()
    before = forge.wheel().read_bytes()
    second = forge.run("build", source, *of("H200", "A30"), "--json").ok()
    assert forge.wheel().read_bytes() == before
    assert first.seen("Planned")[0]["digest"] == second.seen("Planned")[0]["digest"]
    assert second.seen("GraphReceived") == []
    assert not list(forge.out.glob("*.old"))


def test_other_content_of_the_same_name_is_not_lost(forge: Forge) -> None:
    source = project(forge)
    forge.run("build", source, *of("H100"), "--plain").ok()
    before = forge.wheel().read_bytes()
    (source / "tinykernels" / "more.py").write_text("x = 1\n")
    done = forge.run("build", source, *of("H100"), "--plain").ok()
    assert "was there with other content (of another plan: source differs)" in done.out
    (kept,) = forge.out.glob("*.whl.*.old")
    assert kept.read_bytes() == before != forge.wheel().read_bytes()


def test_metadata_scripts_and_search_paths_of_any_setup(forge: Forge) -> None:
    """F11, F12 and RUNPATHs: torch is asked for, a script is installed, and no folder of this machine is in it."""
    source = project(
        forge,
        "it",
        ('    install_requires=["torch"],\n', '    scripts=["tool"],\n'),
        (
            "            extra_compile_args=",
            '            runtime_library_dirs=["/built/here/lib"],\n            extra_compile_args=',
        ),
    )
    (source / "tool").write_text("#!/usr/bin/env python\nprint('it runs')\n")
    done = forge.run("build", source, *of("H100"), "--json").ok()
    (audited,) = done.seen("Audited")
    assert not [one for one in audited["findings"] if one["code"] in ("rpath", "data-name")]
    wheel = forge.wheel()
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert "Requires-Dist: torch==2.11.*" in archive.read(metadata).decode()
        (module,) = [name for name in archive.namelist() if name.endswith(".so")]
        assert Elf.read(archive.read(module)).rpath == () and b"/built/here" not in archive.read(module)
    interpreter = forge.install(wheel)
    tool = interpreter.parent / "tool"
    assert subprocess.run([tool], capture_output=True, text=True, check=True).stdout == "it runs\n"
    assert forge.python(interpreter, RUN) == "50.0"


def test_a_bound_of_upstreams_that_is_not_met_is_reported(forge: Forge) -> None:
    source = project(forge, "it", ('install_requires=["torch"]', 'install_requires=["torch<2.9"]'))
    done = forge.run("build", source, *of("H100"), "--plain").ok()
    assert "upstream's metadata asks for torch<2.9, and the wheel is for PyTorch 2.11.0" in done.out
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"


def test_a_pytorch_that_cannot_be_read_costs_no_finished_wheel(forge: Forge) -> None:
    """F14: the good wheel was called bad, and removed."""
    source = project(forge)
    forge.run("build", source, *of("H100"), "--plain").ok()
    before = forge.wheel().read_bytes()
    forge.wheel().unlink()
    (library,) = forge.cache.glob("environments/*/**/torch/lib/libc10.so")
    whole = library.read_bytes()
    library.unlink()
    library.write_bytes(whole[:1000])
    # Nothing is read again while the first report says what the wheel is.
    forge.run("build", source, *of("H100"), "--plain").ok()
    forge.wheel().unlink()
    (report,) = forge.cache.glob("builds/*/wheel/*/*.report.json")
    report.unlink()
    done = forge.run("build", source, *of("H100"), "--plain")
    assert done.code == 3
    assert "PyTorch can't be read" in done.err
    library.write_bytes(whole)
    done = forge.run("build", source, *of("H100"), "--json").ok()
    assert done.seen("GraphReceived") == []
    assert forge.wheel().read_bytes() == before


def test_a_setup_that_asks_for_a_prebuilt_wheel_is_told_to_build(forge: Forge) -> None:
    """F6: the variables of packages that attnforge has no recipe for are set, whatever the folder is called."""
    source = project(
        forge,
        "it",
        (
            "UNITS =",
            'import os\nassert os.environ["NVTE_PYTORCH_FORCE_BUILD"] == "TRUE"\n'
            'assert os.environ["TINYKERNELS_FORCE_BUILD"] == "TRUE"\nUNITS =',
        ),
    )
    forge.run("build", source, *of("H100"), "--plain").ok()


def test_a_setup_that_runs_pip_does_not_reach_the_machines(forge: Forge) -> None:
    """F25: to uninstall does nothing; to install is refused, with what to do instead."""
    call = 'import subprocess\nsubprocess.check_call(["{}", *"{}".split()])\nUNITS ='
    source = project(forge, "it", ("UNITS =", call.format("pip", "uninstall tinykernels -y")))
    forge.run("build", source, *of("H100"), "--plain").ok()
    source = project(forge, "other", ("UNITS =", call.format("pip3", "install ninja")))
    done = forge.run("build", source, *of("H100"), "--plain")
    assert done.code == 4
    assert "pip3 install ninja: attnforge lets no setup.py change an environment" in done.err


@pytest.mark.parametrize("damage", ["emptied", "cut", "changed", "longer", "no report"])
def test_a_damaged_finished_wheel_is_made_again(forge: Forge, damage: str) -> None:
    """F23: without a compile, and with the same bytes."""
    source = project(forge)
    forge.run("build", source, *of("H100"), "--plain").ok()
    before = forge.wheel().read_bytes()
    (kept,) = forge.cache.glob("builds/*/wheel/*/*.whl")
    changed = before.replace(b"tinykernels/", b"tinykernelz/")
    content = {"emptied": b"", "cut": before[:-100], "longer": before + b"x"}.get(damage, changed)
    kept.write_bytes(content)
    if damage == "no report":
        # The names of entries have no checksum: it takes the audit to see it.
        kept.with_name(f"{kept.name}.json").unlink(missing_ok=True)
        for report in kept.parent.glob("*.json"):
            report.unlink()
    forge.wheel().unlink()
    done = forge.run("build", source, *of("H100"), "--json").ok()
    assert forge.wheel().read_bytes() == before == kept.read_bytes()
    assert [one for one in done.seen("Message") if "it is made again" in one["text"]]
    assert [one["compile"] for one in done.seen("GraphReceived")] == [0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_of_a_setup_that_was_ended_stays(forge: Forge, how: signal.Signals) -> None:
    """F4: the temporary folders of a setup.py that compiles by itself, and its processes."""
    waits = (
        "import pathlib, subprocess, tempfile\n"
        "made = pathlib.Path(tempfile.mkdtemp(prefix='cmake-'), 'CMakeCache.txt')\nmade.write_text('x')\n"
        f"pathlib.Path({str(forge.folder / 'began')!r}).touch()\n"
        "subprocess.run(['sleep', '600'])\nUNITS ="
    )
    source = project(forge, "it", ("UNITS =", waits))
    process = forge.start("build", source, *of("H100"), "--plain")
    wait_until((forge.folder / "began").exists)
    assert list(forge.temporary.glob("**/cmake-*"))
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + how, out + err
    wait_until(lambda: forge.processes() == [], 20)
    assert not list(forge.temporary.iterdir())


@pytest.mark.parametrize(
    "without",
    [
        "BuildExtension.with_options(use_ninja=False)",
        "BuildExtension.with_options(use_ninja=False, no_python_abi_suffix=True)",
        'type("Own", (BuildExtension,), {"finalize_options": lambda self: '
        '(setattr(self, "use_ninja", False), BuildExtension.finalize_options(self))[1]})',
    ],
)
def test_a_setup_that_does_without_ninja_compiles_through_the_seat(forge: Forge, without: str) -> None:
    """F3: units are seen, the plan's architectures reach them, and it is said."""
    source = project(
        forge,
        "it",
        ('{"build_ext": BuildExtension}', f'{{"build_ext": {without}}}'),
        ('"nvcc": ["-O1"]', f'"nvcc": {OWN_CODE}'),
    )
    done = forge.run("build", source, *of("H100"), "--json").ok()
    assert [one["units"] for one in done.seen("GraphReceived")] == [4]
    assert [one for one in done.seen("Message") if "use_ninja=False" in one["text"]]
    (audited,) = done.seen("Audited")
    assert "compiled-outside" not in [one["code"] for one in audited["findings"]]
    assert forge.python(forge.install(forge.wheel()), RUN) == "50.0"


def test_a_build_by_cmake_is_said_before_it_compiles(forge: Forge) -> None:
    """F4: and one that compiles nothing by ninja is refused for that."""
    call = 'import subprocess\nif False:\n    subprocess.run(["cmake", "."])\nUNITS ='
    changes = (("UNITS =", call), ('{"build_ext": BuildExtension}', f'{{"build_ext": {WITHOUT_NINJA}}}'))
    done = forge.run("build", project(forge, "it", *changes), *of("H100"), "--plain")
    assert done.code == 5
    said = done.out.index("compiles with CMake, which is made to call this build's ninja; what is compiled without")
    assert said < done.out.index("compile: tinykernels")
    assert "no compile went through attnforge's ninja" in done.err
