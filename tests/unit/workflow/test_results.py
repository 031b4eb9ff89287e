"""The shared store of compile results, as doctor and builds meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnforge.compile.reuse.cache import CREDENTIAL_VARIABLES, SECRET
from attnforge.config import from_environment
from attnforge.errors import RequestError
from attnforge.model.finding import Severity
from attnforge.model.request import Request
from attnforge.workflow.machine import Machine
from attnforge.workflow.results import examine_store, opened_cache

KEY = "ab" * 32


def test_without_a_store_nothing_is_said() -> None:
    assert examine_store("", {}) == ()


def test_a_store_without_a_secret_is_a_warning(tmp_path: Path) -> None:
    (found,) = examine_store(f"file://{tmp_path}/store", {})
    assert found.severity is Severity.WARNING
    assert SECRET in found.hint


def test_a_sealed_store_is_good(tmp_path: Path) -> None:
    (found,) = examine_store(f"file://{tmp_path}/store", {SECRET: "s"})
    assert found.severity is Severity.OK
    assert "wrote, read and deleted" in found.seen


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///dev/null/x", "s3://"])
def test_a_store_that_cannot_be_used_is_an_error_with_a_hint(url: str) -> None:
    (found,) = examine_store(url, {})
    assert found.severity is Severity.ERROR
    assert found.hint


def test_what_one_machine_kept_another_finds(tmp_path: Path) -> None:
    request = Request(package="x", store=f"file://{tmp_path}/store")
    warnings: list[str] = []
    for cache, present in (("one", False), ("two", True)):
        machine = Machine({"ATTNFORGE_CACHE": str(tmp_path / cache), SECRET: "s"})
        with opened_cache(machine, request, warnings.append) as results:
            assert (results.get(KEY) is not None) == present
            results.put(KEY, {"object": b"code"})
    assert warnings == []


def test_a_bad_address_ends_a_build_before_it_compiles(tmp_path: Path) -> None:
    machine = Machine({"ATTNFORGE_CACHE": str(tmp_path)})
    with pytest.raises(RequestError), opened_cache(machine, Request(package="x", store="ftp://host"), print):
        pass


@pytest.mark.parametrize("variable", [*CREDENTIAL_VARIABLES, SECRET])
def test_secrets_are_known_variables_and_no_options(variable: str) -> None:
    assert from_environment({variable: "x"}) == {}
