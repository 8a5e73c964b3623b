"""The documents say what is there: links, paths, commands, recipe fields and quoted messages are held against the project."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from gristmill.cli import app
from gristmill.extract.judge import PACKS, limits_of, reasons_of
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STEP_PAGES = sorted(path for path in (ROOT / "docs" / "steps").glob("*.md") if path.stem != "README")
FILE_SUFFIXES = (".py", ".json", ".jsonl", ".md", ".npz", ".parquet", ".html", ".yaml", ".safetensors")
TOP_FOLDERS = "src|tests|docs|recipes|samples|scripts|benchmarks"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_of(text: str) -> Iterator[str]:
    """Every line of fenced code and every inline code span."""
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    for number, part in enumerate(parts):
        yield from part.splitlines() if number % 2 else re.findall(r"`([^`\n]+)`", part)


def slugs_of(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_of_files_is_fresh() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_map.py"))
    page = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    assert page == script["map_text"](), "run: python scripts/write_map.py"


def test_the_map_of_files_names_every_module() -> None:
    page = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    modules = {path for path in modules if not path.endswith(("/__init__.py", "/__main__.py"))}
    assert modules == {*re.findall(r"\(\.\./(src/\S+\.py)\)", page)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in slugs_of(target.read_text(encoding="utf-8")), f"{name_of(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_in_code_exists(page: Path) -> None:
    for code in code_of(page.read_text(encoding="utf-8")):
        for path in re.findall(rf"(?<![\w/.])(?:{TOP_FOLDERS})/[\w./-]*\w", code):
            assert (ROOT / path).exists(), f"{name_of(page)} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_its_options_exist(page: Path) -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for code in code_of(page.read_text(encoding="utf-8")):
        found = re.search(r"(?:^|[\s/])gristmill ([a-z][\w-]*)(.*)", code)
        if found is None or found[1] == "import":
            continue
        verb, rest = found[1], found[2].partition("#")[0]
        assert verb in commands, f"{name_of(page)} names the command {code!r}"
        command = commands[verb]
        if isinstance(command, typer.core.TyperGroup) and (second := re.match(r" ([a-z-]+)", rest)):
            assert second[1] in command.commands, f"{name_of(page)} names the command {code!r}"
            command = command.commands[second[1]]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert option in known, f"{name_of(page)}: {verb} has no {option}"


def test_each_step_has_its_page_and_each_page_its_step() -> None:
    steps = steps_of(load_recipe(ROOT / "recipes" / "quickstart.yaml").recipe)
    kinds = {step.name.partition("/")[0] for step in steps}
    assert {page.stem for page in STEP_PAGES} == {
        *kinds,
        "fetch",
        "start",
    }  # the quickstart fetches nothing and starts from nothing


@cache
def string_constants() -> str:
    """All string constants of the package, pieces of f-strings apart."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(found)


@pytest.mark.parametrize("page", STEP_PAGES, ids=name_of)
def test_every_quoted_message_is_one_that_the_code_gives(page: Path) -> None:
    rows = re.findall(r"^\| `([^`]+…[^`]*|[^`]+\.)` \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    messages = [row for row in rows if " " in row]
    assert messages, f"{name_of(page)} quotes no message"
    for message in messages:
        for piece in message.split("…"):
            assert piece in string_constants(), f"{name_of(page)} quotes {message!r}; the code does not say {piece!r}"


def field_exists(schema: dict[str, Any], parts: list[str], definitions: dict[str, Any]) -> bool:
    """True when the path leads through the JSON schema; a mapping takes any name, "[]" stands for an entry of a list."""
    if "$ref" in schema:
        return field_exists(definitions[schema["$ref"].rpartition("/")[2]], parts, definitions)
    if not parts:
        return True
    head, rest = parts[0], parts[1:]
    if head == "[]":
        if "items" in schema and field_exists(schema["items"], rest, definitions):
            return True
    elif head in schema.get("properties", {}):
        return field_exists(schema["properties"][head], rest, definitions)
    else:
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        if any(isinstance(value, dict) and field_exists(value, rest, definitions) for value in values):
            return True
    choices = schema.get("anyOf", []) + schema.get("oneOf", [])
    return any(field_exists(choice, parts, definitions) for choice in choices)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_recipe_field_named_in_dots_exists(page: Path) -> None:
    schema = Recipe.model_json_schema()
    for code in code_of(page.read_text(encoding="utf-8")):
        section = re.match(r"(\w+)(?:\[\])?\.[\w.\[\]]+$", code)
        if section is not None and section[1] in Recipe.model_fields and not code.endswith(FILE_SUFFIXES):
            parts = [part for part in re.split(r"\.|(\[\])", code) if part]
            assert field_exists(schema, parts, schema["$defs"]), f"{name_of(page)} names the field {code}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


def test_the_recipe_in_the_readme_is_a_recipe(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    path = tmp_path / "recipe.yaml"
    path.write_text(blocks[0], encoding="utf-8")
    assert load_recipe(path).recipe.sources


def test_every_direct_dependency_has_its_line_of_reasons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {re.split(r"[<>=~! ]", name)[0] for name in project["dependencies"]}
    page = (ROOT / "docs" / "decisions" / "0014-dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE)) == direct


def test_the_page_of_rules_has_every_reason_with_its_limit_under_its_pack() -> None:
    sections = dict(part.split("\n", 1) for part in (ROOT / "docs" / "rules.md").read_text().split("\n## ")[1:])
    assert list(sections) == list(PACKS)
    for pack, page in sections.items():
        rows = [cells for line in page.splitlines() if line.startswith("| `") and (cells := line.strip("|").split("|"))]
        said = {
            reason: (cells[1].strip()[0], float(limit.strip(" <>").replace(",", "")))
            for cells in rows
            for reason, limit in zip(_reasons(cells[0]), _limits(cells[1]), strict=True)
        }
        assert list(said) == reasons_of(pack)
        assert said == {limit.reason: (">" if limit.kind == "max" else "<", limit.limit) for limit in limits_of(pack)}


def _reasons(cell: str) -> list[str]:
    named = re.findall(r"`(\w+)`", cell)
    if " to " not in cell:
        return named
    first, last = (int("".join(filter(str.isdigit, name))) for name in named)
    return [named[0].replace(str(first), str(number)) for number in range(first, last + 1)]


def _limits(cell: str) -> list[str]:
    return re.split(r", (?=\d\.)", cell)
