"""What a user asks for, before anything is resolved."""

from __future__ import annotations

from attnforge.model.base import Value

INSTALLED = "installed"
"""What ``torch`` is for the PyTorch of the active environment."""


class Request(Value):
    """One package to build. Empty fields are the resolver's to choose.

    ``package`` is a distribution name, optionally ``name==version``, or a path to a folder or archive. ``gpus`` are
    names (``H100``), capabilities (``8.9``, ``sm_89``, ``90a``) or ``native``. ``memory`` is a budget in bytes and
    ``jobs`` a number of compiles at once; both change how a build runs. ``groups`` is ``auto``, ``none``, or a number:
    for how many compiles at once units are merged. None of these changes what a kernel is. ``cuda_mirror`` is the URL
    or folder that NVIDIA's archives are fetched from, "" for NVIDIA's own. ``store`` is the URL of a
    shared store of compile results, ``cache_limit`` the bytes of them that are kept on this machine. ``universal`` asks
    for one wheel for several pairs: ``python`` and ``torch`` may then be lists and ranges (``3.10-3.13``,
    ``2.11,2.12``). ``torch`` is ``installed`` for the PyTorch of the active environment, and ``env`` the folder or
    interpreter of another one whose PyTorch is meant. ``no_share_ptx`` has cicc run for each architecture, also where
    one's PTX is proven to be another's. ``no_parts`` has the kernels of each unit compiled at once.
    """

    package: str
    gpus: tuple[str, ...] = ()
    python: str = ""
    torch: str = ""
    cuda: str = ""
    target: str = ""
    profile: str = ""
    head_dims: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    source: str = ""
    toolchain: str = ""
    label: str = ""
    jobs: int = 0
    memory: int = 0
    groups: str = ""
    cuda_mirror: str = ""
    store: str = ""
    cache_limit: int = 20 * 2**30
    universal: bool = False
    env: str = ""
    no_share_ptx: bool = False
    no_parts: bool = False
