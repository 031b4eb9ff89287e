"""What will be built, and why: the immutable result of resolving a request."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from attnforge.model.base import Value
from attnforge.model.parts import Parted
from attnforge.model.release import Carrier
from attnforge.model.sharing import Shared
from attnforge.model.target import Gpu, Target
from attnforge.model.universal import Pair

UNSTATED = "0"
"""The version of a local source that does not state one without being run; upstream's build then says it."""


class Rejected(Value):
    """A candidate that was not taken, and the reason."""

    choice: str
    reason: str


class Decision(Value):
    """One decision of the resolver: what about, what was chosen, why, and what was not."""

    subject: str
    choice: str
    reason: str
    rejected: tuple[Rejected, ...] = ()


class PlanWarning(Value):
    """Something that the user should know of and that does not stop the build."""

    subject: str
    message: str
    hint: str = ""
    link: str = ""


class Estimate(Value):
    """What the cost model expects here: wall ``seconds``, ``peak_bytes`` at once, ``slots`` compiles at once.

    It depends on the machine and on what was measured there, so it is no part of the plan's digest. ``known`` is false
    where nothing is known of the package's units: the numbers are 0 then. They are also 0 where nothing is compiled.
    """

    seconds: float
    peak_bytes: int
    slots: int
    known: bool = True


class SourcePin(Value):
    """Upstream's source by content: ``kind`` sdist, archive, folder or git; ``name`` of the file, folder or repository.

    ``sha256`` is that of the archive's bytes, or of the folder's files (provision.source.tree_sha256). A git source is
    named by its ``commit``, whose hash covers every file and the commits of its submodules, so it can be pinned before
    anything is fetched; ``sha256`` is "" then. ``url`` is where the commit is had, without credentials, "" for a folder
    or bundle of this machine. ``submodules`` are those that are checked out, () for all. ``subdirectory`` is the folder
    of the repository or archive that is built, "" for its top. ``carrier`` is the other distribution whose sdist holds
    the source, None where the sdist is the package's own.
    """

    kind: Literal["sdist", "archive", "folder", "git"]
    name: str
    sha256: str = ""
    url: str = ""
    commit: str = ""
    submodules: tuple[str, ...] = ()
    subdirectory: str = ""
    carrier: Carrier | None = None

    @model_validator(mode="after")
    def _is_pinned(self) -> SourcePin:
        pin = "commit" if self.kind == "git" else "sha256"
        if not getattr(self, pin):
            raise ValueError(f"a source of kind {self.kind} is pinned by its {pin}")
        inside = PurePosixPath(self.subdirectory)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"{self.subdirectory} is no folder of the source")
        return self

    @property
    def pinned_by(self) -> str:
        """What names the content, as people read it: ``commit b7d29fb…`` or ``sha256 1e71dd…``."""
        return f"commit {self.commit}" if self.commit else f"sha256 {self.sha256}"


class ToolkitArchive(Value):
    """A component of a CUDA release as NVIDIA publishes it: ``path`` below the base URL, ``size`` in bytes."""

    component: str
    version: str
    path: str
    size: int
    sha256: str


class ToolchainPin(Value):
    """The compilers, by what of them changes the bytes: where from, CUDA version, exact packages or nvcc build.

    ``origin`` is "none", and all else empty, for a package that compiles nothing. For "nvidia", ``release`` is NVIDIA's
    number of the whole toolkit (``12.8.1``), ``archives`` are what is fetched of it, and ``manifest`` is the SHA-256 of
    the manifest that lists them, "" where it is not known.
    """

    origin: Literal["system", "pypi", "nvidia", "none"]
    cuda: str = ""
    nvcc: str = ""
    packages: tuple[str, ...] = ()
    host_compiler: str = ""
    release: str = ""
    manifest: str = ""
    archives: tuple[ToolkitArchive, ...] = ()

    @property
    def download_bytes(self) -> int:
        """How much is fetched from NVIDIA, in bytes."""
        return sum(archive.size for archive in self.archives)


class TorchPin(Value):
    """The PyTorch of a user's environment that a wheel is compiled against, by what of it changes the bytes.

    ``version`` is what installers see (``2.11.0``, ``2.12.0a0+git1234``), ``build`` what it says itself
    (``2.11.0+cu130``), ``git`` its commit, ``cxx11_abi`` its C++ ABI, ``cxx`` the C++ standard of its headers (17).
    ``official`` is whether it is a release of PyTorch's own for that CUDA. Of any other, ``digest`` is the SHA-256 of
    its files: two builds may have one version.
    """

    version: str
    build: str
    git: str
    cxx11_abi: bool
    cxx: int
    official: bool
    digest: str = ""


