from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.cli.requests import add_request_options, read_requests
from attnforge.config import from_environment, from_project
from attnforge.errors import RequestError
from attnforge.model.request import Request
from attnforge.options import OPTIONS, merge, read_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 * 2**30),
        ("8GiB", 8 * 2**30),
        ("8gb", 8 * 2**30),
        ("1.5G", 3 * 2**29),
        ("800M", 800 * 2**20),
        ("4096", 4096),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "eight", "0", "1Q"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        read_bytes(text)


@given(st.integers(1, 2**40))
def test_plain_bytes_stay(size: int) -> None:
    assert read_bytes(str(size)) == size


def test_every_option_sets_a_field_of_the_request() -> None:
    assert {option.field for option in OPTIONS} == set(Request.model_fields) - {"package"}
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize(
    ("given_options", "fields"),
    [
        ({"gpu": "L40S, H100"}, {"gpus": ("L40S", "H100")}),
        ({"gpu": "8.0;9.0"}, {"gpus": ("8.0", "9.0")}),
        ({"gpu": ["L40S", "H100"]}, {"gpus": ("L40S", "H100")}),
        ({"head-dims": "128,64,64"}, {"head_dims": (64, 128)}),
        ({"head-dims": [64]}, {"head_dims": (64,)}),
        ({"head-dims": 64}, {"head_dims": (64,)}),
        ({"jobs": "4", "memory": "8G"}, {"jobs": 4, "memory": 8 * 2**30}),
        ({"groups": "auto"}, {"groups": "auto"}),
        ({"groups": 8}, {"groups": "8"}),
        ({"torch": None}, {}),
        ({"universal": True}, {"universal": True}),
        ({"universal": " True "}, {"universal": True}),
        ({"universal": "1"}, {"universal": True}),
        ({"universal": False}, {"universal": False}),
        ({"universal": 0}, {"universal": False}),
        ({"universal": "false"}, {"universal": False}),
        ({"universal": None}, {}),
    ],
)
def test_options_are_read(given_options: dict[str, Any], fields: dict[str, Any]) -> None:
    assert merge(given_options) == fields


@pytest.mark.parametrize(
    "wrong", [{"head-dims": "sixty"}, {"jobs": "0"}, {"jobs": "many"}, {"memory": "lots"}, {"universal": "maybe"}]
)
def test_wrong_values_are_refused_with_the_option(wrong: dict[str, str]) -> None:
    with pytest.raises(RequestError, match=f"--{next(iter(wrong))}"):
        merge(wrong)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file() -> None:
    file = {"torch": "1", "python": "1", "cuda": "1"}
    assert merge({"torch": "3"}, {"torch": "2", "python": "2"}, file) == {"torch": "3", "python": "2", "cuda": "1"}


def read(words: list[str], environ: dict[str, str]) -> Request:
    parser = argparse.ArgumentParser()
    add_request_options(parser)
    return read_requests(parser.parse_args(["flash-attn", *words]), environ)[0]


def test_a_flag_stands_without_a_value_and_counts_from_wherever_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.attnforge]\n")
    assert read(["--universal"], {}).universal is True
    assert read([], {}).universal is False
    assert read([], {"ATTNFORGE_UNIVERSAL": "1"}).universal is True
    (tmp_path / "pyproject.toml").write_text("[tool.attnforge]\nuniversal = true\n")
    assert read([], {}).universal is True
    assert read([], {"ATTNFORGE_UNIVERSAL": "false"}).universal is False
    assert read(["--universal"], {"ATTNFORGE_UNIVERSAL": "0"}).universal is True


def test_the_environment() -> None:
    environ = {
        "ATTNFORGE_GPU": "H100",
        "ATTNFORGE_HEAD_DIMS": "64",
        "ATTNFORGE_GROUPS": "none",
        "ATTNFORGE_CACHE": "/c",
        "HOME": "/h",
        "ATTNFORGE_JOBS": "",
    }
    assert from_environment(environ) == {"gpu": "H100", "head-dims": "64", "groups": "none"}


def test_a_misspelt_variable_is_refused_with_the_right_one() -> None:
    with pytest.raises(RequestError) as caught:
        from_environment({"ATTNFORGE_GPUS": "H100"})
    assert "ATTNFORGE_GPU" in caught.value.hint


def test_the_nearest_project_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.attnforge]\ngpu = ["H100"]\nout = "wheels"\n')
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert from_project(deep) == {"gpu": ["H100"], "out": "wheels"}
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname='x'\n")
    assert from_project(deep) == {}


def test_a_misspelt_key_is_refused_with_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.attnforge]\nprofil = "full"\n')
    with pytest.raises(RequestError) as caught:
        from_project(tmp_path)
    assert caught.value.hint == "did you mean profile?"


def test_a_broken_project_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.attnforge\n")
    with pytest.raises(RequestError, match="can't be read"):
        from_project(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        ({"env": "/a"}, {"torch": "2.11.0", "python": "3.12", "cuda": "13.0"}, {"env": "/a"}),
        ({"torch": "installed"}, {"env": "/a", "python": "3.12"}, {"torch": "installed"}),
        ({"torch": "2.11.0"}, {"env": "/a", "python": "3.12"}, {"torch": "2.11.0", "python": "3.12"}),
        ({"python": "3.12"}, {"env": "/a"}, {"python": "3.12", "env": "/a"}),
        ({"env": "/a", "python": "3.12"}, {"python": "3.11"}, {"env": "/a", "python": "3.12"}),
        ({}, {"env": "/a", "torch": "installed"}, {"env": "/a", "torch": "installed"}),
    ],
)
def test_who_names_an_environment_or_a_version_settles_both(
    first: dict[str, str], second: dict[str, str], fields: dict[str, str]
) -> None:
    assert merge(first, second) == fields


def test_what_the_command_line_settles_is_not_read_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.attnforge]\ntorch = "2.11.0"\npython = "3.12"\ngpu = ["H100"]\n')
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_request_options(parser)
    (request,) = read_requests(parser.parse_args(["flash-attn", "--env", "/opt/venv"]), {"ATTNFORGE_CUDA": "12.8"})
    assert request == Request(package="flash-attn", env="/opt/venv", gpus=("H100",))
    (request,) = read_requests(parser.parse_args(["flash-attn"]), {"ATTNFORGE_ENV": "/opt/venv"})
    assert (request.env, request.torch, request.python) == ("/opt/venv", "", "")
