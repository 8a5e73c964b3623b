"""The steps of selection together: every document has one fate, copies and evaluation items leave with their evidence, sides do not mix."""

import json
import operator
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import selecting
from selecting import fates_of, kept_rows, rejected_rows, rows_of, run_selection, write_scores, write_source

from gristmill.data.document import DOCUMENT_SCHEMA, REPOSITORY, Document
from gristmill.data.ledger import Count, read_ledger
from gristmill.data.packs import Item, write_pack
from gristmill.data.write import write_table
from gristmill.errors import DataError, Interrupted
from gristmill.recipe.schema.curation import MinScore, NearDuplicates, Validation
from gristmill.select import catalogue, hits, select
from gristmill.select.sets import ngram_set, overlap

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]
QUESTION = "A farmer had seventeen sheep in the north field and all but nine ran away, so how many are left?"
ACCENTED = (
    "Un éleveur avait dix-sept brebis à la forêt et toutes sauf neuf s'enfuirent, combien lui en reste-t-il à l'été ?"
)
SIDES = ("train", "validation")
SELECT = {
    "min_scores": {"web": MinScore(classifier="edu", above=1.5)},
    "priority": ["manuals", "web"],
    "validation": Validation(fraction=0.2, min_bytes=1000, max_bytes=50_000),
}
FEW_BANDS = {**SELECT, "near_duplicates": NearDuplicates(num_bands=4, rows_per_band=4)}


def words(rng, count):
    return " ".join(rng.choice(VOCABULARY, count))


def near_copy(text, rng):
    parts = text.split()
    parts[int(rng.integers(len(parts)))] = f"x{rng.integers(10, 100)}"
    return " ".join(parts)


def document(source, name, text):
    return Document(id=name, source=source, text=text, license="CC0", origin="f#0", bytes_in=2 * len(text))


def corpus():
    """Two sources with all that can happen to a document."""
    rng = np.random.default_rng(0)
    manuals = [document("manuals", f"m{i}", words(rng, 120)) for i in range(30)]
    web = [document("web", f"w{i}", words(rng, 120)) for i in range(30)]
    web += [document("web", f"copy{i}", f"  {manuals[i].text.upper()}\n") for i in range(3)]
    web += [document("web", f"near{i}", near_copy(manuals[i].text, rng)) for i in range(3, 8)]
    web += [document("web", "quiz", f"{words(rng, 60)} {QUESTION} Nine. {words(rng, 60)}")]
    web += [document("web", "item-7", words(rng, 120))]
    web += [document("web", f"bad{i}", words(rng, 120)) for i in range(4)]
    return {"manuals": manuals, "web": web}


@pytest.fixture
def made(tmp_path):
    return write_corpus(tmp_path)


def write_corpus(folder):
    """The corpus, its scores and a pack, in the folder, which is returned."""
    for source, rows in corpus().items():
        write_source(folder, source, rows[:20], rows[20:])
    web = [(row.id, 1.5 if row.id.startswith("bad") else 2.5) for row in corpus()["web"]]
    write_scores(folder, "web", web[:20], web[20:])
    items = [
        Item(id="sheep", prompt=QUESTION, target="nine"),
        Item(id="cut", prompt="What did the cut document say about it?", target="nothing", ids=("item-7",)),
    ]
    hold_out(folder, *items)
    return folder


def hold_out(folder, *items):
    write_pack(folder / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)


def run(folder, *, section=None, **more):
    return run_selection(folder, section or SELECT, **more)


def test_every_document_has_one_fate_and_the_ledger_adds_up(made):
    out, _ = run(made)
    fates = [name for source in ("manuals", "web") for name in fates_of(out, source)]
    assert sorted(fates) == sorted(row.id for rows in corpus().values() for row in rows)
    assert len(rejected_rows(out)) + sum(len(kept_rows(out, "*", side)) for side in SIDES) == len(fates)
    ledger = read_ledger(out / "ledger.json")
    ledger.check()
    web = ledger.source("web")
    assert web.came_in.documents == 44
    assert web.came_in.num_bytes == sum(row.bytes_in for row in corpus()["web"])
    assert {reason: count.documents for reason, count in web.reasons("dropped").items()} == {
        "near_duplicate": 5,
        "score_too_low": 4,
        "exact_duplicate": 3,
        "contaminated": 1,
        "held_out_item": 1,
    }
    assert ledger.source("manuals").total("kept").documents == 30


