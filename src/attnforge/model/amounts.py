"""What a recipe says of the cost of units: CPU seconds and bytes of each step, of one unit or of merged ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Literal

from pydantic import Field, PositiveFloat

from attnforge.model.base import Value
from attnforge.model.fields import ArchitectureText
from attnforge.model.kernels import KernelName
from attnforge.model.parts import features_of

Step = Literal["preprocess", "cudafe++", "cicc", "ptxas", "fatbinary", "compile"]
"""A program that nvcc runs. ``compile`` is the host compiler, also where a C++ unit needs nothing else."""

DEVICE_STEPS: tuple[Step, ...] = ("preprocess", "cicc", "ptxas")
"""The steps that run once for each architecture."""

HOST_STEPS: tuple[Step, ...] = ("preprocess", "cudafe++", "fatbinary", "compile")
"""The steps that run once for a unit, however many architectures it is compiled for."""


class Amount(Value):
    """CPU seconds or bytes of one step: what merged units share, and what each of them adds."""

    shared: float = Field(
        default=0,
        ge=0,
        description="seconds or bytes that are there once in a unit, and once in a group of merged units",
    )
    slim: float = Field(default=0, ge=0, description="what each unit adds, without any optional feature")
    full: float = Field(default=0, ge=0, description="what each adds with all of them")
    head_dim: float = Field(
        default=0, ge=0, description="what each head dimension after the first adds to a group, values' own counted too"
    )
    variants: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="words of variants, to how many times `full` a unit with this word adds with all features",
    )
    head_dims: dict[str, PositiveFloat] = Field(
        default_factory=dict,
        description="head dimensions, to how many times as much all of it is, 1 for others; in a group `shared` "
        "follows the largest of these",
    )
    codes: dict[ArchitectureText, dict[str, PositiveFloat]] = Field(
        default_factory=dict,
        description="architectures whose machine code has more kernels than that of others: head dimensions, to how "
        "many times as much `slim` and `full` are for it",
    )

    def each(self, features: float, words: Iterable[str] = ()) -> float:
        """Return what a unit adds that has this part (0 to 1) of the optional features, and these words of variants."""
        full = self.full * prod(self.variants.get(word, 1.0) for word in words)
        return self.slim + features * (full - self.slim)

    def of(self, kernels: Sequence[KernelName], features: float, code: str = "") -> float:
        """Return the amount of the units of these kernels, merged into one; ``code`` is the architecture (``80``)."""
        if not (self.slim or self.full or self.head_dim):
            return self.common(kernels)
        # Kernels that differ only in dtype add the same.
        alike = {(one.head_dim, one.variant): one for one in kernels}
        adds = {key: self._added(one, features, code) for key, one in alike.items()}
        added = sum(adds[one.head_dim, one.variant] for one in kernels)
        return self.common(kernels) + added + (len({one.dims for one in kernels}) - 1) * self.head_dim

    def _added(self, kernel: KernelName, features: float, code: str) -> float:
        more = self.codes.get(code, {}).get(str(kernel.head_dim), 1.0)
        return self._of_dim(kernel.head_dim) * more * self.each(features, kernel.words)

    def common(self, kernels: Sequence[KernelName]) -> float:
        """Return what is there once in a unit with these kernels, and once in each part of it."""
        return self.shared * max(self._of_dim(dim) for dim in {one.head_dim for one in kernels})

    def alone(self, features: float) -> float:
        """Return the amount of one unit of the kind, whichever."""
        return self.shared + self.each(features)

    def _of_dim(self, head_dim: int) -> float:
        return self.head_dims.get(str(head_dim), 1.0)


class Cut(Value):
    """A way to compile the kernels of a unit in parts, which the recipe's adapter has headers for."""

    variants: tuple[str, ...] = Field(
        default=(), description='variants of the units that can be divided so, `""` for the plain one; empty: all'
    )
    parts: dict[str, PositiveFloat] = Field(
        description="each part, named by the features that its kernels have or, with `no-` before it, do without, "
        "joined by `+`, to its share (0 to 1) of what each unit adds to cicc's work; all the features have to be kept"
    )

    @property
    def features(self) -> frozenset[str]:
        """The features by which the kernels are divided."""
        return frozenset(name for part in self.parts for name in features_of(part))

    def serves(self, kernel: KernelName, features: Iterable[str]) -> bool:
        """Say whether a unit with these optional features can be divided so."""
        return self.features <= set(features) and (not self.variants or kernel.variant in self.variants)


class Cost(Value):
    """The cost of units of a kind, single and merged, step by step: CPU seconds, and bytes of memory at most."""

    kind: str = Field(description="a kind of kernel, or `dispatch`; a name for people where `units` are given")
    units: tuple[str, ...] = Field(
        default=(),
        description="file names of units that take this, of a package whose kernels are not told apart",
    )
    seconds: dict[Step, Amount] = Field(
        description="CPU seconds by the programs that nvcc runs: `preprocess`, `cudafe++`, `cicc`, `ptxas`, "
        "`fatbinary`, `compile`; see below"
    )
    bytes: dict[Step, Amount] = Field(description="peak memory of each, in bytes")
    late: dict[Step, Amount] = Field(
        default_factory=dict,
        description="the most bytes that a step has after its memory has fallen to less than half of its peak for the "
        "first time, which is when the seconds that are `shared` are over; steps whose memory does not fall are not "
        "here",
    )
    # Past some size a compile takes longer than its parts.
    merged_seconds: float = Field(
        default=0,
        ge=0,
        description="CPU seconds, for one architecture, that the units of a group may add to what they share; 0: none "
        "are merged",
    )
    cuts: tuple[Cut, ...] = Field(
        default=(), description="ways to compile the kernels of such a unit in parts, fewest parts first, see below"
    )
    index_seconds: float = Field(
        default=0, ge=0, description="CPU seconds of the run of cicc that writes the kernels of a unit without bodies"
    )
    index_bytes: int = Field(default=0, ge=0, description="its peak memory, in bytes")
    source: str = Field(description="how it was measured")

    def alone(self, features: float) -> float:
        """Return the CPU seconds of one unit for one architecture. Device steps and host steps both preprocess."""
        steps = (*HOST_STEPS, *DEVICE_STEPS)
        return sum(self.seconds[step].alone(features) for step in steps if step in self.seconds)

    def peak(self, features: float) -> int:
        """Return the peak memory of one unit: its steps run one after the other."""
        return int(max(amount.alone(features) for amount in self.bytes.values()))

    def added(self, features: float) -> float:
        """Return the CPU seconds, for one architecture, that each further unit of a group adds."""
        steps = (*HOST_STEPS, *DEVICE_STEPS)
        return sum(self.seconds[step].each(features) for step in steps if step in self.seconds)
