"""The target options: one table for the command line, the configuration file, the environment and the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attnforge.errors import RequestError

Kind = Literal["text", "list", "numbers", "bytes", "number", "flag"]

_FLAGS = {"1": True, "true": True, "0": False, "false": False}

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

# A smaller number has lost its unit: it is too little for any compiler or cache.
_LEAST_BYTES = 2**20
# The size of the address space. A larger number is a typing error.
_MOST_BYTES = 2**63 - 1
# Linux has no more processes than 2**22 (proc(5), pid_max); no machine has as many processors.
_MOST_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as users write it (``head-dims``), and how its value is read.

    A flag takes no value on the command line, so it has no ``metavar``. ``default`` says in words what happens where
    the option is not given; "" where nothing does.
    """

    name: str
    kind: Kind
    metavar: str
    help: str
    default: str = ""

    @property
    def field(self) -> str:
        """The field of Request that it sets."""
        return "gpus" if self.name == "gpu" else self.name.replace("-", "_")

    @property
    def described(self) -> str:
        """What it does and what happens without it, for ``--help`` and the docs."""
        return f"{self.help} (default: {self.default})" if self.default else self.help

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "ATTNFORGE_" + self.name.upper().replace("-", "_")

    def read(self, value: Any, where: str = "") -> Any:
        """Return the value for the request's field; RequestError if it can't be read as this option's kind.

        ``where`` says where the value is set, "" for the command line.
        """
        try:
            return _READERS[self.kind](value)
        except (ValueError, TypeError, OverflowError) as error:
            named = where or f"--{self.name}"
            raise RequestError(f"{named} can't be {_shown(value)}", why=str(error), hint=self.help) from None