def test_each_shard_of_documents_has_files_of_its_own_for_what_it_holds(made):
    out, _ = run(made)
    files = sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.parquet"))
    both = [f"{source}/train-0000{k}.parquet" for source in ("manuals", "web") for k in (0, 1)]
    assert set(both) <= set(files)
    assert [file for file in files if "rejected" in file] == ["web/rejected-00001.parquet"]
    assert all(rows_of(out, file) for file in files)
    for source, rows in corpus().items():
        mine = {row.id for row in rows[:20]}
        assert {row["id"] for side in SIDES for row in rows_of(out, f"{source}/{side}-00000.parquet")} <= mine
    assert not (out / "work").exists()


def test_a_source_without_validation_text_leaves_a_file_without_rows(made):
    out, _ = run(made, section={**SELECT, "validation": Validation(fraction=0.0, min_bytes=1, max_bytes=1)})
    assert [path.name for path in out.glob("web/validation-*")] == ["validation-00000.parquet"]
    assert kept_rows(out, "web", "validation") == []


def test_documents_keep_their_repository_and_other_sources_have_no_such_column(made):
    for path in (made / "extract/web").glob("documents-*.parquet"):
        table = pq.read_table(path)
        write_table(path, table.append_column(REPOSITORY, pa.array([f"of {name}" for name in table["id"].to_pylist()])))
    out, _ = run(made, section={**SELECT, "validation": Validation(fraction=0.0, min_bytes=1, max_bytes=1)})
    kept = kept_rows(out, "web", "train")
    assert {row["repository"] for row in kept} == {f"of {row['id']}" for row in kept}
    columns = [pq.read_schema(out / "web" / f"{side}-00000.parquet").names for side in SIDES]
    assert columns == [[*DOCUMENT_SCHEMA.names, "repository", "cluster"]] * 2
    assert pq.read_schema(out / "manuals/train-00000.parquet").names == [*DOCUMENT_SCHEMA.names, "cluster"]


def test_documents_that_extract_counted_and_nobody_finds_stop_the_step(made):
    write_source(made, "manuals", corpus()["manuals"][:20], extracted=30)
    with pytest.raises(AssertionError, match=r"'manuals' does not add up: documents in 30(.|\n)*= 20"):
        run(made)


def test_held_out_ids_that_no_source_knows_are_said(made):
    lines = []
    run(made, say=lines.append)
    assert not any("hold out by id" in line for line in lines)
    hold_out(made, Item(id="far", prompt=QUESTION, target="nine", ids=("elsewhere/1", "elsewhere/2")))
    run(made, say=lines.append, name="again")
    assert any("any of the 2 documents that packs hold out by id" in line for line in lines)


def test_each_rejection_names_its_evidence(made):
    out, _ = run(made)
    rejected = {row["id"]: row for row in rejected_rows(out)}
    assert (rejected["bad0"]["value"], rejected["bad0"]["limit"]) == (1.5, 1.5)
    assert rejected["copy1"]["duplicate_of"] == "m1"
    assert rejected["near4"]["duplicate_of"] == "m4"
    assert 0.7 < rejected["near4"]["value"] < 1
    assert "quiz/sheep by question" in rejected["quiz"]["detail"]
    assert rejected["quiz"]["step"] == rejected["item-7"]["step"] == "select"
    assert all(len(row["excerpt"]) <= 300 for row in rejected.values())


def test_a_removed_document_names_a_survivor_that_is_kept_and_as_like_it_as_the_row_says(made):
    out, _ = run(made)
    kept = {(row["source"], row["id"]): row["text"] for side in SIDES for row in kept_rows(out, "*", side)}
    texts = {(row.source, row.id): row.text for rows in corpus().values() for row in rows}
    copies = [row for row in rejected_rows(out) if row["reason"].endswith("_duplicate")]
    assert len(copies) == 8
    for row in copies:
        survivor = kept[row["detail"].split()[3].rstrip(","), row["duplicate_of"]]
        jaccard, _ = overlap(ngram_set(texts[row["source"], row["id"]], 5), ngram_set(survivor, 5))
        assert row["reason"] == "exact_duplicate" or jaccard == row["value"] >= row["limit"]
        assert row["reason"] == "near_duplicate" or jaccard == 1


