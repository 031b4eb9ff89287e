"""The parts of a universal wheel: from objects to modules, with a linker that links nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from attnforge.compile.run.engine import Engine
from attnforge.compile.run.summary import Tally
from attnforge.compile.run.work import Product
from attnforge.errors import BuildError
from attnforge.link.linker import Library, Linker
from attnforge.link.partition import ObjectFile
from attnforge.model.events import Event, Message, PairFinished, UnitFinished
from attnforge.model.graph import Language
from attnforge.model.universal import Pair, Universal, UniversalModule
from attnforge.recipes.adapter import is_generated
from attnforge.workflow.artifacts import Compiled, Parts
from attnforge.workflow.job import Limits
from attnforge.workflow.universal import modules, objects
from attnforge.workflow.universal.modules import Running, check_boundary, link_pair, pairs_at_once
from attnforge.workflow.universal.objects import BuiltModule, built_modules

PAIR = Pair(python="3.12", torch="2.12.0")
SUFFIX = ".cpython-312-x86_64-linux-gnu.so"
LIBRARY = "libm_C-0123456789abcdef.so"
SHARED = UniversalModule(name="m._C", library=LIBRARY, shared=("k.cu",), symbols=("_Z3runv",))


def an_object(name: str, defines: str = "", wants: str = "") -> ObjectFile:
    return ObjectFile(Path(name), (name,), False, False, frozenset(defines.split()), frozenset(wants.split()))


def upstream(folder: Path, *names: str, products: Sequence[Product] = ()) -> Compiled:
    """Upstream's wheel with these files, and the objects that were made for it."""
    wheel = folder / "m-1.0-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return Compiled(wheel, Tally().summary(0, 0.0), tuple(products), frozenset())


# --- how many pairs at once


@pytest.mark.parametrize(
    ("slots", "gigabytes", "pairs", "kernels", "at_once"),
    [(8, 100, 3, False, 3), (2, 100, 3, False, 2), (8, 6, 3, False, 2), (8, 1, 3, False, 1), (8, 100, 3, True, 1)],
)
def test_pairs_at_once(slots: int, gigabytes: int, pairs: int, kernels: bool, at_once: int) -> None:
    assert pairs_at_once(Limits(slots, gigabytes * 10**9), pairs, kernels=kernels) == at_once


# --- what crosses


def test_names_of_generated_files() -> None:
    assert is_generated("_ZN9attnforge7state_8Ev")
    assert not is_generated("_ZN2at7state_8Ev")


def test_host_code_of_another_layout_is_refused() -> None:
    host = an_object("binding.o", wants="_ZN9attnforge8state_16Ev _Z3runv printf")
    with pytest.raises(BuildError) as caught:
        check_boundary([host], SHARED, PAIR)
    assert "the host code of PyTorch 2.12, Python 3.12 does not fit the kernels" in caught.value.what
    assert "_ZN9attnforge8state_16Ev is not in" in caught.value.why
    assert "--torch 2.12.0 --python 3.12" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "module"),
    [
        # Another object of the pair has it; the library has it; there is no library.
        ([an_object("a.o", wants="_ZN9attnforge1fEv"), an_object("b.o", defines="_ZN9attnforge1fEv")], SHARED),
        ([an_object("a.o", wants="_ZN9attnforge1fEv")], SHARED.model_copy(update={"symbols": ("_ZN9attnforge1fEv",)})),
        ([an_object("a.o", wants="_ZN9attnforge1fEv")], UniversalModule(name="m._C")),
    ],
)
def test_host_code_that_fits(host: list[ObjectFile], module: UniversalModule) -> None:
    check_boundary(host, module, PAIR)


# --- what upstream's build made


def product(call: int, output: str, how: str = "compiled", language: Language = Language.CXX) -> Product:
    return Product(call, output, (output.replace(".o", ".cpp"),), language, how)  # type: ignore[arg-type]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Objects that define the function after which their file is named; which of them were read."""
    paths: list[str] = []

    def read_object(path: Path, sources: Sequence[str], *, cuda: bool, neutral: bool) -> ObjectFile:
        paths.append(str(path))
        return ObjectFile(path, tuple(sources), cuda, neutral, frozenset({f"PyInit_{path.stem}"}), frozenset())

    monkeypatch.setattr(objects, "read_object", read_object)
    return paths


