"""The step contamination: what it finds is by shard and row; a shard that is there is not searched again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selecting import context, recipe_of, rows_of, write_source

from gristmill.data.document import DOCUMENT_SCHEMA, Document
from gristmill.data.packs import Item, write_pack
from gristmill.data.write import write_rows
from gristmill.errors import DataError
from gristmill.recipe.schema.curation import Decontaminate
from gristmill.select import contamination
from gristmill.select.decontaminate import Decontaminator

QUESTION = "A farmer had seventeen sheep in the north field and all but nine ran away, so how many are left?"
WORDS = "in spring the river turns the wooden wheel and the wheel grinds barley under a granite stone "


@pytest.fixture
def project(tmp_path: Path) -> Path:
    texts = {"a": WORDS, "held": f"{QUESTION} Nine.", "b": f"{WORDS} {QUESTION} Nine.", "c": WORDS * 3}
    rows = [Document(id=name, source="web", text=text, origin="f#0", bytes_in=1) for name, text in texts.items()]
    write_source(tmp_path, "web", rows[:1], rows[1:])
    items = [Item(id="sheep", prompt=QUESTION, target="nine", ids=("held", "elsewhere"))]
    write_pack(tmp_path / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    return tmp_path


def test_passages_and_pieces_of_what_is_held_out_are_held_out(tmp_path: Path) -> None:
    names = ("held", "held#0", "held#3#1", "held2#0", "other#held")
    rows = [Document(id=name, source="web", text=WORDS, origin="f#0", bytes_in=1) for name in names]
    write_rows(tmp_path / "shard.parquet", DOCUMENT_SCHEMA, [row.row() for row in rows])
    found = contamination.matches_in(tmp_path / "shard.parquet", Decontaminator.of([]), frozenset(["held"]))
    assert [match["row"] for match in found] == [0, 1, 2]


def test_documents_that_are_held_out_and_those_with_items_are_named_by_shard_and_row(project: Path) -> None:
    ctx = context(project, recipe_of({}, ["web"], []), "contamination/web")
    assert contamination.run(ctx) == {"documents": 4, "matches": 2, "planted": 1}
    assert rows_of(ctx.out, "matches-00000.parquet") == []
    held, found = rows_of(ctx.out, "matches-00001.parquet")
    assert (held["row"], held["rule"], held["items"]) == (0, "held_out_id", [])
    assert (found["row"], found["rule"], found["items"]) == (1, "question", ["quiz/sheep"])
    assert f"{WORDS} {QUESTION} Nine."[found["start"] : found["end"]] == found["excerpt"]
    report = json.loads((ctx.out / "report.json").read_text())
    assert (report["held_out_ids"], report["packs"]["quiz"]["found"]) == (2, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def search_one_shard_only(project: Path, section: dict[str, Any] | None = None) -> Path:
    """As a step that was killed after its first shard."""
    plain, searched = contamination.matches_in, list[Path]()

    def failing(shard: Path, *more: Any) -> Any:
        searched.append(shard)
        if len(searched) > 1:
            raise RuntimeError("killed")
        return plain(shard, *more)

    ctx = context(project, recipe_of(section or {}, ["web"], []), "contamination/web", name="killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "matches_in", failing)
        with pytest.raises(RuntimeError, match="killed"):
            contamination.run(ctx)
    assert [path.name for path in ctx.out.glob("*.parquet")] == ["matches-00000.parquet"]
    return ctx.out


def resume(project: Path) -> dict[str, bytes]:
    ctx = context(project, recipe_of({}, ["web"], []), "contamination/web", name="killed")
    contamination.run(ctx)
    return contents(ctx.out)


def fresh_run(project: Path) -> dict[str, bytes]:
    ctx = context(project, recipe_of({}, ["web"], []), "contamination/web")
    contamination.run(ctx)
    return contents(ctx.out)


def test_a_shard_that_is_there_is_not_searched_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = fresh_run(project)
    search_one_shard_only(project)
    searched: list[str] = []
    plain = contamination.matches_in
    monkeypatch.setattr(
        contamination, "matches_in", lambda shard, *more: searched.append(shard.name) or plain(shard, *more)
    )
    assert resume(project) == fresh
    assert searched == ["documents-00001.parquet"]


def quiz_about(folder: Path, question: str) -> None:
    """Another pack in the place of the one that is there."""
    items = [Item(id="sheep", prompt=question, target="nine", ids=("held", "elsewhere"))]
    write_pack(folder / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)


def test_shards_that_were_searched_for_another_pack_are_searched_again(project: Path) -> None:
    """As when a pack is exchanged while the step runs, and put back."""
    fresh = fresh_run(project)
    quiz_about(project, WORDS)
    out = search_one_shard_only(project)
    assert contents(out)["matches-00000.parquet"] != fresh["matches-00000.parquet"]
    quiz_about(project, QUESTION)
    assert resume(project) == fresh


def test_shards_that_were_searched_by_another_rule_are_searched_again(project: Path) -> None:
    write_source(
        project,
        "web",
        *[
            [Document(id=name, source="web", text=text, origin="f#0", bytes_in=1)]
            for name, text in (
                ("edited", QUESTION.replace("sheep", "goats").replace("nine", "ten").replace("north", "south")),
                ("b", WORDS),
            )
        ],
    )
    fresh = fresh_run(project)
    out = search_one_shard_only(project, {"decontaminate": Decontaminate(rule="finemath@1")})
    assert contents(out)["matches-00000.parquet"] != fresh["matches-00000.parquet"]
    assert resume(project) == fresh


def test_a_pack_that_changes_while_shards_are_searched_changes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = fresh_run(project)
    plain = contamination.matches_in

    def exchanging(*given: Any) -> Any:
        quiz_about(project, WORDS)
        return plain(*given)

    monkeypatch.setattr(contamination, "matches_in", exchanging)
    ctx = context(project, recipe_of({}, ["web"], []), "contamination/web", name="exchanged")
    contamination.run(ctx)
    assert contents(ctx.out) == fresh


def test_an_item_that_is_planted_and_not_found_stops_the_step(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decontaminator, "match_all", lambda _, texts: [None] * len(texts))
    ctx = context(project, recipe_of({"decontaminate": Decontaminate()}, ["web"], []), "contamination/web")
    with pytest.raises(DataError, match="missed 1 planted items of pack 'quiz'"):
        contamination.run(ctx)
    assert not list(ctx.out.glob("*.json"))
