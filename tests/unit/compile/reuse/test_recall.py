from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.reuse.objects import Cost
from attnforge.compile.reuse.recall import MOST_VARIANTS, Recall
from attnforge.compile.reuse.tools import Tools
from attnforge.model.graph import GeneratedFile, Language, Unit
from attnforge.process import Command, Outcome

COST = Cost(1.5, 2.5, 1000)


class Store(dict[str, dict[str, bytes]]):
    """A store in memory."""

    def put(self, key: str, outputs: Mapping[str, bytes]) -> None:
        self[key] = dict(outputs)

    def manifests(self) -> list[bytes]:
        return [entry["manifest"] for entry in self.values() if "manifest" in entry]


def answer(command: Command, log: object = None) -> Outcome:
    return Outcome(0, "g++ 12\n" if command.argv[1] == "--version" else "")


class Machine:
    """A source with two headers in folders of its own, as a build would have laid them out, and a compiler."""

    def __init__(self, folder: Path, store: Store, tools: Tools | None = None) -> None:
        self.folder = folder
        self.src, self.site, self.system = folder / "src", folder / "env/site-packages", folder.parent / "usr"
        for path in (self.src, self.site / "torch", self.system, folder / "build", folder / "bin"):
            path.mkdir(parents=True, exist_ok=True)
        self.write(self.src / "a.cpp", "source")
        self.write(self.src / "own.h", "own")
        self.write(self.site / "torch/t.h", "torch")
        self.write(self.system / "s.h", "system")
        self.write(folder / "bin/g++", "\x7fELF g++")
        (folder / "bin/g++").chmod(0o755)
        output = f"{folder}/build/a.o"
        argv = ("g++", f"-I{self.src}", "-isystem", str(self.site), "-c", f"{self.src}/a.cpp", "-o", output)
        self.unit = Unit(output, (f"{self.src}/a.cpp",), argv, str(folder / "build"), Language.CXX)
        self.environment = {"PATH": f"{folder}/bin"}
        self.prefixes = Prefixes({str(self.src): "source", str(self.site): "site-packages"})
        self.recall = Recall(store, self.prefixes, tools or Tools(answer))
        self.read = [self.src / "a.cpp", self.src / "own.h", self.site / "torch/t.h", self.system / "s.h"]
        self.files: tuple[GeneratedFile, ...] = ()

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def find(self, **changes: object) -> bytes | None:
        found = self.recall.find(replace(self.unit, **changes), self.files, self.environment)  # type: ignore[arg-type]
        return None if found is None else found.object

    def keep(self, made: bytes = b"object", read: Iterable[Path | str] | None = None) -> None:
        depfile = self.folder / "work/a.o.d"
        depfile.parent.mkdir(exist_ok=True)
        depfile.write_text("a.o: " + " \\\n ".join(map(str, read or self.read)) + "\n")
        self.recall.keep(self.unit, self.files, self.environment, [depfile], made, COST)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def here(tmp_path: Path, store: Store) -> Machine:
    return Machine(tmp_path / "here", store)


def test_an_object_is_found_again_with_what_it_took(here: Machine) -> None:
    assert here.find() is None
    here.keep()
    found = here.recall.find(here.unit, (), here.environment)
    assert found is not None
    assert (found.object, found.cost) == (b"object", COST)


def test_another_folder_and_another_environment_find_it(here: Machine, tmp_path: Path, store: Store) -> None:
    here.keep()
    assert Machine(tmp_path / "there", store).find() == b"object"


def test_paths_of_this_machine_are_not_kept(here: Machine, store: Store) -> None:
    here.keep()
    assert str(here.folder).encode() not in b"".join(store.manifests())
    assert b"site-packages/torch/t.h" in store.manifests()[0]
    assert str(here.system).encode() in store.manifests()[0], "no folder with a name"


def test_another_output_is_another_name_only(here: Machine) -> None:
    here.keep()
    other = f"{here.folder}/build/other.o"
    assert here.find(output=other, argv=(*here.unit.argv[:-1], other)) == b"object"


