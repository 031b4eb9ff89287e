"""What a user asks for, before anything is resolved."""

from __future__ import annotations

from attnforge.model.base import Value


class Request(Value):
    """One package to build. Empty fields are the resolver's to choose.

    ``package`` is a distribution name, optionally ``name==version``, or a path to a folder or archive. ``gpus`` are
    names (``H100``), capabilities (``8.9``, ``sm_89``, ``90a``) or ``native``. ``memory`` is a budget in bytes and
    ``jobs`` a number of compiles at once; both change how a build runs and never what it makes.
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
