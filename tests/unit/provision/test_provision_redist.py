"""A toolkit of NVIDIA's archives, with tiny ones of its layout and a runner that plays nvcc."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.errors import HostError
from attnforge.knowledge.redist import CudaRelease, known_manifests
from attnforge.model.events import Downloaded, Event, Message
from attnforge.model.plan import ToolchainPin
from attnforge.paths import Folders
from attnforge.process import Command, Outcome
from attnforge.provision import download as downloads
from attnforge.provision import redist
from attnforge.provision.indexes import IndexSettings
from attnforge.provision.redist import fetch_release, parse_manifest, provide_release
from attnforge.provision.toolchain import Toolchain
from attnforge.provision.uv import Uv
from standins.redist import RELEASE, VERSIONS, Fault, Server, pack, serve

GXX = "/usr/bin/g++"
SETTINGS = IndexSettings(timeout=0.3)
FILES = (
    "bin/nvcc",
    "bin/crt/link.stub",
    "nvvm/bin/cicc",
    "include/crt/host_config.h",
    "include/cuda_runtime.h",
    "include/nv/target",
    "include/cublas_v2.h",
    "lib64/libcudart.so.12.4.127",
    "lib64/libcudart_static.a",
    "lib64/stubs/libcuda.so",
    "lib64/stubs/libcublas.so",
)


def toolkit(home: Path) -> Path:
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name * 200)
        (home / name).chmod(0o755)
    (home / "lib64" / "libcudart.so.12").symlink_to("libcudart.so.12.4.127")
    return home


class World:
    """Plays nvcc: prints a version, compiles as ``compiles`` says."""

    def __init__(self, version: str = VERSIONS["cuda_nvcc"], compiles: Outcome | None = None) -> None:
        self.version, self.compiles = version, compiles or Outcome(0, "")
        self.commands: list[Command] = []

    def __call__(self, command: Command, log: IO[str] | None = None) -> Outcome:
        self.commands.append(command)
        if command.argv[1] == "--version":
            return Outcome(0, f"Cuda compilation tools, release 12.4, V{self.version}\n")
        return self.compiles


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serve(pack(toolkit(tmp_path / "cuda"), tmp_path / "mirror")) as told:
        yield told


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache é x")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(*arguments: Any, **more: Any) -> dict[str, Path]:
        return downloads.download(*arguments, **more, pause=0.01)

    monkeypatch.setattr(redist, "download", quick)


def release_of(server: Server, folders: Folders, mirror: str = "") -> CudaRelease:
    return fetch_release(RELEASE, "x86_64", mirror or server.url, folders, SETTINGS)


def pin_of(release: CudaRelease) -> ToolchainPin:
    return ToolchainPin(
        origin="nvidia",
        cuda=release.cuda,
        nvcc=release.nvcc,
        release=release.version,
        manifest=release.manifest,
        archives=release.archives,
    )


def provide(
    pin: ToolchainPin,
    mirror: str,
    folders: Folders,
    world: Callable[..., Outcome] | None = None,
    events: list[Event] | None = None,
    compiler: str = GXX,
) -> Toolchain:
    uv = Uv("/bin/uv", SETTINGS, {"HOME": "/h", "PATH": "/usr/local/cuda/bin"}, world or World())
    return provide_release(pin, mirror, folders, uv, compiler, events.append if events is not None else lambda _: None)


def test_the_components_are_one_toolkit(server: Server, folders: Folders) -> None:
    events: list[Event] = []
    world = World()
    toolchain = provide(pin_of(release_of(server, folders)), server.url, folders, world, events)
    home = toolchain.home
    there = {str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir() or path.is_symlink()}
    packed = {name.replace("lib64/", "lib/") for name in FILES} - {"include/cublas_v2.h", "lib/stubs/libcublas.so"}
    licenses = {f"licenses/{component}/LICENSE" for component in VERSIONS}
    assert there == packed | licenses | {"lib64", "lib/libcudart.so", "lib/libcudart.so.12"}
    assert (home / "lib64" / "libcudart.so").resolve().name == "libcudart.so.12.4.127"
    assert (home / "licenses/cuda_cccl/LICENSE").read_text() == "The license of cuda_cccl\n"
    assert (toolchain.cuda, toolchain.version, toolchain.origin) == ("12.4", "12.4.131", "nvidia")
    assert toolchain.packages == ("cuda_nvcc 12.4.131", "cuda_cudart 12.4.127", "cuda_cccl 12.4.127")
    assert toolchain.nvcc.stat().st_mode & 0o111
    probe = world.commands[-1]
    assert probe.env["PATH"] == "/usr/bin:/usr/bin:/bin"
    assert "#include <nv/target>" in (probe.cwd / "probe.cu").read_text()
    assert sorted(event.name for event in events if isinstance(event, Downloaded)) == sorted(VERSIONS)
    told = [event.text for event in events if isinstance(event, Message)]
    assert len(told) == 1 and "End User License Agreement" in told[0]


def test_the_second_time_nothing_is_fetched_or_run(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    first = provide(pin, server.url, folders)
    asked, world = len(server.asked), World()
    assert provide(pin, "http://127.0.0.1:9", folders, world) == first
    assert (len(server.asked), world.commands) == (asked, [])
    assert not [path for path in (folders.toolchains / "archives").iterdir() if path.suffix != ".lock"]


def test_what_it_is_made_of_is_kept_with_it(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    entry = provide(pin, server.url, folders).home.parent
    facts = json.loads((entry / "complete.json").read_text())
    assert facts["release"] == RELEASE
    assert facts["manifest"] == pin.manifest
    assert [archive["sha256"] for archive in facts["archives"]] == [archive.sha256 for archive in pin.archives]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=404), "cuda_cudart can't be downloaded: the server answers 404"),
        (Fault(other=b"x"), "cuda_cudart is refused: its size is not the pinned one"),
        (Fault(cut=100, ranges=False), "cuda_cudart (could not be fetched|ends early)"),
        (Fault(status=502), "cuda_cudart could not be fetched"),
    ],
)
def test_a_toolkit_is_never_half_made(server: Server, folders: Folders, fault: Fault, says: str) -> None:
    pin = pin_of(release_of(server, folders))
    server.faults["cuda_cudart"] = fault
    with pytest.raises(HostError, match=says) as caught:
        provide(pin, server.url, folders)
    assert "--cuda-mirror" in caught.value.hint
    assert not list(folders.toolchains.glob("cuda-*/complete.json"))
    server.faults.clear()
    assert provide(pin, server.url, folders).nvcc.exists()


def test_two_archives_in_each_others_place_are_refused(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    one, other = (server.root / archive.path for archive in pin.archives[1:])
    size = max(one.stat().st_size, other.stat().st_size)
    swapped = [archive.model_copy(update={"size": size}) for archive in pin.archives[1:]]
    for path in (one, other):  # of one size, so that only the hash tells them apart
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (other, one)]
    archives = [one.model_copy(update={"sha256": digest}) for one, digest in zip(swapped, hashes, strict=True)]
    with pytest.raises(HostError, match=r"its SHA-256 is not the pinned one"):
        provide(pin.model_copy(update={"archives": (pin.archives[0], *archives)}), server.url, folders)
    assert not list(folders.toolchains.glob("cuda-*/complete.json"))


def test_slow_and_breaking_connections_end_in_the_same_toolkit(server: Server, folders: Folders) -> None:
    server.faults["cuda_nvcc"] = Fault(cut=100, times=2)
    server.faults["cuda_cccl"] = Fault(cut=50, stall=1, times=1)
    assert provide(pin_of(release_of(server, folders)), server.url, folders).nvcc.exists()


def test_an_archive_that_is_none_is_refused(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    (server.root / pin.archives[2].path).write_bytes(b"no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    wrong = pin.archives[2].model_copy(update={"size": 10, "sha256": digest})
    with pytest.raises(HostError, match="cuda_cccl of CUDA can't be unpacked"):
        provide(pin.model_copy(update={"archives": (*pin.archives[:2], wrong)}), server.url, folders)


def test_one_that_does_not_compile_is_not_kept(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    error = 'math_functions.h(5442): error: exception specification is incompatible with that of "cospi"\n'
    with pytest.raises(HostError, match="do not compile with the glibc of this machine") as caught:
        provide(pin, server.url, folders, World(compiles=Outcome(1, error)))
    assert "cospi" in caught.value.why
    assert not list(folders.toolchains.glob("cuda-*/complete.json"))
    asked = len(server.asked)
    assert provide(pin, server.url, folders).nvcc.exists()
    assert len(server.asked) == asked  # what was fetched is still there


def test_another_nvcc_and_no_compiler(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    with pytest.raises(HostError, match=r"the nvcc that was fetched is 12\.4\.99, not 12\.4\.131"):
        provide(pin, server.url, folders, World("12.4.99"))
    with pytest.raises(HostError, match=r"no C\+\+ compiler"):
        provide(pin, server.url, folders, compiler="")


def test_a_folder_is_a_mirror(server: Server, folders: Folders) -> None:
    release = release_of(server, folders, str(server.root))
    asked = len(server.asked)
    assert provide(pin_of(release), str(server.root), folders).nvcc.exists()
    assert len(server.asked) == asked


def test_a_toolkit_of_the_same_archives_is_shared(server: Server, folders: Folders) -> None:
    pin = pin_of(release_of(server, folders))
    again = pin.model_copy(update={"release": "12.4.98", "manifest": ""})
    assert provide(pin, server.url, folders) == provide(again, "", folders)


# --- manifests


def test_a_manifest_is_fetched_once_and_then_needs_no_network(server: Server, folders: Folders) -> None:
    release = release_of(server, folders)
    assert (release.cuda, release.nvcc) == ("12.4", "12.4.131")
    text = (server.root / f"redistrib_{RELEASE}.json").read_bytes()
    assert release.manifest == hashlib.sha256(text).hexdigest()
    server.faults["redistrib"] = Fault(status=500)
    assert release_of(server, folders) == release


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=500), Fault(stall=2, cut=10)])
def test_a_manifest_that_can_not_be_had(server: Server, folders: Folders, fault: Fault) -> None:
    server.faults["redistrib"] = fault
    with pytest.raises(HostError, match="could not be fetched") as caught:
        release_of(server, folders)
    assert "--cuda-mirror" in caught.value.hint


def test_a_known_manifest_has_to_be_that_one(server: Server, folders: Folders) -> None:
    version = next(iter(known_manifests()))
    (server.root / f"redistrib_{version}.json").write_text("{}")
    with pytest.raises(HostError, match="its SHA-256 is not the known one") as caught:
        fetch_release(version, "x86_64", server.url, folders, SETTINGS)
    assert known_manifests()[version] in caught.value.why
    assert not list(folders.cache.rglob("redistrib*"))


def manifest(**changes: Any) -> dict[str, Any]:
    def component(name: str) -> dict[str, Any]:
        path = f"{name}/linux-x86_64/{name}-linux-x86_64-1.2.3-archive.tar.xz"
        told = {"relative_path": path, "sha256": "a" * 64, "md5": "b" * 32, "size": "123"}
        return {"name": name, "version": "1.2.3", "linux-x86_64": told, "linux-sbsa": told}

    names = ("cuda_nvcc", "cuda_crt", "libnvvm", "cuda_cudart", "cuda_cccl", "libcublas")
    return {"release_date": "x", **{name: component(name) for name in names}, **changes}


def test_from_13_0_on_there_are_more_components() -> None:
    text = json.dumps(manifest())
    names = [one.component for one in parse_manifest(text, "13.1.2", "x86_64").archives]
    assert names == ["cuda_nvcc", "cuda_crt", "libnvvm", "cuda_cudart", "cuda_cccl"]
    older = parse_manifest(text, "12.9.2", "aarch64").archives
    assert [one.component for one in older] == ["cuda_nvcc", "cuda_cudart", "cuda_cccl"]


def test_cccl_has_another_name_later() -> None:
    document = manifest()
    document["cccl"] = document.pop("cuda_cccl")
    assert parse_manifest(json.dumps(document), "13.3.0", "x86_64").archives[-1].component == "cccl"


def _told(**changes: Any) -> dict[str, Any]:
    component = manifest()["cuda_nvcc"]
    return {**component, "linux-x86_64": {**component["linux-x86_64"], **changes}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>", "not JSON"),
        ("[]", "not an object"),
        (json.dumps(manifest(release_label="12.8.1")), r"the manifest of 12\.8\.1"),
        (json.dumps({**manifest(), "cuda_nvcc": {}}), "no cuda_nvcc for linux-x86_64"),
        (json.dumps(manifest(cuda_nvcc=_told(relative_path="../../etc/x.tar.xz"))), "the path of cuda_nvcc"),
        (json.dumps(manifest(cuda_nvcc=_told(relative_path="/etc/x.tar.xz"))), "the path of cuda_nvcc"),
        (json.dumps(manifest(cuda_nvcc=_told(sha256="abc"))), "is malformed"),
        (json.dumps(manifest(cuda_nvcc=_told(size="0"))), "is malformed"),
        (json.dumps(manifest(cuda_nvcc=_told(size="many"))), "no cuda_nvcc"),
    ],
)
def test_a_manifest_that_makes_no_sense(text: str, why: str) -> None:
    with pytest.raises(HostError, match="can't be used") as caught:
        parse_manifest(text, "12.5.0", "x86_64")
    assert re.search(why, caught.value.why)


@given(
    text=st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(["cuda_nvcc", "linux-x86_64", "version", "size", "sha256", "relative_path", "cuda_cudart"]),
            inner,
        ),
    ).map(json.dumps)
)
def test_any_text_is_a_manifest_or_refused(text: str) -> None:
    try:
        assert parse_manifest(text, "12.5.0", "x86_64").archives
    except HostError as error:
        assert error.why
