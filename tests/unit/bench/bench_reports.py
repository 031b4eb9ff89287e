"""Reports made by hand: what a GPU could have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnforge.bench import report
from attnforge.bench.sides import backends, named
from attnforge.bench.work import cells
from attnforge.model.benchmark import BenchReport, Cell, Gpu, Shape, Side
from attnforge.ongpu.protocol import AccuracyFound, RatesFound

RIGHT: AccuracyFound = {
    "cosine": 0.999998,
    "mean_relative": 0.002,
    "largest_error": 0.0009,
    "not_finite": 0,
    "right": True,
}
WRONG: AccuracyFound = {"cosine": 0.41, "mean_relative": 0.9, "largest_error": 3.0, "not_finite": 7, "right": False}
RATES: list[RatesFound] = [{"matrix": 700.0, "memory": 3300.0}, {"matrix": 710.0, "memory": 3310.0}]


def shape(name: str = "video", **changes: Any) -> Shape:
    sizes: dict[str, Any] = {"batch": 1, "rows": 4096, "columns": 4096, "heads": 24, "kv_heads": 24, "head_dim": 128}
    return Shape(**{"name": name, "kind": "diffusion", "causal": False, **sizes, **changes})


def wheel(name: str = "FlashAttention 2", **changes: Any) -> Side:
    values = {"package": "flash-attn", "version": "2.8.3", "wheel": "flash_attn-2.8.3-cp312.whl", "sha256": "ab" * 32}
    return Side(**{"name": name, "torch": "2.11.0", **values, **changes})


def cell(one: Shape, times: Mapping[str, Sequence[float]], **accuracy: AccuracyFound) -> Cell:
    """A cell where each side took these milliseconds; ``accuracy`` by the side's first word."""
    (empty,) = cells([one])
    results = [
        report.timed(side, empty, ms, 3, 20.0, accuracy.get(side.split()[0], RIGHT)) for side, ms in times.items()
    ]
    return report.with_shares(empty.model_copy(update={"results": tuple(results)}), report.rates(RATES))


def benchmark(done: Sequence[Cell], sides: Sequence[Side] = (), **changes: Any) -> BenchReport:
    values: dict[str, Any] = {
        "builder": "attnforge 0",
        "date": "2026-11-25T12:00:00+00:00",
        "seconds": 60.0,
        "gpu": Gpu(name="NVIDIA H200", capability="9.0", memory_bytes=150 * 10**9),
        "cuda": "13.0",
        "driver": "580.1",
        "grid": "quick",
        "dtype": "bf16",
        "rounds": 7,
        "rates": report.rates(RATES),
        "sides": (*named(sides or [wheel()]), *backends("2.11.0", "3.12")),
        "cells": tuple(done),
    }
    return BenchReport(**{**values, **changes})