def test_a_contaminated_document_takes_no_clean_copy_along(made):
    rng = np.random.default_rng(7)
    clean = words(rng, 300)
    rows = corpus()["manuals"]
    holds = document("manuals", "holds", f"{clean} {QUESTION} Nine.")
    rest = [document("manuals", "clean", clean), document("manuals", "like it", near_copy(clean, rng))]
    write_source(made, "manuals", rows, [holds, *rest])
    out, _ = run(made)
    fates = fates_of(out, "manuals")
    assert fates["holds"] == "contaminated"
    assert fates["clean"] in SIDES
    gone = {row["id"]: row["duplicate_of"] for row in rejected_rows(out, "manuals")}
    assert gone["like it"] == "clean"
    hold_out(made, Item(id="none", prompt="What is the capital of the country of Bhutan?", target="Thimphu"))
    without, _ = run(made, name="without")
    gone = {row["id"]: row["duplicate_of"] for row in rejected_rows(without, "manuals")}
    assert gone["clean"] == "holds", "otherwise this test shows nothing"


def test_no_near_copy_sits_on_both_sides(made):
    section = {**SELECT, "near_duplicates": None}
    out, _ = run(made, section=section)
    held, trained = kept_rows(out, "*", "validation"), kept_rows(out, "*", "train")
    assert {row["id"] for row in held + trained} >= {f"near{i}" for i in range(3, 8)}
    assert {row["cluster"] for row in held} & {row["cluster"] for row in trained} == set()
    cluster = {row["id"]: row["cluster"] for row in held + trained}
    assert all(cluster[f"near{i}"] == cluster[f"m{i}"] for i in range(3, 8))
    assert len(set(cluster.values())) == len(cluster) - 5
    sets = {row["id"]: ngram_set(row["text"], 5) for row in held + trained}
    assert all(overlap(sets[a["id"]], sets[b["id"]])[0] < 0.7 for a in held for b in trained)


def test_what_the_bands_miss_of_validation_text_leaves_train_with_its_evidence(made):
    """With bands that find equal texts only, every near copy is missed by the search, and none by the comparison in full."""
    rng = np.random.default_rng(9)
    rows = corpus()["manuals"]
    added = [document("manuals", f"like {row.id}", near_copy(near_copy(row.text, rng), rng)) for row in rows]
    write_source(made, "manuals", rows, added)
    out, _ = run(made, section={**SELECT, "near_duplicates": NearDuplicates(num_bands=1, rows_per_band=64)})
    held, trained = kept_rows(out, "*", "validation"), kept_rows(out, "*", "train")
    sets = {row["id"]: ngram_set(row["text"], 5) for row in held + trained}
    assert all(overlap(sets[a["id"]], sets[b["id"]])[0] < 0.7 for a in held for b in trained)
    left = [row for row in rejected_rows(out) if row["reason"] == "near_validation"]
    assert len(left) > 5
    texts = {row.id: row.text for documents in (corpus()["web"], rows, added) for row in documents}
    for row in left:
        assert row["duplicate_of"] in {other["id"] for other in held}
        jaccard, _ = overlap(ngram_set(texts[row["id"]], 5), sets[row["duplicate_of"]])
        assert row["value"] == jaccard >= 0.7 == row["limit"]
    ledger = read_ledger(out / "ledger.json")
    ledger.check()
    counted = [ledger.source(source).reasons("dropped").get("near_validation", Count()) for source in ledger.sources]
    assert sum(count.documents for count in counted) == len(left)


def with_families(made):
    """Families of a text, one that is like it, and one that is like that one only; copies of the last. So few bands miss many
    pairs, so that some families lose their middle one to validation text."""
    rng = np.random.default_rng(12)
    families = [words(rng, 120).split() for _ in range(60)]
    rows = []
    for k, text in enumerate(families):
        middle, far = [*text, "longer"], [*text]
        middle[:12] = words(rng, 12).split()
        far[:12], far[-12:] = middle[:12], words(rng, 12).split()
        again = [*far[:-1], words(rng, 1)]
        for name, parts in (
            ("end", text),
            ("middle", middle),
            ("far", far),
            ("far again", again),
            ("far", ["X", *far]),
        ):
            rows.append(document("manuals", f"{name} {k} {len(parts)}", " ".join(parts)))
    write_source(made, "manuals", rows[:100], rows[100:])
    return rows


