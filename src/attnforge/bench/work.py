"""Which cells a grid has, and how much work a call in each is."""

from __future__ import annotations

from collections.abc import Iterable

from attnforge.knowledge.shapes import shapes
from attnforge.model.benchmark import Cell, Shape

# A word for --grid: what it is.
GRIDS = {
    "quick": "a few shapes of each kind",
    "full": "all shapes",
    "prefill": "prompts of language models",
    "decode": "the next token of language models",
    "diffusion": "video diffusion, 17 thousand to 120 thousand tokens",
    "training": "forward and backward",
}

# FlashAttention's own benchmark counts a backward pass so: five products of matrices where the forward pass has two.
# https://github.com/Dao-AILab/flash-attention/blob/v2.8.3/benchmarks/benchmark_flash_attention.py
BACKWARD = 2.5

# Of bf16 and fp16.
_ELEMENT_BYTES = 2


def grid(names: str) -> tuple[Cell, ...]:
    """Return the cells of grids and shapes by their names, separated by commas; without results, each once.

    KeyError for a name that is neither in GRIDS nor a shape's.
    """
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in GRIDS and name not in {shape.name for shape in shapes()}:
            raise KeyError(name)
    return cells(shape for shape in shapes() if any(_is_of(shape, name) for name in wanted))


def _is_of(shape: Shape, name: str) -> bool:
    return name in ("full", shape.kind, shape.name) or (name == "quick" and shape.quick)


def cells(wanted: Iterable[Shape]) -> tuple[Cell, ...]:
    """Return a cell for each shape; for a shape of training one forward and one backward."""
    return tuple(cell for shape in wanted for cell in _cells_of(shape))


def _cells_of(shape: Shape) -> tuple[Cell, ...]:
    if shape.kind != "training":
        return (_cell(shape, shape.name, backward=False),)
    return (
        _cell(shape, f"{shape.name}-forward", backward=False),
        _cell(shape, f"{shape.name}-backward", backward=True),
    )


def _cell(shape: Shape, name: str, *, backward: bool) -> Cell:
    moved = moved_bytes(shape, backward=backward)
    return Cell(name=name, shape=shape, backward=backward, flop=flop(shape, backward=backward), bytes=moved)


def flop(shape: Shape, *, backward: bool = False) -> float:
    """Return the floating-point operations of a call: 4 x batch x heads x rows x columns x head_dim.

    Half of it where causal, since half of the scores are masked; 2.5 times that backward. Softmax is not counted.
    """
    whole = 4.0 * shape.batch * shape.heads * shape.rows * shape.columns * shape.head_dim
    return whole * (0.5 if shape.causal else 1.0) * (BACKWARD if backward else 1.0)


def moved_bytes(shape: Shape, *, backward: bool = False) -> float:
    """Return the bytes that a call has to move at least: q, k and v read, the output written, each once.

    Backward, q, k, v, the output and its gradient are read, and the gradients of q, k and v written.
    """
    rows = float(shape.batch * shape.rows * shape.heads * shape.head_dim * _ELEMENT_BYTES)
    columns = float(shape.batch * shape.columns * shape.kv_heads * shape.head_dim * _ELEMENT_BYTES)
    return 4 * rows + 4 * columns if backward else 2 * rows + 2 * columns
