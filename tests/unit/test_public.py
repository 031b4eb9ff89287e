from __future__ import annotations

import subprocess
import sys

import pytest

import attnforge


@pytest.mark.parametrize("name", attnforge.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(attnforge, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        attnforge.nothing_like_it  # noqa: B018


def test_importing_it_costs_nothing() -> None:
    code = "import sys, attnforge; print(len([name for name in sys.modules if name.startswith('attnforge.')]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "0"
