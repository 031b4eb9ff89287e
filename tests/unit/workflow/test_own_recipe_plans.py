"""``attnforge plan ./my-recipe.toml``: a user's own recipe is taken, and what it says is part of the plan."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnforge.cli.main import main
from attnforge.errors import HostError, RequestError
from attnforge.model.host import Host
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.workflow import machine as machines
from attnforge.workflow.building import build
from attnforge.workflow.machine import Machine
from attnforge.workflow.planning import plan

DIGEST = "ab" * 32
RECIPE = f"""\
name = "my-extension"
title = "Mine"
summary = "one line"
default_version = "1.0"
requirements = ["setuptools==80.9.0"]
[settings]
MY_LEVEL = "1"
[[releases]]
versions = ">=1,<2"
architectures = ["80", "90"]
[releases.sha256]
"1.0" = "{DIGEST}"
"1.1" = "{"cd" * 32}"
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """A machine without a network, whose index is an empty folder."""
    monkeypatch.setattr(machines, "probe", lambda *_: make_host())
    (tmp_path / "index").mkdir()
    environ = {
        "HOME": str(tmp_path),
        "ATTNFORGE_CACHE": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": (tmp_path / "index").as_uri(),
        "UV_NO_CONFIG": "1",
    }
    return Machine(environ)


def planned(machine: Machine, folder: Path, text: str = RECIPE, suffix: str = "", **changes: Any) -> Any:
    path = folder / "my-recipe.toml"
    path.write_text(text, encoding="utf-8")
    return plan(machine, Request(**{"package": f"{path}{suffix}", "gpus": ("L40S", "H100"), **changes}))


def test_a_recipe_of_ones_own_is_planned(machine: Machine, tmp_path: Path) -> None:
    found = planned(machine, tmp_path).plan
    assert (found.package, found.version, found.source.sha256) == ("my-extension", "1.0", DIGEST)
    assert found.settings == (("MY_LEVEL", "1"),)
    assert [architecture.sm for architecture in found.target.architectures] == ["sm_80", "sm_90"]


def test_a_version_is_named_after_it(machine: Machine, tmp_path: Path) -> None:
    assert planned(machine, tmp_path, suffix="==1.1").plan.source.sha256 == "cd" * 32


def test_its_source_may_lie_here(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "setup.py").write_text("from setuptools import setup\nsetup(name='other-name', version='1.5')\n")
    found = planned(machine, tmp_path, source=str(folder)).plan
    assert (found.package, found.version, found.source.kind) == ("my-extension", "1.5", "folder")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('MY_LEVEL = "1"', 'MY_LEVEL = "2"'),
        ("setuptools==80.9.0", "setuptools==80.8.0"),
        ('"80", "90"', '"80", "89", "90"'),
        (DIGEST, "ef" * 32),
        ('default_version = "1.0"', 'default_version = "1.1"'),
        ("[settings]", 'adapter = "flash_attn"\n[settings]'),
        (
            "[[releases]]\n",
            '[[releases]]\nremedies = [{cuda = ">=13", defines = {A = "1"}, why = "w", source = "s"}]\n',
        ),
    ],
)
def test_what_changes_bytes_is_another_plan(machine: Machine, tmp_path: Path, old: str, new: str) -> None:
    assert old in RECIPE
    one, other = planned(machine, tmp_path), planned(machine, tmp_path, RECIPE.replace(old, new))
    assert one.plan.digest != other.plan.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "Mine"', 'title = "Other"'),
        ("one line", "another"),
        ("[settings]", 'homepage = "https://x"\n[settings]'),
    ],
)
def test_what_changes_no_byte_is_the_same_plan(machine: Machine, tmp_path: Path, old: str, new: str) -> None:
    one, other = planned(machine, tmp_path), planned(machine, tmp_path, RECIPE.replace(old, new))
    assert one.plan.digest == other.plan.digest


def test_a_bundled_recipe_is_overridden_by_name(machine: Machine, tmp_path: Path) -> None:
    text = RECIPE.replace('name = "my-extension"', 'name = "causal-conv1d"')
    found = planned(machine, tmp_path, text).plan
    assert (found.package, found.version) == ("causal-conv1d", "1.0")
    assert dict(found.settings) == {"MY_LEVEL": "1"}
    bundled = plan(machine, Request(package="causal-conv1d", gpus=("H100",))).plan
    assert bundled.version == find_recipe("causal-conv1d").default_version


def test_other_rules_for_units_are_another_plan() -> None:
    recipe = find_recipe("flash-attn")
    softcap = recipe.features["softcap"].model_copy(update={"guard": "params.softcap != 0.f"})
    changed = recipe.model_copy(update={"features": {**recipe.features, "softcap": softcap}})
    assert recipe.rules_digest() != changed.rules_digest()
    assert recipe.rules_digest() == recipe.model_copy(update={"costs": (), "title": "x"}).rules_digest()
    assert find_recipe("causal-conv1d").rules_digest() == ""


def test_a_source_of_another_hash_is_refused(machine: Machine, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "index" / "my_extension-1.0.tar.gz", "w:gz") as bundle:
        text = b"from setuptools import setup\nsetup(name='my-extension', version='1.0')\n"
        info = tarfile.TarInfo("my_extension-1.0/setup.py")
        info.size = len(text)
        bundle.addfile(info, io.BytesIO(text))
    found = planned(machine, tmp_path)
    with pytest.raises(HostError, match="its SHA-256 is not the one that was asked for") as caught:
        build(machine, found, tmp_path / "dist")
    assert DIGEST in caught.value.why
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RECIPE.replace("settings", "setings"), "setings: there is no such key"),
        (RECIPE.replace(DIGEST, "abc"), "is no SHA-256"),
        (RECIPE.replace('"80", "90"', '"90a"'), "Mine has no kernels for L40S"),
    ],
)
def test_the_command_line_says_what_is_wrong(machine: Machine, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "my-recipe.toml"
    path.write_text(text, encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    assert main(["plan", str(path), "--gpu", "L40S", "--json"], machine.environ, out, err) == 2
    assert said in err.getvalue()
    assert said in json.loads(out.getvalue().splitlines()[-1])["error"]["what"]


def test_a_word_after_it_that_is_no_version(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'banana' is no version"):
        planned(machine, tmp_path, suffix="==banana")


@pytest.mark.parametrize("word", ["no-such.toml", "./no-such.toml", "no-such.toml==1.0"])
def test_a_recipe_that_is_not_there(machine: Machine, word: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert main(["plan", word, "--gpu", "H100"], machine.environ, out, err) == 2
    assert "no-such.toml does not exist" in err.getvalue()
