"""LDFLAGS of upstream's build: options of ours in quotes, which setuptools takes apart, before those of a recipe."""

from __future__ import annotations

import shlex

import pytest

from attnforge.workflow.variables import with_linker_options


def test_without_options_nothing_is_set() -> None:
    assert with_linker_options({"LDFLAGS": "-s"}, ()) == {}


@pytest.mark.parametrize("folder", ["/cache/stubs", "/a cache/stubs", "/it's/stubs"])
def test_options_come_apart_again(folder: str) -> None:
    flags = with_linker_options({}, (f"-L{folder}",))["LDFLAGS"]
    assert shlex.split(flags) == [f"-L{folder}"]


def test_what_a_recipe_sets_stays() -> None:
    flags = with_linker_options({"LDFLAGS": "-Wl,-z,now"}, ("-L/stubs",))["LDFLAGS"]
    assert shlex.split(flags) == ["-L/stubs", "-Wl,-z,now"]
