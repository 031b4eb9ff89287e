from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packageurl import PackageURL

from attnforge.model.plan import UNSTATED, BuildPlan, SourcePin
from attnforge.model.release import Carrier
from attnforge.model.universal import Pair
from attnforge.package.archive import Member, write_wheel
from attnforge.package.sbom import PLACE, Vendored, bill, vendored
from attnforge.package.wheel import package_wheel

if TYPE_CHECKING:
    from cyclonedx.validation.json import JsonStrictValidator

METADATA = "Metadata-Version: 2.4\nName: flash_attn\nVersion: 2.8.3+cu130\n"
WHEEL = "flash_attn-2.8.3+cu130-cp312-cp312-linux_x86_64.whl"
CUTLASS = Vendored("cutlass", "4.0.0", "BSD-3-Clause")
COMMIT = "b" * 40
HEADER = """\
 * SPDX-License-Identifier: BSD-3-Clause
#define CUTLASS_MAJOR 4
#define CUTLASS_MINOR 0
#define CUTLASS_PATCH 0 
#define CUTLASS_VERSION ((CUTLASS_MAJOR)*100 + (CUTLASS_MINOR)*10 + CUTLASS_PATCH)
"""  # noqa: W291
SOURCES = [
    SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64),
    SourcePin(kind="archive", name="mine.zip", sha256="a" * 64),
    SourcePin(kind="folder", name="mine", sha256="a" * 64),
    SourcePin(kind="git", name="flash-attention", commit=COMMIT, url="https://git.example/a/flash-attention.git"),
    SourcePin(kind="git", name="bundle", commit=COMMIT),
    SourcePin(
        kind="sdist",
        name="xformers-0.0.35.tar.gz",
        sha256="c" * 64,
        subdirectory="third_party/x",
        carrier=Carrier(distribution="xformers", version="0.0.35", sha256="c" * 64, subdirectory="third_party/x"),
    ),
]


