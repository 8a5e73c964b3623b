"""Repeated text as a part of select: what is written, its account, what stays held out, what stops the step."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import shapes
from rich.console import Console
from selecting import (
    SOURCE,
    bytes_of,
    fates_of,
    kept_rows,
    recipe_of,
    rejected_rows,
    rows_of,
    run_selection,
    write_source,
)
from test_resumed import Deaths, content

from gristmill.cautions import _recipe_warnings
from gristmill.commands.inspect import inspect
from gristmill.commands.why import why
from gristmill.data.document import Document
from gristmill.data.ledger import in_sequence, read_ledger
from gristmill.data.packs import Item, write_pack
from gristmill.errors import DataError
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.curation import RepeatedText, Validation
from gristmill.recipe.schema.recipe import Recipe
from gristmill.report.data_sections import duplicates_and_contamination
from gristmill.select import select
from gristmill.select.edits import Edits
from gristmill.select.outputs import Selected
from gristmill.select.reasons import Named
from gristmill.select.repeated import LOST, Repeated, RepeatedRules
from gristmill.select.repeated_text import check_repeated
from gristmill.select.units import num_words, units_of

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]
NOTICE = "All pages of this site are made with care and may be used by those who ask before they do so"
PLAIN = {"priority": ["manuals"], "validation": Validation(fraction=0.1, min_bytes=2000, max_bytes=50_000)}
WHOLE = RepeatedText(unit="paragraph", min_words=10, max_loss=1.0)
REPEATED = {**PLAIN, "repeated_text": WHOLE}
SIDES = ("train", "validation")


def words(rng, count):
    return " ".join(rng.choice(VOCABULARY, count))


def document(source, name, *paragraphs):
    text = "\n\n".join(paragraphs)
    return Document(id=name, source=source, text=text, license="CC0", origin="f#0", bytes_in=3 * len(text.encode()) + 7)


def corpus(seed=0, *, pages=40):
    """Manuals and pages; pages have a notice and quote manuals, one is nothing but quotes, one is dropped and has what others have."""
    rng = np.random.default_rng(seed)
    manuals = [document("manuals", f"m{n}", *(words(rng, 40) for _ in range(3))) for n in range(30)]
    quotes = [manual.text.split("\n\n")[1] for manual in manuals]
    web = [
        document("web", f"w{n}", words(rng, 60), NOTICE, quotes[n % 10] if n % 3 == 0 else "short one", words(rng, 30))
        for n in range(pages)
    ]
    own = words(rng, 90)
    web.append(document("web", "quotes", *quotes[10:14], "and no more"))
    web.append(
        document("web", "a-quiz", own, f"What is it that stands on four legs and barks at night near {NOTICE}? A dog.")
    )
    web.append(document("web", "z-copy", own, words(rng, 30)))
    return {"manuals": manuals, "web": web}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of select over the corpus, with what it returned."""
    folder = tmp_path_factory.mktemp("done")
    write_corpus(folder, corpus())
    return run_selection(folder, REPEATED)


@pytest.fixture
def made(tmp_path):
    write_corpus(tmp_path, corpus())
    return tmp_path


