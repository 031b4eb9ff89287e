"""Writes the reference tables of the pages from the code: ``python docs/generate.py``; ``--check`` only compares.

A page has ``<!-- generated: NAME -->`` and ``<!-- end -->`` around each table. What is between them is replaced.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import attnforge
from attnforge.cli.main import VERBS, parser_for
from attnforge.config import OTHER_VARIABLES
from attnforge.errors import EXIT_CODES
from attnforge.knowledge.error_signatures import Signature, all_signatures
from attnforge.knowledge.targets import profiles, targets
from attnforge.model.base import Value
from attnforge.model.events import Event
from attnforge.model.recipe import Recipe
from attnforge.options import OPTIONS
from attnforge.recipes.catalogue import recipes

ROOT = Path(__file__).parents[1]
WIDTH = 120
_BLOCK = re.compile(r"(<!-- generated: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)

# Verbs whose target options are in a table of their own.
_WITH_TARGET = ("plan", "build")


def paragraph(text: str) -> str:
    """Return a text at most 120 columns wide."""
    return "\n".join(wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def item(term: str, text: str) -> str:
    """Return an item of a list: a term, and what it means."""
    return "\n".join(
        wrap(f"- {term}: {text}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def markdown(docstring: str | None) -> str:
    """Return a docstring's prose as Markdown on one line for each paragraph."""
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def verbs() -> str:
    """Return the table of verbs."""
    return table(("verb", "what it does"), ((f"`{name}`", what) for name, what in VERBS.items()))


def verb_options(verb: str) -> str:
    """Return the options of one verb, without those that every verb has."""
    parser, _ = parser_for(verb)
    items = []
    for action in parser._actions:
        if not action.option_strings or {"--help", "--debug"} & set(action.option_strings):
            continue
        if verb in _WITH_TARGET and action.dest.startswith("option "):
            continue
        names = ", ".join(f"`{name}{_value(action.metavar, action.choices)}`" for name in action.option_strings)
        items.append(item(names, action.help or ""))
    return "\n".join(items)


def _value(metavar: Any, choices: Any) -> str:
    words = metavar if isinstance(metavar, tuple) else (metavar,) if metavar else ()
    return "".join(f" {word}" for word in words) or (f" {'|'.join(choices)}" if choices else "")


def target_options() -> str:
    """Return the target options with their environment variables."""
    return "\n".join(
        item(f"`{f'--{option.name} {option.metavar}'.strip()}` (`{option.variable}`)", option.described)
        for option in OPTIONS
    )


def variables() -> str:
    """Return the environment variables that are no target option."""
    return table(("variable", "meaning"), ((f"`{name}`", told) for name, told in OTHER_VARIABLES.items()))


def exit_codes() -> str:
    """Return the table of exit codes."""
    return table(("code", "meaning"), ((str(code), told) for code, told in EXIT_CODES.items()))


def profile_table() -> str:
    """Return the profiles, with the features that each leaves out."""
    return table(
        ("profile", "leaves out"),
        ((f"`{one.name}`", ", ".join(one.without) or "nothing") for one in profiles().values()),
    )


def target_table() -> str:
    """Return the named targets."""
    return table(
        ("target", "Python", "PyTorch", "CUDA", "GPUs"),
        ((f"`{one.name}`", one.python, one.torch, one.cuda, ", ".join(one.gpus)) for one in targets().values()),
    )


def packages() -> str:
    """Return the packages with a recipe: pinned versions, and what their sources can be compiled for."""
    return "\n".join(item(f"`{recipe.name}`", _package(recipe)) for recipe in recipes().values())


def _package(recipe: Recipe) -> str:
    releases = recipe.releases
    pinned = [version for release in releases for version in release.sha256]
    pinned += [
        f"{version} (in the sdist of {one.distribution} {one.version})"
        for release in releases
        for version, one in release.carriers.items()
    ]
    pinned += [f"{version} (git)" for release in releases for version in release.commits if version not in pinned]
    if not any(release.compiled for release in releases):
        return f"{', '.join(pinned)}. Pure Python."
    code = dict.fromkeys(f"sm_{each}" for release in releases if release.compiled for each in release.architectures)
    return f"{', '.join(pinned)}. Compiles for: {', '.join(code) or 'each GPU itself'}."


def signatures() -> str:
    """Return the known messages, each with its cause and fix."""
    return "\n\n".join(map(_signature, all_signatures()))


def _signature(one: Signature) -> str:
    link = f" ([thread]({one.link}))" if "/issues/" in one.link else f" ([source]({one.link}))" if one.link else ""
    return "\n".join(
        (f"### {one.id}", "", one.shown, "", item("Cause", f"{one.what}: {one.why}"), item("Fix", one.hint + link))
    )


