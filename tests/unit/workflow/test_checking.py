"""Checks without a GPU and without PyTorch, for which a stand-in lies in the wheel: all that can be told is told."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from attnforge.cli.main import main
from attnforge.errors import HostError
from attnforge.model.audit import ModuleReport
from attnforge.model.check import CheckReport
from attnforge.model.plan import BuildPlan
from attnforge.package.archive import Member, write_wheel
from attnforge.workflow.checking import check, modules_of, write_check
from attnforge.workflow.machine import Machine

TORCH = """
__version__ = "2.11.0+cu130"
class cuda:
    is_available = staticmethod(lambda: {gpu})
    is_initialized = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 1)
    @staticmethod
    def get_device_properties(index):
        class found:
            name, major, minor, total_memory = "NVIDIA H200", 9, 0, 2**37
        return found
class version:
    cuda = "13.0"
"""
FLASH = """
def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, alibi_slopes, deterministic): pass
def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal): pass
def flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens, block_table, causal, num_splits): pass
def flash_attn_qkvpacked_func(qkv, causal): pass
def flash_attn_kvpacked_func(q, kv, causal): pass
"""


EXTENSION = "flash_attn_2_cuda.py"
OURS = f"3.{sys.version_info.minor}"


def make(
    folder: Path,
    files: dict[str, str] | None = None,
    *,
    package: str = "flash_attn",
    gpu: bool = False,
    requires: str = "",
    **coverage: Any,
) -> Path:
    info = f"{package}-2.8.3.dist-info"
    members = {"torch.py": TORCH.format(gpu=gpu), "flash_attn/__init__.py": FLASH, "flash_attn_2_cuda.py": ""}
    members |= files or {}
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.8.3\n{requires}"
    members[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if coverage:
        members[f"{info}/attnforge/coverage.json"] = json.dumps(coverage)
    wheel = folder / f"{package}-2.8.3-py3-none-any.whl"
    write_wheel(wheel, {name: Member(text.encode()) for name, text in members.items()}, info)
    return wheel


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")}


def run(environ: dict[str, str], wheel: Path) -> CheckReport:
    return check(Machine(environ), wheel, python=sys.executable)


def said(report: CheckReport) -> list[tuple[str, str, str]]:
    return [(one.severity.value, one.code, one.subject) for one in report.findings]


def test_without_a_gpu_it_imports_and_the_rest_is_unchecked(environ: dict[str, str], tmp_path: Path) -> None:
    report = run(environ, make(tmp_path))
    assert ("ok", "import", "import") in said(report)
    assert ("ok", "signatures", "flash_attn") in said(report)
    assert ("unchecked", "no-gpu", "numbers") in said(report)
    assert (report.verdict, report.exit_code, report.gpus) == ("unchecked", 6, ())
    assert (report.torch, report.cuda, report.results) == ("2.11.0+cu130", "13.0", ())


def test_an_extension_for_another_torch_is_told_by_its_symbol(environ: dict[str, str], tmp_path: Path) -> None:
    broken = "raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEab')"
    report = run(environ, make(tmp_path, {EXTENSION: broken}))
    (finding,) = [one for one in report.findings if one.code == "import-failed"]
    assert (finding.subject, finding.means) == ("flash_attn_2_cuda", "it was built for another PyTorch")
    assert report.exit_code == 5


@pytest.mark.parametrize(
    ("requires", "told"),
    [
        ("Requires-Dist: torch==2.12.*\n", True),
        ("Requires-Dist: torch>=2.12\n", True),
        ("Requires-Dist: no requirement!\nRequires-Dist: torch>=2.12\n", True),
        ("Requires-Dist: torch==2.11.*\n", False),
        ("Requires-Dist: torch>=2.9\n", False),
        ("Requires-Dist: torch\nRequires-Dist: torch-geometric==9; extra == 'x'\n", False),
        (f"Requires-Dist: torch>=2.12; python_version == '{OURS}'\n", True),
        (f"Requires-Dist: torch<2.14,>=2.9; python_version == '{OURS}'\n", False),
        ("Requires-Dist: torch>=2.12; python_version == '3.1'\n", False),
        ("Requires-Dist: torch>=2.12; extra == 'x'\n", False),
    ],
)
def test_a_wheel_for_another_torch_is_told_though_it_imports(
    environ: dict[str, str], tmp_path: Path, requires: str, told: bool
) -> None:
    report = run(environ, make(tmp_path, requires=requires))
    assert (("error", "another-torch", "torch") in said(report)) is told
    assert report.exit_code == (5 if told else 6)


def universal(plan: BuildPlan, *pairs: tuple[str, str]) -> str:
    """plan.json of a universal wheel of those pairs."""
    return json.dumps({**plan.to_json(), "pairs": [{"torch": torch, "python": python} for torch, python in pairs]})


@pytest.mark.parametrize(
    ("pairs", "hint"),
    [
        ([("2.12.1", OURS)], f"add what it lacks: attnforge extend WHEEL --torch 2.11 --python {OURS}"),
        ([("2.11.0", "3.8")], f"add what it lacks: attnforge extend WHEEL --torch 2.11 --python {OURS}"),
        ([("2.11.0", OURS)], "build it for this PyTorch: attnforge build PACKAGE --torch VERSION"),
    ],
)
def test_a_universal_wheel_without_a_module_for_what_is_here(
    environ: dict[str, str], tmp_path: Path, make_plan: Any, pairs: list[tuple[str, str]], hint: str
) -> None:
    files = {
        EXTENSION: "raise ImportError('no module for this')",
        "flash_attn-2.8.3.dist-info/attnforge/plan.json": universal(make_plan(), *pairs),
    }
    wheel = make(tmp_path, files)
    (finding,) = [one for one in run(environ, wheel).findings if one.code == "import-failed"]
    assert finding.hint == hint.replace("WHEEL", wheel.name)


def test_modules_of_pairs_are_imported_by_the_name_of_their_loader() -> None:
    suffixes = ("torch2.11/_C.cpython-311-x86_64-linux-gnu.so", "torch2.12/_C.cpython-311-x86_64-linux-gnu.so")
    pairs = [ModuleReport(path=f"demo/_C/{name}", size=1, pair="torch2.11-py3.11") for name in suffixes]
    library = ModuleReport(path="demo/_C/lib_C-0123456789abcdef.so", size=1)
    plain = ModuleReport(path="demo/_host.abi3.so", size=1)
    assert modules_of((library, *pairs, plain), None) == ("demo._C", "demo._host")


def test_a_module_that_needs_the_driver_is_unchecked_without_one(environ: dict[str, str], tmp_path: Path) -> None:
    absent = "raise ImportError('libcuda.so.1: cannot open shared object file: No such file or directory')"
    report = run(environ, make(tmp_path, {EXTENSION: absent}))
    assert ("unchecked", "no-driver", "flash_attn_2_cuda") in said(report)
    assert ("ok", "signatures", "flash_attn") in said(report)
    assert report.exit_code == 6


@pytest.mark.parametrize("how", ["import os; os.abort()", "raise SystemExit(0)"])
def test_a_module_that_ends_the_process_is_told(environ: dict[str, str], tmp_path: Path, how: str) -> None:
    report = run(environ, make(tmp_path, {EXTENSION: how}))
    assert ("error", "import-failed", "flash_attn_2_cuda") in said(report)


def test_a_function_without_upstreams_parameters_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    changed = FLASH.replace("causal, window_size", "window_size").replace("def flash_attn_kvpacked_func", "def other")
    report = run(environ, make(tmp_path, {"flash_attn/__init__.py": changed}))
    wrong = {one.subject: one.seen for one in report.findings if one.code == "signature"}
    assert wrong == {
        "flash_attn.flash_attn_func": "it has no causal",
        "flash_attn.flash_attn_kvpacked_func": "there is no such function",
    }


def test_a_package_without_cases_is_imported_and_unchecked(environ: dict[str, str], tmp_path: Path) -> None:
    report = run(environ, make(tmp_path, package="tiny"))
    assert ("unchecked", "no-cases", "numbers") in said(report)
    assert report.exit_code == 6


def test_a_wheel_for_other_gpus_is_not_held_against_this_one(environ: dict[str, str], tmp_path: Path) -> None:
    covered: dict[str, Any] = {"architectures": ["sm_80"], "head_dims": [64], "dtypes": ["fp16"], "left_out": []}
    report = run(environ, make(tmp_path, gpu=True, **covered))
    (finding,) = [one for one in report.findings if one.code == "other-gpu"]
    assert finding.seen == "the wheel is for sm_80, and this is a NVIDIA H200 (9.0)"
    assert [gpu.name for gpu in report.gpus] == ["NVIDIA H200"]
    # Nor has this one the code that it names: that is told without any GPU.
    assert ("error", "covered-code", "sm_80") in said(report)
    assert report.exit_code == 5


def test_the_report_lies_beside_the_wheel(environ: dict[str, str], tmp_path: Path) -> None:
    wheel = make(tmp_path)
    path = write_check(run(environ, wheel), tmp_path)
    assert path == wheel.with_name(wheel.name + ".check.json")
    assert json.loads(path.read_text())["verdict"] == "unchecked"


def test_a_folder_that_cannot_be_written_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    report = run(environ, make(tmp_path))
    with pytest.raises(HostError, match="can't be written"):
        write_check(report, tmp_path / "flash_attn-2.8.3-py3-none-any.whl")


# --- the command


def call(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(["check", *arguments, "--python", sys.executable], environ, out, err), out.getvalue(), err.getvalue()


def test_the_command_tells_what_could_not_be_checked_and_exits_6(environ: dict[str, str], tmp_path: Path) -> None:
    wheel = make(tmp_path)
    code, out, _ = call(environ, str(wheel), "--out", str(tmp_path / "reports"))
    assert code == 6
    assert json.loads((tmp_path / "reports" / f"{wheel.name}.check.json").read_text())["wheel"] == wheel.name
    assert "torch sees no GPU on this machine" in out
    assert out.splitlines()[-1] == f"{wheel.name}: unchecked"


def test_json_of_several_is_an_array_and_a_bad_wheel_comes_first(environ: dict[str, str], tmp_path: Path) -> None:
    bad = make(tmp_path, {EXTENSION: "raise ImportError('no')"})
    other = make(tmp_path, package="tiny")
    code, out, _ = call(environ, str(bad), str(other), str(tmp_path / "gone-1-py3-none-any.whl"), "--json")
    documents = json.loads(out)
    assert code == 5
    assert [document.get("verdict") for document in documents] == ["bad", "unchecked", None]
    assert documents[2]["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--timeout", "0"), "--timeout can't be '0'"),
        (("--timeout", "nan"), "--timeout can't be 'nan'"),
        (("--only", "softcap,speed"), "there is no topic speed"),
    ],
)
def test_wrong_options_are_told(environ: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = call(environ, str(make(tmp_path)), *arguments)
    assert code == 2
    assert told in err