class Selection(Value):
    """The kernels that are kept.

    ``features`` are those kept of the recipe's optional ones (alibi, softcap, local, dropout, backward, split);
    ``without`` those left out. ``head_dims`` and ``dtypes`` are empty for a package whose kernels the recipe does not
    know. ``kept`` and ``dropped`` name the kernels by the recipe's own names; both are empty for such a package.
    """

    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    head_dims: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def is_subset(self) -> bool:
        """Whether a kernel or feature of upstream's is left out."""
        return bool(self.without or self.dropped)


class BuildPlan(Value):
    """All that determines the bytes of a wheel, and nothing else of the machine that builds it.

    Jobs, memory and paths are decided when it runs. ``groups`` names the kernels whose units are compiled as one: that
    moves functions about in a wheel and changes none of them. ``shared`` says which code is made from the PTX of
    another architecture, where that is proven to be the same. ``parts`` names the units whose kernels cicc compiles in
    several parts at once, which makes the same. ``requires_torch`` is the specifier of the PyTorch
    versions that the modules load with (``==2.11.*``), "" for a wheel without modules. ``recipe`` is the digest of
    what the recipe does to units besides what is here (Recipe.rules_digest). ``pairs`` are those of a universal
    wheel, in order; ``target`` has the first one's Python and PyTorch, with which the kernels are compiled. For any
    other wheel there are none. ``installed`` is the PyTorch of a user's environment, None where PyTorch comes from the
    package index. ``digest`` names the build folder, the finished wheel and the provenance inside it.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    package: str
    version: str
    source: SourcePin
    target: Target
    profile: str
    selection: Selection
    toolchain: ToolchainPin
    requirements: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()
    defines: tuple[str, ...] = ()
    requires_torch: str = ""
    groups: tuple[tuple[str, ...], ...] = ()
    shared: tuple[Shared, ...] = ()
    parts: tuple[Parted, ...] = ()
    recipe: str = ""
    pairs: tuple[Pair, ...] = ()
    label: str
    wheel: str
    installed: TorchPin | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out ``installed`` and ``parts`` where there are none: plans from before these fields stay."""
        document: dict[str, Any] = serialize(self)
        return {key: value for key, value in document.items() if value or key not in ("installed", "parts")}

    @property
    def is_compiled(self) -> bool:
        """Whether anything is compiled; otherwise the wheel is pure Python."""
        return self.toolchain.origin != "none"

    @property
    def is_universal(self) -> bool:
        """Whether the wheel is for several pairs of PyTorch and Python."""
        return bool(self.pairs)

    def at(self, pair: Pair) -> BuildPlan:
        """Return the plan of one pair's module: only that pair's, so that it is the same in whatever wheel it is."""
        target = self.target.model_copy(update={"python": pair.python, "torch": pair.torch})
        own = {
            "target": target,
            "pairs": (pair,),
            "requires_torch": "",
            "groups": (),
            "shared": (),
            "parts": (),
            "label": "",
            "wheel": "",
        }
        return self.model_copy(update=own)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the plan."""
        return self.content_digest()

    @property
    def slug(self) -> str:
        """A file name for the plan's build folder."""
        return f"{self.package}-{self.version}-{self.digest[:16]}"


class Fetch(Value):
    """Something that a build downloads, once: it is kept for later ones.

    ``size`` is in bytes, 0 where it is not known before it is fetched; ``about`` whether it is an estimate.
    """

    what: str
    where: str
    size: int = 0
    about: bool = False


class Resolution(Value):
    """A plan with its explanation, which is not part of its name.

    ``gpus`` are those that were asked for. They are no part of the plan: all that run the same machine code get the
    same wheel. ``environment`` says whose PyTorch is compiled against, as people read it; "" where one is made for the
    build. ``fetches`` are what this machine has yet to download.
    """

    plan: BuildPlan
    gpus: tuple[Gpu, ...] = ()
    environment: str = ""
    decisions: tuple[Decision, ...]
    warnings: tuple[PlanWarning, ...]
    estimate: Estimate
    fetches: tuple[Fetch, ...] = ()

    def public(self) -> dict[str, Any]:
        """Return the document that ``attnforge plan --json`` prints."""
        plan = self.plan.to_json()
        target = plan["target"]
        target["architectures"] = [architecture.sm for architecture in self.plan.target.architectures]
        target["gpus"] = [{"name": gpu.name, "capability": gpu.capability.dotted} for gpu in self.gpus]
        return {
            **plan,
            "digest": self.plan.digest,
            "environment": self.environment,
            "decisions": [decision.to_json() for decision in self.decisions],
            "warnings": [warning.to_json() for warning in self.warnings],
            "estimate": self.estimate.to_json(),
            "fetches": [fetch.to_json() for fetch in self.fetches],
        }
