"""The subject of a check: what a wheel covers, and the package in it as it was imported. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attnforge.knowledge.behaviour import Behaviour
from attnforge.ongpu.protocol import Opened


@dataclass(frozen=True, slots=True)
class Subject:
    """A wheel and the package in it, as it was imported.

    ``head_dims`` and ``dtypes`` are those that it has. It lacks kernels of ``head_dims_left_out`` and the features
    ``left_out``. ``ours`` says whether that is from the coverage in a wheel of attnforge's. ``takes`` are
    the options of its calls by the names of ongpu/calls.py, ``kernels`` its functions that are called as the main one
    is. ``quick`` asks for fewer shapes, ``only`` for the cases of some topics and the smoke test; empty for all.
    """

    behaviour: Behaviour
    head_dims: tuple[int, ...]
    head_dims_left_out: tuple[int, ...]
    dtypes: tuple[str, ...]
    left_out: frozenset[str]
    ours: bool
    takes: frozenset[str]
    kernels: tuple[str, ...]
    main: str
    layouts: tuple[str, ...]
    has_varlen: bool
    varlen_takes: frozenset[str]
    has_cache: bool
    cache_takes: frozenset[str]
    quick: bool = False
    only: tuple[str, ...] = ()


def subject_of(
    behaviour: Behaviour,
    coverage: Mapping[str, Any] | None,
    opened: Opened,
    quick: bool = False,
    only: tuple[str, ...] = (),
) -> Subject:
    """Put together what the wheel's coverage says, else what upstream's whole package has, and what was imported."""
    covered = coverage or {}
    return Subject(
        behaviour=behaviour,
        head_dims=tuple(covered.get("head_dims") or behaviour.head_dims),
        head_dims_left_out=_head_dims_of(covered.get("kernels_left_out", ())),
        dtypes=tuple(covered.get("dtypes") or behaviour.dtypes),
        left_out=frozenset(covered.get("left_out") or ()),
        ours=coverage is not None,
        takes=frozenset(opened["takes"]),
        kernels=tuple(opened["kernels"]),
        main=opened["main"],
        layouts=tuple(opened["layouts"]),
        has_varlen=bool(opened["varlen"]),
        varlen_takes=frozenset(opened["varlen_takes"]),
        has_cache=bool(opened["cache"]),
        cache_takes=frozenset(opened["cache_takes"]),
        quick=quick,
        only=only,
    )


def _head_dims_of(kernels: Iterable[str]) -> tuple[int, ...]:
    """Return the head dimensions in names of kernels such as ``forward-hdim160-fp16``, sorted."""
    return tuple(sorted({int(found[1]) for kernel in kernels if (found := re.search(r"-hdim(\d+)-", kernel))}))
