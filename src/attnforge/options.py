"""The target options: one table of which the command line, the configuration file and the environment all come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attnforge.errors import RequestError

Kind = Literal["text", "list", "numbers", "bytes", "number", "flag"]

_FLAGS = {"1": True, "true": True, "0": False, "false": False}

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as users write it (``head-dims``), the field of Request it sets, how its value is read.

    A flag stands without a value on the command line, so it has no ``metavar``.
    """

    name: str
    field: str
    kind: Kind
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "ATTNFORGE_" + self.name.upper().replace("-", "_")

    def read(self, value: Any) -> Any:
        """Return the value for the request's field; RequestError if it can't be read as this option's kind."""
        try:
            return _READERS[self.kind](value)
        except (ValueError, TypeError) as error:
            raise RequestError(f"--{self.name} can't be {value!r}", why=str(error), hint=self.help) from None


def _words(value: Any) -> tuple[str, ...]:
    text = value if isinstance(value, str) else ",".join(str(part) for part in value)
    return tuple(part.strip() for part in text.replace(";", ",").split(",") if part.strip())


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(sorted({int(word) for word in _words(str(value) if isinstance(value, int) else value)}))


def read_bytes(value: Any) -> int:
    """Return a number of bytes: ``8G``, ``12.5GiB``, ``800M`` or plain bytes. ValueError for anything else."""
    text = str(value).strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (text[:-1], text[-1]) if text and text[-1] in "kmgt" else (text, "")
    size = int(float(number) * _UNITS[unit])
    if size <= 0:
        raise ValueError("it has to be more than 0 bytes")
    return size


def _count(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError("it has to be 1 or more")
    return number


def _flag(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _FLAGS:
        raise ValueError(f"it has to be one of {', '.join(_FLAGS)}")
    return _FLAGS[word]


_READERS: dict[Kind, Any] = {
    "text": str,
    "list": _words,
    "numbers": _numbers,
    "bytes": read_bytes,
    "number": _count,
    "flag": _flag,
}

OPTIONS = (
    Option("gpu", "gpus", "list", "NAMES", "GPUs: names (L40S,H100), capabilities (8.9, sm_89, 90a) or native"),
    Option("python", "python", "text", "X.Y", "Python of the target, for example 3.12"),
    Option("torch", "torch", "text", "VERSION", "PyTorch of the target, for example 2.11.0"),
    Option("cuda", "cuda", "text", "X.Y", "CUDA that this PyTorch is built with, for example 13.0"),
    Option(
        "universal",
        "universal",
        "flag",
        "",
        "one wheel for several: --torch and --python may be lists and ranges, 2.11,2.12 and 3.10-3.13",
    ),
    Option("target", "target", "text", "NAME", "a named target: `attnforge packages --targets` lists them"),
    Option(
        "profile", "profile", "text", "NAME", "full, inference (no backward, no dropout) or diffusion (forward only)"
    ),
    Option("head-dims", "head_dims", "numbers", "LIST", "keep kernels for these head dimensions alone: 64,128"),
    Option("dtypes", "dtypes", "list", "LIST", "keep kernels for these dtypes alone: fp16,bf16"),
    Option("without", "without", "list", "LIST", "leave out: alibi,softcap,local,dropout,backward,split"),
    Option("source", "source", "text", "WHERE", "sdist, carrier, git, git+URL@REF, or the path of a folder or archive"),
    Option(
        "toolchain",
        "toolchain",
        "text",
        "WHERE",
        "system (this machine's nvcc), pypi (from the package index), or nvidia (from NVIDIA); nvidia==12.8.1 for a "
        "release",
    ),
    Option("cuda-mirror", "cuda_mirror", "text", "URL", "URL or folder to fetch NVIDIA's CUDA archives from"),
    Option("label", "label", "text", "LABEL", "local version label of the wheel, or none for upstream's own name"),
    Option("jobs", "jobs", "number", "N", "compiles at once at most (default: the processors of this machine)"),
    Option(
        "memory", "memory", "bytes", "SIZE", "memory that compilers may use, for example 48G (default: what is free)"
    ),
    Option(
        "groups", "groups", "text", "N", "merge units for N compiles at once, or none (default: auto, by this machine)"
    ),
    Option(
        "store",
        "store",
        "text",
        "URL",
        "share compile results: s3://, gs://, azblob://, redis://, webdavs:// or file://",
    ),
    Option("cache-limit", "cache_limit", "bytes", "SIZE", "keep compile results here up to this size (default: 20G)"),
)


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Request from sources by option name, earlier ones winning."""
    fields: dict[str, Any] = {}
    for option in OPTIONS:
        for source in sources:
            if source.get(option.name) is not None:
                fields[option.field] = option.read(source[option.name])
                break
    return fields
