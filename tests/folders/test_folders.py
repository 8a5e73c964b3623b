"""Anyone's folder: init, plan and run without an edit, on twenty-one messy ones; what init said is what the run counts."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from folders.build import FOLDERS, as_html, pages, put
from gristmill.commands import init as init_module
from gristmill.commands.chat import chat
from gristmill.commands.init import init
from gristmill.draft.sample import Limits
from gristmill.forecast import check_caps, make_forecast
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe
from gristmill.runner import run
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard

QUIET = Console(quiet=True)
WHOLE = Limits(seconds=1e6)
RUN_HERE = ("names_with_spaces_and_umlauts", "mostly_copies", "a_manual_in_three_formats")
SAMPLED = ("plain_notes", "three_languages", "old_encodings", "one_huge_file", "licences", "everything")
SHARE = 0.3
SAID = re.compile(r"unique_tokens: (\d+) +# (?:counted|estimated, ([\d,]+) to ([\d,]+))")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(runs_dir=tmp_path / "runs", threads=1, processes=2)


def made(name: str, tmp_path: Path, machine: Machine, limits: Limits = WHOLE, **asked: Any) -> Path:
    """The recipe that init makes of a folder."""
    texts = tmp_path / "Meine Texte"
    if not texts.exists():
        FOLDERS[name](texts)
    folder = tmp_path / f"model {len(list(tmp_path.iterdir()))}"
    return init(folder, data=texts, console=QUIET, machine=machine, limits=limits, **asked)


def said(recipe: Path) -> tuple[int, int, int]:
    """Unique tokens as init wrote them, with the ends of their intervals, over all sources."""
    found = [[int((end or row[0]).replace(",", "")) for end in row] for row in SAID.findall(recipe.read_text("utf-8"))]
    value, low, high = (sum(column) for column in zip(*found, strict=True))
    return value, low, high


def counted(recipe: Path, machine: Machine) -> int:
    """Unique tokens as tokenize counts them."""
    loaded = load_recipe(recipe)
    run(loaded, machine, console=QUIET, until="tokenize")
    made = Tokenized(RunLinks(Store(machine.runs_dir), loaded.recipe.name).folder / "tokenize")
    return sum(TokenShard(made.of(source).train).num_tokens for source in loaded.recipe.sources)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_messy_folder_becomes_a_recipe_that_plan_has_nothing_to_say_against(
    name: str, tmp_path: Path, machine: Machine
) -> None:
    recipe = made(name, tmp_path, machine)
    forecast = make_forecast(load_recipe(recipe), machine)
    check_caps(forecast)
    assert {row.verdict for row in forecast.budget} == {"fine"}
    assert [warning for warning in forecast.warnings if "held" not in warning and "busy" not in warning] == []
    if name in RUN_HERE:
        assert said(recipe) == (counted(recipe, machine),) * 3


def test_a_source_whose_text_is_all_like_what_others_hold_out_is_left_out(tmp_path: Path, machine: Machine) -> None:
    """Of the pages some are no copies of the book's chapters, and each of these resembles held-out text."""
    loaded = load_recipe(made("a_manual_in_three_formats", tmp_path, machine, chat=True))
    assert {source.read.format for source in loaded.recipe.sources.values()} == {"text", "epub", "pdf"}
    run(loaded, machine, console=QUIET, until="select")


@pytest.mark.parametrize(
    "name", [name if name == "three_languages" else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLED]
)
def test_of_a_sample_the_interval_holds_what_all_of_it_counts(name: str, tmp_path: Path, machine: Machine) -> None:
    value, low, high = said(made(name, tmp_path, machine))
    assert value == low == high
    files = [path for path in (tmp_path / "Meine Texte").rglob("*") if path.is_file()]
    size = sum(max(path.stat().st_size, 4096) for path in files)
    _, low, high = said(made(name, tmp_path, machine, Limits(seconds=1e6, max_bytes=int(SHARE * size))))
    assert low < value < high


@pytest.mark.parametrize(("passage_chars", "least", "most"), [(2_000, 5, 40), (20_000, 60, 101)])
def test_init_says_where_held_out_text_of_one_format_stands_in_the_training_text_of_another(
    passage_chars: int, least: int, most: int, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of short passages more copies are found although they are cut at other places, so less of it stands there."""
    monkeypatch.setattr(init_module, "FEWEST_CHARS", passage_chars)
    texts, told = tmp_path / "texts", io.StringIO()
    book = "\n\n".join(page.text for page in pages(220_000))
    preface = "\n\n".join(page.text for page in pages(10_000, start=600))  # so passages are cut at other places
    put(texts / "book.txt", book)
    put(texts / "book.jsonl", json.dumps({"text": f"{preface}\n\n{book}"}) + "\n")
    for page in pages(30_000, start=700):
        put(texts / "notes" / f"{page.name}.html", as_html(page))
    init(tmp_path / "model", data=texts, console=Console(file=told, width=200), machine=machine, limits=WHOLE)
    [line] = [line for line in told.getvalue().splitlines() if line.startswith("Held-out text that stands in training")]
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (\d+)%", line)}
    assert least < max(shares.values()) < most
    assert "html" not in shares  # it is nowhere else


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_runs_to_a_chat(
    name: str, tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = made(name, tmp_path, machine, chat=True, minutes=1)
    value, _, _ = said(recipe)
    assert value == pytest.approx(counted(recipe, machine), rel=0.2)
    folder = run(load_recipe(recipe), machine, console=QUIET)
    options = {"system": None, "temperature": 0.0, "max_new_tokens": 8, "history": tmp_path / "history"}
    chat([folder], prompt="Hello!", console=Console(), stdin=io.StringIO(), **options)
    assert capsys.readouterr().out.strip()
