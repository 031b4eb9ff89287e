"""FlashAttention 2: the variants of a kernel that no GPU launches which can load the machine code.

Upstream's launchers choose tile sizes when they run, by compute capability and shared memory, and instantiate all
variants for every architecture. Code for sm_90 runs only on GPUs of compute capability 9.0, and those take one
branch. The other branch's kernels are not compiled here: a header, included before the unit, specializes the function
that would launch them. On the host it raises, so nothing can go wrong silently where this table should be wrong.

Source of the table: csrc/flash_attn/src/flash_fwd_launch_template.h and flash_bwd_launch_template.h of 2.8.3,
2.8.3.post2, 2.7.4.post1, 2.7.3, 2.7.2.post1 and 2.6.3, the functions run_mha_fwd_hdim* and run_mha_bwd_hdim*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from attnforge.knowledge.capabilities import Capability, capabilities_of
from attnforge.model.target import Architecture

When = Callable[[Capability], bool]


@dataclass(frozen=True, slots=True)
class Variant:
    """One instantiation of a launcher: template arguments of its traits, for dropout or not, for causal or not."""

    kind: str
    head_dim: int
    traits: str
    dropout: bool
    causal: bool


def _is_sm8x(gpu: Capability) -> bool:
    return gpu.architecture.major == 8 and gpu.architecture.minor > 0


def _is_not_sm8x(gpu: Capability) -> bool:
    return not _is_sm8x(gpu)


def _always(_: Capability) -> bool:
    return True


def _at_least(kib: int) -> When:
    return lambda gpu: gpu.block_shared_memory >= kib * 1024


def _below(kib: int) -> When:
    return lambda gpu: gpu.block_shared_memory < kib * 1024


def _between(low: int, high: int) -> When:
    return lambda gpu: low * 1024 <= gpu.block_shared_memory < high * 1024


def _is_a100(gpu: Capability) -> bool:
    # run_mha_fwd_hdim256: space for 128 x 64 in a block, but not for two blocks of 64 x 64 in a multiprocessor.
    return gpu.block_shared_memory >= 2 * 256 * (128 + 2 * 64) and gpu.shared_memory < 4 * 256 * (64 + 2 * 64)


def _is_no_a100(gpu: Capability) -> bool:
    return not _is_a100(gpu)


_BOTH = (False, True)
_OFF, _ON = (False,), (True,)

# kind, head dimension, block sizes and further template arguments, dropout, causal, on which GPUs it is launched.
_TABLE: tuple[tuple[str, int, str, tuple[bool, ...], tuple[bool, ...], When], ...] = (
    ("forward", 32, "128, 128, 4, false, false", _BOTH, _BOTH, _always),
    ("forward", 64, "128, 128, 4, false, false", _OFF, _BOTH, _always),
    ("forward", 64, "128, 64, 4, false, false", _ON, _BOTH, _always),
    ("forward", 96, "128, 64, 4, false, false", _BOTH, _OFF, _always),
    ("forward", 96, "64, 64, 4, false, false", _BOTH, _ON, _is_sm8x),
    ("forward", 96, "128, 64, 4, false, false", _BOTH, _ON, _is_not_sm8x),
    ("forward", 128, "128, 32, 4, false, false", _OFF, _OFF, _is_sm8x),
    ("forward", 128, "64, 64, 4, false, false", _OFF, _ON, _is_sm8x),
    ("forward", 128, "128, 64, 4, false, false", _OFF, _BOTH, _is_not_sm8x),
    ("forward", 128, "128, 32, 4, false, false", _ON, _BOTH, _always),
    ("forward", 160, "128, 64, 8, false, false", _BOTH, _OFF, _is_sm8x),
    ("forward", 160, "64, 64, 4, false, false", _BOTH, _ON, _is_sm8x),
    ("forward", 160, "128, 32, 4, false, false", _BOTH, _BOTH, _is_not_sm8x),
    ("forward", 192, "128, 64, 8, false, false", _OFF, _BOTH, _always),
    ("forward", 192, "64, 64, 4, false, false", _ON, _BOTH, _always),
    ("forward", 256, "128, 64, 8, false, false", _BOTH, _BOTH, _is_a100),
    ("forward", 256, "64, 64, 4, false, false", _BOTH, _BOTH, _is_no_a100),
    ("backward", 32, "128, 128, 8, 4, 4, 4, true, false", _OFF, _BOTH, _always),
    ("backward", 32, "128, 128, 8, 4, 4, 4, false, false", _ON, _BOTH, _at_least(104)),
    ("backward", 32, "128, 128, 8, 4, 4, 4, true, false", _ON, _BOTH, _below(104)),
    ("backward", 64, "128, 128, 8, 4, 4, 4, false, false", _BOTH, _BOTH, _at_least(144)),
    ("backward", 64, "64, 128, 8, 2, 4, 4, true, false", _BOTH, _BOTH, _below(144)),
    ("backward", 96, "64, 128, 8, 2, 4, 4, true, false", _OFF, _BOTH, _always),
    ("backward", 96, "64, 128, 8, 2, 4, 4, false, false", _ON, _BOTH, _at_least(116)),
    ("backward", 96, "64, 128, 8, 2, 4, 4, true, false", _ON, _BOTH, _below(116)),
    ("backward", 128, "64, 128, 8, 2, 4, 2, false, false", _BOTH, _BOTH, _at_least(144)),
    ("backward", 128, "64, 64, 8, 4, 2, 2, true, false", _BOTH, _BOTH, _below(144)),
    ("backward", 160, "64, 64, 8, 4, 4, 4, false, false", _BOTH, _BOTH, _at_least(116)),
    ("backward", 160, "64, 64, 8, 4, 4, 4, false, true", _BOTH, _BOTH, _below(116)),
    ("backward", 192, "64, 64, 8, 4, 2, 2, false, false", _BOTH, _BOTH, _at_least(136)),
    ("backward", 192, "64, 64, 8, 4, 2, 2, true, true", _BOTH, _BOTH, _below(136)),
    ("backward", 256, "64, 64, 8, 4, 2, 2, false, false", _BOTH, _BOTH, _at_least(176)),
    ("backward", 256, "64, 64, 8, 4, 2, 2, false, true", _BOTH, _BOTH, _between(144, 176)),
    ("backward", 256, "64, 32, 8, 4, 1, 2, true, true", _OFF, _BOTH, _below(144)),
)


def variants() -> tuple[Variant, ...]:
    """Return all variants that upstream instantiates, each once."""
    return tuple(dict.fromkeys(variant for variant, _ in _rows()))


def unreachable(code: Architecture) -> frozenset[Variant]:
    """Return the variants that no known GPU launches which runs machine code of that architecture.

    None where no such GPU is known.
    """
    gpus = capabilities_of(code)
    launched = {variant for variant, when in _rows() if any(when(gpu) for gpu in gpus)}
    return frozenset(variants()) - launched if gpus else frozenset()


def left_out(codes: Sequence[Architecture]) -> dict[Architecture, frozenset[Variant]]:
    """Return the variants to leave out of the machine code of each architecture.

    The host's code registers the kernels of the first architecture, so that one keeps all that another one has, too.
    """
    each = {code: unreachable(code) for code in codes}
    return each | {code: in_common(each.values()) for code in codes[:1]}


def symbol_pattern(kind: str, found: Collection[Variant]) -> str:
    """Return a regular expression over the mangled names of the kernels of these variants; "" where there are none.

    The flags for dropout and causal come after the traits. Kernels without flags (those around the backward pass) are
    launched by all variants of the same traits, so they are meant where all of these are.
    """
    wanted = [variant for variant in variants() if variant.kind == kind]
    alike = {variant: {other for other in wanted if _traits(other) == _traits(variant)} for variant in wanted}
    flagged = {f"{_traits(one)}EELb{int(one.dropout)}ELb{int(one.causal)}E" for one in found if one.kind == kind}
    plain = {f"{_traits(one)}EEEEv" for one in found if one.kind == kind and alike[one] <= set(found)}
    return "|".join(sorted(flagged | plain))


_MANGLED = {"true": "Lb1E", "false": "Lb0E"}
_TRAITS = {"forward": "Flash_fwd_kernel_traits", "backward": "Flash_bwd_kernel_traits"}


def _traits(variant: Variant) -> str:
    """Return the beginning of a mangled kernel's template arguments, to the end of its dtype's traits."""
    words = [str(variant.head_dim), *variant.traits.split(", ")]
    arguments = "".join(_MANGLED.get(word) or f"Li{word}E" for word in words)
    name = _TRAITS[variant.kind]
    return rf"{len(name)}{name}I{arguments}N7cutlass\d+\w+?_tE\d+Flash_kernel_traitsI\w+?"


def in_common(sets: Collection[frozenset[Variant]]) -> frozenset[Variant]:
    """Return the variants that are in all of the sets: those that the host's code can do without."""
    return frozenset.intersection(*sets) if sets else frozenset()


def _rows() -> Iterable[tuple[Variant, When]]:
    for kind, head_dim, traits, dropouts, causals, when in _TABLE:
        for dropout in dropouts:
            for causal in causals:
                yield Variant(kind, head_dim, traits, dropout, causal), when
