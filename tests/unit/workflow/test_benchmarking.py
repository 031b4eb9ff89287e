"""Benchmarks as far as they go without a GPU: what is refused, what is missing, and turns with processes of straw."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from attnforge.bench.work import cells
from attnforge.cli import main as program
from attnforge.errors import RequestError, UncheckedError
from attnforge.model.benchmark import Shape, Side
from attnforge.model.host import Host
from attnforge.ongpu.protocol import Look, RatesFound
from attnforge.workflow import benchmarking
from attnforge.workflow import machine as machines
from attnforge.workflow.benchmarking import BenchOptions, bench_wheels
from attnforge.workflow.child import Child
from attnforge.workflow.contender import Contender, Timing
from attnforge.workflow.machine import Machine
from standins.forge import TORCH_WITHOUT_GPU

SHAPE = Shape(
    name="one", kind="prefill", batch=1, rows=8, columns=8, heads=1, kv_heads=1, head_dim=8, causal=False
)  # fmt: skip
RIGHT = {"cosine": 1.0, "mean_relative": 0.0, "largest_error": 0.0, "not_finite": 0, "right": True}


def wheel(folder: Path, name: str = "flash_attn-2.8.3-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flash_attn.py", "")
    return path


@pytest.fixture
def machine(tmp_path: Path, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    return Machine({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")})


def test_without_a_gpu_it_could_not_check_and_nothing_is_installed(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(UncheckedError, match="there is no GPU to time on") as raised:
        bench_wheels(machine, [wheel(tmp_path)])
    assert raised.value.exit_code == 6
    assert "driver: none" in raised.value.why
    assert not machine.folders.environments.exists()


def test_a_pytorch_that_sees_no_gpu_is_named(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH_WITHOUT_GPU)
    machine = Machine({**machine.environ, "PYTHONPATH": str(tmp_path)})
    with pytest.raises(UncheckedError) as raised:
        bench_wheels(machine, [wheel(tmp_path)], options=BenchOptions(python=sys.executable))
    assert f"PyTorch 2.11.0+cu130 (CUDA 13.0) in {sys.executable} sees none" in raised.value.why


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no wheel to time"),
        (["{flash}", "--grid", "quickest"], "there is no grid or shape 'quickest'"),
        (["{other}"], "tiny has no attention that bench can call"),
        (["--against", "{flash}", "{sage}"], "two wheels of one package"),
        (["{flash}", "--rounds", "-1"], "can't be negative"),
        (["gone-1-py3-none-any.whl"], "there is no file"),
    ],
)
def test_what_can_t_be_timed_is_refused_before_anything_starts(
    machine: Machine, tmp_path: Path, arguments: list[str], said: str
) -> None:
    made = {
        "flash": wheel(tmp_path),
        "sage": wheel(tmp_path, "sageattention-1.0.6-py3-none-any.whl"),
        "other": wheel(tmp_path, "tiny-1.0-py3-none-any.whl"),
    }
    words = [word.format(**made) for word in arguments]
    out, err = io.StringIO(), io.StringIO()
    assert program.main(["bench", *words], machine.environ, out, err) == RequestError.exit_code
    assert said in err.getvalue()


class Straw:
    """A process that answers from a script: what each kernel does when it is asked; keeps the order of questions."""

    def __init__(self, log: list[tuple[str, str]], failing: Mapping[tuple[str, str], Any] = {}) -> None:
        self.log, self.failing, self.prepared = log, dict(failing), set[str]()

    def ask(self, module: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        what, kernel = request["do"], request.get("kernel", "")
        self.log.append((what, kernel))
        error = self.failing.pop((what, kernel), None)
        if error:
            if error["sticky"]:
                self.prepared.clear()  # a new process
            return {"error": error}
        if what == "prepare":
            self.prepared.add(kernel)
            return {"ms": 4.0, "host_us": 9.0, "accuracy": RIGHT}
        if what == "time" and kernel not in self.prepared:
            return {"error": {"type": "NotPreparedError", "text": kernel, "sticky": False}}
        return {"ms": 2.0, "matrix": 700.0, "memory": 3000.0}


def timed(straw: Straw, kernels: tuple[str, ...], rounds: int = 3) -> tuple[Any, ...]:
    child = cast(Child, straw)
    contenders = tuple(Contender(Side(name=kernel, package="sdpa", kernel=kernel), child) for kernel in kernels)
    stand = benchmarking._Stand(contenders, tuple(one.side for one in contenders), child, cast(Look, {}))
    (cell,) = cells([SHAPE])
    yardsticks: list[RatesFound] = []
    results = benchmarking._timed_cell(stand, cell, Timing("bf16", "cuda", 0.02), rounds, yardsticks)
    assert len(yardsticks) == rounds
    return results


def test_sides_take_turns_and_who_begins_changes() -> None:
    log: list[tuple[str, str]] = []
    results = timed(Straw(log), ("a", "b", "c"))
    assert [kernel for what, kernel in log if what == "time"] == [*"abc", *"bca", *"cab"]
    assert [result.samples for result in results] == [(2.0, 2.0, 2.0)] * 3
    assert results[0].calls == 5  # 20 ms of calls that take about 4 ms
    assert log[-1] == ("clear", "")


def test_a_side_that_refuses_is_asked_no_more() -> None:
    log: list[tuple[str, str]] = []
    refusal = {"type": "RuntimeError", "text": "no kernel", "sticky": False}
    results = timed(Straw(log, {("prepare", "b"): refusal}), ("a", "b"))
    assert [result.status for result in results] == ["timed", "refused"]
    assert ("time", "b") not in log


def test_a_crash_is_one_side_s_and_its_neighbor_prepares_again() -> None:
    log: list[tuple[str, str]] = []
    crash = {"type": "Crash", "text": "ended by signal 11", "sticky": True}
    results = timed(Straw(log, {("time", "a"): crash}), ("a", "b"))
    assert [result.status for result in results] == ["crashed", "timed"]
    assert results[1].samples == (2.0, 2.0, 2.0)
    assert log.count(("prepare", "b")) == 2


def test_yardsticks_that_fail_leave_no_shares() -> None:
    failing = {("rates", ""): {"type": "OutOfMemoryError", "text": "out of memory", "sticky": False}}
    with pytest.raises(UncheckedError, match="own rates can't be measured"):
        timed(Straw([], failing), ("a",))