def test_copies_of_what_leaves_for_resembling_validation_text_stay_where_they_do_not_resemble_it(made):
    rows = with_families(made)
    out, _ = run(made, section=FEW_BANDS)
    kept = {row["id"]: row for side in SIDES for row in kept_rows(out, "*", side)}
    texts = {row.id: row.text for documents in (corpus()["web"], rows) for row in documents}
    sets = {name: ngram_set(text, 5) for name, text in texts.items()}
    held = {row["id"] for row in kept_rows(out, "*", "validation")}
    alike = {name for name in sets if any(resemble(sets[name], sets[other]) for other in held)}
    trained = {row["id"] for row in kept_rows(out, "*", "train")}
    assert trained & alike == set()
    rejected = {row["id"]: row for row in rejected_rows(out)}
    named = {name: row for name, row in rejected.items() if row["duplicate_of"] is not None}
    assert all(row["duplicate_of"] in kept for row in named.values())
    assert all(resemble(sets[name], sets[row["duplicate_of"]]) for name, row in named.items())
    left = {name for name, row in rejected.items() if row["reason"] == "near_validation"}
    before = {
        row["document"]: row["survivor"] for row in rows_of(made / "select.steps" / "duplicates", "copies.parquet")
    }
    ids = [row.id for row in rows]
    freed = {ids[copy] for copy, survivor in before.items() if survivor < len(ids) and ids[survivor] in left}
    outcomes = {name: rejected[name]["reason"] if name in rejected else "train" for name in freed}
    assert {"train", "near_duplicate", "near_validation"} <= set(outcomes.values()), "otherwise this test shows nothing"
    assert {row["cluster"] for row in kept_rows(out, "*", "train")}.isdisjoint(kept[name]["cluster"] for name in held)
    read_ledger(out / "ledger.json").check()


FAMILIES = 120


def with_families_of_two_sources(made):
    """A text, one that is like it, and in both sources one that is like that one only; in two of three families one more, which is
    like the last ones only. So few bands miss many pairs of the first two, and few others."""
    rng = np.random.default_rng(13)
    rows = {"manuals": [], "web": []}
    for k in range(FAMILIES):
        first = words(rng, 60).split()
        middle = [*words(rng, 8).split(), *first[8:], "longer"]
        far = [*middle[:57], *words(rng, 3).split()]
        beside = [*far[:30], *words(rng, 5).split(), *far[35:]]
        rows["manuals"] += [
            document("manuals", f"first {k}", " ".join(first)),
            document("manuals", f"far {k}", " ".join(far)),
        ]
        rows["manuals"] += [document("manuals", f"beside {k}", " ".join(beside))] if k % 3 else []
        rows["web"] += [
            document("web", f"middle {k}", " ".join(middle)),
            document("web", f"far {k} web", " ".join(far[:-1])),
        ]
    for source, own in rows.items():
        write_source(made, source, own[:90], own[90:])
    return rows["manuals"] + rows["web"]


def test_copies_that_are_decided_again_meet_the_kept_ones_and_follow_the_priority(made):
    rows = with_families_of_two_sources(made)
    section = {
        "priority": ["web"],
        "near_duplicates": NearDuplicates(num_bands=4, rows_per_band=6),
        "validation": Validation(fraction=0.4, min_bytes=1000, max_bytes=50_000),
    }
    out, _ = run(made, section=section)
    fates = {name: fate for source in ("manuals", "web") for name, fate in fates_of(out, source).items()}
    named = {row["id"]: row["duplicate_of"] for row in rejected_rows(out)}
    found = rows_of(made / "select.steps" / "duplicates", "copies.parquet")
    left = {row["document"] for row in found if fates[rows[row["survivor"]].id] == "near_validation"}
    freed = {rows[d].id for d in left if fates[rows[d].id] != "near_validation"}
    pairs = [k for k in range(FAMILIES) if {f"far {k}", f"far {k} web"} <= freed]
    alone = [k for k in pairs if f"beside {k}" not in fates]
    assert alone
    assert {(named[f"far {k}"], fates[f"far {k} web"]) for k in alone} == {(f"far {k} web", "train") for k in alone}
    # Those that share a band with the one beside them do not stay with it.
    prints = rows_of(made / "select.steps" / "signatures", "*/prints-*.parquet")
    keys = {row["id"]: [row["keys"][at : at + 8] for at in range(0, 32, 8)] for row in prints}
    beside = [
        (name, f"beside {k}")
        for k in pairs
        for name in (f"far {k}", f"far {k} web")
        if fates.get(f"beside {k}") == "train" and any(map(operator.eq, keys[name], keys[f"beside {k}"]))
    ]
    assert any(named[name] == other for name, other in beside)
    assert "train" not in {fates[name] for name, _ in beside}


