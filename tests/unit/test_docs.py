"""The pages say what the code does: tables are generated, other names, codes and fields are compared with it."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import attnforge
from attnforge import errors
from attnforge.bench.work import GRIDS, grid
from attnforge.check.cases import TOPICS
from attnforge.check.verdicts import CODES
from attnforge.cli.main import VERBS, parser_for, usage
from attnforge.cli.packages import recipe_schema
from attnforge.model.audit import AuditReport, ModuleReport
from attnforge.model.base import Value
from attnforge.model.benchmark import (
    Accuracy,
    Against,
    BenchReport,
    Cell,
    Gpu,
    Rate,
    Rates,
    Result,
    Shape,
    Side,
    Verdict,
)
from attnforge.model.check import CaseResult, CheckReport, GpuSeen
from attnforge.model.finding import Finding
from attnforge.model.host import Host
from attnforge.model.plan import BuildPlan
from attnforge.options import OPTIONS, merge
from attnforge.recipes.catalogue import recipes
from attnforge.recipes.own import read_recipe
from standins.attention.wheels import MUTANTS

SOURCE = Path(attnforge.__file__).parent
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
WIDTH = 120


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The text below a heading, up to the next heading of its level or above."""
    match = re.search(rf"^(?P<marks>#+) {re.escape(title)}$", text, re.MULTILINE)
    assert match, f"there is no heading {title!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match['marks'])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def first_cells(text: str) -> list[str]:
    """What stands in backquotes at the start of each table row, or its bare first word."""
    rows = re.findall(r"^\| (?:`([^`]+)`|(\w+))", text, re.MULTILINE)
    return [quoted or bare for quoted, bare in rows]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def public_fields(kind: type[Value]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


# --- usage.md


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_section_with_its_options(verb: str) -> None:
    assert f"<!-- generated: options {verb} -->" in section(page("usage"), f"attnforge {verb}")


def test_every_exit_code_is_in_the_table() -> None:
    raised = {kind.exit_code for kind in errors.AttnforgeError.__subclasses__()}
    assert raised < errors.EXIT_CODES.keys()
    assert all(f"\n  {code:>3}  " in usage() for code in errors.EXIT_CODES)


def test_the_configuration_example_is_one() -> None:
    example = re.search(r"```toml\n(.*?)```", section(page("usage"), "Configuration"), re.DOTALL)
    assert example
    table = tomllib.loads(example[1])["tool"]["attnforge"]
    assert table.keys() - {"out"} <= {option.name for option in OPTIONS}
    assert merge(table)["head_dims"] == (64, 128)


# --- every page


def test_generated_tables_are_current() -> None:
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_generated_table_is_on_a_page() -> None:
    named = {name for path in PAGES for name in re.findall(r"<!-- generated: ([\w -]+) -->", path.read_text("utf-8"))}
    assert named == runpy.run_path(str(DOCS / "generate.py"))["BLOCKS"].keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_line_is_wider_than_120_columns(path: Path) -> None:
    """Except code that can't be wrapped, and links."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > WIDTH and " " in line.strip()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_has_a_merge_mark(path: Path) -> None:
    assert not re.search(r"^(?:<{7}|>{7}) ", path.read_text(encoding="utf-8"), re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """The calls of attnforge in fenced blocks of shell commands, without variables in front."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words and words[0] in ("attnforge", "./forge") and words[1:]:
                yield words[1:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_that_are_shown_are_understood(path: Path) -> None:
    for verb, *arguments in commands(path.read_text(encoding="utf-8")):
        if verb in ("test", "VERB", "--help", "--version"):
            continue
        parser, _ = parser_for(verb)
        parsed = vars(parser.parse_args(arguments))
        given = {name.removeprefix("option "): value for name, value in parsed.items() if name.startswith("option ")}
        merge(given)


def test_commands_are_found() -> None:
    assert ["doctor"] in list(commands(page("usage")))
    assert any("--source" in words for words in commands(page("usage")))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        name, _, fragment = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_files_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"`((?:src|tests|experiments|docs)/[\w/.]+)`", path.read_text(encoding="utf-8")):
        assert "NAME" in name or (DOCS.parent / name).exists(), name


# --- architecture.md


def test_modules_that_are_named_exist() -> None:
    named = set(re.findall(r"`(\w+/[\w/]+\.(?:py|toml))`", page("architecture")))
    assert named
    assert {name for name in named if not ((SOURCE / name).exists() or (ROOT / name).exists())} == set()


def test_every_part_has_its_row() -> None:
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    assert set(first_cells(section(page("architecture"), "The parts"))) - {"part"} == folders | modules


def test_every_pass_has_its_row_in_order() -> None:
    pipeline = (SOURCE / "compile" / "graph" / "pipeline.py").read_text(encoding="utf-8")
    passes = {path.stem for path in (SOURCE / "compile" / "graph" / "passes").glob("*.py")} - {"__init__"}
    called = re.findall(r"\b(\w+)\(", pipeline[pipeline.index("def passes_for") :])
    in_order = [name for name in called if name in passes]
    assert set(in_order) == passes != set()
    rows = first_cells(section(page("architecture"), "Passes"))
    assert [row for row in rows if row in passes] == in_order


# --- wheels.md


def finding_codes() -> set[str]:
    """The codes of findings in the source of audit, in each way in which they are written there."""
    return {code for path in sorted((SOURCE / "audit").glob("*.py")) for code in _codes_of(path)}


def _codes_of(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taking, prefixed = _makers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called, first = ast.unparse(node.func), node.args[0] if node.args else None
            written = {word.arg: word.value for word in node.keywords}.get("code") if called == "Finding" else None
            if isinstance(written, ast.Constant):
                yield str(written.value)
            if isinstance(first, ast.Constant) and called in taking:
                yield str(first.value)
            if isinstance(first, ast.Constant) and called in prefixed:
                yield prefixed[called] + str(first.value)
        # Rows of a table that is looped over: (code, paths, means).
        if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[0], ast.Constant):
            yield from re.findall(r"^[a-z]+(?:-[a-z]+)+$", str(node.elts[0].value))


def _makers(tree: ast.Module) -> tuple[set[str], dict[str, str]]:
    """Functions whose first parameter is a code, and those that put a prefix before it."""
    taking, prefixed = {"Topic"}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.args.args:
            if node.args.args[0].arg == "code":
                taking.add(node.name)
            for word in (w for w in ast.walk(node) if isinstance(w, ast.keyword) and w.arg == "code"):
                if isinstance(word.value, ast.JoinedStr) and isinstance(word.value.values[0], ast.Constant):
                    prefixed[node.name] = str(word.value.values[0].value)
    return taking, prefixed


def test_every_finding_of_an_audit_has_its_row() -> None:
    rows = first_cells(section(page("wheels"), "What the audit checks"))
    assert len(rows) == len(set(rows))
    assert set(rows) - {"code"} == finding_codes()


def test_codes_are_found_however_they_are_written() -> None:
    assert {"rpath", "dist-info", "wheel-name", "record-hash", "planned-python"} <= finding_codes()


# --- checking.md


def test_every_topic_has_its_row_in_order() -> None:
    rows = [line for line in section(page("checking"), "What it does").splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])] == list(TOPICS)


