"""Packs wheels of the stand-ins: good ones, and for each thing that can be wrong one that has just that wrong.

``python -m standins.attention.wheels FOLDER`` (in tests/) writes them all and prints what a check of each has to find.
With ``--check PATH``, an interpreter with PyTorch, it checks them on the GPU of this machine (``--device cpu``:
without one) and exits 1 where one was not found by name, or the good ones are not good.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnforge.check.cases import TOPICS
from attnforge.package.archive import Member, write_wheel

HERE = Path(__file__).parent
FLASH = (HERE / "flash_attn_standin.py").read_text(encoding="utf-8")
SAGE = (HERE / "sageattention_standin.py").read_text(encoding="utf-8")
# FlashAttention 4 has no dropout, ALiBi or cache, other parameters behind q, k and v, and returns a pair.
FLASH_4 = (
    FLASH
    + """

_func, _varlen = flash_attn_func, flash_attn_varlen_func


def flash_attn_func(
    q, k, v, qv=None, softmax_scale=None, causal=False, window_size=(None, None), softcap=0.0, deterministic=False
):
    window = tuple(-1 if one is None else one for one in window_size)
    return _func(q, k, v, 0.0, softmax_scale, causal, window, softcap, None, deterministic), None


def flash_attn_varlen_func(
    q,
    k,
    v,
    qv=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    softmax_scale=None,
    causal=False,
    window_size=(None, None),
    softcap=0.0,
    deterministic=False,
):
    where = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    window = tuple(-1 if one is None else one for one in window_size)
    return _varlen(q, k, v, *where, 0.0, softmax_scale, causal, window, softcap, None, deterministic), None
