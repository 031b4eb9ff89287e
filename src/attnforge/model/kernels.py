"""The names of upstream's kernels, and how a recipe reads them from the file names of upstream's units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from pydantic import Field, field_validator

from attnforge.model.base import Value
from attnforge.model.fields import Expression

_KERNEL_NAME = re.compile(r"(?P<kind>[\w-]+?)-hdim(?P<head_dim>\d+)-(?P<dtype>[^\W_]+)(?P<variant>(?:-[^\W_]+)*)")

JOINT = "+"
"""Between the names of the kernels of merged units."""


def kernel_name(kind: str, head_dim: int | str, dtype: str, variant: str = "") -> str:
    """Return the name of a unit's kernels, such as ``forward-hdim64-bf16-causal``: in plans, units, costs, coverage.

    ``variant`` is what follows the dtype in upstream's file name, in words: ``causal``, ``paged-split``.
    """
    return f"{kind}-hdim{head_dim}-{dtype}" + (f"-{variant}" if variant else "")


_VALUES = re.compile(r"v\d+")


class KernelName(NamedTuple):
    """The parts of such a name. In sorted order, the units that share most are next to each other."""

    kind: str
    head_dim: int
    dtype: str
    variant: str

    @property
    def words(self) -> frozenset[str]:
        """The words of the variant."""
        return _words(self.variant)

    @property
    def dims(self) -> str:
        """The head dimension, and that of the values where it is another: ``192``, ``192-v128``."""
        return _dims(self.head_dim, self.variant)

    @classmethod
    def parse(cls, name: str) -> KernelName:
        """Read what ``kernel_name`` wrote; ValueError for anything else."""
        return _parsed(name)


# A plan asks for the same few names some hundred thousand times, since each way to merge units is priced.
@lru_cache(maxsize=4096)
def _parsed(name: str) -> KernelName:
    match = _KERNEL_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of kernels such as forward-hdim64-bf16-causal")
    return KernelName(match["kind"], int(match["head_dim"]), match["dtype"], match["variant"].removeprefix("-"))


@lru_cache(maxsize=256)
def _words(variant: str) -> frozenset[str]:
    return frozenset(variant.split("-"))


@lru_cache(maxsize=1024)
def _dims(head_dim: int, variant: str) -> str:
    values = [word for word in variant.split("-") if _VALUES.fullmatch(word)]
    return "-".join([str(head_dim), *values])


class KernelSet(Value):
    """Kernels of one kind: each of these head dimensions with each dtype, value dimension and variant."""

    kind: str = Field(description="the recipe's own kind")
    head_dims: tuple[int, ...] = Field(default=(), description="empty: those of the release")
    dtypes: tuple[str, ...] = Field(default=(), description="empty: those of `kernels`")
    value_dims: tuple[int, ...] = Field(
        default=(), description="head dimensions of the values, where they are not those of queries and keys"
    )
    variants: tuple[str, ...] = Field(
        default=("",), description='in words as `variant` has them, joined by a dash; `""` for the plain one'
    )

    def names(self, head_dims: Sequence[int], dtypes: Sequence[str]) -> Iterator[str]:
        """Yield the names of the kernels; what the set leaves open is that of the release and of ``kernels``."""
        values = [f"v{dim}" for dim in self.value_dims] or [""]
        for head_dim, dtype in product(self.head_dims or head_dims, self.dtypes or dtypes):
            for words in product(values, self.variants):
                yield kernel_name(self.kind, head_dim, dtype, "-".join(filter(None, words)))


class Kernels(Value):
    """How upstream's translation units name their kernels."""

    pattern: Expression = Field(
        description="regular expression over a unit's file name, with groups `kind`, `head_dim`, `dtype` and, where "
        "upstream has them, `value_dim` and `variant`"
    )
    kinds: dict[str, str] = Field(description="what group `kind` matches, to the recipe's own kinds")
    dtypes: tuple[str, ...] = Field(description="dtypes that have kernels")
    file_dtypes: dict[str, str] = Field(
        default_factory=dict, description="what group `dtype` matches, to dtypes, where these differ"
    )
    sets: tuple[KernelSet, ...] = Field(default=(), description="which kernels there are, see below")
    head_dim_setting: str = Field(
        default="",
        description="the environment variable that drops a head dimension from upstream's build where it is `TRUE`, "
        "with `{head_dim}` in its name",
    )
    dtype_settings: dict[str, str] = Field(default_factory=dict, description="the same for each dtype that has one")
    symbol: Expression = Field(
        default="",
        description="regular expression over mangled names of kernels, with groups `head_dim` and `dtype`; for audits",
    )
    symbol_dtypes: dict[str, str] = Field(
        default_factory=dict, description="what group `dtype` of it matches, to dtypes"
    )
    dispatch: str = Field(default="", description="file name of the host unit that calls the kernels")

    @field_validator("pattern")
    @classmethod
    def _names_kernels(cls, value: str) -> str:
        return _with_groups(value, "kind", "head_dim", "dtype")

    @field_validator("symbol")
    @classmethod
    def _names_symbols(cls, value: str) -> str:
        return _with_groups(value, "head_dim", "dtype") if value else value

    def named(self, match: re.Match[str]) -> str:
        """Return the name of the kernels of a unit whose file name ``pattern`` matches."""
        found = match.groupdict()
        value = (found.get("value_dim") or "").strip("_")
        words = [f"v{value}"] if value else []
        words += (found.get("variant") or "").strip("_").split("_")
        return kernel_name(
            self.kinds[found["kind"]],
            found["head_dim"],
            self.file_dtypes.get(found["dtype"], found["dtype"]),
            "-".join(filter(None, words)),
        )

    def names(self, head_dims: Sequence[int]) -> tuple[str, ...]:
        """Return the names of all kernels of a release with these head dimensions."""
        return tuple(name for one in self.sets for name in one.names(head_dims, self.dtypes))


def _with_groups(pattern: str, *names: str) -> str:
    absent = [name for name in names if name not in re.compile(pattern).groupindex]
    if absent:
        raise ValueError(f"{pattern!r} lacks the group {', '.join(f'(?P<{name}>…)' for name in absent)}")
    return pattern