def test_a_step_that_ended_after_copies_were_decided_again_resumes_to_the_same_bytes(made, monkeypatch):
    with_families(made)
    whole, _ = run(made, section=FEW_BANDS, name="whole")
    plain = select.write_table

    def failing(path, table):
        if path.name == "resembling.parquet":
            raise RuntimeError("before the last file of the split")
        plain(path, table)

    monkeypatch.setattr(select, "write_table", failing)
    with pytest.raises(RuntimeError, match="before the last file"):
        run(made, section=FEW_BANDS)
    assert (made / "select" / "work" / "again-0" / "copies.parquet").is_file()
    monkeypatch.setattr(select, "write_table", plain)
    resumed, _ = run(made, section=FEW_BANDS)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert all((resumed / file).read_bytes() == (whole / file).read_bytes() for file in files)
    assert sorted(files) == sorted(path.relative_to(resumed) for path in resumed.rglob("*") if path.is_file())


def resemble(one, other):
    jaccard, contained = overlap(one, other)
    return jaccard >= 0.7 or max(contained, overlap(other, one)[1]) >= 0.95


def test_validation_has_its_share_of_each_source(made):
    out, _ = run(made)
    report = json.loads((out / "split.json").read_text())
    for source, row in report.items():
        sizes = {side: sum(len(r["text"].encode()) for r in kept_rows(out, source, side)) for side in SIDES}
        assert sizes == {side: row[side]["bytes"] for side in sizes}
        assert 0.2 <= sizes["validation"] / sum(sizes.values()) < 0.25
        assert row["enough"]


def test_reports_show_thresholds_clusters_and_planted_recall(made):
    out, _ = run(made)
    thresholds = json.loads((out / "thresholds.json").read_text())["web"]
    assert (thresholds["kept_documents"], thresholds["documents"]) == (39, 43)
    assert {k: thresholds["other_thresholds"][4][k] for k in ("above", "documents")} == {"above": 2.0, "documents": 39}
    near = json.loads((made / "select.steps" / "duplicates" / "near_duplicates.json").read_text())
    assert near["sources"]["web"]["near_copies"] == 5
    assert near["survivor_source"] == {"web": {"manuals": 8}}
    assert near["curve"][4] == {"jaccard": 0.8, "found": pytest.approx(0.9236, abs=1e-3)}
    assert near["largest_clusters"][0]["excerpt"]
    clean = json.loads((out / "decontamination.json").read_text())
    assert (clean["packs"]["quiz"]["planted"], clean["packs"]["quiz"]["found"]) == (4, 4)  # two in each source
    assert [hit["id"] for hit in clean["hits"]] == ["quiz"]


def test_a_pack_and_its_items_may_have_a_slash_in_their_names(made):
    item = Item(id="easy/sheep", prompt=QUESTION, target="nine")
    write_pack(made / "quiz", name="farm/quiz", version=1, kind="generate", metric="acc", chance=0.0, items=[item])
    out, _ = run(made)
    report = json.loads((out / "decontamination.json").read_text())
    assert report["by_pack"] == {"farm/quiz": 1}
    assert report["packs"].keys() == report["by_pack"].keys()


def test_a_pack_that_many_documents_hold_hides_no_other_one(made, monkeypatch):
    """Of each pack as many documents are shown as there is room for, and all are counted."""
    monkeypatch.setitem(selecting.REST, "packs", {"quiz": {"path": "quiz"}, "riddles": {"path": "riddles"}})
    monkeypatch.setattr(hits, "MAX_HITS", 2)
    riddle = "Which heavy round stone grinds barley between dawn and noon when the brook is high enough to turn it?"
    item = Item(id="stone", prompt=riddle, target="the runner")
    write_pack(made / "riddles", name="riddles", version=1, kind="generate", metric="acc", chance=0.0, items=[item])
    rng = np.random.default_rng(9)
    rows = [document("manuals", f"q{k}", f"{words(rng, 60)} {QUESTION} Nine. {words(rng, 60)}") for k in range(4)]
    rows += [document("manuals", "riddle", f"{words(rng, 60)} {riddle} The runner. {words(rng, 60)}")]
    write_source(made, "manuals", corpus()["manuals"], rows)
    out, _ = run(made)
    report = json.loads((out / "decontamination.json").read_text())
    assert report["by_pack"] == {"quiz": 5, "riddles": 1}
    assert [hit["id"] for hit in report["hits"]] == ["q0", "q1", "riddle"]


