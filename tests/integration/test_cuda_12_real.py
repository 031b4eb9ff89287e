"""CUDA 12 for real: a toolkit that is fetched from a server with NVIDIA's layout compiles units, and a wheel.

The wheel takes PyTorch 2.7.1 (3 GB) and some minutes, so it is built where that is asked for:
CUDA_12_WHEEL=1 ./forge test tests/integration/test_cuda_12_real.py
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_engine_cuda import SM80, SM90, Project, ran

from attnforge import Machine
from attnforge.host.programs import Programs
from attnforge.host.toolkits import find_toolkits
from attnforge.model.events import Downloaded, Event
from attnforge.model.plan import ToolchainPin
from attnforge.process import run
from attnforge.provision.redist import fetch_release, provide_release
from attnforge.provision.toolchain import Toolchain
from standins.cuda12 import NotHereError, make_cuda_12
from standins.real import attnforge
from standins.redist import RELEASE, Fault, Server, pack, serve

pytestmark = [
    pytest.mark.compile,
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """NVIDIA's archives of CUDA 12.4, but for their hashes."""
    folder = tmp_path_factory.mktemp("cuda12")
    try:
        home = make_cuda_12(folder)
    except NotHereError as error:
        pytest.skip(f"a CUDA 12 toolkit can't be made here: {error}")
    with serve(pack(home, folder / "mirror", compressed=False)) as told:
        yield told


@pytest.fixture(scope="module")
def toolchain(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """The toolkit as it is put together from them; a connection breaks on the way."""
    machine = Machine({**os.environ, "ATTNFORGE_CACHE": str(tmp_path_factory.mktemp("cache"))})
    machine.folders.ensure()
    release = fetch_release(RELEASE, "x86_64", server.url, machine.folders, machine.settings)
    pin = ToolchainPin(origin="nvidia", cuda=release.cuda, nvcc=release.nvcc, archives=release.archives)
    server.faults["cuda_nvcc"] = Fault(cut=1_000_000, times=1)
    events: list[Event] = []
    compiler = str(shutil.which("g++"))
    made = provide_release(pin, server.url, machine.folders, machine.uv, compiler, events.append)
    assert [asked for path, asked in server.asked if "cuda_nvcc" in path] == ["", "bytes=1000000-"]
    assert sum(isinstance(event, Downloaded) for event in events) == len(release.archives)
    return made


def test_units_compile(toolchain: Toolchain, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "one", tmp_path / "cache")
    project.nvcc = str(toolchain.nvcc)
    summary, error = project.build(codes=(SM80, SM90))
    assert error is None
    # nvcc is taken apart into its steps, as one of CUDA 13 is.
    assert ran(summary) == {"preprocess": 6, "cudafe++": 2, "cicc": 4, "ptxas": 4, "fatbinary": 2, "compile": 2}
    again, error = Project(tmp_path / "one", tmp_path / "cache", nvcc=str(toolchain.nvcc)).build(codes=(SM80, SM90))
    assert error is None
    assert (again.cached, again.compiled) == (2, 0)


def test_doctor_finds_it_whole_until_a_part_is_missing(toolchain: Toolchain, tmp_path: Path) -> None:
    home = tmp_path / "cuda"
    shutil.copytree(toolchain.home, home, symlinks=True)
    environ = {"PATH": "/usr/bin:/bin", "CUDA_HOME": str(home)}
    (found,) = find_toolkits(Programs(run, environ), tmp_path)
    assert (found.nvcc, found.named_by, found.lacks, found.max_glibc) == ("12.4.131", "CUDA_HOME", (), "2.40")
    (home / "include" / "nv" / "target").unlink()
    (home / "nvvm" / "bin" / "cicc").unlink()
    (found,) = find_toolkits(Programs(run, environ), tmp_path)
    assert found.lacks == ("nv/target (cuda_cccl)", "cicc (libnvvm, or cuda_nvcc before 13.0)")


@pytest.mark.skipif(
    not os.environ.get("CUDA_12_WHEEL"), reason="CUDA_12_WHEEL is not set: minutes, and 3 GB of PyTorch"
)
def test_a_wheel(server: Server, tmp_path: Path) -> None:
    words = ["flash-attn==2.7.2.post1", "--torch", "2.7.1", "--python", "3.11", "--gpu", "L40S,H100"]
    words += ["--profile", "diffusion", "--head-dims", "64", "--out", str(tmp_path / "dist")]
    fetched = ["--toolchain", f"nvidia=={RELEASE}", "--cuda-mirror", server.url]
    done = attnforge(tmp_path / "cache", "build", *words, *fetched, "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    audit = json.loads(done.stdout.splitlines()[-1])
    assert audit["verdict"] == "good"
    assert [module["architectures"] for module in audit["modules"]] == [["sm_80", "sm_90"]]
    assert [finding["seen"] for finding in audit["findings"] if finding["code"] == "compiler"] == ["nvcc 12.4.131"]
    assert "+cu126torch2.7.nvcc12.4.sm80.sm90.diffusion.hd64-cp311-" in audit["wheel"]
