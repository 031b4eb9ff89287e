"""The PyTorch of a user's environment as the target: what it has to have, and what of it is pinned."""

from __future__ import annotations

import re

from packaging.version import Version

from attnforge.errors import AttnforgeError, HostError, RequestError
from attnforge.knowledge.torch import known_torch
from attnforge.model.host import Active, Installed
from attnforge.model.plan import TorchPin
from attnforge.model.request import INSTALLED, Request
from attnforge.model.universal import Pair
from attnforge.model.versions import as_version, shortened
from attnforge.resolve.decisions import Notes
from attnforge.resolve.torch import read_cuda, read_python

_INDEX = "--torch VERSION takes one from the package index"


def wants_installed(request: Request) -> bool:
    """Say whether a request names the PyTorch of an environment."""
    return bool(request.env) or request.torch == INSTALLED


def may_default_to_installed(request: Request) -> bool:
    """Say whether the PyTorch of the active environment is what a request means that names none."""
    named = (request.torch, request.python, request.cuda, request.target, request.env)
    return not any(named) and not request.universal


def check_named(request: Request) -> None:
    """Raise RequestError where a request names an environment and a PyTorch that need not be the one in it."""
    if request.env and request.torch not in ("", INSTALLED):
        raise RequestError(
            f"--env {request.env} and --torch {request.torch} name two PyTorch",
            why="--env builds for the one that is installed there",
            hint=f"only --env {request.env}, or only --torch {request.torch}",
        )


def asked_environment(active: Active, request: Request) -> Installed:
    """Return the environment that a request names; RequestError or HostError where its PyTorch can't be built for."""
    found = active.installed or active.unfit
    if found is None:
        raise no_active(active)
    check_installed(found)
    _check_agreement(request, found)
    return found


def no_active(active: Active) -> RequestError:
    """Return the error for a request that means the active environment where none has a PyTorch for CUDA."""
    looked = "; ".join(f"{place}: {why}" for place, why in active.passed)
    return RequestError(
        "no environment with a PyTorch for CUDA is active",
        why=looked or "VIRTUAL_ENV and CONDA_PREFIX are not set, and no python3 is on PATH",
        hint=f"activate it, or name it with --env PATH; {_INDEX}",
    )


def usable(active: Active) -> Active:
    """Return the active environment, or none with the reason where a build could not use it."""
    if active.installed is None:
        return active
    try:
        check_installed(active.installed)
    except AttnforgeError as error:
        passed = (*active.passed, (active.installed.place, error.what))
        return Active(passed=passed, unfit=active.unfit or active.installed)
    return active


def check_installed(found: Installed) -> None:
    """Raise RequestError or HostError where the PyTorch of an environment can't be built for."""
    if found.shortcoming:
        raise _unfit(found)
    if as_version(found.torch) is None:
        raise RequestError(f"{shortened(found.torch)!r} of {found.place} is no version of PyTorch", hint=_INDEX)
    read_python(found.minor)
    if not found.has_headers:
        raise HostError(
            f"the Python {found.version} of {found.place} has no headers (Python.h)",
            why="extension modules are compiled against them",
            hint=f"apt-get install python{found.minor}-dev (dnf install python{found.minor}-devel), or an environment "
            "whose Python has them",
        )


def _unfit(found: Installed) -> AttnforgeError:
    command = f"{found.python} -c 'import torch; print(torch.__version__, torch.version.cuda)'"
    kind = HostError if found.trouble else RequestError
    if found.trouble:
        hint = f"this shows it: {command}"
    elif found.torch:
        hint = f"install a PyTorch for CUDA there, or name another environment with --env PATH; {_INDEX}"
    else:
        hint = f"name the environment that has it with --env PATH; {_INDEX}"
    return kind(
        f"{found.place} has no PyTorch to build for",
        why=found.shortcoming,
        hint=hint,
        link="" if found.trouble else "https://pytorch.org/get-started/locally/",
    )


def _check_agreement(request: Request, found: Installed) -> None:
    python = read_python(request.python) if request.python else found.minor
    if python != found.minor:
        raise RequestError(
            f"{found.place} has Python {found.minor}, and --python {shortened(request.python)} was asked for",
            why="the Python of an environment goes with its PyTorch",
            hint="leave --python out, or name another environment with --env PATH",
        )
    cuda = read_cuda(request.cuda, (found.cuda,)) if request.cuda else found.cuda
    if cuda != found.cuda:
        raise RequestError(
            f"{found} is built with CUDA {found.cuda}, and --cuda {shortened(request.cuda)} was asked for",
            hint="leave --cuda out, or name another environment with --env PATH",
        )


def choose_installed(found: Installed, active: Active, notes: Notes) -> TorchPin:
    """Note that the PyTorch of an environment is the target, and return what of it is pinned."""
    pin = pin_of(found)
    notes.decide("torch", pin.version, str(found), active.passed)
    notes.decide("python", found.minor, "the Python of that environment")
    notes.decide("cuda", found.cuda, "that PyTorch is built with it")
    if not pin.official:
        told = f"{found} is no official release: the wheel is only for this build and requires torch=={pin.version}"
        notes.warn("torch", told)
    elif known_torch(pin.version) is None:
        known = f"PyTorch {pin.version} is not known to attnforge: what it needs was read from {found.prefix}"
        notes.warn("torch", known, "attnforge check WHEEL says whether the wheel computes the right thing")
    return pin


def pair_of_installed(found: Installed, pin: TorchPin) -> Pair:
    """Return the pair of a universal wheel that an environment is; RequestError where its PyTorch is no release.

    Such a wheel has one module for each PyTorch minor, which goes with all official releases of it.
    """
    if not pin.official:
        raise RequestError(
            f"{found} can't be one of a universal wheel's",
            why="it is no official release: a module for it loads with exactly this build",
            hint="build a separate wheel, without --universal",
        )
    return Pair(python=found.minor, torch=pin.version)


def pin_of(found: Installed) -> TorchPin:
    """Return what of an environment's PyTorch determines the bytes of a wheel."""
    official = is_official(found)
    version = Version(found.torch)
    return TorchPin(
        version=version.public if official else str(version),
        build=found.calls_itself,
        git=found.git,
        cxx11_abi=found.cxx11_abi,
        cxx=found.cxx,
        official=official,
        digest="" if official else found.digest,
    )


def is_official(found: Installed) -> bool:
    """Say whether a PyTorch is a release of PyTorch's own, as it is on the package index or on PyTorch's.

    These say which CUDA they are for: ``2.11.0+cu130``. Nightlies (``2.12.0.dev20260101+cu130``), NVIDIA's
    (``2.6.0a0+ecf3bae40a.nv25.01``), conda-forge's (``2.7.1``) and one's own (``2.12.0a0+git1234``) do not say so.
    """
    version, build = as_version(found.torch), as_version(found.calls_itself)
    if version is None or build is None or version.public != build.public:
        return False
    is_release = re.fullmatch(r"\d+\.\d+\.\d+", build.public) is not None
    return is_release and build.local == "cu" + found.cuda.replace(".", "")