def test_each_call_of_ninja_makes_a_module(tmp_path: Path, read: list[str]) -> None:
    made = [product(1, "_D.o"), product(0, "_C.o"), product(0, "empty.o", "empty"), product(0, "in.o", "merged")]
    found = built_modules(upstream(tmp_path, f"m/_C{SUFFIX}", f"m/_D{SUFFIX}", "m/__init__.py", products=made))
    assert [one.name for one in found] == ["m._C", "m._D"]
    assert found[0].data == f"m/_C{SUFFIX}".encode()
    assert read == ["_D.o", "_C.o"]


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((f"m/_D{SUFFIX}",), "it can't be told which module is made of _C.cpp"),
        ((f"m/_C{SUFFIX}", f"n/_C{SUFFIX}"), "it can't be told which module is made of _C.cpp"),
        (("m/_C.abi3.so",), "m/_C.abi3.so is not of one Python"),
    ],
)
def test_modules_that_are_not_found(tmp_path: Path, read: list[str], names: tuple[str, ...], error: str) -> None:
    with pytest.raises(BuildError, match=error):
        built_modules(upstream(tmp_path, *names, products=[product(0, "_C.o")]))


def test_a_build_without_modules(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="upstream's build compiled no module"):
        built_modules(upstream(tmp_path, "m/__init__.py"))


# --- the modules of a pair


@dataclass
class NoLinker:
    """Notes what it is to link."""

    linked: list[tuple[str, tuple[str, ...], Library | None]] = field(default_factory=list)

    def module(
        self, name: str, paths: Sequence[Path], symbols: Sequence[str], library: Library | None, like: bytes, _: Path
    ) -> bytes:
        self.linked.append((name, tuple(map(str, paths)), library))
        return b"linked like " + like


def link(monkeypatch: pytest.MonkeyPatch, parts: Parts, *made: BuiltModule) -> tuple[dict[str, bytes], NoLinker]:
    monkeypatch.setattr(modules, "built_modules", lambda _: made)
    linker = NoLinker()
    compiled = cast("Compiled", None)
    return dict(link_pair(PAIR, compiled, parts, cast("Linker", linker), Path("link"))), linker


MADE = BuiltModule(
    "m._C", (an_object("z.o"), an_object("binding.o"), an_object("ours.o", "_Z3runv")), f"m/_C{SUFFIX}", b"upstream's"
)


def test_a_pair_is_linked_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the library has, in an order that does not depend on upstream's."""
    library = Library(Path(LIBRARY))
    parts = Parts(Universal(pairs=(), modules=(SHARED,)), {"m._C": library})
    made, linker = link(monkeypatch, parts, MADE)
    assert made == {f"m/_C/torch2.12/_C{SUFFIX}": b"linked like upstream's"}
    assert linker.linked == [("_C", ("binding.o", "z.o"), library)]


def test_a_pair_has_the_modules_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(Universal(pairs=(), modules=(UniversalModule(name="m._D"),)), {})
    with pytest.raises(BuildError, match=r"made the module m\._C, which the wheel does not have"):
        link(monkeypatch, parts, MADE)
    with pytest.raises(BuildError, match=r"did not make the module m\._D"):
        link(monkeypatch, parts)


def test_pytorch_versions_have_to_agree_where_kernels_are_shared() -> None:
    universal = Universal(pairs=(), modules=(SHARED,), answers=("old",))
    assert Parts(universal, {"m._C": Library(Path(LIBRARY))}).answers == frozenset({"old"})
    assert Parts(universal, {}).answers is None


# --- builds that run at once


class FakeEngine:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_only_what_concerns_all_pairs_is_reported() -> None:
    events: list[Event] = []
    running = Running(events.append)
    told = (Message("info", "x"), UnitFinished("u", "compiled", 1.0, 1.0, 1), PairFinished("2.12.0", "3.12", 1.0))
    for event in told:
        running.tell(event)
    assert events == [told[0], told[2]]


def test_engines_are_ended_also_those_that_start_later() -> None:
    running, first, later = Running(print), FakeEngine(), FakeEngine()
    running.started(cast("Engine", first))
    running.stop()
    running.started(cast("Engine", later))
    assert (first.closed, later.closed) == (1, 1)
