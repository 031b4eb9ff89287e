"""From GPUs to the machine code that a package is compiled to for them."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import RequestError
from attnforge.knowledge.gpus import all_gpus, find_gpu
from attnforge.model.host import Host
from attnforge.model.recipe import Recipe
from attnforge.model.release import Release
from attnforge.model.target import Architecture, Gpu
from attnforge.resolve.decisions import Notes


def choose_gpus(names: Sequence[str], host: Host, notes: Notes) -> tuple[Gpu, ...]:
    """Return the GPUs that are asked for, ``native`` being this machine's; RequestError where there is none."""
    if not names or "native" in names:
        native = _native(host, asked=bool(names))
        others = tuple(find_gpu(name) for name in names if name != "native")
        chosen = _unique((*native, *others))
        reason = "the GPUs of this machine" if not names else "asked for (native: the GPUs of this machine)"
    else:
        chosen = _unique(tuple(find_gpu(name) for name in names))
        reason = "asked for"
    notes.decide("gpus", ", ".join(f"{gpu.name} ({gpu.capability.dotted})" for gpu in chosen), reason)
    return chosen


def _native(host: Host, *, asked: bool) -> tuple[Gpu, ...]:
    if host.gpus:
        return host.gpus
    raise RequestError(
        "this machine has no NVIDIA GPU, so its GPUs can't be the target" if asked else "no GPU is named",
        why="the wheel has machine code for the GPUs that it will run on, and nvidia-smi shows none here",
        hint="name them, for example --gpu L40S,H100",
    )


def _unique(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    return tuple({(gpu.name, str(gpu.capability)): gpu for gpu in gpus}.values())


def choose_architectures(
    gpus: Sequence[Gpu], recipe: Recipe, release: Release | None, notes: Notes
) -> tuple[Architecture, ...]:
    """Return, sorted, the best architecture of the package for each GPU; RequestError for a GPU that it can't serve.

    A package without its own list is compiled for each GPU's own capability.
    """
    offered = tuple(Architecture.parse(text) for text in release.architectures) if release else ()
    if not offered:
        own = tuple(sorted({gpu.capability for gpu in gpus}, key=_order))
        notes.decide("architectures", _listed(own), "the package names none of its own: each GPU's capability")
        return own
    chosen = {}
    for gpu in gpus:
        chosen[gpu.name] = _best(gpu, offered, recipe)
    wanted = tuple(sorted(set(chosen.values()), key=_order))
    reasons = "; ".join(f"{name} runs {architecture.sm} code" for name, architecture in chosen.items())
    rejected = [(other.sm, "no GPU of the target needs it") for other in offered if other not in wanted]
    notes.decide("architectures", _listed(wanted), reasons, rejected)
    return wanted


def check_served(names: Sequence[str], recipe: Recipe, release: Release, notes: Notes) -> None:
    """Hold GPUs that are named against those that a pure Python package serves; RequestError for one that it does not.

    ``native`` says nothing here: the wheel is not only for this machine.
    """
    offered = tuple(Architecture.parse(text) for text in release.architectures)
    gpus = tuple(find_gpu(name) for name in names if name != "native")
    if offered:
        for gpu in gpus:
            _best(gpu, offered, recipe)
    listed = ", ".join(f"{gpu.name} ({gpu.capability.dotted})" for gpu in gpus)
    reason = "the wheel has no machine code" + (f"; it serves {listed}" if gpus else "")
    notes.decide("gpus", _listed(offered) or "any", reason)


def _best(gpu: Gpu, offered: Sequence[Architecture], recipe: Recipe) -> Architecture:
    capability = gpu.capability.model_copy(update={"suffix": ""})
    serving = [architecture for architecture in offered if architecture.runs_on(capability)]
    if serving:
        return max(serving, key=_order)
    near = [known.name for known in all_gpus() if any(a.runs_on(known.capability) for a in offered)][:4]
    raise RequestError(
        f"{recipe.title} has no kernels for {gpu.name} (compute capability {capability.dotted})",
        why=f"its sources can be compiled for {_listed(offered)} only",
        hint=(f"attnforge build {recipe.instead} --gpu {gpu.name}; " if recipe.instead else "")
        + f"GPUs that it serves: {', '.join(near)} and others of these capabilities",
        link=recipe.homepage,
    )


def _order(architecture: Architecture) -> tuple[int, int, str]:
    return architecture.major, architecture.minor, architecture.suffix


def _listed(architectures: Sequence[Architecture]) -> str:
    return ", ".join(architecture.sm for architecture in architectures)