@cache
def validator() -> JsonStrictValidator:
    """Return what knows CycloneDX's schema. Importing it takes seconds, which not every process of the tests needs."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def document(
    plan: BuildPlan, *, metadata: str = METADATA, runtime: bool = False, parts: tuple[Vendored, ...] = ()
) -> Any:
    """The document, which has to be valid, with each package URL in the one way in which it is written."""
    text = bill(plan, "attnforge 0.1.0", WHEEL, metadata, parts, static_runtime=runtime).decode()
    fault = validator().validate_str(text)
    assert fault is None, fault
    made = json.loads(text)
    for component in (made["metadata"]["component"], *made["components"]):
        assert PackageURL.from_string(component["purl"]).to_string() == component["purl"]
    return made


def component(made: Any, name: str) -> Any:
    (found,) = [one for one in made["components"] if one["name"] == name]
    return found


def test_the_wheel_is_what_it_is_about(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan()
    subject = document(plan)["metadata"]["component"]
    assert (subject["name"], subject["version"]) == ("flash_attn", "2.8.3+cu130")
    purl = PackageURL.from_string(subject["purl"])
    assert (purl.type, purl.name, purl.version) == ("pypi", "flash-attn", "2.8.3+cu130")
    assert purl.qualifiers == {"file_name": WHEEL}
    assert {"name": "attnforge:plan", "value": plan.digest} in subject["properties"]


@pytest.mark.parametrize(
    ("fields", "licenses"),
    [
        ("License-Expression: BSD-3-Clause\nLicense: x\n", [{"expression": "BSD-3-Clause"}]),
        ("License: Apache 2.0\n", [{"license": {"name": "Apache 2.0"}}]),
        (
            "License: UNKNOWN\nClassifier: License :: OSI Approved :: BSD License\n",
            [{"license": {"name": "BSD License"}}],
        ),
        (
            "License: Copyright\n        All rights\nClassifier: License :: OSI Approved :: MIT License\n",
            [{"license": {"name": "MIT License"}}],
        ),
        ("Classifier: License :: OSI Approved\nClassifier: Topic :: A :: B\n", None),
        ("Summary: x\n\nLicense: not a field\n", None),
    ],
)
def test_its_license_is_what_metadata_says(
    make_plan: Callable[..., BuildPlan], fields: str, licenses: list[dict[str, object]] | None
) -> None:
    assert document(make_plan(), metadata=METADATA + fields)["metadata"]["component"].get("licenses") == licenses


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_upstreams_source_is_named_by_its_content(make_plan: Callable[..., BuildPlan], source: SourcePin) -> None:
    plan = make_plan().model_copy(update={"source": source})
    (found,) = document(plan)["components"]
    assert (source.sha256 or source.commit) in json.dumps(found)
    assert ("hashes" in found) is (source.kind in ("sdist", "archive"))


def test_an_sdist_is_the_indexs_and_a_carriers_is_the_carriers(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan()
    purl = component(document(plan.model_copy(update={"source": SOURCES[0]})), "flash-attn")["purl"]
    assert purl == "pkg:pypi/flash-attn@2.8.3?file_name=flash_attn-2.8.3.tar.gz"
    purl = component(document(plan.model_copy(update={"source": SOURCES[-1]})), "xformers")["purl"]
    assert purl == "pkg:pypi/xformers@0.0.35?file_name=xformers-0.0.35.tar.gz"


def test_a_commit_says_where_it_is_had(make_plan: Callable[..., BuildPlan]) -> None:
    found = component(document(make_plan().model_copy(update={"source": SOURCES[3]})), "flash-attn")
    qualifiers = PackageURL.from_string(found["purl"]).qualifiers
    assert qualifiers == {"vcs_url": f"git+https://git.example/a/flash-attention.git@{COMMIT}"}
    (reference,) = found["externalReferences"]
    assert reference == {
        "type": "vcs",
        "url": "https://git.example/a/flash-attention.git",
        "comment": f"commit {COMMIT}",
    }


def test_a_version_that_only_the_build_says_is_the_wheels(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan().model_copy(update={"version": UNSTATED, "source": SOURCES[2]})
    assert component(document(plan), "flash-attn")["version"] == "2.8.3"


def test_what_is_compiled_in_is_listed(make_plan: Callable[..., BuildPlan]) -> None:
    made = document(make_plan(), runtime=True, parts=(CUTLASS,))
    cutlass = component(made, "cutlass")
    assert (cutlass["version"], cutlass["licenses"]) == ("4.0.0", [{"expression": "BSD-3-Clause"}])
    runtime = component(made, "NVIDIA CUDA runtime")
    assert runtime["version"] == make_plan().toolchain.cuda == "13.0"
    assert "eula" in runtime["licenses"][0]["license"]["url"]
    assert "Attachment A" in runtime["description"]
    wheel, *others = made["dependencies"]
    assert wheel["ref"] == made["metadata"]["component"]["bom-ref"]
    assert wheel["dependsOn"] == [one["bom-ref"] for one in made["components"]] == [one["ref"] for one in others]
    assert len(others) == 3


def test_the_compilers_are_its_tools(make_plan: Callable[..., BuildPlan]) -> None:
    pairs = (
        Pair(python="3.12", torch="2.11.0"),
        Pair(python="3.13", torch="2.11.0", host_compiler="g++ 14.1.0"),
        Pair(python="3.14", torch="2.11.0", host_compiler="g++ 14.1.0"),
    )
    plan = make_plan().model_copy(update={"pairs": pairs})
    tools = [(tool["name"], tool["version"]) for tool in document(plan)["metadata"]["tools"]["components"]]
    assert tools == [("attnforge", "0.1.0"), ("nvcc", "13.0.88"), ("g++", "12.2.0"), ("g++", "14.1.0")]


def test_it_follows_from_what_it_tells(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan()
    assert document(plan) == document(plan)
    assert "timestamp" not in json.dumps(document(plan))
    serials = {
        document(plan, runtime=runtime, parts=parts)["serialNumber"]
        for runtime in (False, True)
        for parts in ((), (CUTLASS,))
    }
    assert len(serials) == 4


# --- what lies in the source


@pytest.mark.parametrize("place", ["csrc/cutlass", "../csrc/cutlass", "third_party/cutlass"])
def test_cutlass_is_found_where_packages_keep_it(tmp_path: Path, place: str) -> None:
    source = tmp_path / "hopper"
    header = source / place / "include" / "cutlass" / "version.h"
    source.mkdir()
    header.parent.mkdir(parents=True)
    header.write_text(HEADER)
    assert vendored(source) == (CUTLASS,)


@pytest.mark.parametrize("line", HEADER.splitlines()[:4])
def test_a_version_or_license_that_can_not_be_told_is_not_guessed(tmp_path: Path, line: str) -> None:
    header = tmp_path / "csrc" / "cutlass" / "include" / "cutlass" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text(HEADER.replace(line, ""))
    assert vendored(tmp_path) == ()


def test_a_source_without_cutlass_has_none(tmp_path: Path) -> None:
    assert vendored(tmp_path) == ()


# --- in our wheels


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiled_wheel_has_it_and_record_lists_it(
    tmp_path: Path, make_plan: Callable[..., BuildPlan], *, compiled: bool
) -> None:
    info = "flash_attn-2.8.3.dist-info"
    source = tmp_path / f"flash_attn-2.8.3-{'cp312-cp312-linux_x86_64' if compiled else 'py3-none-any'}.whl"
    module = {"flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so": Member(b"ELF")} if compiled else {}
    metadata = Member(METADATA.replace("+cu130", "").encode())
    write_wheel(source, {**module, f"{info}/METADATA": metadata, f"{info}/WHEEL": Member(b"")}, info)
    wheel = package_wheel(source, tmp_path, make_plan(), "attnforge 0.1.0", (CUTLASS,))
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(f".dist-info/{PLACE}")]
        assert len(found) == compiled
        if compiled:
            made = json.loads(archive.read(found[0]))
            assert PackageURL.from_string(made["metadata"]["component"]["purl"]).qualifiers == {"file_name": wheel.name}
            assert {one["name"] for one in made["components"]} == {"flash-attn", "cutlass"}
            record = next(name for name in archive.namelist() if name.endswith("RECORD"))
            assert found[0] in archive.read(record).decode()
