"""The reference target's packages on a machine without a toolkit, their repositories on a git server of ours."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attnforge.cli import main as program
from attnforge.errors import AttnforgeError
from attnforge.model.host import Host
from attnforge.paths import Folders
from attnforge.provision.git import find_git
from attnforge.provision.gittree import checkout
from attnforge.provision.giturl import parse_address
from attnforge.workflow import machine as machines
from standins.gitserver import Server, commit, git, publish, serve

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")

STAND_IN = Path(__file__).parents[1] / "standins" / "sageattention"
GITHUB = "https://github.com/"
ALL = ("flash-attn", "flash-attn-3", "sageattention")
RECORDED = {"flash-attention": "b7d29fb3b79f", "SageAttention": "d1a57a546c3d"}
TOOLKIT = "CUDA 12.8.2 (cuda_nvcc, cuda_cudart, cuda_cccl), from NVIDIA: 81.3 MB"
TORCH_INDEX = "https://download.pytorch.org/whl/cu128"
PYTORCH = f"PyTorch 2.7.1 with CUDA 12.8, and what it requires, from {TORCH_INDEX}: about 3.9 GB"
COMMIT = "b7d29fb3b79f0b78b1c369a52aaa6628dabfb0d7"
SETUP = "from setuptools import setup\nsetup(name={name!r}, version={version!r})\n"


@dataclass(frozen=True)
class Node:
    """A machine with git, a C++ compiler and a network that ends at this server; no nvcc."""

    folder: Path
    server: Server
    commits: dict[str, str]

    def plan(self, *packages: str, options: tuple[str, ...] = ("--target", "reference")) -> tuple[int, str, str]:
        (self.folder / "gitconfig").write_text(self.server.instead_of(GITHUB))
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.folder / "gitconfig"),
            "PIP_CONFIG_FILE": "/dev/null",
            "UV_NO_CONFIG": "1",
            "PIP_NO_INDEX": "1",
            "ATTNFORGE_CACHE": str(self.folder / "cache"),
        }
        out, err = io.StringIO(), io.StringIO()
        code = program.main(("plan", *packages, *options), environ, out, err)
        return code, out.getvalue(), err.getvalue()

    def documents(self, *packages: str) -> list[dict[str, Any]]:
        code, out, err = self.plan(*packages, options=("--target", "reference", "--json"))
        assert code == 0, err
        found: list[dict[str, Any]] = json.loads(out)
        return found


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_host: Callable[..., Host]) -> Iterator[Node]:
    host = make_host(toolkits=())
    monkeypatch.setattr(machines, "probe", lambda *_: host)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    commits = {}
    cutlass = tmp_path / "cutlass"
    write(cutlass, "include/cutlass.h", "// as many files as a plan reads\n")
    commit(cutlass)
    top = tmp_path / "flash-attention"
    write(top, "setup.py", SETUP.format(name="flash_attn", version="2.7.2"))
    write(top, "flash_attn/__init__.py", '__version__ = "2.7.2"\n')
    # As upstream's: the version is computed, of a file beside setup.py, and not written as PEP 440 has it.
    write(top, "hopper/setup.py", "from setuptools import setup\nsetup(name=NAME, version=get_package_version())\n")
    write(top, "hopper/__init__.py", '__version__ = "3.0.0.b1"\n')
    commit(top)
    git(top, "submodule", "add", "--quiet", str(cutlass), "csrc/cutlass")
    git(top, "config", "--file", ".gitmodules", "submodule.csrc/cutlass.url", f"{GITHUB}NVIDIA/cutlass")
    commits["flash-attention"] = commit(top, "v2.7.2")
    sage = tmp_path / "SageAttention"
    shutil.copytree(STAND_IN, sage)
    (sage / "build_mode.txt").write_text("later\n")
    commits["SageAttention"] = commit(sage, "later")
    for folder, name in (
        (top, "Dao-AILab/flash-attention"),
        (cutlass, "NVIDIA/cutlass"),
        (sage, f"thu-ml/{sage.name}"),
    ):
        publish(folder, tmp_path / "served", name)
    with serve(tmp_path / "served") as server:
        yield Node(tmp_path, server, commits)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_all_three_are_planned_and_what_is_fetched_is_said(node: Node) -> None:
    code, out, err = node.plan(*ALL)
    assert code == 0, err
    assert out.count(TOOLKIT) == out.count(PYTORCH) == 3
    repositories = [line.strip() for line in out.splitlines() if "commit" in line and "from https" in line]
    assert [line.partition("commit ")[2].partition(", from")[0] for line in repositories] == [
        "b7d29fb3b79f of flash-attention with csrc/cutlass",
        "b7d29fb3b79f of flash-attention with csrc/cutlass",
        "d1a57a546c3d of SageAttention",
    ]
    *_, total = out.splitlines()
    assert total == (
        "to fetch in total: about 4.0 GB, and of unknown size "
        "commit b7d29fb3b79f of flash-attention with csrc/cutlass, commit d1a57a546c3d of SageAttention"
    )
    # The target records every commit, so that a plan asks nobody.
    assert node.server.asked == []
    assert "the target reference has" not in out


def test_its_commits_are_those_that_are_recorded(node: Node) -> None:
    for document in node.documents(*ALL):
        assert document["source"]["commit"].startswith(RECORDED[document["source"]["name"]])
        assert {fetch["size"] for fetch in document["fetches"]} == {0, 3_917_000_000, 81_298_228}


def test_other_commits_of_the_repositories_are_planned_and_said_to_be_others(node: Node) -> None:
    flash, hopper, sage = node.documents("flash-attn@v2.7.2", "flash-attn-3@v2.7.2", "sageattention@later")
    for document in (flash, hopper, sage):
        assert document["source"]["commit"] == node.commits[document["source"]["name"]]
        (said,) = (one for one in document["warnings"] if one["subject"] == "target")
        assert document["source"]["commit"][:12] in said["message"]
        assert "--target reference" in said["hint"]
    # The commit that is recorded for 2.7.2 is its tag's. That of 2.2.0 is not said to be another tag's.
    assert any("the tag v2.7.2 moved" in one["message"] for one in flash["warnings"])
    assert not any("moved" in one["message"] for one in sage["warnings"])
    assert "flashattn-hopper==3.0.0b1 of commit b7d29fb3b79f" in hopper["warnings"][0]["message"]
    assert (hopper["package"], hopper["version"]) == ("flash-attn-3", "3.0.0b1")
    # What the target says of a package's GPUs holds for whatever commit.
    assert hopper["target"]["architectures"] == ["sm_90a"]
    assert flash["target"]["architectures"] == ["sm_80", "sm_90"]
    assert {path.split("/")[2] for path in node.server.asked} >= {"flash-attention", "SageAttention"}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("flash-attn-3 @ git+{url}@v2.7.2", ""),
        ("flash-attn-3 @ git+{url}@v2.7.2#subdirectory=hopper", ""),
        ("flash-attn-3==3.0.0b1", "git+{url}@v2.7.2"),
    ],
)
def test_another_copy_of_the_repository_is_built_in_the_recipes_folder(node: Node, package: str, source: str) -> None:
    """Without the folder FlashAttention 2 was built under the name of FlashAttention 3."""
    url = f"{node.server.url}/Dao-AILab/flash-attention"
    options = ("--target", "reference", "--json", *(("--source", source.format(url=url)) if source else ()))
    code, out, err = node.plan(package.format(url=url), options=options)
    assert code == 0, err
    planned = json.loads(out)
    assert (planned["package"], planned["version"]) == ("flash-attn-3", "3.0.0b1")
    assert (planned["source"]["subdirectory"], planned["source"]["url"]) == ("hopper", url)


def test_what_lies_in_the_cache_is_not_fetched_again(node: Node) -> None:
    """sageattention@later states no version that the recipe records: its files were looked at, and are kept."""
    (sage,) = [json.loads(node.plan("sageattention@later", options=("--target", "reference", "--json"))[1])]
    assert not [fetch for fetch in sage["fetches"] if "commit" in fetch["what"]]
    assert len(sage["fetches"]) == 2


def test_a_server_without_the_commit_ends_the_build_with_its_name(node: Node) -> None:
    node.plan("flash-attn")  # writes the configuration that has git ask the server
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": str(node.folder / "gitconfig")}
    address = parse_address(f"git+{GITHUB}Dao-AILab/flash-attention@{COMMIT}")
    with pytest.raises(AttnforgeError, match=COMMIT[:12]):
        checkout(find_git(environ), Folders(node.folder / "cache").ensure(), address, COMMIT)
    assert any("flash-attention" in path for path in node.server.asked)