def write_corpus(folder, sources, *, shards=3):
    for source, rows in sources.items():
        size = -(-len(rows) // shards)
        write_source(folder, source, *(rows[first : first + size] for first in range(0, len(rows), size)))
    item = Item(id="dog", prompt="What is it that stands on four legs and barks at night near the house?", target="dog")
    pack = {"name": "quiz", "version": 1, "kind": "generate", "metric": "acc", "chance": 0.0}
    write_pack(folder / "quiz", **pack, items=[item])


def long_units(text, section=WHOLE):
    found = (text[first:end] for first, end in units_of(text, section.unit))
    return {" ".join(re.findall("[a-z0-9]+", one.lower())) for one in found if num_words(one) >= section.min_words}


def test_no_unit_of_training_text_stands_in_two_documents_or_in_validation_text(made, done):
    out, _ = done
    seen = set()
    for row in kept_rows(out, "*", "train"):
        mine = long_units(row["text"])
        assert not seen & mine, row["id"]
        seen |= mine
    held = [row["text"] for row in kept_rows(out, "*", "validation")]
    assert held
    assert not seen & set().union(*map(long_units, held))
    assert any(NOTICE in text for text in held)
    plain, _ = run_selection(made, PLAIN, name="plain")
    assert bytes_of(out, ["web"]).keys() == bytes_of(plain, ["web"]).keys()
    assert held == [row["text"] for row in kept_rows(plain, "*", "validation")]
    everything = set().union(*(long_units(row["text"]) for side in SIDES for row in kept_rows(plain, "*", side)))
    assert everything == seen | set().union(*map(long_units, held))  # and nothing has gone everywhere


def test_documents_and_bytes_add_up_with_what_was_edited_away(done):
    out, _ = done
    ledger = read_ledger(out / "ledger.json")
    ledger.check()
    texts = {row.id: row for rows in corpus().values() for row in rows}
    for source in ("manuals", "web"):
        fates = fates_of(out, source)
        assert len(fates) == len(corpus()[source])
        account = ledger.source(source)
        kept = [row for side in SIDES for row in kept_rows(out, source, side)]
        edited = [row for row in kept if row["text"] != texts[row["id"]].text]
        (reason,) = account.edited or {"none": None}
        assert account.edited.get(reason, None) is None or reason == "repeated_paragraph"
        lost = sum(texts[row["id"]].bytes_in - share(row, texts[row["id"]]) for row in edited)
        assert sum(count.documents for count in account.edited.values()) == len(edited)
        assert sum(count.num_bytes for count in account.edited.values()) == lost
        assert account.total("kept").num_bytes == sum(row["bytes_in"] for row in kept) - lost
        report = Selected(out).repeated_text
        taken = report.taken[source]
        train = sum(len(row["text"].encode()) for row in kept_rows(out, source, "train"))
        assert taken.edited_documents == len(edited)
        assert taken.edited_bytes == sum(
            len(texts[row["id"]].text.encode()) - len(row["text"].encode()) for row in edited
        )
        assert report.train_bytes[source] == train + taken.edited_bytes + taken.dropped_bytes
    assert ledger.source("web").edited["repeated_paragraph"].documents > 30


def share(row, before):
    """Payload bytes that are left of an edited document."""
    size = len(before.text.encode())
    return before.bytes_in - before.bytes_in * (size - len(row["text"].encode())) // size


def test_a_document_that_says_nothing_of_its_own_is_dropped_and_names_one_that_is_kept(done):
    out, counts = done
    (row,) = [row for row in rejected_rows(out, "web") if row["reason"] == "only_repeated"]
    assert (row["id"], row["value"], row["limit"]) == ("quotes", 3.0, 10.0)
    assert fates_of(out, "manuals")[row["duplicate_of"]] in SIDES
    assert "4 paragraphs of other documents" in row["detail"]
    assert counts["web"]["repeated"]["dropped_documents"] == 1
    assert counts["web"]["dropped"]["only_repeated"] == 1


@pytest.mark.parametrize(
    ("rest", "kept"),
    [
        ("four five six", True),
        ("four five", False),
        ("a\n\nb\n\nc", True),
        ("", False),
        ("ក" * 89, False),
        ("ក" * 90, True),
    ],
)
def test_a_document_stays_with_as_many_words_as_one_unit_must_have(rest, kept):
    """So one that keeps a unit of the least length for others stays, and one in a language that writes sentences without blanks."""
    lost = np.array([(0, 0, 7, False), (0, 1, 8, False), (0, 2, 8, False), (0, 3, 9, False)], dtype=LOST)
    repeated = Repeated(rules=RepeatedRules(unit="paragraph", min_words=3, min_documents=2), files=(), num_shards=1)
    text = f"one two three\n\nthree two one\n\nthree one two\n\ntwo one three\n\n{rest}"
    edit = Edits(repeated, lost, lambda owner: Named(id=f"d{owner}", source="web")).of(
        0, {"id": "x", "source": "web", "text": text}
    )
    assert (edit.why is None, edit.text) == (kept, rest)
    assert kept or (edit.why.value, edit.why.limit, edit.why.duplicate_of) == (len(rest.split()), 3, "d8")
    assert edit.share_of(1000) == 1000 * edit.lost_bytes // len(text.encode())
    assert edit.lost_bytes == len(text.encode()) - len(rest.encode())


def test_each_unit_that_went_is_told_with_the_document_that_keeps_it(done):
    out, _ = done
    texts = {row.id: row.text for rows in corpus().values() for row in rows}
    left = {row["id"]: row["text"] for side in SIDES for row in kept_rows(out, "*", side)}
    edited = rows_of(out, "*/edited-*.parquet")
    held = {row["id"] for row in kept_rows(out, "*", "validation")}
    assert len(edited) > 50
    for row in edited:
        assert row["excerpt"] in texts[row["id"]]
        assert row["excerpt"] not in left.get(row["id"], "")
        assert row["excerpt"] in left[row["kept_by"]]
        assert row["held_out"] == (row["kept_by"] in held)
    report = Selected(out).repeated_text
    top = report.most_frequent[0]
    assert top.excerpt == NOTICE
    assert top.lost_by == sum(row["excerpt"] == NOTICE for row in edited)


def test_a_dropped_document_keeps_nothing_from_others(done):
    """The page with the item comes first by its id and length; what it has in common with another page stays there."""
    out, _ = done
    fates = fates_of(out, "web")
    assert fates["a-quiz"] == "contaminated"
    (copy,) = [row for side in SIDES for row in kept_rows(out, "web", side) if row["id"] == "z-copy"]
    assert copy["text"] == corpus()["web"][-1].text


def test_sources_that_are_not_named_neither_lose_nor_keep(made):
    section = RepeatedText(unit="paragraph", min_words=10, sources=["web"], max_loss=1.0)
    out, counts = run_selection(made, {**PLAIN, "repeated_text": section})
    assert "repeated" not in counts["manuals"]
    assert {row["kept_in"] for row in rows_of(out, "*/edited-*.parquet")} == {"web"}
    texts = {row.id: row.text for row in corpus()["manuals"]}
    assert all(row["text"] == texts[row["id"]] for side in SIDES for row in kept_rows(out, "manuals", side))
    assert "quotes" not in {row["id"] for row in rejected_rows(out)}


def test_the_order_of_the_input_and_its_shards_change_no_document(made, done):
    out, _ = done
    sources = {source: list(reversed(rows)) for source, rows in corpus().items()}
    write_corpus(made, sources, shards=2)
    again, _ = run_selection(made, REPEATED, name="again")
    for source in sources:
        for side in SIDES:
            one, two = ({row["id"]: row["text"] for row in kept_rows(of, source, side)} for of in (out, again))
            assert one == two
    assert Selected(out).repeated_text.taken == Selected(again).repeated_text.taken


@pytest.mark.slow
def test_two_processes_leave_the_same_bytes(made, done, monkeypatch):
    monkeypatch.setattr("gristmill.select.catalogue.FEW_DOCUMENTS", 0)
    again, _ = run_selection(made, REPEATED, processes=2)
    assert content(done[0]) == content(again)


def test_killed_again_and_again_it_leaves_the_same_bytes_and_an_account_that_adds_up(made, done):
    run_selection(made, REPEATED, name="killed", until="duplicates")
    with Deaths(made, "select", section=("test_repeated_text", "REPEATED")) as deaths:
        assert all(deaths.at("killed", number) for number in (9, 21, 14, 9, 12, 11))
        assert not deaths.at("killed", 0)
    assert content(made / "killed") == content(done[0])
    read_ledger(made / "killed" / "ledger.json").check()


def test_a_late_source_changes_no_byte_of_those_before_it(made):
    before, _ = run_selection(made, REPEATED, sources=("manuals", "web"))
    rng = np.random.default_rng(9)
    late = [
        document("news", f"n{n}", row.text.split("\n\n")[0], words(rng, 60), "news of the day " + words(rng, 12))
        for n, row in enumerate(corpus()["web"][:30])
    ]
    late += [document("news", f"both{n}", words(rng, 50), NOTICE) for n in range(5)]
    write_source(made, "news", late)
    out, _ = run_selection(made, REPEATED, name="with-late", sources=("manuals", "web", "news"), late=("news",))
    assert bytes_of(out, ["manuals", "web"]) == bytes_of(before, ["manuals", "web"])
    lost = rows_of(out, "news/edited-*.parquet")
    assert {row["kept_in"] for row in lost} >= {"web"}
    held = set().union(*(long_units(row["text"]) for row in kept_rows(out, "*", "validation")))
    assert not held & set().union(*(long_units(row["text"]) for row in kept_rows(out, "news", "train")))


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_that_loses_too_much_stops_the_step_which_resumes_with_another_limit(made, monkeypatch):
    strict = RepeatedText(unit="paragraph", min_words=10, max_loss=0.05)
    with pytest.raises(
        DataError, match=rf"'web' would lose(.|\n)*limit is 5%(.|\n)*{NOTICE}(.|\n)*repeated_text.max_loss"
    ):
        run_selection(made, {**PLAIN, "repeated_text": strict})
    monkeypatch.setattr(select, "_select", lambda *_: pytest.fail("made again"))
    out, counts = run_selection(made, REPEATED, until="select")
    assert counts["web"]["repeated"]["edited_documents"] > 30
    assert not (out / "work").exists()


def test_a_source_may_lose_as_much_as_the_limit_says(done):
    report = Selected(done[0]).repeated_text
    most = max(map(report.share, report.taken))
    assert most > 0.1
    check_repeated(report, WHOLE.model_copy(update={"max_loss": most}))
    with pytest.raises(DataError, match="would lose"):
        check_repeated(report, WHOLE.model_copy(update={"max_loss": most - 1e-6}))


def test_logs_of_calls_as_lines_stop_the_step_by_the_usual_limit(tmp_path):
    logs = [document("web", f"log{n}", one.text) for n, one in enumerate(shapes.call_logs(0, count=30))]
    write_corpus(tmp_path, {"web": logs, "manuals": corpus()["manuals"]})
    with pytest.raises(
        DataError, match=r"'web' would lose .* bytes of training text \(100%\)(.|\n)*limit is 20%(.|\n)*direction"
    ):
        run_selection(tmp_path, {**PLAIN, "repeated_text": RepeatedText(unit="line", min_words=2)})


def test_bytes_that_were_edited_away_are_lost_by_the_limit_of_the_source(done):
    out, _ = done
    counts = read_ledger(out / "ledger.json").source("web")
    both = in_sequence(read_ledger(out.parent / "extract/web/ledger.json").source("web"), counts)
    edited = sum(count.num_bytes for count in counts.edited.values())
    assert both.came_in.num_bytes - both.total("kept").num_bytes == counts.total("dropped").num_bytes + edited
    assert edited > 0.1 * both.came_in.num_bytes


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def identities(recipe):
    return {step.name: (step.given.config, step.parts) for step in steps_of(recipe)}


def test_turning_it_on_remakes_select_and_nothing_before_it():
    plain, on = (identities(recipe_of(section, ("manuals", "web"), ())) for section in (PLAIN, REPEATED))
    assert [name for name, of in on.items() if plain[name] != of] == ["select"]
    assert "repeated_text" not in plain["select"][0]
    loose = recipe_of({**PLAIN, "repeated_text": WHOLE.model_copy(update={"max_loss": 0.5})}, ("manuals", "web"), ())
    assert identities(loose) == on


def test_all_sources_but_code_take_part_unless_some_are_named():
    recipe = recipe_of(REPEATED, ("manuals", "web"), ())
    code = {**SOURCE, "read": {"format": "code", "paths": ["x"]}}
    written = {**recipe.model_dump(), "sources": {"manuals": SOURCE, "web": SOURCE, "code": code}}
    assert identities(Recipe.model_validate(written))["select"][0]["repeated_text"]["sources"] == ["manuals", "web"]
    written["select"]["repeated_text"]["sources"] = ["kode"]
    with pytest.raises(ValueError, match=r"select.repeated_text.sources names the source 'kode'; did you mean 'code'"):
        Recipe.model_validate(written)


def test_settings_by_which_texts_lose_what_belongs_to_them_are_warned_of():
    def warned(**section):
        recipe = recipe_of({**PLAIN, "repeated_text": RepeatedText(**section)}, ("manuals", "web"), ())
        return [line for line in _recipe_warnings(recipe) if "repeated_text" in line]

    assert warned() == []
    assert "min_words is 3" in warned(min_words=3)[0]
    assert "quotations and verses" in warned(unit="line")[0]
    assert warned(unit="line", min_documents=10) == []
    assert "lets 80% of a source go" in warned(max_loss=0.8)[0]


# ── what commands and the page say ───────────────────────────────────────────────────────────────────────────────────


def told(command, *given, **named):
    console = Console(file=io.StringIO(), width=300)
    command(*given, **named, console=console)
    return console.file.getvalue()


def test_why_names_what_a_document_lost_and_who_keeps_it_and_of_a_keeper_how_many_lost_to_it(done):
    out, _ = done
    edited = rows_of(out, "*/edited-*.parquet")
    left = {row["id"] for row in kept_rows(out, "*", "train")}
    one = next(row for row in edited if row["id"] in left)
    text = told(why, out.parent, one["id"])
    assert "select: kept to train on" in text
    assert f"kept by {one['kept_in']}  {one['kept_by']}" in text
    losers = {row["id"] for row in edited if row["kept_by"] == one["kept_by"]}
    assert f"{len(losers)} document{'s' if len(losers) > 1 else ''} lost text that it keeps" in told(
        why, out.parent, one["kept_by"]
    )
    assert "only_repeated  3 against the limit 10" in told(why, out.parent, "quotes")


def test_inspect_tells_of_bytes_and_of_what_is_boilerplate(done):
    out, _ = done
    options = {"rejected": False, "source": None, "reason": None, "samples": 0}
    text = told(inspect, out.parent, **options)
    taken = Selected(out).repeated_text.taken["web"]
    assert f"web: {taken.num_bytes:,} bytes of training text" in text
    assert NOTICE[:60] in text
    assert re.search(r"edited +repeated_paragraph +\d+", text)


def test_the_page_shows_what_went_with_its_tokens_and_the_most_frequent_units(done):
    report = Selected(done[0]).repeated_text
    nothing = SimpleNamespace(packs={}, by_pack={}, hits=(), documents_removed=0)
    facts = SimpleNamespace(
        near_duplicates=None, contamination=nothing, repeated_text=report, repeated_tokens=lambda source: 1234
    )
    page = "".join(duplicates_and_contamination(facts).blocks)
    assert NOTICE[:60] in page
    assert "1,234" in page or "1.23" in page
    assert f"{report.share('web'):.1%}" in page