"""
)
_SOURCES = {"flash-attn": FLASH, "flash-attn-4": FLASH_4, "sageattention": SAGE}
_FOLDERS = {"flash-attn-4": "flash_attn/cute"}


@dataclass(frozen=True)
class Mutant:
    """A change to a stand-in, and by which finding a check has to tell it: its code, its subject.

    ``left_out`` are features that the wheel says it has not; ``raises`` whether its calls do raise for them.
    """

    name: str
    old: str
    new: str
    code: str
    subject: str
    left_out: tuple[str, ...] = ()
    raises: bool = True
    package: str = "flash-attn"
    severity: str = "error"
    extra: dict[str, str] = field(default_factory=dict)


_OUT = "    out[:, :] = result.to(q.dtype)\n"
_FIRST = "    options = (dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes)\n    result"
_UNDEFINED = "flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEab"

MUTANTS = (
    Mutant("unwritten-row", _OUT, "    out[:, :-1] = result.to(q.dtype)[:, :-1]\n", "unwritten-output", "dense"),
    Mutant("wrong-scale", "q.shape[-1] ** -0.5\n", "1.02 * q.shape[-1] ** -0.5\n", "wrong-result", "dense"),
    Mutant("ignores-causal", "right = 0 if causal else right", "right = right", "wrong-result", "dense"),
    Mutant("ignores-softcap", "    if softcap:\n", "    if False:\n", "wrong-result", "softcap"),
    Mutant("ignores-window", "    left, right = window_size\n", "    left, right = -1, -1\n", "wrong-result", "window"),
    Mutant("ignores-alibi", "alibi_slopes[:, None, None] *", "0 *", "wrong-result", "alibi"),
    Mutant("masks-at-the-start", "offset = k.shape[0] - q.shape[0]", "offset = 0", "wrong-result", "dense"),
    Mutant("mixes-groups", "k.repeat_interleave(groups, 1), v", "k.repeat(1, groups, 1), v", "wrong-result", "dense"),
    Mutant("keeps-all", "(torch.rand_like(weights) >= dropout_p)", "(1 - dropout_p)", "wrong-result", "dropout"),
    Mutant("ignores-pages", "cache[block_table[at].long()]", "cache[: block_table.shape[1]]", "wrong-result", "paged"),
    Mutant(
        "forgets-new-keys", "            values[length : length + v.shape[1]] = v[at]\n", "", "wrong-result", "append"
    ),
    Mutant("ignores-index", "int(cache_batch_idx[at])", "at", "wrong-result", "index"),
    Mutant(
        "wrong-gradient",
        _OUT,
        "    out[:, :] = (result + 0.1 * (q.float() - q.float().detach())).to(q.dtype)\n",
        "wrong-result",
        "backward",
    ),
    Mutant(
        "races",
        _OUT,
        "    out[:, :] = (result + 1e-4 * torch.rand_like(result)).to(q.dtype)\n",
        "not-repeatable",
        "dense",
    ),
    Mutant(
        "empties",
        "    for sequence in range(len(starts_q) - 1):",
        "    for sequence in ():",
        "unwritten-output",
        "varlen",
    ),
    Mutant("hangs", _FIRST, "    while True:\n        pass\n" + _FIRST, "hang", "smoke"),
    Mutant("crashes", _FIRST, "    import os\n    os.abort()\n" + _FIRST, "crash", "smoke"),
    Mutant(
        "raises-for-softcap", _FIRST, "    assert not softcap, 'no softcap here'\n" + _FIRST, "call-failed", "softcap"
    ),
    Mutant(
        "wrong-architecture",
        _FIRST,
        "    raise RuntimeError('CUDA error: no kernel image is available for execution on the device')\n" + _FIRST,
        "no-kernel-image",
        "smoke",
    ),
    Mutant(
        "another-torch",
        "",
        "",
        "import-failed",
        "flash_attn_2_cuda",
        extra={"flash_attn_2_cuda.py": f"raise ImportError({_UNDEFINED!r})\n"},
    ),
    Mutant("renamed-parameter", "softmax_scale", "scaling", "signature", "flash_attn.flash_attn_func"),
    Mutant(
        "takes-any-heads",
        "    _refuse_heads(q, k)\n",
        "    k, v = k[:, :, :1], v[:, :, :1]\n",
        "error-silent",
        "errors",
    ),
    Mutant("loses-messages", "raise RuntimeError(HEADS)", "raise RuntimeError()", "error-lost", "errors"),
    Mutant(
        "dies-of-errors", "        raise RuntimeError(HEADS)", "        __import__('os').abort()", "crash", "errors"
    ),
    Mutant("silent", "", "", "left-out-silent", "softcap", left_out=("softcap",), raises=False),
    Mutant(
        "unnamed", "attnforge build flash-attn==2.8.3", "none", "left-out-unnamed", "softcap", left_out=("softcap",)
    ),
    Mutant(
        "breaks-graphs",
        _FIRST,
        "    torch._dynamo.graph_break()\n" + _FIRST,
        "graph-break",
        "compile",
    ),
    Mutant("changes-inputs", _FIRST, "    v.mul_(1.001)\n" + _FIRST, "inputs-changed", "v", severity="warning"),
    Mutant("quantizes-coarsely", "/ 127", "/ 7", "wrong-result", "dense", package="sageattention"),
)


def pack(
    folder: Path,
    *,
    label: str = "good",
    package: str = "flash-attn",
    source: str | None = None,
    head_dims: tuple[int, ...] = (64,),
    dtypes: tuple[str, ...] = ("fp16",),
    left_out: tuple[str, ...] = (),
    raises: bool = True,
    extra: dict[str, str] | None = None,
) -> Path:
    """Pack a stand-in into a wheel that says what it covers, as those of attnforge do, and return its path."""
    name = package.replace("-", "_")
    text = source if source is not None else _SOURCES[package]
    public = {"flash-attn": "2.8.3", "flash-attn-4": "4.0.0b36"}.get(package, "1.0.6")
    version = f"{public}+{label.replace('-', '.')}"
    text = text.replace("LEFT_OUT = ()", f"LEFT_OUT = {left_out if raises else ()!r}")
    if package == "flash-attn":
        text = text.replace("HEAD_DIMS = (32, 64, 96, 128, 192, 256)", f"HEAD_DIMS = {head_dims!r}")
        text = text.replace('DTYPES = ("fp16", "bf16")', f"DTYPES = {dtypes!r}")
    info = f"{name}-{version}.dist-info"
    files = {f"{_FOLDERS.get(package, name)}/__init__.py": text}
    files |= {"flash_attn_2_cuda.py": ""} if package == "flash-attn" else {}
    files |= extra or {}
    covered: dict[str, Any] = {
        "schema": 1,
        "package": package,
        "version": version.split("+")[0],
        "architectures": [],
        # As of any package without kernels in its recipe: nothing was selected, so it has all.
        "head_dims": list(head_dims) if package == "flash-attn" else [],
        "dtypes": list(dtypes) if package == "flash-attn" else [],
        "left_out": list(left_out),
        "kernels_left_out": [f"forward-hdim{size}-fp16" for size in (32, 96, 256) if package == "flash-attn"],
    }
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/attnforge/coverage.json": json.dumps(covered),
    }
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    write_wheel(wheel, {path: Member(text.encode()) for path, text in files.items()}, info)
    return wheel


def pack_mutant(folder: Path, mutant: Mutant) -> Path:
    """Pack the wheel that has one thing wrong. AssertionError where the change does not fit the stand-in any more."""
    source = FLASH if mutant.package == "flash-attn" else SAGE
    assert mutant.old in source, mutant.name
    changed = source.replace(mutant.old, mutant.new) if mutant.old else source
    return pack(
        folder,
        label=mutant.name,
        package=mutant.package,
        source=changed,
        left_out=mutant.left_out,
        raises=mutant.raises,
        extra=mutant.extra,
    )


def caught(wheel: Path, mutant: Mutant | None, python: str, device: str) -> bool:
    """Check a wheel and say whether what is wrong with it was found by its name; of None, whether nothing was."""
    from attnforge import Machine, check_wheel

    only = (mutant.subject,) if mutant and mutant.subject in TOPICS else () if mutant is None else ("dense",)
    timeout = 5.0 if mutant and mutant.code == "hang" else 120.0
    machine = Machine(os.environ)
    report = check_wheel(machine, wheel, python=python, quick=True, only=only, timeout=timeout, device=device)
    found = [(one.severity.value, one.code, one.subject) for one in report.findings]
    good = report.verdict == "good" if mutant is None else (mutant.severity, mutant.code, mutant.subject) in found
    notable = "; ".join(" ".join(one) for one in found if one[0] not in ("ok", "info"))
    print(
        f"{'ok   ' if good else 'MISS '}{wheel.name}: {report.verdict}; {notable} ({report.seconds:.1f} s)", flush=True
    )
    return good


def main(arguments: Sequence[str]) -> int:
    """Write all wheels; print what a check of each has to find, or check them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", metavar="PATH", help="check them with this interpreter, which has PyTorch")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    wheels: list[tuple[Path, Mutant | None]] = [
        *((pack(given.folder, package=package), None) for package in ("flash-attn", "sageattention")),
        *((pack_mutant(given.folder, mutant), mutant) for mutant in MUTANTS),
    ]
    if given.check:
        found = [caught(wheel, mutant, given.check, given.device) for wheel, mutant in wheels]
        return 0 if all(found) else 1
    for wheel, mutant in wheels:
        print(f"{wheel.name}: {f'{mutant.severity} {mutant.code}, {mutant.subject}' if mutant else 'good'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