@pytest.mark.parametrize("name", ["src/a.cpp", "src/own.h", "env/site-packages/torch/t.h", "../usr/s.h"])
def test_everything_that_is_read_counts(here: Machine, name: str) -> None:
    here.keep()
    path = here.folder / name
    before = path.read_text()
    path.write_text("changed, and longer")
    assert here.find() is None
    path.write_text(before)
    assert here.find() == b"object"
    path.unlink()
    assert here.find() is None


def test_the_compiler_counts(here: Machine, store: Store) -> None:
    here.keep()
    (here.folder / "bin/g++").write_text("\x7fELF another")
    here.recall = Recall(store, here.prefixes, Tools(answer))
    assert here.find() is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda unit: {"argv": (*unit.argv, "-O2")}, id="an option"),
        pytest.param(lambda unit: {"module_id": "_m_"}, id="the module id"),
        pytest.param(lambda unit: {"argv": (*unit.argv, f"-I{unit.cwd}")}, id="a folder that is searched"),
    ],
)
def test_the_command_counts(here: Machine, change: Callable[[Unit], dict[str, object]]) -> None:
    here.keep()
    assert here.find(**change(here.unit)) is None


@pytest.mark.parametrize(("name", "counts"), [("CPATH", True), ("SOURCE_DATE_EPOCH", True), ("HOME", False)])
def test_variables_that_compilers_read_count(here: Machine, name: str, counts: bool) -> None:
    here.keep()
    here.environment[name] = "1"
    assert (here.find() is None) == counts


def test_a_variable_with_a_folder_that_has_a_name(here: Machine, tmp_path: Path, store: Store) -> None:
    there = Machine(tmp_path / "there", store)
    for machine in (here, there):
        machine.environment["CPATH"] = f"{machine.site}/torch"
    here.keep()
    assert there.find() == b"object"


@pytest.mark.parametrize("name", ["src/torch/t.h", "src/new.h", "env/site-packages/s.h"])
def test_a_header_that_may_be_found_instead_counts(here: Machine, name: str) -> None:
    here.keep()
    here.write(here.folder / name, "")
    assert here.find() is None


def test_a_header_in_a_folder_of_a_variable_counts(here: Machine, tmp_path: Path) -> None:
    here.environment["CPATH"] = str(tmp_path / "more")
    here.keep()
    assert here.find() == b"object"
    here.write(tmp_path / "more/t.h", "")
    assert here.find() is None


def test_what_builds_leave_among_headers_does_not_count(here: Machine) -> None:
    here.keep()
    here.write(here.src / "a.o", "")
    assert here.find() == b"object"


def test_states_that_come_back_are_all_known(here: Machine) -> None:
    for number in range(3):
        here.write(here.src / "own.h", f"state {number}")
        here.keep(b"object %d" % number)
    for number in (1, 0, 2):
        here.write(here.src / "own.h", f"state {number}")
        assert here.find() == b"object %d" % number


def test_only_the_latest_states_are_known(here: Machine, store: Store) -> None:
    for number in range(MOST_VARIANTS + 2):
        here.write(here.src / "own.h", f"state {number}")
        here.keep(b"%d" % number)
    (manifest,) = store.manifests()
    assert len(json.loads(manifest)["variants"]) == MOST_VARIANTS
    assert here.find() == b"%d" % (MOST_VARIANTS + 1)
    here.write(here.src / "own.h", "state 0")
    assert here.find() is None


def test_the_same_state_is_one_variant(here: Machine, store: Store) -> None:
    here.keep()
    before = dict(store)
    here.keep()
    assert store == before


def test_headers_may_differ_from_state_to_state(here: Machine) -> None:
    here.keep(b"with", here.read)
    here.write(here.src / "own.h", "includes nothing")
    here.keep(b"without", here.read[:2])
    (here.site / "torch/t.h").write_text("changed")
    assert here.find() == b"without"


def test_temporary_files_do_not_count(here: Machine, store: Store) -> None:
    here.keep(read=[*here.read, here.folder / "work/a.ii", here.folder / "work/compute_90/b.ii"])
    assert b"a.ii" not in store.manifests()[0]
    assert b"b.ii" not in store.manifests()[0]


def test_names_are_those_of_the_compilers_folder(here: Machine, store: Store) -> None:
    here.keep(read=["../src/own.h", f"{here.src}/../src/a.cpp"])
    assert [name for name, _ in json.loads(store.manifests()[0])["variants"][0]["deps"]] == [
        "source/a.cpp",
        "source/own.h",
    ]


