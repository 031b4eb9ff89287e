"""The independent check agrees with what our packing makes of real machine code, and sees each change to it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from attnforge.model.plan import BuildPlan
from attnforge.package.wheel import package_wheel
from standins.independent import confirm, cuobjdump

pytestmark = pytest.mark.compile

MODULE = "it/_C.cpython-312-x86_64-linux-gnu.so"
KERNEL = "__global__ void k(float *x) { x[threadIdx.x] += 1; }\nvoid f(float *x) { k<<<1, 32>>>(x); }\n"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on PATH")
    cuobjdump()
    folder = tmp_path_factory.mktemp("code")
    (folder / "k.cu").write_text(KERNEL)

    def made(*numbers: int, flags: tuple[str, ...] = ()) -> bytes:
        out = folder / f"{'-'.join(map(str, numbers))}{len(flags)}.so"
        codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
        command = [nvcc, "-shared", "-Xcompiler", "-fPIC", "-cudart", "shared", *codes, *flags, "-o", str(out), "k.cu"]
        if not out.exists():
            subprocess.run(command, cwd=folder, check=True)
        return out.read_bytes()

    return made


@pytest.fixture
def wheel(tmp_path: Path, image: Callable[..., bytes], make_plan: Callable[..., BuildPlan]) -> Callable[..., Path]:
    def made(code: bytes, **metadata: str) -> Path:
        upstream = tmp_path / "flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"
        with zipfile.ZipFile(upstream, "w") as archive:
            archive.writestr(MODULE, code)
            archive.writestr("flash_attn-2.8.3.data/scripts/tool", "#!python\n")
            archive.writestr("flash_attn-2.8.3.dist-info/METADATA", "Name: flash_attn\nVersion: 2.8.3\n")
            archive.writestr("flash_attn-2.8.3.dist-info/WHEEL", "Tag: cp312-cp312-linux_x86_64\n")
        (tmp_path / "out").mkdir(exist_ok=True)
        plan = make_plan(gpus=("A100", "H100"), torch="2.11.0", python="3.12")
        return package_wheel(upstream, tmp_path / "out", plan, "x")

    return made


def changed(wheel: Path, ending: str, change: Callable[[bytes], bytes], name: str = "") -> Path:
    """Write the wheel with one file changed and a RECORD that fits."""
    with zipfile.ZipFile(wheel) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    for path in [one for one in members if one.endswith(ending)] if ending else []:
        members[path] = change(members[path])
    record = next(path for path in members if path.endswith("/RECORD"))
    if ending != "/RECORD":
        rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in members.items() if path != record]
        members[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    folder = wheel.parent / "changed"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / (name or wheel.name), "w") as archive:
        for path, data in members.items():
            archive.writestr(path, data)
    return folder / (name or wheel.name)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_a_wheel_that_is_what_it_says(image: Callable[..., bytes], wheel: Callable[..., Path]) -> None:
    seen = confirm(wheel(image(80, 90)))
    (module,) = seen.modules
    assert seen.code == {"sm_80", "sm_90"}
    assert (module.path, module.kernels, module.ptx) == (MODULE, frozenset({"_Z1kPf"}), False)


def test_the_build_machines_folders_are_gone(image: Callable[..., bytes], wheel: Callable[..., Path]) -> None:
    code = image(80, 90, flags=("-Xlinker", "-rpath=/built/here:$ORIGIN/../x"))
    assert b"/built/here" in code
    assert [module.search for module in confirm(wheel(code)).modules] == [("$ORIGIN/../x",)]


@pytest.mark.parametrize("numbers", [(80,), (90,), (80, 89, 90)])
def test_other_machine_code_is_seen(
    image: Callable[..., bytes], wheel: Callable[..., Path], numbers: tuple[int, ...]
) -> None:
    with pytest.raises(AssertionError, match="coverage names other machine code"):
        confirm(wheel(image(*numbers)))


def test_ptx_is_seen(image: Callable[..., bytes], wheel: Callable[..., Path]) -> None:
    with pytest.raises(AssertionError, match="holds PTX"):
        confirm(wheel(image(80, 90, flags=("-gencode=arch=compute_90,code=compute_90",))))


def _coverage(text: bytes) -> bytes:
    return json.dumps({**json.loads(text), "architectures": ["sm_90"]}).encode()


@pytest.mark.parametrize(
    ("ending", "change", "name"),
    [
        ("/coverage.json", _coverage, None),
        ("/plan.json", lambda text: text.replace(b'"2.8.3"', b'"2.8.4"'), None),
        ("/METADATA", lambda text: text.replace(b"Version: 2.8.3", b"Version: 2.8.2"), None),
        ("/METADATA", lambda text: text.replace(b"==2.11.*", b">=2.10"), None),
        ("/METADATA", lambda text: text.replace(b"Requires-Dist: torch==2.11.*\n", b""), None),
        ("/WHEEL", lambda text: text.replace(b"cp312-cp312", b"cp311-cp311"), None),
        ("/RECORD", lambda text: text.replace(b"sha256=", b"sha256=x", 1), None),
        ("/RECORD", lambda text: text.split(b"\n", 1)[1], None),
        ("", None, ("sm80.sm90", "sm90")),
        ("", None, ("cp312-cp312", "cp311-cp311")),
    ],
)
def test_what_does_not_agree_is_seen(
    image: Callable[..., bytes],
    wheel: Callable[..., Path],
    ending: str,
    change: Callable[[bytes], bytes],
    name: tuple[str, str] | None,
) -> None:
    made = wheel(image(80, 90))
    confirm(changed(made, "", lambda data: data))
    other = made.name.replace(*name) if name else ""
    assert other != made.name
    with pytest.raises(AssertionError):
        confirm(changed(made, ending, change, other))
