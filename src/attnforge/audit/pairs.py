"""Checks the modules of a universal wheel against the PyTorch that each is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from attnforge.audit.linkage import check_linkage
from attnforge.audit.metadata import MACHINES
from attnforge.audit.site import TorchSite
from attnforge.audit.symbols import link
from attnforge.audit.universal import told_pairs
from attnforge.elf import Elf
from attnforge.model.finding import Finding, Severity
from attnforge.model.universal import Pair, pair_of, sorted_pairs

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sites:
    """Which PyTorch a wheel's modules are checked against.

    ``folder`` is a site-packages folder, for a universal wheel that of one PyTorch: what is for others is not
    checked. ``torch`` is the version of that PyTorch, where there is no folder. ``pairs`` are folders for single pairs.
    ``libraries`` are those that PyTorch has from elsewhere.
    """

    folder: Path | None = None
    torch: str = ""
    pairs: Sequence[tuple[Pair, Path]] = ()
    libraries: Sequence[Path] = ()

    def find(self, folder: Path | None) -> TorchSite | None:
        """Look at a folder; None where it holds no PyTorch."""
        return TorchSite.find(folder, self.libraries)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The mangled symbols that nothing provides, and what is to be said of all of them.

    ``torch`` is the version of the one PyTorch that was checked, "" for none or several.
    """

    undefined: tuple[str, ...]
    findings: tuple[Finding, ...]
    torch: str = ""


def resolve_all(images: Mapping[str, Elf], sites: Sites) -> Resolved:
    """Resolve the symbols of a wheel that is for one PyTorch."""
    return _resolved(images, sites.find(sites.folder), sites.folder)


def resolve_pairs(images: Mapping[str, Elf], pairs: Sequence[Pair], sites: Sites, wheel: str) -> Resolved:
    """Resolve the symbols of each pair's modules, with those that every interpreter loads.

    ``pairs`` are those that the wheel holds, and ``wheel`` is its file name. Each pair that is checked has a finding.
    """
    looked_at = _looked_at(pairs, sites)
    minor = _minor_of(sites)
    if not looked_at and not minor:
        return _resolved(images, None, sites.folder)
    if not looked_at:
        return Resolved((), (_absent(minor, pairs, wheel),))
    found = {folder: sites.find(folder) for _, folder in looked_at}
    linked = [(pair, folder, link(_loaded_by(pair, images), found[folder])) for pair, folder in looked_at]
    undefined = dict.fromkeys(symbol for _, _, linkage in linked for symbol in linkage.undefined)
    findings = (check_linkage(linkage, found[folder], folder, pair.python) for pair, folder, linkage in linked)
    chosen = {pair.key for pair, _ in looked_at}
    left = [pair.key for pair in pairs if pair.key not in chosen]
    return Resolved(tuple(undefined), (*chain.from_iterable(findings), *_left(left)))


def _loaded_by(pair: Pair, images: Mapping[str, Elf]) -> dict[str, Elf]:
    return {path: elf for path, elf in images.items() if pair_of(path) in (None, pair.key)}


def _resolved(images: Mapping[str, Elf], site: TorchSite | None, folder: Path | None) -> Resolved:
    if site and images and site.machine not in {elf.machine for elf in images.values()}:
        return Resolved((), (_other_machine(site),))
    linkage = link(images, site)
    return Resolved(tuple(linkage.undefined), tuple(check_linkage(linkage, site, folder)), site.torch if site else "")


def _looked_at(pairs: Sequence[Pair], sites: Sites) -> list[tuple[Pair, Path]]:
    """Return the pairs that are checked against a PyTorch, and the folder of each."""
    named = {pair.key: folder for pair, folder in sites.pairs}
    if named:
        return [(pair, named[pair.key]) for pair in sorted_pairs(pairs) if pair.key in named]
    minor = _minor_of(sites)
    folder = sites.folder
    return [(pair, folder) for pair in sorted_pairs(pairs) if pair.torch_minor == minor] if folder else []


def _minor_of(sites: Sites) -> str:
    """Return the PyTorch minor that was chosen, empty for none."""
    site = sites.find(sites.folder)
    version = site.torch if site else sites.torch
    return ".".join(version.partition("+")[0].split(".")[:2])


def _other_machine(site: TorchSite) -> Finding:
    processor = MACHINES.get(site.machine, f"machine {site.machine}")
    return Finding(
        code="symbols-unchecked",
        severity=Severity.UNCHECKED,
        subject="symbols",
        seen=f"{site.folder} holds a PyTorch for {processor}",
        means="the wheel is for another processor, whose PyTorch may have other symbols",
        hint="audit it on a machine of that kind",
    )


def _absent(minor: str, pairs: Sequence[Pair], wheel: str) -> Finding:
    return Finding(
        code="pair-absent",
        severity=Severity.ERROR,
        subject=f"PyTorch {minor}",
        seen=f"the wheel holds modules for {told_pairs(pair.key for pair in pairs)}",
        means="with this PyTorch the import fails",
        hint=f"add them: attnforge extend {wheel} --torch {minor}",
    )


def _left(keys: Sequence[Key]) -> Iterator[Finding]:
    if keys:
        yield Finding(
            code="pairs-left",
            severity=Severity.INFO,
            subject=told_pairs(keys),
            seen="modules whose symbols were not checked",
            means="another PyTorch was chosen",
            hint="attnforge audit WHEEL, without --torch and --python, checks all",
        )
