"""Reads the data files of this package into validated, frozen values."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TypeVar

from attnforge.model.base import Value

V = TypeVar("V", bound=Value)


def load(name: str, kind: type[V]) -> V:
    """Return the data file ``name`` as a value. A key that ``kind`` does not have is an error: see model.base."""
    text = resources.files("attnforge.knowledge").joinpath(name).read_text(encoding="utf-8")
    return kind.model_validate(tomllib.loads(text))
