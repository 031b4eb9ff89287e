"""Types of single fields of recipes and proofs: each check says what is wrong with a text."""

from __future__ import annotations

import re
from typing import Annotated

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field

from attnforge.model.target import Architecture
from attnforge.model.versions import as_specifier, as_version, shortened


def _specifier(text: str) -> str:
    if as_specifier(text) is None:
        raise ValueError(f"Invalid specifier: {shortened(text)!r}")
    return text


def _version(text: str) -> str:
    if text and as_version(text) is None:
        raise ValueError(f"Invalid version: {shortened(text)!r}")
    return text


def _requirement(text: str) -> str:
    Requirement(text)
    return text


def _architecture(text: str) -> str:
    if Architecture.parse(text).digits != text:
        raise ValueError(f"{text!r} is written {Architecture.parse(text).digits!r} here, as nvcc writes it after sm_")
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is no SHA-256: 64 hexadecimal digits, lower case; this has {len(text)} characters")
    return text


def _commit(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise ValueError(f"{text!r} is no whole commit id: 40 hexadecimal digits, lower case")
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"(?:https|ssh|file)://[^\s@]*(?:git@)?[^\s@]+", text):
        raise ValueError(f"{text!r} is no URL of a git repository: https://HOST/OWNER/REPOSITORY, without credentials")
    return text


def _tag(text: str) -> str:
    if text.count("{version}") != 1 or text.startswith("-"):
        raise ValueError(f"{text!r} does not say where the version is in a tag: v{{version}}")
    return text


def _canonical(text: str) -> str:
    if not text or canonicalize_name(text) != text:
        raise ValueError(f"{text!r} is no canonical distribution name; write {canonicalize_name(text)!r}")
    return text


def _dotted(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"{text!r} is no name that Python imports")
    return text


Specifier = Annotated[str, AfterValidator(_specifier)]
VersionText = Annotated[str, AfterValidator(_version)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
ArchitectureText = Annotated[str, AfterValidator(_architecture)]
Expression = Annotated[str, AfterValidator(_expression), Field(json_schema_extra={"format": "regex"})]
Sha256 = Annotated[str, AfterValidator(_sha256), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
Commit = Annotated[str, AfterValidator(_commit), Field(json_schema_extra={"pattern": "^[0-9a-f]{40}$"})]
CanonicalName = Annotated[str, AfterValidator(_canonical)]
ImportName = Annotated[str, AfterValidator(_dotted)]

RepositoryUrl = Annotated[str, AfterValidator(_repository)]
TagPattern = Annotated[str, AfterValidator(_tag)]