def test_a_path_through_a_link_is_that_of_the_file(here: Machine, tmp_path: Path, store: Store) -> None:
    here.write(tmp_path / "far/deep/x.h", "")
    here.write(tmp_path / "far/y.h", "far")
    (here.src / "link").symlink_to(tmp_path / "far/deep")
    here.keep(read=[here.src / "link/../y.h"])
    deps = dict(json.loads(store.manifests()[0])["variants"][0]["deps"])
    assert "" not in deps.values()


def test_a_file_that_is_gone_stays_gone(here: Machine) -> None:
    here.keep(read=[*here.read, here.folder / "gone.h"])
    assert here.find() == b"object"
    here.write(here.folder / "gone.h", "")
    assert here.find() is None


def test_generated_files_include_by_stable_names(here: Machine, tmp_path: Path, store: Store) -> None:
    there = Machine(tmp_path / "there", store)
    for machine in (here, there):
        path = machine.src / "a.cpp"
        text = f'#include "{machine.src}/own.h"\n'
        path.write_text(text)
        machine.files = (GeneratedFile(str(path), text),)
    here.keep()
    assert there.find() == b"object"
    # Any other path in it is part of the code.
    (there.src / "a.cpp").write_text(f'#include "{there.src}/own.h"\nchar x[] = "{there.src}";\n')
    assert there.find() is None
    there.files = ()
    (there.src / "a.cpp").write_text(f'#include "{there.src}/own.h"\n')
    assert there.find() is None, "upstream's own files count as they are"


@pytest.mark.parametrize("word", ["@options", "--options-file=x", "-fplugin=x.so", "-specs=x", "-fprofile-use"])
def test_what_can_not_be_known_is_not_kept(here: Machine, store: Store, word: str) -> None:
    here.unit = replace(here.unit, argv=(*here.unit.argv, word))
    here.keep()
    assert not store
    assert here.find() is None


@pytest.mark.parametrize("language", [Language.OTHER, Language.DEVICE_LINK])
def test_other_commands_are_not_kept(here: Machine, store: Store, language: Language) -> None:
    here.unit = replace(here.unit, language=language)
    here.keep()
    assert not store


@pytest.mark.parametrize(("option", "counts"), [("-g", True), ("-ggdb", True), ("-g0", False), ("-O2", False)])
def test_the_folder_counts_with_debug_information(here: Machine, option: str, counts: bool) -> None:
    here.unit = replace(here.unit, argv=(*here.unit.argv, option))
    here.keep()
    assert (here.find(cwd=str(here.folder)) is None) == counts


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b'{"schema": 0, "variants": []}', b'{"schema": 1}', b'{"schema": 1, "variants": [1]}'],
)
def test_a_manifest_that_can_not_be_read_is_none(here: Machine, store: Store, manifest: bytes) -> None:
    here.keep()
    for entry in store.values():
        if "manifest" in entry:
            entry["manifest"] = manifest
    assert here.find() is None
    here.keep()
    assert here.find() == b"object"


def test_a_manifest_can_not_lead_to_another_object(here: Machine, store: Store) -> None:
    here.keep()
    store["f" * 64] = {"object": b"planted", "cost": b'{"seconds": 1, "cpu_seconds": 1, "peak_bytes": 1}'}
    for entry in store.values():
        if "manifest" in entry:
            document = json.loads(entry["manifest"])
            document["variants"][0]["object"] = "f" * 64
            entry["manifest"] = json.dumps(document).encode()
    assert here.find() is None


@pytest.mark.parametrize(
    "damage", [{}, {"object": b"x"}, {"object": b"x", "cost": b"{"}, {"object": b"x", "cost": b"{}"}]
)
def test_an_object_that_is_not_whole_is_none(here: Machine, store: Store, damage: dict[str, bytes]) -> None:
    here.keep()
    for key, entry in store.items():
        if "object" in entry:
            store[key] = damage
    assert here.find() is None


def test_an_object_that_is_gone_is_none(here: Machine, store: Store) -> None:
    here.keep()
    for key in [key for key, entry in store.items() if "object" in entry]:
        del store[key]
    assert here.find() is None