def recipe_fields() -> str:
    """Return the fields of a recipe's file, part by part."""
    return "\n\n".join(
        paragraph(f"**`{name}`**: {markdown(kind.__doc__).splitlines()[0]}")
        + "\n\n"
        + "\n".join(
            item(f"`{name}.{field.alias or key}`", field.description or "") for key, field in kind.model_fields.items()
        )
        for name, kind in recipe_parts().items()
    )


def recipe_parts() -> dict[str, type[Value]]:
    """Return the tables of a recipe's file by the name that the page gives them, in the order of its fields."""
    found: dict[str, type[Value]] = {}

    def add(name: str, kind: type[Value]) -> None:
        if kind in found.values():
            return
        found[name] = kind
        for field in kind.model_fields.values():
            for inner in _values(field.annotation):
                add(_PART_NAMES.get(inner.__name__, inner.__name__.lower()), inner)

    add("recipe", Recipe)
    return found


_PART_NAMES = {"GitSource": "git", "KernelSet": "set", "UnitArchitectures": "unit"}


def _values(annotation: Any) -> Iterator[type[Value]]:
    """Yield the value classes in a type."""
    if isinstance(annotation, type) and issubclass(annotation, Value):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _values(inner)


def events() -> str:
    """Return the events of ``build --json``, each with its fields."""
    return "\n".join(_event(kind) for kind in {kind.__name__: kind for kind in Event.__subclasses__()}.values())


def _event(kind: type[Event]) -> str:
    fields = ", ".join(f"`{name}`" for name in kind.__dataclass_fields__)
    told = markdown(kind.__doc__).replace("\n\n", " ")
    return item(f"`{kind.__name__}`", f"{fields}. {told}")


def api() -> str:
    """Return what ``attnforge`` exports: signatures and docstrings."""
    names = [name for name in attnforge.__all__ if not name.startswith("__")]
    functions_first = sorted(names, key=lambda name: isinstance(getattr(attnforge, name), type))
    return "\n\n".join(map(_api_entry, functions_first))


def _api_entry(name: str) -> str:
    subject = getattr(attnforge, name)
    parts = [f"### {name}", "", f"```python\n{_signature_of(name, subject)}\n```", ""]
    parts.append("\n\n".join(paragraph(part) for part in markdown(subject.__doc__).split("\n\n")))
    if isinstance(subject, type):
        members = [item(f"`{key}`", told) for key, told in _members(subject)]
        parts += ["", *members] if members else []
    return "\n".join(parts)


def _signature_of(name: str, subject: Any) -> str:
    """Return how a thing is called, without the values that its defaults have."""
    parameters = [one for one in inspect.signature(subject).parameters.values() if one.name not in ("self", "data")]
    texts = [_parameter(one) for one in parameters]
    keyword = next((at for at, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), 0)
    texts[keyword:keyword] = ["*"] if keyword else []
    returned = "" if isinstance(subject, type) else f" -> {_annotation(inspect.signature(subject).return_annotation)}"
    line = f"{name}({', '.join(texts)}){returned}"
    return line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){returned}"


def _parameter(one: inspect.Parameter) -> str:
    start = f"{one.name}: {_annotation(one.annotation)}"
    if one.default is one.empty:
        return start
    return f"{start} = {one.default!r}" if isinstance(one.default, _PLAIN) else f"{start} = ..."


def _annotation(kind: Any) -> str:
    """Return a type as text, without the modules of its names."""
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    return re.sub(r"\b(?:attnforge|pathlib|collections)\.[\w.]*\b(?=\w)", "", text)


_PLAIN = (str, int, float, bool, tuple, type(None))


def _members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties of a class with the first paragraph of their docstrings."""
    fields = getattr(kind, "__dataclass_fields__", ())
    for key, member in vars(kind).items():
        is_method = inspect.isfunction(member)
        is_ours = is_method or isinstance(member, property | cached_property)
        if is_ours and member.__doc__ and not key.startswith("_") and key not in fields:
            yield f"{key}()" if is_method else key, markdown(member.__doc__).split("\n\n")[0]


BLOCKS: dict[str, Callable[[], str]] = {
    "verbs": verbs,
    **{f"options {verb}": partial(verb_options, verb) for verb in VERBS},
    "target options": target_options,
    "variables": variables,
    "exit codes": exit_codes,
    "profiles": profile_table,
    "targets": target_table,
    "packages": packages,
    "signatures": signatures,
    "recipe fields": recipe_fields,
    "events": events,
    "api": api,
}


def generated(text: str) -> str:
    """Return a page with its tables as the code has them; KeyError for a table that there is none of."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}", text)


def main(arguments: list[str]) -> int:
    """Write the pages; with ``--check`` return 1 and show the difference where one is not current."""
    code = 0
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        after = generated(before)
        if before == after:
            continue
        if "--check" in arguments:
            sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), path.name))
            sys.stdout.write("run: python docs/generate.py\n")
            code = 1
        else:
            path.write_text(after, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
