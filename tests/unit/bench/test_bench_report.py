"""Figures, names, verdicts and exit codes of a report; how it is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from bench_reports import RATES, WRONG, benchmark, cell, shape, wheel

from attnforge.bench import report, words
from attnforge.bench.sides import named, title
from attnforge.cli import main as program
from attnforge.cli.figures import show
from attnforge.cli.terminal import Terminal
from attnforge.model.benchmark import BenchReport, Verdict

FLASH, OTHER = "FlashAttention 2", "SDPA cuDNN"


def error(kind: str, text: str = "why", **more: Any) -> Any:
    return {"type": kind, "text": text, "trace": "", "sticky": False, **more}


def text_of(made: BenchReport) -> str:
    out = io.StringIO()
    show(made, Terminal(out))
    return out.getvalue()


def test_rates_are_work_over_the_median_time() -> None:
    done = cell(shape(), {FLASH: [2.0, 1.0, 9.0]})
    (result,) = done.results
    assert (result.ms, result.low_ms, result.high_ms) == (2.0, 1.5, 5.5)
    assert result.tflops == pytest.approx(done.flop / 2e-3 / 1e12)
    assert result.gbs == pytest.approx(done.bytes / 2e-3 / 1e9)
    assert result.matrix_share == pytest.approx(result.tflops / 705)
    assert result.memory_share == pytest.approx(result.gbs / 3305)
    assert report.rates(RATES).matrix.low == 702.5


@pytest.mark.parametrize(
    ("kind", "sticky", "status"),
    [
        ("RuntimeError", False, "refused"),
        ("OutOfMemoryError", False, "memory"),
        ("AcceleratorError", True, "crashed"),
        ("Crash", True, "crashed"),
        ("Hang", True, "hung"),
    ],
)
def test_a_failure_is_told_as_what_it_is(kind: str, sticky: bool, status: str) -> None:
    result = report.failed(FLASH, error(kind, "No kernel.\n  Really.", sticky=sticky))
    assert result.status == status
    assert result.text.endswith("No kernel. Really.")
    assert not result.is_right
    assert len(report.failed(FLASH, error(kind, "x" * 9000)).text) == 300


def test_what_is_wrong_is_never_the_fastest() -> None:
    done = cell(shape(), {FLASH: [1.0], OTHER: [2.0]}, FlashAttention=WRONG)
    assert done.fastest is not None
    assert done.fastest.side == OTHER
    assert benchmark([done]).exit_code == 5
    assert any("computes wrong results in video" in line for line in words.wrong(benchmark([done])))
    assert "WRONG" in text_of(benchmark([done]))


def test_sides_of_one_name_get_letters() -> None:
    sides = named([wheel(), wheel("FlashAttention 3"), wheel()])
    assert [side.name for side in sides] == ["FlashAttention 2 A", "FlashAttention 3", "FlashAttention 2 B"]
    assert title("sageattention", "1.0.6+x") == "SageAttention 1"
    assert title("sageattention", "2.2.0") == "SageAttention 2"


def test_exit_codes() -> None:
    good = cell(shape(), {FLASH: [1.0], OTHER: [1.0]})
    refused = good.model_copy(update={"results": (report.failed(FLASH, error("RuntimeError")),)})
    crashed = good.model_copy(update={"results": (report.failed(FLASH, error("Crash")),)})
    own = good.model_copy(update={"results": (good.results[0], report.failed(OTHER, error("Crash")))})
    assert benchmark([good]).exit_code == 0
    assert benchmark([good, refused]).exit_code == 0  # a shape that a wheel is not for
    assert benchmark([refused]).exit_code == 6  # nothing of the wheel was timed
    assert benchmark([good, crashed]).exit_code == 5
    assert benchmark([own]).exit_code == 0  # PyTorch's own backends are not what is asked about
    assert benchmark([good], [wheel(), wheel("SageAttention 1", error="ImportError: no")]).exit_code == 5


def test_two_wheels_are_held_against_each_other_where_both_were_timed() -> None:
    rounds = [1.0 + at / 500 for at in range(15)]
    a, b = "FlashAttention 2 A", "FlashAttention 2 B"
    both = cell(shape("one"), {a: rounds, b: [0.9 * ms for ms in rounds]})
    level = cell(shape("two"), {a: rounds, b: rounds})
    alone = cell(shape("three"), {a: rounds})
    held = report.against(a, b, [both, alone, level])
    assert [(said.cell, said.outcome) for said in held.cells] == [("one", "faster"), ("two", "same")]
    assert held.cells[0].ratio == pytest.approx(0.9)
    assert held.overall is not None
    assert held.overall.ratio == pytest.approx(0.9**0.5)
    assert report.against(a, b, [alone]).overall is None
    told = text_of(benchmark([both, alone, level], [wheel(), wheel()], against=held))
    assert f"one: {b} is faster: it takes 10.0 % less time than {a} (−10.0 % to −10.0 %, 95 % sure)" in told


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("same", "B and A take the same time within the spread (−1.0 % to +1.0 %, 95 % sure)"),
        ("slower", "B is slower: it takes 50.0 % more time than A (−1.0 % to +1.0 %, 95 % sure)"),
        ("unclear", "B against A is unclear: the spread is too wide (−1.0 % to +1.0 %, 95 % sure); more --rounds"),
    ],
)
def test_verdicts_are_sentences(outcome: Any, said: str) -> None:
    verdict = Verdict(cell="", outcome=outcome, ratio=1.5, low=0.99, high=1.01, confidence=0.953)
    assert words.verdict(verdict, "A", "B").startswith(said)


@pytest.mark.parametrize(
    ("ms", "said"),
    [(1234.5, "1,234 ms"), (12.34, "12.3 ms"), (1.2345, "1.23 ms"), (0.25, "0.25 ms"), (0.0345, "34.5 µs")],
)
def test_times_have_three_digits(ms: float, said: str) -> None:
    assert words.duration(ms) == said


def test_the_text_has_each_side_its_figures_and_each_failure_once() -> None:
    decode = cell(shape("next", kind="decode", rows=1, kv_heads=8), {FLASH: [0.02], OTHER: [0.04]})
    failures = [
        one.model_copy(update={"results": (report.failed(FLASH, error("RuntimeError", "not built")),)})
        for one in (cell(shape("a"), {}), cell(shape("b"), {}))
    ]
    told = text_of(benchmark([decode, *failures]))
    row = next(line for line in told.splitlines() if line.startswith(f"* {FLASH}"))
    assert "20.0 µs" in row
    assert "GB/s" in row
    assert "TFLOP/s" not in row
    assert "of memory" in told
    assert told.count("RuntimeError: not built") == 1
    assert f"{FLASH} refused in a, b: RuntimeError: not built" in told
    assert "bf16 matrix product 705 TFLOP/s" in told


def test_an_earlier_report_is_shown_again_and_written(tmp_path: Path) -> None:
    made = benchmark([cell(shape(), {FLASH: [1.0], OTHER: [2.0]})])
    (tmp_path / "old.json").write_text(json.dumps(made.to_json()))
    out = io.StringIO()
    folder = tmp_path / "new"
    code = program.main(["bench", "--report", str(tmp_path / "old.json"), "--out", str(folder)], {}, out, io.StringIO())
    assert code == 0
    assert FLASH in out.getvalue()
    assert BenchReport.model_validate_json((folder / "benchmark.json").read_text()) == made
    assert "<!doctype html>" in (folder / "benchmark.html").read_text()
    err = io.StringIO()
    onto = ["bench", "--report", str(tmp_path / "old.json"), "--out", str(tmp_path / "old.json" / "x")]
    assert program.main(onto, {}, out, err) == 2
    (tmp_path / "old.json").write_text("{}")
    assert program.main(["bench", "--report", str(tmp_path / "old.json")], {}, out, err) == 2
    assert program.main(["bench", "--report", str(tmp_path / "gone.json")], {}, out, err) == 2
