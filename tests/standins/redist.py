"""NVIDIA's server of CUDA archives, on the loopback interface: archives with its layout and names, and faults on order.

python -m standins.redist pack CUDA_HOME FOLDER      (in tests/; FOLDER is then a mirror: --cuda-mirror FOLDER)
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from standins.loopback import Handler, served

PLATFORM = "linux-x86_64"
RELEASE = "12.4.99"
"""A release that NVIDIA has not: 12.4.1's names, with a manifest of its own hashes."""

VERSIONS = {"cuda_nvcc": "12.4.131", "cuda_cudart": "12.4.127", "cuda_cccl": "12.4.127"}

# Which files of a toolkit are in which archive of NVIDIA's: as in the packages nvidia-cuda-nvcc-cu12,
# nvidia-cuda-runtime-cu12 and nvidia-cuda-cccl-cu12. Headers of cuBLAS and its like are in none of them.
FILES = {
    "cuda_nvcc": ("bin/*", "nvvm/*", "include/crt/*", "include/fatbinary_section.h", "include/nvPTXCompiler.h"),
    "cuda_cccl": ("include/cub/*", "include/cuda/*", "include/nv/*", "include/thrust/*"),
    "cuda_cudart": (
        *(
            f"include/{name}*"
            for name in ("builtin_types", "channel_", "common_", "cooperative_", "cuComplex", "cuda.h")
        ),
        *(
            f"include/{name}*"
            for name in ("cudaEGL", "cudaGL", "cudaProfilerT", "cudaTypedefs", "cudaVDPAU", "cuda_[!p]*")
        ),
        *(f"include/{name}*" for name in ("cuda_pipeline", "cudart_", "device_", "driver_", "host_", "library_types")),
        *(f"include/{name}*" for name in ("math_", "mma.h", "sm_", "surface_", "texture_", "vector_")),
        *(f"lib/{name}" for name in ("libcudart*", "libcudadevrt.a", "libculibos.a", "stubs/libcuda.so")),
    ),
}


def component_of(name: str) -> str:
    """Return the component that a file of a toolkit is in, "" for one that no build reads."""
    return next((one for one, patterns in FILES.items() if any(fnmatch.fnmatch(name, p) for p in patterns)), "")


def pack(
    home: Path,
    root: Path,
    release: str = RELEASE,
    versions: Mapping[str, str] = VERSIONS,
    *,
    compressed: bool = True,
) -> Path:
    """Pack a toolkit as NVIDIA does, into the folder ``root`` with a manifest; libraries go from lib64 to lib.

    Where it is not to be ``compressed``, archives are plain tar under the same names, which saves time.
    """
    found: dict[str, list[tuple[str, Path]]] = {name: [] for name in versions}
    for path in sorted(home.rglob("*")):
        name = re.sub(r"^lib64/", "lib/", path.relative_to(home).as_posix())
        component = component_of(name)
        if component in found and (path.is_symlink() or path.is_file()):
            found[component].append((name, path))
    document: dict[str, object] = {"release_date": "2026-01-01", "release_label": release}
    for component, files in found.items():
        document[component] = _packed(component, versions[component], files, root, compressed)
    root.mkdir(parents=True, exist_ok=True)
    (root / f"redistrib_{release}.json").write_text(json.dumps(document, indent=2))
    return root


def _packed(
    component: str, version: str, files: list[tuple[str, Path]], root: Path, compressed: bool
) -> dict[str, object]:
    name = f"{component}-{PLATFORM}-{version}-archive"
    place = root / component / PLATFORM / f"{name}.tar.xz"
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place, "w:xz", preset=0) if compressed else tarfile.open(place, "w") as bundle:
        _add_text(bundle, f"{name}/LICENSE", f"The license of {component}\n")
        for path, file in files:
            bundle.add(file, f"{name}/{path}", recursive=False)
    data = place.read_bytes()
    told = {"relative_path": str(place.relative_to(root)), "sha256": hashlib.sha256(data).hexdigest()}
    sized = {**told, "md5": hashlib.md5(data).hexdigest(), "size": str(len(data))}
    return {"name": component, "license": "CUDA Toolkit", "version": version, PLATFORM: sized}


def _add_text(bundle: tarfile.TarFile, name: str, text: str) -> None:
    import io

    info = tarfile.TarInfo(name)
    info.size = len(text)
    bundle.addfile(info, io.BytesIO(text.encode()))


@dataclass
class Fault:
    """What goes wrong with a file: each is done ``times`` times, then the file is served as it is.

    ``status`` is answered in place of the file. ``cut`` bytes of an answer are sent and the connection is closed;
    ``stall`` seconds are waited there before. ``other`` is served in its place. ``ranges`` False sends the whole file
    to whoever asks for the rest.
    """

    status: int = 0
    cut: int = 0
    stall: float = 0
    other: bytes | None = None
    ranges: bool = True
    times: int = 10**6


@dataclass
class Server:
    """A server of such a folder. ``asked`` are the paths and ranges of every request."""

    root: Path
    url: str = ""
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def fault(self, path: str) -> Fault:
        """Return what to do wrong now for a path."""
        found = next((fault for name, fault in self.faults.items() if name in path), None)
        if found is None or found.times <= 0:
            return Fault()
        found.times -= 1
        return found


class _Handler(Handler[Server]):
    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.told.asked.append((self.path, wanted))
        file, fault = self.told.root / self.path.lstrip("/"), self.told.fault(self.path)
        if fault.status or not file.is_file():
            self.send_error(fault.status or 404)
            return
        data = file.read_bytes() if fault.other is None else fault.other
        match = re.fullmatch(r"bytes=(\d+)-", wanted) if fault.ranges else None
        start = int(match[1]) if match else 0
        if start > len(data):
            self.send_error(416)
            return
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(data[start : start + fault.cut] if fault.cut else data[start:])
            self.wfile.flush()
            time.sleep(fault.stall)
        self.close_connection = True


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Serve a folder."""
    told = Server(root)
    with served(partial(_Handler, told)) as told.url:
        yield told


if __name__ == "__main__" and sys.argv[1:2] == ["pack"]:
    print(pack(Path(sys.argv[2]), Path(sys.argv[3])))