class Settings(dict[str, Any]):
    """Values by option name, from one place. ``named`` returns how a message names an option there."""

    def __init__(self, values: Mapping[str, Any], named: Callable[[str], str]) -> None:
        super().__init__(values)
        self.named = named

    def without(self, *names: str) -> Settings:
        """Return the settings without some options."""
        return Settings({name: value for name, value in self.items() if name not in names}, self.named)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def check_text(text: str) -> str:
    """Return the text unchanged; ValueError for one that can't be part of a name, a path or a message."""
    if "\0" in text:
        raise ValueError("it has a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("it is not UTF-8")
    return text


def _text(value: Any) -> str:
    """Read a text. A file may also have a whole number, or a list, which becomes a text with commas.

    Other numbers are refused: TOML reads 3.10 as 3.1.
    """
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("it has to be a text: write it in quotes")
    return check_text(str(value))


def _words(value: Any) -> tuple[str, ...]:
    parts = [value] if isinstance(value, str | int | float) else list(value)
    if any(isinstance(part, bool) or not isinstance(part, str | int | float) for part in parts):
        raise ValueError("it has to be a list of texts")
    text = check_text(",".join(map(str, parts)))
    return tuple(part.strip() for part in text.replace(";", ",").split(",") if part.strip())


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(sorted({_whole(word) for word in _words(value)}))


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError("it has to be whole numbers") from None


def read_bytes(value: Any) -> int:
    """Return a number of bytes: ``8G``, ``12.5GiB``, ``800M`` or plain bytes. ValueError for anything else."""
    text = str(value).strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (text[:-1], text[-1]) if text and text[-1] in "kmgt" else (text, "")
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        raise ValueError("it has to be a number of bytes, with or without a unit: 48G, 800M") from None
    if size <= 0:
        raise ValueError("it has to be more than 0 bytes")
    if size > _MOST_BYTES:
        raise ValueError("no machine has so many bytes")
    return size


def _size(value: Any) -> int:
    size = read_bytes(value)
    if size < _LEAST_BYTES:
        raise ValueError(f"that is {size} bytes: a unit is missing (write 48G for 48 GiB)")
    return size


def _count(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("it has to be a whole number")
    number = _whole(value) if isinstance(value, str) else int(value)
    if not 1 <= number <= _MOST_AT_ONCE:
        raise ValueError(f"it has to be 1 to {_MOST_AT_ONCE}")
    return number


def _flag(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _FLAGS:
        raise ValueError(f"it has to be one of {', '.join(_FLAGS)}")
    return _FLAGS[word]


_READERS: dict[Kind, Any] = {
    "text": _text,
    "list": _words,
    "numbers": _numbers,
    "bytes": _size,
    "number": _count,
    "flag": _flag,
}

OPTIONS = (
    Option(
        "gpu",
        "list",
        "NAMES",
        "GPUs of the target: names (L40S,H100), compute capabilities (8.9, sm_89, 90a) or native",
        default="the GPUs of this machine",
    ),
    Option(
        "python",
        "text",
        "X.Y",
        "Python of the target: 3.12, or 3.14t for the free-threaded build",
        default="the Python of the active environment if its PyTorch is used, else the one that runs attnforge",
    ),
    Option(
        "torch",
        "text",
        "VERSION",
        "PyTorch: 2.11.0, 2.11 for its newest patch, 2.11.0+cu128 for a CUDA, or `installed`, the one in "
        "the active environment",
        default="`installed` if an active environment has a PyTorch with CUDA, else a proven version",
    ),
    Option("env", "text", "PATH", "build for the PyTorch in this environment: a folder or an interpreter"),
    Option(
        "cuda",
        "text",
        "X.Y",
        "CUDA that this PyTorch was built with: 13.0 or cu130",
        default="the CUDA of its build on the index",
    ),
    Option(
        "universal",
        "flag",
        "",
        "one wheel for several PyTorch and Python versions: --torch 2.11,2.12 and --python 3.10-3.13",
    ),
    Option("target", "text", "NAME", "a named target: `attnforge packages --targets` lists them"),
    Option(
        "profile",
        "text",
        "NAME",
        "full, inference (no backward, no dropout) or diffusion (forward only)",
        default="full",
    ),
    Option("head-dims", "numbers", "LIST", "keep only kernels for these head dimensions: 64,128"),
    Option("dtypes", "list", "LIST", "keep only kernels for these dtypes: fp16,bf16"),
    Option("without", "list", "LIST", "leave out features: alibi,softcap,local,dropout,backward,split"),
    Option(
        "source",
        "text",
        "WHERE",
        "sdist, carrier (another package's sdist), git, git+URL@REF, or a path to a folder or archive",
    ),
    Option(
        "toolchain",
        "text",
        "WHERE",
        "system (nvcc of this machine), pypi (from the package index) or nvidia (from NVIDIA); nvidia==12.8.1 for a "
        "release",
        default="system if its CUDA is exactly the target's, else the first of the others that has it",
    ),
    Option("cuda-mirror", "text", "URL", "URL or folder to fetch NVIDIA's CUDA archives from"),
    Option("label", "text", "LABEL", "local version label of the wheel, or none for upstream's own name"),
    Option("jobs", "number", "N", "run at most N compiles at once", default="the processors that this process may use"),
    Option(
        "memory",
        "bytes",
        "SIZE",
        "memory that compilers may use: 48G is 48 GiB; at most what there is",
        default="the free memory, less a reserve",
    ),
    Option(
        "groups",
        "text",
        "N",
        "merge units for N compiles at once, or none",
        default="auto, from the processors and memory of this machine",
    ),
    Option(
        "no-share-ptx", "flag", "", "run cicc once for each architecture, even where two are proven to share their PTX"
    ),
    Option("no-parts", "flag", "", "never split a unit's kernels over several compiles"),
    Option("store", "text", "URL", "share compile results: s3://, gs://, azblob://, redis://, webdavs:// or file://"),
    Option(
        "cache-limit",
        "bytes",
        "SIZE",
        "keep up to this size of compile results on this machine; the least recently used go first",
        default="20G",
    ),
)


# An environment settles Python, PyTorch and CUDA. A version of PyTorch rules out an environment.
_OF_AN_ENVIRONMENT = ("torch", "env", "python", "cuda")


def _layered(sources: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the sources without the options that an earlier source has settled through another option."""
    layers: list[Mapping[str, Any]] = []
    settled: tuple[str, ...] = ()
    for source in sources:
        layers.append(_without(source, settled))
        if source.get("env") or source.get("torch") == "installed":
            settled = (*settled, *_OF_AN_ENVIRONMENT)
        elif source.get("torch"):
            settled = (*settled, "env")
    return layers


def _without(source: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    if isinstance(source, Settings):
        return source.without(*names)
    return {name: value for name, value in source.items() if name not in names}


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Request from sources by option name, earlier ones winning."""
    fields: dict[str, Any] = {}
    sources = tuple(_layered(sources))
    for option in OPTIONS:
        for source in sources:
            if source.get(option.name) is not None:
                where = source.named(option.name) if isinstance(source, Settings) else ""
                fields[option.field] = option.read(source[option.name], where)
                break
    return fields
