"""The stand-in for SageAttention is right before it is compiled: its way of quantizing, followed in plain Python."""

from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).parent.parent / "standins" / "sageattention"
HEAD_DIM = 64
ROWS = 70  # not a multiple of any group
Matrix = list[list[float]]


def constant(file: str, name: str) -> Any:
    """A value that a module of the stand-in is given at its top; the module itself needs torch."""
    tree = ast.parse((STANDIN / "sageattention" / file).read_text(encoding="utf-8"))
    found = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    return ast.literal_eval(found[0])


GROUPS = constant("quant.py", "GROUPS")
E4M3_MAX = constant("core.py", "E4M3_MAX")
MAX_FOR_FP16_SUMS = constant("core.py", "MAX_FOR_FP16_SUMS")


def normal(seed: int, offset: float = 0.0) -> Matrix:
    """Rows of normal numbers, with an offset of each channel's own."""
    source = random.Random(seed)
    return [[source.gauss(offset * (channel % 5 - 2), 1.0) for channel in range(HEAD_DIM)] for _ in range(ROWS)]


def e4m3(value: float) -> float:
    """The nearest number with 4 bits of exponent and 3 of mantissa: 448 at most, steps of 2**-9 at the least."""
    exponent = max(math.frexp(value)[1] - 1, -6)
    step = 2.0 ** (exponent - 3)
    return max(-448.0, min(448.0, round(value / step) * step))


def means(rows: Matrix) -> list[float]:
    return [sum(channel) / len(rows) for channel in zip(*rows, strict=True)]


def through_int8(rows: Matrix, group: int) -> Matrix:
    """What is left of rows after INT8 with a scale for each group of them."""
    left: Matrix = []
    for first in range(0, len(rows), group):
        part = rows[first : first + group]
        scale = max(abs(value) for row in part for value in row) / 127
        left += [[round(value / scale) * scale for value in row] for row in part]
    return left


def through_e4m3(rows: Matrix, largest: float) -> Matrix:
    """What is left of rows after e4m3 with a scale for each channel."""
    scales = [max(map(abs, channel)) / largest for channel in zip(*rows, strict=True)]
    return [[e4m3(value / scale) * scale for value, scale in zip(row, scales, strict=True)] for row in rows]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def attention(query: Matrix, key: Matrix, value: Matrix, weigh: Callable[[float], float] = float) -> Matrix:
    """Attention, with weights that the product with the values takes as ``weigh`` leaves them."""
    output = []
    for row in query:
        logits = [dot(row, other) / math.sqrt(HEAD_DIM) for other in key]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        kept = [weigh(weight) for weight in weights]
        output.append([dot(kept, channel) / sum(weights) for channel in zip(*value, strict=True)])
    return output


def cosine(one: Matrix, other: Matrix) -> float:
    a, b = ([value for row in rows for value in row] for rows in (one, other))
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


QUERY, KEY, VALUE = normal(1), normal(2, offset=4.0), normal(3)
EXACT = attention(QUERY, KEY, VALUE)


def quantized(granularity: str, largest: float | None, smooth: bool = True) -> Matrix:
    """Attention as the kernels do it: values in e4m3 up to ``largest``, or as they are."""
    of_queries, of_keys = GROUPS[granularity]
    middle = means(KEY) if smooth else [0.0] * HEAD_DIM
    key = through_int8([[value - mean for value, mean in zip(row, middle, strict=True)] for row in KEY], of_keys)
    query = through_int8(QUERY, of_queries)
    if largest is None:
        return attention(query, key, VALUE)
    return attention(query, key, through_e4m3(VALUE, largest), lambda weight: e4m3(weight * E4M3_MAX) / E4M3_MAX)


@pytest.mark.parametrize("granularity", sorted(GROUPS))
@pytest.mark.parametrize("largest", [None, E4M3_MAX, MAX_FOR_FP16_SUMS], ids=["fp16", "e4m3", "e4m3-small"])
def test_quantizing_keeps_what_integrators_ask_for(granularity: str, largest: float | None) -> None:
    assert cosine(quantized(granularity, largest), EXACT) > 0.99


def test_smoothing_the_keys_is_what_it_takes() -> None:
    rough, smooth = (cosine(quantized("per_warp", None, smooth), EXACT) for smooth in (False, True))
    assert 1 - smooth < (1 - rough) / 2


def test_a_doubled_scale_would_show() -> None:
    doubled = [[2 * value for value in row] for row in QUERY]
    assert cosine(attention(doubled, KEY, VALUE), EXACT) < 0.99


def test_every_fault_is_off() -> None:
    faults = (STANDIN / "csrc" / "faults.h").read_text(encoding="utf-8")
    assert dict(re.findall(r"#define STANDIN_FAULT_(\w+) (\w+)", faults)) == {
        "UNWRITTEN_ROW": "0",
        "SCALE": "0",
        "HANG": "0",
    }
