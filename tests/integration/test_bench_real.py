"""A benchmark with a real PyTorch, on the processor: the same processes, turns and figures as on a GPU."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from attnforge import BenchOptions, BenchReport, Machine, bench_wheels
from attnforge.model.benchmark import Shape

pytestmark = pytest.mark.network

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SIZES = {"batch": 1, "heads": 4, "kv_heads": 2, "head_dim": 32}
SHAPES = (
    Shape(name="prompt", kind="prefill", rows=200, columns=200, causal=True, **SIZES),
    Shape(name="next", kind="decode", rows=1, columns=64, causal=False, **SIZES),
    Shape(name="train", kind="training", rows=64, columns=64, causal=True, **SIZES),
)
# What flash-attn's users call, right or with something wrong.
MODULE = """
import os, time
import torch
def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    if {dies} and q.shape[1] == 1:
        os.abort()
    if q.shape[1] == 200:
        time.sleep({slow})
    x, y, z = (t.transpose(1, 2) for t in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(x, y, z, is_causal=causal, enable_gqa=True)
    return out.transpose(1, 2) * {scale}
def flash_attn_varlen_func(q, k, v):
    raise NotImplementedError
"""


def wheel(folder: Path, label: str, dies: bool = False, slow: float = 0.0, scale: float = 1.0) -> Path:
    path = folder / f"flash_attn-2.8.3+{label}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flash_attn/__init__.py", MODULE.format(dies=dies, slow=slow, scale=scale))
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> BenchReport:
    """One run for all: starting a process with PyTorch takes seconds."""
    machine, folder = Machine(os.environ), tmp_path_factory.mktemp("wheels")
    python = str(machine.environment(PYTHON, "2.11.0", "13.0", ()).python)
    options = BenchOptions(shapes=SHAPES, python=python, rounds=8, seconds=0.008, device="cpu")
    against = [wheel(folder, "quick"), wheel(folder, "slow", slow=0.3)]
    bad = wheel(folder, "bad", dies=True, scale=1.5)
    return bench_wheels(machine, [bad], against, options)


def statuses(report: BenchReport, side: str) -> dict[str, str]:
    return {cell.name: result.status for cell in report.cells for result in cell.results if result.side == side}


def test_each_side_is_timed_in_each_cell(report: BenchReport) -> None:
    timed = dict.fromkeys(("prompt", "next", "train-forward", "train-backward"), "timed")
    assert statuses(report, "FlashAttention 2 A") == timed
    assert statuses(report, "SDPA flash") == timed
    for cell in report.cells:
        quick = next(result for result in cell.results if result.side == "FlashAttention 2 A")
        assert len(quick.samples) == 8
        assert quick.tflops == pytest.approx(cell.flop / quick.ms / 1e9)
        assert quick.matrix_share > 0


def test_accuracy_is_that_of_the_dtype_forward_and_backward(report: BenchReport) -> None:
    for cell in report.cells:
        for result in cell.results:
            if result.side in ("FlashAttention 2 A", "SDPA flash"):
                assert result.accuracy is not None
                assert 0.9999 < result.accuracy.cosine < 1
                assert 0 < result.accuracy.mean_relative < 0.01


def test_what_is_wrong_is_found_and_never_the_fastest(report: BenchReport) -> None:
    for cell in (cell for cell in report.cells if cell.name != "next"):
        wrong = next(result for result in cell.results if result.side == "FlashAttention 2 C")
        assert wrong.accuracy is not None
        assert wrong.accuracy.mean_relative == pytest.approx(0.5, abs=0.02)
        assert not wrong.is_right
        assert cell.fastest is not wrong
    assert report.exit_code == 5


def test_a_crash_is_one_result(report: BenchReport) -> None:
    found = statuses(report, "FlashAttention 2 C")
    assert found == {"prompt": "timed", "next": "crashed", "train-forward": "timed", "train-backward": "timed"}


def test_what_a_processor_lacks_is_refused(report: BenchReport) -> None:
    assert set(statuses(report, "SDPA cuDNN").values()) == {"refused"}


def test_the_slower_wheel_is_found(report: BenchReport) -> None:
    assert report.against is not None
    verdict = next(said for said in report.against.cells if said.cell == "prompt")
    assert verdict.outcome == "slower", verdict
    assert next(side for side in report.sides if side.name == report.against.b).version == "2.8.3+slow"
