from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attnforge.compile.graph.commands import redirected
from attnforge.compile.reuse.objects import Cost, ObjectStore, place, unit_key, write_generated
from attnforge.model.graph import GeneratedFile, Language, Unit

COST = Cost(1.5, 2.5, 1000)


def unit(argv: str, output: str = "/b/a.o") -> Unit:
    return Unit(output, (), tuple(argv.split()), "/b", Language.CUDA)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("nvcc -c a.cu -o /b/a.o", "nvcc -c a.cu -o OUT"),
        ("nvcc -c a.cu -o a.o", "nvcc -c a.cu -o OUT"),
        ("nvcc -c a.cu -o ./x/../a.o -O3", "nvcc -c a.cu -o OUT -O3"),
        ("gcc -c a.c -oa.o", "gcc -c a.c -oOUT"),
        ("nvcc --output-file a.o a.cu", "nvcc --output-file OUT a.cu"),
        ("nvcc --output-file=a.o a.cu", "nvcc --output-file=OUT a.cu"),
        ("gcc -MMD -MF a.o.d -c a.c -o a.o", "gcc -MMD -MF DEP -c a.c -o OUT"),
        ("gcc -MFa.o.d -c a.c -o a.o", "gcc -MFDEP -c a.c -o OUT"),
        ("nvcc --dependency-output=x a.cu -o a.o", "nvcc --dependency-output=DEP a.cu -o OUT"),
        ("python steps.py id -- nvcc -c a.cu -o /b/a.o", "python steps.py id -- nvcc -c a.cu -o OUT"),
        ("gcc -c a.c -o a.o -openmp", "gcc -c a.c -o OUT -openmp"),
        ("gcc -c a.c -o other.o", None),
        ("gcc -c a.c", None),
        ("gcc -c a.c -o", None),
    ],
)
def test_outputs_of_a_command_are_found(argv: str, expected: str | None) -> None:
    found = redirected(unit(argv), "OUT", "DEP")
    assert found == (None if expected is None else tuple(expected.split()))


@pytest.fixture
def source(tmp_path: Path) -> Unit:
    path = tmp_path / "a.cu"
    path.write_text("kernel")
    output = str(tmp_path / "a.o")
    argv = ("nvcc", "-c", str(path), "-o", output, "-MF", output + ".d")
    return Unit(output, (str(path),), argv, str(tmp_path), Language.CUDA)


HEADER = GeneratedFile("/g/h.h", "one")


def key(
    unit: Unit, files: tuple[GeneratedFile, ...] = (HEADER,), program: str = "/bin/nvcc", **environment: str
) -> str:
    return unit_key(unit, files, program, environment)


def test_a_key_is_that_of_what_goes_in(source: Unit) -> None:
    assert key(source) == key(source, PATH="/elsewhere", TMPDIR="/t", LANG="C")
    moved = replace(source, output=source.output + "2", argv=(*source.argv[:4], source.output + "2", *source.argv[5:]))
    assert key(moved) == key(source)
    assert key(replace(source, kernel="k", cost_key="c", depfile="d")) == key(source)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda unit: key(replace(unit, argv=(*unit.argv, "-O3"))), id="an option"),
        pytest.param(lambda unit: key(replace(unit, cwd="/")), id="the folder"),
        pytest.param(lambda unit: key(replace(unit, empty=True)), id="empty"),
        pytest.param(lambda unit: key(unit, program="/elsewhere/nvcc"), id="the program"),
        pytest.param(lambda unit: key(unit, NVCC_APPEND_FLAGS="-O0"), id="nvcc's own variables"),
        pytest.param(lambda unit: key(unit, CPATH="/include"), id="gcc's own variables"),
        pytest.param(lambda unit: key(unit, (GeneratedFile("/g/h.h", "two"),)), id="a header's text"),
        pytest.param(lambda unit: key(unit, (GeneratedFile("/g/i.h", "one"),)), id="a header's path"),
        pytest.param(lambda unit: Path(unit.sources[0]).write_text("other") and key(unit), id="the source"),
    ],
)
def test_a_key_changes_with_what_goes_in(source: Unit, change: Callable[[Unit], str]) -> None:
    before = key(source)
    assert change(source) != before


def test_a_source_that_is_missing_is_an_error(source: Unit) -> None:
    with pytest.raises(FileNotFoundError):
        key(replace(source, sources=("/no/such.cu",)))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "plan" / "objects")


def made(tmp_path: Path, text: str = "object") -> Path:
    path = tmp_path / "made.o"
    path.write_text(text)
    return path


def test_what_is_kept_is_found(store: ObjectStore, tmp_path: Path) -> None:
    kept = store.keep("k", made(tmp_path), ("nvcc", "a"), COST)
    found = store.find("k")
    assert found == kept
    assert found is not None and found.path.read_text() == "object"
    assert (found.record.argv, found.record.peak_bytes, found.record.cpu_seconds) == (("nvcc", "a"), 1000, 2.5)
    assert not (tmp_path / "made.o").exists()
    assert ObjectStore(store.folder).find("k") == kept
    assert store.find("other") is None


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda folder: (folder / "k.json").unlink(), id="killed before the record"),
        pytest.param(lambda folder: (folder / "k.o").unlink(), id="no object"),
        pytest.param(lambda folder: (folder / "k.o").write_text("objec"), id="cut"),
        pytest.param(lambda folder: (folder / "k.o").write_text("OBJECT"), id="changed"),
        pytest.param(lambda folder: (folder / "k.json").write_text("{"), id="no JSON"),
        pytest.param(lambda folder: (folder / "k.json").write_text("[]"), id="not a record"),
        pytest.param(lambda folder: (folder / "k.json").write_text('{"schema": 1, "key": "k"}'), id="a part"),
        pytest.param(lambda folder: edit(folder / "k.json", schema=0), id="an older schema"),
        pytest.param(lambda folder: edit(folder / "k.json", key="l"), id="another's record"),
        pytest.param(lambda folder: edit(folder / "k.json", size="6"), id="a size that is no number"),
    ],
)
def test_what_is_not_whole_is_not_found(store: ObjectStore, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    store.keep("k", made(tmp_path), (), COST)
    harm(store.folder)
    assert store.find("k") is None
    store.keep("k", made(tmp_path, "again"), (), COST)
    assert store.find("k") is not None


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_empty_file_is_no_object(store: ObjectStore, tmp_path: Path) -> None:
    store.keep("k", made(tmp_path, ""), (), COST)
    assert store.find("k") is None


def test_an_object_is_placed_over_what_was_there(tmp_path: Path) -> None:
    stored, output = made(tmp_path), tmp_path / "build" / "a.o"
    place(stored, output)
    place(stored, output)
    output.unlink()
    output.write_text("older")
    place(stored, output)
    assert output.read_text() == "object"
    assert [path.name for path in output.parent.iterdir()] == ["a.o"]


def test_an_object_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    stored, output = made(tmp_path), tmp_path / "build" / "a.o"
    place(stored, output)
    assert output.read_text() == "object"
    assert output.stat().st_ino != stored.stat().st_ino


def test_a_generated_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "h.h"
    write_generated(GeneratedFile(str(path), "é\n"))
    first = path.stat()
    write_generated(GeneratedFile(str(path), "é\n"))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    write_generated(GeneratedFile(str(path), "other"))
    assert path.read_text() == "other"
    assert [entry.name for entry in path.parent.iterdir()] == ["h.h"]
