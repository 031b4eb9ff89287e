"""Checks of a request that need neither the package nor the network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from attnforge.compile.reuse.cache.remote import open_remote
from attnforge.errors import RequestError
from attnforge.knowledge.targets import find_profile, find_target
from attnforge.knowledge.torch import TorchRelease
from attnforge.model.request import Request
from attnforge.model.versions import shortened
from attnforge.resolve.form import check_single
from attnforge.resolve.grouping import check_groups
from attnforge.resolve.installed import check_named, wants_installed
from attnforge.resolve.naming import NO_LABEL, check_label
from attnforge.resolve.toolchain import check_origin
from attnforge.resolve.versions import expand_pythons, expand_torches, named_cuda

# NAME_MAX of the file systems of Linux, and PATH_MAX.
_LONGEST_NAME, _LONGEST_PATH = 255, 4095


def check_place(text: str) -> None:
    """Raise RequestError for a text that can't be a path on any file system. A package or a source may be a path."""
    size = max((len(os.fsencode(name)) for name in text.split("/")), default=0)
    if size > _LONGEST_NAME or len(os.fsencode(text)) > _LONGEST_PATH or "\0" in text:
        raise RequestError(
            f"{shortened(text)!r} can name no package and no file",
            why=f"names have {_LONGEST_NAME} bytes at most, paths {_LONGEST_PATH}, and no NUL",
            hint="write NAME, NAME==VERSION or ./FOLDER",
        )


def check_early(request: Request, environ: Mapping[str, str]) -> None:
    """Raise RequestError for an option that is wrong for every build, HostError where a store can't be opened here.

    Options that depend on the package or on the machine are checked when the request is resolved.
    """
    if request.target:
        find_target(request.target)
    find_profile(request.profile or "full")
    check_origin(request.toolchain)
    check_groups(request.groups)
    if request.label and request.label != NO_LABEL:
        check_label(request.label)
    if request.store:
        open_remote(request.store, environ)
    check_single(request)
    check_named(request)


def check_versions(request: Request, read: Sequence[TorchRelease]) -> None:
    """Raise RequestError for versions of PyTorch and Python that are wrong for every build.

    ``read`` are releases of PyTorch that the index has and the table of known ones lacks.
    """
    if request.torch and not wants_installed(request):
        expand_torches(request.torch, read)
        named_cuda(request.torch, read)
    if request.python and request.universal:
        expand_pythons(request.python)