def test_same_input_same_bytes_with_one_process_or_two(made, monkeypatch):
    one, _ = run(made, name="one")
    monkeypatch.setattr(catalogue, "FEW_DOCUMENTS", 0)
    two, _ = run(made, name="two", processes=2)
    for left, right in ((one, two), (made / "one.steps", made / "two.steps")):
        files = sorted(path.relative_to(left) for path in left.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(right) for path in right.rglob("*") if path.is_file())
        assert len(files) > 10
        assert [file for file in files if (left / file).read_bytes() != (right / file).read_bytes()] == []


def test_how_documents_are_cut_into_shards_and_ordered_changes_nothing(made):
    one, _ = run(made, name="one")
    rng = np.random.default_rng(3)
    for source, rows in corpus().items():
        mixed = [rows[k] for k in rng.permutation(len(rows))]
        write_source(made, source, mixed[:5], mixed[5:6], mixed[6:])
        if source == "web":
            scored = [(row.id, 1.5 if row.id.startswith("bad") else 2.5) for row in mixed]
            write_scores(made, "web", scored[:5], scored[5:6], scored[6:])
    two, _ = run(made, name="two")
    for source in ("manuals", "web"):
        assert fates_of(one, source) == fates_of(two, source)
        clusters = [
            {row["id"]: row["cluster"] for side in SIDES for row in kept_rows(out, source, side)} for out in (one, two)
        ]
        assert clusters[0] == clusters[1]
    rejected = [{row["id"]: row for row in rejected_rows(out)} for out in (one, two)]
    assert rejected[0] == rejected[1]


def test_selecting_what_was_selected_removes_nothing_more(made):
    out, _ = run(made)
    again = made / "again"
    for source in ("manuals", "web"):
        rows = [row for side in SIDES for row in kept_rows(out, source, side)]
        write_source(again, source, [Document(**{k: v for k, v in row.items() if k != "cluster"}) for row in rows])
        if source == "web":
            write_scores(again, "web", [(row["id"], 2.5) for row in rows])
    hold_out(again, Item(id="sheep", prompt=QUESTION, target="nine"))
    second, counts = run(again)
    assert rejected_rows(second) == []
    assert counts["web"]["dropped"] == {}


def test_the_same_text_composed_and_decomposed_is_one_text(made):
    rng = np.random.default_rng(4)
    french = " ".join(f"{word}é{word[::-1]}ï" for word in words(rng, 120).split())
    other = f"{words(rng, 60)} {ACCENTED} Neuf. {words(rng, 60)}"
    rows = [document("manuals", "nfc", unicodedata.normalize("NFC", french))]
    rows += [document("manuals", "nfd", unicodedata.normalize("NFD", french))]
    rows += [document("manuals", "near nfd", unicodedata.normalize("NFD", near_copy(french, rng)))]
    rows += [document("manuals", "holds", unicodedata.normalize("NFD", other))]
    write_source(made, "manuals", corpus()["manuals"], rows)
    hold_out(made, Item(id="sheep", prompt=ACCENTED, target="neuf"))
    out, _ = run(made)
    fates = fates_of(out, "manuals")
    assert sorted(fates[name] in SIDES for name in ("nfc", "nfd")) == [False, True]
    assert "exact_duplicate" in (fates["nfc"], fates["nfd"])
    assert (fates["near nfd"], fates["holds"]) == ("near_duplicate", "contaminated")
    kept = {row["id"]: row["text"] for side in SIDES for row in kept_rows(out, "manuals", side)}
    assert all(kept[row.id] == row.text for row in rows if row.id in kept)
    (hit,) = json.loads((out / "decontamination.json").read_text())["hits"]
    assert unicodedata.normalize("NFC", other)[hit["start"] : hit["end"]].startswith(hit["excerpt"])


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("alike", ["equal", "near"])
def test_one_survivor_that_takes_most_of_a_source_stops_the_run_with_the_texts(made, alike):
    rng = np.random.default_rng(5)
    footer = words(rng, 120)
    texts = [footer if alike == "equal" else near_copy(footer, rng) for _ in range(299)]
    rows = [document("manuals", f"f{k}", text) for k, text in enumerate(texts)]
    write_source(made, "manuals", [*rows, document("manuals", "own", words(rng, 120))])
    with pytest.raises(DataError) as refused:
        run(made)
    said = str(refused.value)
    assert re.search(
        r"would take \d+ of 300 documents \(\d\d%\) of source 'manuals' as its copies; the limit is 50%", said
    )
    assert footer.split()[0] in said
    assert "look at sources.manuals.read" in said
    section = {**SELECT, "near_duplicates": NearDuplicates(max_source_loss=1.0)}
    _, counts = run(made, section=section)
    assert counts["manuals"]["kept"] == 2


