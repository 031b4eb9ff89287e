"""NVIDIA GPUs by name and compute capability."""

from __future__ import annotations

import difflib
import re
from functools import cache

from pydantic import Field, field_validator

from attnforge.errors import RequestError
from attnforge.knowledge.data import load
from attnforge.knowledge.host_compilers import known_architectures
from attnforge.model.base import Value
from attnforge.model.target import Architecture, Gpu

TURING = Architecture(major=7, minor=5)
"""The oldest compute capability that attnforge builds for: CUDA 13 has none below it, and no attention package has."""

_PAGE = "https://developer.nvidia.com/cuda-gpus"
_SIZE = re.compile(r"\b\d+ ?g(?:i?b)?\b")
_MAKER = re.compile(r"(?:nvidia|geforce|tesla|grid)+(?=.)")
# What nvidia-smi appends to a product's name: form factor, memory, cooling, kind of machine, vGPU profile.
_VARIANT = re.compile(
    r"(?<=.)(?:gpu|nvgpu|laptop|mobile|embedded|generation|edition|server|workstation|withmaxqdesign|maxq|oem|active|lc|v2"
    r"|pcie|sxm\d?|nvl\d*|hbm\d?e?|3e|pg\d+\d{3})$"
)
_VGPU = re.compile(r"-\d+[abcq]\b")


class _Group(Value):
    capability: str
    source: str
    names: tuple[str, ...]
    arm: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("capability")
    @classmethod
    def _readable(cls, value: str) -> str:
        Architecture.parse(value)
        return value

    def gpus(self) -> tuple[Gpu, ...]:
        capability = Architecture.parse(self.capability)
        return tuple(Gpu(name=name, capability=capability) for name in self.names)


class _Table(Value):
    sources: dict[str, str]
    group: tuple[_Group, ...]
    older: tuple[_Group, ...]


@cache
def _table() -> _Table:
    return load("gpus.toml", _Table)


@cache
def all_gpus() -> tuple[Gpu, ...]:
    """Return every GPU that is known by name, oldest compute capability first."""
    return tuple(gpu for group in _table().group for gpu in group.gpus())


def on_arm_alone(gpu: Gpu) -> bool:
    """Say whether a GPU exists only in hosts with an ARM processor; a capability, whether all known GPUs of it do."""
    arm = {name for group in _table().group for name in group.arm}
    alike = [known.name for known in all_gpus() if known.capability.dotted == gpu.capability.dotted.rstrip("af")]
    named = [gpu.name] if gpu.name in alike else alike
    return bool(named) and set(named) <= arm


def gpu_key(text: str) -> str:
    """Return what identifies a GPU in a name as people or nvidia-smi write it: ``NVIDIA H100 80GB HBM3`` is ``h100``.

    Case, spaces, hyphens, the maker's names, memory sizes, form factors and words such as Laptop GPU say nothing about
    the compute capability. ``Quadro``, ``Ada``, ``PRO`` and ``SFF`` stay: an RTX 6000 exists in three generations.
    """
    words = _VGPU.sub("", _SIZE.sub(" ", text.lower()))
    key = re.sub(r"[^a-z0-9]+", "", words)
    key = _MAKER.sub("", key, count=1) if _MAKER.match(key) else key
    while (shorter := _VARIANT.sub("", key)) != key:
        key = shorter
    return key


@cache
def _by_key() -> dict[str, Gpu]:
    found: dict[str, Gpu] = {}
    for group in _table().group:
        for gpu in group.gpus():
            for written in (gpu.name, *group.aliases.get(gpu.name, ()), *_short(gpu.name)):
                found[gpu_key(written)] = gpu
    return found


def _short(name: str) -> tuple[str, ...]:
    """Return ``4090`` for ``RTX 4090`` and ``A6000`` for ``RTX A6000``: short forms that name only one product."""
    match = re.fullmatch(r"(?:RTX|GTX) (A?\d{4}(?: (?:Ti|SUPER|Ti SUPER))?)", name)
    return (match[1],) if match else ()


@cache
def _older() -> dict[str, Gpu]:
    return {gpu_key(gpu.name): gpu for group in _table().older for gpu in group.gpus()}


def find_gpu(text: str) -> Gpu:
    """Return the GPU of a name or compute capability (``8.9``, ``sm_89``, ``90a``).

    A capability gives a GPU named after it, ``sm_90a``, with its suffix. RequestError for an unknown name
    (with the closest ones), one that is older than Turing, and a capability that no nvcc knows.
    """
    try:
        architecture = Architecture.parse(text)
    except ValueError:
        return _named(text)
    return _of_capability(text, architecture)


def _named(text: str) -> Gpu:
    key = gpu_key(text)
    for known in (key, key.removeprefix("quadro")):
        if known in _by_key():
            return _by_key()[known]
    if key in _older():
        raise _too_old(_older()[key])
    raise RequestError(
        f"unknown GPU {text!r}",
        why="no NVIDIA GPU from Turing (7.5) on is known by that name",
        hint=_suggestion(key),
        link=_PAGE,
    )


def _too_old(gpu: Gpu) -> RequestError:
    return RequestError(
        f"{gpu.name} is too old: its compute capability is {gpu.capability.dotted}",
        why="wheels are built for Turing (7.5) and later, the oldest that CUDA 13 compiles for",
        hint="name a newer GPU, for example --gpu A100",
        link=_PAGE,
    )


def _suggestion(key: str) -> str:
    near = [gpu.name for known, gpu in _by_key().items() if len(key) > 2 and (key in known or known.endswith(key))]
    near += [_by_key()[known].name for known in difflib.get_close_matches(key, _by_key(), n=5, cutoff=0.6)]
    names = list(dict.fromkeys(near))[:5]
    capability = "its compute capability, such as 8.9 (nvidia-smi --query-gpu=name,compute_cap --format=csv shows it)"
    return f"did you mean {', '.join(names)}? Or give {capability}" if names else f"give {capability}"


def _of_capability(text: str, architecture: Architecture) -> Gpu:
    if architecture < TURING:
        raise _too_old(Gpu(name=architecture.sm, capability=architecture))
    known = known_architectures()
    if architecture not in known:
        written = [candidate.digits for candidate in known if candidate >= TURING]
        near = difflib.get_close_matches(architecture.digits, written, n=4, cutoff=0.5)
        raise RequestError(
            f"unknown compute capability {text!r}",
            why="no CUDA toolkit compiles for it; known: " + ", ".join(written),
            hint="did you mean " + ", ".join(near) + "?" if near else "give one of the known ones",
            link=_PAGE,
        )
    return Gpu(name=architecture.sm, capability=architecture)
