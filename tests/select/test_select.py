"""The step select: every document has one fate, copies and evaluation items go with their evidence, sides do not mix."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.data.document import Document, shard_path, write_documents
from gristmill.data.ledger import Ledger, read_ledger
from gristmill.data.packs import Item, write_pack
from gristmill.data.write import write_table
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import MinScore, NearDuplicates, PackRef, Select, Validation
from gristmill.select import select
from gristmill.select.dedup import ngram_set, overlap
from gristmill.store.durable import write_json

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]
QUESTION = "A farmer had seventeen sheep in the north field and all but nine ran away, so how many are left?"
SELECT = {
    "min_scores": {"web": MinScore(classifier="edu", above=1.5)},
    "priority": ["manuals", "web"],
    "validation": Validation(fraction=0.2, min_bytes=1000, max_bytes=50_000),
}


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
    documents = corpus()
    for source, rows in documents.items():
        folder = tmp_path / "extract" / source
        folder.mkdir(parents=True)
        write_documents(shard_path(folder, 0), rows[:20])
        write_documents(shard_path(folder, 1), rows[20:])
        count_kept(folder, source, rows)
    scores = tmp_path / "score" / "web"
    scores.mkdir(parents=True)
    for k, rows in enumerate((documents["web"][:20], documents["web"][20:])):
        values = [1.5 if row.id.startswith("bad") else 2.5 for row in rows]
        write_scores(scores, k, [row.id for row in rows], values)
    items = [
        Item(id="sheep", prompt=QUESTION, target="nine"),
        Item(id="cut", prompt="What did the cut document say about it?", target="nothing", ids=("item-7",)),
    ]
    write_pack(tmp_path / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    return tmp_path


def count_kept(folder, source, documents):
    """The ledger that extract leaves beside its documents."""
    ledger, size = Ledger(), sum(document.bytes_in for document in documents)
    ledger.saw(source, size, documents=len(documents))
    ledger.add(source, "kept", size, documents=len(documents))
    write_json(folder / "ledger.json", ledger.to_json())


def write_scores(folder, k, ids, values):
    table = pa.table({"id": ids, "score": pa.array(values, pa.float32())})
    write_table(folder / f"scores-{k:05d}.parquet", table)


def run(
    folder, *, section=None, name="select", sources=("manuals", "web"), processes=1, stop=False, say=lambda _: None
):
    out = folder / name
    out.mkdir(exist_ok=True)
    recipe = SimpleNamespace(
        sources=dict.fromkeys(sources), select=Select(**(section or SELECT)), packs={"quiz": PackRef(path="quiz")}
    )
    ctx = StepContext(
        recipe=recipe,
        recipe_dir=folder,
        name="select",
        inputs={
            **{f"extract/{source}": folder / "extract" / source for source in sources},
            "score/web": folder / "score" / "web",
        },
        out=out,
        machine=Machine(processes=processes),
        seed=11,
        fingerprint="0",
        say=say,
        should_stop=lambda: stop,
    )
    return out, select.run(ctx)


def rows_of(path):
    return pq.read_table(path).to_pylist()


def kept_rows(out):
    return {
        (source, split): rows_of(out / source / f"{split}-00000.parquet")
        for source in ("manuals", "web")
        for split in ("train", "validation")
    }


def test_every_document_has_one_fate_and_the_ledger_adds_up(made):
    out, _ = run(made)
    fates = [row["id"] for rows in kept_rows(out).values() for row in rows]
    fates += [row["id"] for row in rows_of(out / "rejected.parquet")]
    assert sorted(fates) == sorted(row.id for rows in corpus().values() for row in rows)
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


def test_documents_that_extract_counted_and_nobody_finds_stop_the_step(made):
    folder = made / "extract" / "manuals"
    shard_path(folder, 1).unlink()
    with pytest.raises(AssertionError, match=r"'manuals' does not add up: documents in 30(.|\n)*= 20"):
        run(made)


def test_held_out_ids_that_no_source_knows_are_said(made):
    items = [Item(id="far", prompt=QUESTION, target="nine", ids=("elsewhere/1", "elsewhere/2"))]
    lines = []
    run(made, say=lines.append)
    assert not any("hold out by id" in line for line in lines)
    write_pack(made / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0, items=items)
    run(made, say=lines.append)
    assert any("any of the 2 documents that packs hold out by id" in line for line in lines)


def test_each_rejection_names_its_evidence(made):
    out, _ = run(made)
    rejected = {row["id"]: row for row in rows_of(out / "rejected.parquet")}
    assert (rejected["bad0"]["value"], rejected["bad0"]["limit"]) == (1.5, 1.5)
    assert rejected["copy1"]["duplicate_of"] == "m1"
    assert rejected["near4"]["duplicate_of"] == "m4"
    assert 0.7 < rejected["near4"]["value"] < 1
    assert "quiz/sheep by long_question" in rejected["quiz"]["detail"]
    assert rejected["quiz"]["step"] == "select"
    assert all(len(row["excerpt"]) <= 300 for row in rejected.values())


def test_no_near_copy_sits_on_both_sides(made):
    section = {**SELECT, "near_duplicates": None}
    out, _ = run(made, section=section)
    kept = kept_rows(out)
    held = [row for (_, split), rows in kept.items() for row in rows if split == "validation"]
    trained = [row for (_, split), rows in kept.items() for row in rows if split == "train"]
    assert {row["id"] for row in held + trained} >= {f"near{i}" for i in range(3, 8)}
    assert {row["cluster"] for row in held} & {row["cluster"] for row in trained} == set()
    cluster = {row["id"]: row["cluster"] for row in held + trained}
    assert all(cluster[f"near{i}"] == cluster[f"m{i}"] for i in range(3, 8))
    assert len(set(cluster.values())) == len(cluster) - 5
    sets = {row["id"]: ngram_set(row["text"], 5) for row in held + trained}
    assert all(overlap(sets[a["id"]], sets[b["id"]])[0] < 0.7 for a in held for b in trained)


def test_validation_has_its_share_of_each_source(made):
    out, _ = run(made)
    report = json.loads((out / "split.json").read_text())
    for source, row in report.items():
        sizes = {
            split: sum(len(r["text"].encode()) for r in kept_rows(out)[source, split])
            for split in row
            if split != "enough"
        }
        assert sizes == {split: row[split]["bytes"] for split in sizes}
        assert 0.2 <= sizes["validation"] / sum(sizes.values()) < 0.25
        assert row["enough"]


def test_reports_show_thresholds_clusters_and_planted_recall(made):
    out, _ = run(made)
    thresholds = json.loads((out / "thresholds.json").read_text())["web"]
    assert (thresholds["kept_documents"], thresholds["documents"]) == (39, 43)
    assert {k: thresholds["other_thresholds"][4][k] for k in ("above", "documents")} == {"above": 2.0, "documents": 39}
    near = json.loads((out / "near_duplicates.json").read_text())
    assert near["sources"]["web"]["near_copies"] == 5
    assert near["survivor_source"] == {"web": {"manuals": 8}}
    assert near["curve"][4] == {"jaccard": 0.8, "found": pytest.approx(0.9236, abs=1e-3)}
    assert near["largest_clusters"][0]["excerpt"]
    clean = json.loads((out / "decontamination.json").read_text())
    assert (clean["packs"]["quiz"]["planted"], clean["packs"]["quiz"]["found"]) == (2, 2)
    assert [hit["id"] for hit in clean["hits"]] == ["quiz"]


def test_same_input_same_bytes_with_one_process_or_two(made):
    one, _ = run(made, name="one")
    two, _ = run(made, name="two", processes=2)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 10
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)


def test_selecting_what_was_selected_removes_nothing_more(made):
    out, _ = run(made)
    again = made / "again"
    for source in ("manuals", "web"):
        folder = again / "extract" / source
        folder.mkdir(parents=True)
        rows = [row for split in ("train", "validation") for row in rows_of(out / source / f"{split}-00000.parquet")]
        write_documents(
            shard_path(folder, 0), [Document(**{k: v for k, v in row.items() if k != "cluster"}) for row in rows]
        )
        count_kept(folder, source, [Document(**{k: v for k, v in row.items() if k != "cluster"}) for row in rows])
        if source == "web":
            (again / "score" / "web").mkdir(parents=True)
            write_scores(again / "score" / "web", 0, [row["id"] for row in rows], [2.5] * len(rows))
    write_pack(
        again / "quiz", name="quiz", version=1, kind="generate", metric="acc", chance=0.0,
        items=[Item(id="sheep", prompt=QUESTION, target="nine")],
    )  # fmt: skip
    second, counts = run(again)
    assert rows_of(second / "rejected.parquet") == []
    assert counts["web"]["dropped"] == {}


def test_a_source_that_would_lose_too_much_stops_the_step_and_shows_why(made):
    section = {**SELECT, "near_duplicates": NearDuplicates(max_source_loss=0.1)}
    with pytest.raises(DataError, match=r"5 of 39 documents \(13%\) of source 'web'(.|\n)*1 copies of 'm3'"):
        run(made, section=section)


def test_a_threshold_that_leaves_nothing_is_an_error_with_the_ledger(made):
    section = {**SELECT, "min_scores": {"web": MinScore(classifier="edu", above=4.5)}}
    with pytest.raises(DataError, match=r"leaves nothing of source 'web'(.|\n)*score_too_low"):
        run(made, section=section)


def test_scores_of_other_documents_are_refused(made):
    write_scores(made / "score" / "web", 0, ["other"] * 20, [2.0] * 20)
    with pytest.raises(DataError, match="does not list the documents"):
        run(made)


def test_asked_to_stop_it_leaves(made):
    with pytest.raises(Interrupted):
        run(made, stop=True)