def test_what_many_survivors_take_is_reported_and_not_refused(made):
    rng = np.random.default_rng(6)
    rows = [document("manuals", f"m{k}", words(rng, 60)) for k in range(30)]
    rows += [document("manuals", f"copy {row.id} {k}", row.text.upper()) for row in rows for k in range(3)]
    write_source(made, "manuals", rows)
    lines = []
    _, counts = run(made, say=lines.append)
    assert counts["manuals"]["dropped"] == {"exact_duplicate": 90}
    assert "duplicates: manuals loses 75% of its documents to copies of many" in lines
    near = json.loads((made / "select.steps" / "duplicates" / "near_duplicates.json").read_text())["sources"]["manuals"]
    assert (near["lost_share"], near["largest_share"]) == (0.75, 3 / 120)


def test_a_threshold_that_leaves_nothing_is_an_error_with_the_ledger(made):
    section = {**SELECT, "min_scores": {"web": MinScore(classifier="edu", above=4.5)}}
    with pytest.raises(DataError, match=r"leaves nothing of source 'web'(.|\n)*score_too_low"):
        run(made, section=section)


@pytest.mark.parametrize("rows", [[("other", 2.0)] * 20, [("w0", 2.0)], [(f"w{k}", 2.0) for k in range(21)]])
def test_scores_of_other_documents_are_refused(made, rows):
    write_scores(made, "web", rows, [(row.id, 2.5) for row in corpus()["web"][20:]])
    with pytest.raises(DataError, match="does not list the documents"):
        run(made)


def test_a_shard_without_its_scores_is_refused(made):
    (made / "score" / "web" / "scores-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"documents-00001\.parquet of source 'web' has no scores"):
        run(made)


@pytest.mark.parametrize("step", ["contamination/web", "duplicates", "select"])
def test_asked_to_stop_it_leaves(made, step):
    if step == "select":
        run(made, until="duplicates")
    with pytest.raises(Interrupted):
        run(made, until=step, should_stop=lambda: True)


def test_of_documents_of_one_source_with_one_id_the_first_stays(made):
    rng = np.random.default_rng(3)
    rows = [document("web", f"w{i % 12}", words(rng, 120)) for i in range(16)]
    rows += [document("web", "z-copy", rows[5].text.upper()), document("web", "z-near", near_copy(rows[6].text, rng))]
    write_source(made, "web", rows)
    write_scores(made, "web", [(row.id, 1.0 if k == 0 else 2.5) for k, row in enumerate(rows)])
    lines = []
    out, counts = run(made, say=lines.append)
    assert counts["web"]["dropped"] == {
        "score_too_low": 1,
        "duplicate_id": 3,
        "exact_duplicate": 1,
        "near_duplicate": 1,
    }
    gone = {row["id"]: row["duplicate_of"] for row in rejected_rows(out)}
    assert (gone["z-copy"], gone["z-near"]) == ("w5", "w6")
    kept = {row["id"]: row["text"] for side in SIDES for row in kept_rows(out, "web", side)}
    assert kept == {row.id: row.text for row in [*rows[1:12], rows[12]]}
    assert "duplicates: 3 documents of web dropped: an earlier one has the same id" in lines


def test_ids_that_name_more_than_one_document_each_stop_the_step(made):
    rows = [document("manuals", f"m{i % 10}", words(np.random.default_rng(i), 120)) for i in range(30)]
    write_source(made, "manuals", rows)
    with pytest.raises(
        DataError, match=r"20 of 30 documents of source 'manuals' have the id of an earlier one(.|\n)*'m0'"
    ):
        run(made)