def test_every_finding_of_a_check_has_its_row() -> None:
    rows = [line for line in section(page("checking"), "How to read it").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    source = (
        SOURCE / "workflow" / "checking.py",
        SOURCE / "check" / "verdicts.py",
        SOURCE / "check" / "observations.py",
    )
    written = {code for path in source for code in _codes_of(path)} | set(CODES)
    assert len(named) == len(set(named))
    assert set(named) == written


def test_the_number_of_mutants_is_the_one_that_is_told() -> None:
    assert f"from these {len(MUTANTS)} with one thing wrong" in " ".join(page("checking").split())


# --- recipes.md


def test_the_schema_describes_every_part_and_field() -> None:
    schema = recipe_schema()
    tables = [schema, *schema["$defs"].values()]
    for table in tables:
        assert table["description"]
        assert table["additionalProperties"] is False
        assert all(field.get("description") for field in table["properties"].values())


def test_the_example_of_a_recipe_is_one(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", section(page("recipes"), "Add a recipe"), re.DOTALL)
    assert example
    (tmp_path / "my-recipe.toml").write_text(example[1], encoding="utf-8")
    recipe = read_recipe(tmp_path / "my-recipe.toml")
    release = recipe.release(recipe.default_version)
    assert release is not None
    # It is of a package that attnforge knows, so that what it says can be compared with what was read there.
    assert release.sha256.items() <= recipes()[recipe.name].releases[0].sha256.items()
    assert recipe.settings.items() > recipes()[recipe.name].settings.items()


# --- benchmarking.md


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_has_its_row_with_how_many_cells_it_has(name: str) -> None:
    assert f"| `{name}` | {len(grid(name))} |" in section(page("benchmarking"), "What is timed")


# --- json.md

BENCHMARK: tuple[type[Value], ...] = (
    BenchReport,
    Gpu,
    Rates,
    Rate,
    Side,
    Cell,
    Shape,
    Result,
    Accuracy,
    Against,
    Verdict,
)


@pytest.mark.parametrize(
    ("title", "fields"),
    [
        ("plan --json", public_fields(BuildPlan) | {"digest", "decisions", "warnings", "estimate"}),
        ("audit --json", public_fields(AuditReport) | public_fields(ModuleReport) | public_fields(Finding)),
        ("check --json", public_fields(CheckReport) | public_fields(CaseResult) | public_fields(GpuSeen)),
        ("bench --json", {name for kind in BENCHMARK for name in public_fields(kind)}),
        ("doctor --json", public_fields(Host) | {"schema", "host", "findings", "exit_code"}),
    ],
    ids=["plan", "audit", "check", "bench", "doctor"],
)
def test_every_field_of_a_document_is_told(title: str, fields: set[str]) -> None:
    assert fields <= quoted(section(page("json"), title))
