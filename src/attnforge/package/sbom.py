"""The software bill of materials in a wheel (PEP 770): what it is made of, as CycloneDX 1.6.

It follows from the plan, from METADATA and from the source that the plan pins, so it keeps the wheel reproducible: no
time, and a serial number that names the content.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from attnforge.knowledge.vendored import LIBRARIES, Library
from attnforge.model.base import digest_of
from attnforge.model.plan import UNSTATED, BuildPlan, SourcePin
from attnforge.package.metadata import name_and_version
from attnforge.package.provenance import as_json
from attnforge.wheelfile.metadata import fields_of

PLACE = "sboms/attnforge.cdx.json"
"""Where it is in dist-info. PEP 770 has the folder; METADATA does not name it."""

_SERIALS = uuid.UUID("6f0b3a2e-1f0e-5d83-9c52-0b6ad4a7f2c1")


@dataclass(frozen=True, slots=True)
class Vendored:
    """A library of another project that is in the source and is compiled in: ``cutlass 4.0.0``.

    ``license`` is an SPDX expression.
    """

    name: str
    version: str
    license: str


def vendored(source: Path) -> tuple[Vendored, ...]:
    """Return the known libraries in the source to build whose header states version and license."""
    return tuple(found for library in LIBRARIES if (found := _find(library, source)))


def _find(library: Library, source: Path) -> Vendored | None:
    headers = (source / folder / library.header for folder in library.folders)
    texts = (header.read_text(encoding="utf-8", errors="replace") for header in headers if header.is_file())
    return next((found for text in texts if (found := _stated(library, text))), None)


def _stated(library: Library, header: str) -> Vendored | None:
    numbers = dict(re.findall(r"(?m)^\s*#\s*define\s+(\w+)\s+(\d+)\s*$", header))
    license_ = re.search(r"SPDX-License-Identifier:\s*(\S+)", header)
    if license_ is None or not numbers.keys() >= set(library.macros):
        return None
    return Vendored(library.name, ".".join(numbers[macro] for macro in library.macros), license_[1])


def bill(
    plan: BuildPlan, builder: str, wheel: str, metadata: str, vendored: Iterable[Vendored], *, static_runtime: bool
) -> bytes:
    """Return the document of a compiled wheel by its file name and METADATA.

    ``static_runtime`` says whether a library in it holds the CUDA runtime.
    """
    subject = _subject(plan, wheel, metadata)
    parts = [_source(plan, metadata), *map(_vendored, vendored), *([_cuda_runtime(plan)] if static_runtime else [])]
    references = [part["bom-ref"] for part in parts]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": _tools(plan, builder)}, "component": subject},
        "components": parts,
        "dependencies": [
            {"ref": subject["bom-ref"], "dependsOn": references},
            *({"ref": reference} for reference in references),
        ],
    }
    return as_json({**document, "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, digest_of(document))}"})


def _subject(plan: BuildPlan, wheel: str, metadata: str) -> dict[str, Any]:
    name, version = name_and_version(metadata)
    purl = _purl("pypi", name, version, file_name=wheel)
    licenses = _licenses(metadata)
    return {
        **_component(name, version, purl),
        **({"licenses": licenses} if licenses else {}),
        "properties": [{"name": "attnforge:plan", "value": plan.digest}],
    }


def _licenses(metadata: str) -> list[dict[str, Any]]:
    """Return what METADATA says of the license: an SPDX expression, else names as they are written."""
    fields = fields_of(metadata)
    if expression := fields.get("license_expression", "").strip():
        return [{"expression": expression}]
    named = fields.get("license", "").strip()
    if named and named != "UNKNOWN" and "\n" not in named:
        return [{"license": {"name": named}}]
    classifiers = [line.split(" :: ") for line in fields.get("classifiers", [])]
    return [{"license": {"name": parts[-1]}} for parts in classifiers if parts[0] == "License" and len(parts) > 2]


def _source(plan: BuildPlan, metadata: str) -> dict[str, Any]:
    """Return upstream's source: by the index's name for it, by the hash of an archive, or by a commit."""
    pin = plan.source
    version = name_and_version(metadata)[1].partition("+")[0] if plan.version == UNSTATED else plan.version
    if pin.carrier:
        return _archive("pypi", pin.carrier.distribution, pin.carrier.version, pin)
    if pin.kind in ("sdist", "archive"):
        return _archive("pypi" if pin.kind == "sdist" else "generic", plan.package, version, pin)
    # Neither a commit nor our digest over the files of a folder is one of CycloneDX's hashes.
    where = {"vcs_url": f"git+{pin.url}@{pin.commit}"} if pin.url else {}
    known = {"attnforge:commit": pin.commit} if pin.commit else {"attnforge:tree-sha256": pin.sha256}
    repository = [{"type": "vcs", "url": pin.url, "comment": f"commit {pin.commit}"}] if pin.url else []
    return {
        **_component(plan.package, version, _purl("generic", plan.package, version, **where)),
        "properties": [{"name": name, "value": value} for name, value in known.items()],
        **({"externalReferences": repository} if repository else {}),
    }


def _archive(kind: str, name: str, version: str, pin: SourcePin) -> dict[str, Any]:
    purl = _purl(kind, name, version, file_name=pin.name)
    return {**_component(name, version, purl), "hashes": [{"alg": "SHA-256", "content": pin.sha256}]}


def _vendored(part: Vendored) -> dict[str, Any]:
    component = _component(part.name, part.version, _purl("generic", part.name, part.version))
    return {**component, "licenses": [{"expression": part.license}]}


def _cuda_runtime(plan: BuildPlan) -> dict[str, Any]:
    version = plan.toolchain.cuda
    return {
        **_component("NVIDIA CUDA runtime", version, _purl("generic", "nvidia-cuda-runtime", version)),
        "description": "libcudart_static, linked into the library of kernels; the license's Attachment A lets it be "
        "redistributed",
        "licenses": [
            {
                "license": {
                    "name": "CUDA Toolkit End User License Agreement",
                    "url": "https://docs.nvidia.com/cuda/eula/index.html",
                }
            }
        ],
    }


def _tools(plan: BuildPlan, builder: str) -> list[dict[str, Any]]:
    compilers = {plan.toolchain.host_compiler, *(pair.host_compiler for pair in plan.pairs)} - {""}
    named = [builder, *([f"nvcc {plan.toolchain.nvcc}"] if plan.toolchain.nvcc else []), *sorted(compilers)]
    return [_tool(text) for text in named]


def _tool(text: str) -> dict[str, Any]:
    """Return a program by its name and version: ``g++ 12.2.0``."""
    name, _, version = text.partition(" ")
    return {"type": "application", "name": name, **({"version": version} if version else {})}


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(kind: str, name: str, version: str, **qualifiers: str) -> str:
    """Return a package URL: https://github.com/package-url/purl-spec."""
    text = f"pkg:{kind}/{canonicalize_name(name)}@{quote(version, safe=':')}"
    asked = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()))
    return f"{text}?{asked}" if asked else text
