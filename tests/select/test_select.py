"""The step select: every document has one fate, copies and evaluation items go with their evidence, sides do not mix."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.context import context_of
from gristmill.data.document import Document, shard_path, write_documents
from gristmill.data.ledger import Ledger, read_ledger
from gristmill.data.packs import Item, write_pack
from gristmill.data.write import write_table
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.curation import MinScore, NearDuplicates, Select, Validation
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select import select
from gristmill.select.sets import ngram_set, overlap
from gristmill.store.durable import write_json

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]
QUESTION = "A farmer had seventeen sheep in the north field and all but nine ran away, so how many are left?"
SELECT = {
    "min_scores": {"web": MinScore(classifier="edu", above=1.5)},
    "priority": ["manuals", "web"],
    "validation": Validation(fraction=0.2, min_bytes=1000, max_bytes=50_000),
}
SOURCE = {"read": {"format": "text", "paths": ["x"]}, "license": "CC0"}
REST = {
    "schema_version": 1,
    "name": "small",
    "seed": 11,
    "packs": {"quiz": {"path": "quiz"}},
    "classifiers": {"edu": {"source": "web", "annotations": "edu.jsonl"}},
    "tokenizer": {"vocab_size": 300},
    "model": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.1,
        "max_position_embeddings": 16,
    },
    "pretrain": {
        "stages": [{"name": "one", "tokens": 320, "seq_len": 16, "mixture": {"web": 1.0}}],
        "global_batch_tokens": 32,
        "warmup_tokens": 32,
        "decay_tokens": 32,
        "optimizer": {"peak_lr": 0.001},
        "watch": {"every_tokens": 320},
        "checkpoint_every_tokens": 320,
    },
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
    folder,
    *,
    section=None,
    name="select",
    sources=("manuals", "web"),
    late=(),
    processes=1,
    stop=False,
    say=lambda _: None,
):
    out = folder / name
    out.mkdir(exist_ok=True)
    recipe = Recipe.model_validate(
        {
            **REST,
            "sources": {source: {**SOURCE, "late": source in late} for source in sources},
            "select": Select(**(section or SELECT)),
        }
    )
    ctx = context_of(
        recipe,
        "select",
        folders={
            **{f"extract/{source}": folder / "extract" / source for source in sources},
            "score/web": folder / "score" / "web",
        },
        recipe_dir=folder,
        out=out,
        machine=Machine(processes=processes),
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


def add_source(folder, source, documents):
    extract = folder / "extract" / source
    extract.mkdir(parents=True, exist_ok=True)
    write_documents(shard_path(extract, 0), documents)
    count_kept(extract, source, documents)


def fates_of(out, source):
    """id → side, or the reason why it went."""
    fates = {row["id"]: row["reason"] for row in rows_of(out / "rejected.parquet") if row["source"] == source}
    for side in ("train", "validation"):
        fates |= {row["id"]: side for row in rows_of(out / source / f"{side}-00000.parquet")}
    return fates


def bytes_of(out, sources):
    return {
        (source, side): (out / source / f"{side}-00000.parquet").read_bytes()
        for source in sources
        for side in ("train", "validation")
    }


def traps(kept, source, rng):
    """A late source with every way to touch what is there, and some text of its own."""
    trained = [row["text"] for row in kept["manuals", "train"]]
    held = [row["text"] for row in kept["manuals", "validation"]]
    own = [words(rng, 120) for _ in range(20)]
    texts = {
        "copy-train": trained[0].upper(),
        "copy-held": held[0].upper(),
        "near-train": near_copy(trained[1], rng),
        "near-held": near_copy(held[1], rng),
        "around-train": f"{words(rng, 300)} {trained[2]} {words(rng, 300)}",
        "around-held": f"{words(rng, 300)} {held[2]} {words(rng, 300)}",
        "in-train": " ".join(trained[3].split()[30:70]),
        "in-held": " ".join(held[3].split()[30:70]),
        "bridge-held": f"{trained[4]} {held[4]}",
        "bridge-train": f"{trained[5]} {trained[6]}",
        "quiz-again": f"{words(rng, 60)} {QUESTION} Nine. {words(rng, 60)}",
        "item-7": words(rng, 120),
        **{f"own{i}": text for i, text in enumerate(own)},
        "own0-copy": own[0].upper(),
        "own1-near": near_copy(own[1], rng),
    }
    return [document(source, name, text) for name, text in texts.items()]


GONE = {
    "copy-train": "exact_duplicate",
    "copy-held": "exact_duplicate",
    "near-train": "near_duplicate",
    "near-held": "near_duplicate",
    "around-held": "copy_of_held_out",
    "in-held": "contained_in_longer",
    "in-train": "contained_in_longer",
    "bridge-held": "copy_of_held_out",
    "quiz-again": "contaminated",
    "item-7": "held_out_item",
    "own0-copy": "exact_duplicate",
    "own1-near": "near_duplicate",
}
NEAR_COPIES = {"near-train", "near-held", "in-train", "in-held", "own1-near"}


@pytest.fixture(params=[True, False], ids=["near copies go", "near copies stay"])
def late(made, request):
    """(section, output without late sources, output with one) where near copies go, and where they stay."""
    near = NearDuplicates(num_bands=48, rows_per_band=1) if request.param else None
    section = {**SELECT, "near_duplicates": near}
    before, _ = run(made, section=section, name="before")
    add_source(made, "alien", traps(kept_rows(before), "alien", np.random.default_rng(1)))
    once, _ = run(made, section=section, name="once", sources=("alien", "manuals", "web"), late=("alien",))
    return section, before, once


def test_a_late_source_changes_no_byte_of_the_others_nor_their_rows_in_reports(late):
    _, before, once = late
    assert bytes_of(once, ("manuals", "web")) == bytes_of(before, ("manuals", "web"))
    for source in ("manuals", "web"):
        assert fates_of(once, source) == fates_of(before, source)
        assert read_ledger(once / "ledger.json").source(source) == read_ledger(before / "ledger.json").source(source)
    for file, rows in (("near_duplicates.json", "sources"), ("near_duplicates.json", "survivor_source")):
        old, new = (json.loads((out / file).read_text())[rows] for out in (before, once))
        assert {source: new[source] for source in old} == old
    for file in ("split.json", "thresholds.json"):
        old, new = (json.loads((out / file).read_text()) for out in (before, once))
        assert {source: new[source] for source in old} == old


def test_what_a_late_source_has_of_held_out_text_goes_with_its_evidence(late):
    section, before, once = late
    fates = fates_of(once, "alien")
    near_go = section["near_duplicates"] is not None
    expected = {name: reason for name, reason in GONE.items() if near_go or name not in NEAR_COPIES}
    if not near_go:
        expected |= {"near-train": "train", "near-held": "copy_of_held_out", "in-held": "copy_of_held_out"}
    assert {name: fates[name] for name in expected} == expected
    assert {fates[f"own{i}"] for i in range(20)} == {"train", "validation"}
    held = kept_rows(before)["manuals", "validation"]
    row = next(row for row in rows_of(once / "rejected.parquet") if row["id"] == "around-held")
    assert (row["duplicate_of"], row["value"], row["limit"]) == (held[2]["id"], 1.0, 0.95)
    assert row["detail"].startswith("validation text of source manuals, Jaccard 0.1")


def test_a_late_document_that_touches_training_text_alone_takes_its_cluster(late):
    section, before, once = late
    trained = [row["cluster"] for row in kept_rows(before)["manuals", "train"]]
    cluster = {row["id"]: row["cluster"] for row in rows_of(once / "alien" / "train-00000.parquet")}
    if section["near_duplicates"] is None:
        assert cluster["near-train"] == trained[1]
    else:
        assert cluster["around-train"] == trained[2]
        assert cluster["bridge-train"] == min(trained[5:7])
    held = {row["cluster"] for row in rows_of(once / "alien" / "validation-00000.parquet")}
    assert held.isdisjoint({row["cluster"] for rows in kept_rows(once).values() for row in rows})


def test_a_second_late_source_changes_no_byte_of_the_first(made, late):
    section, _, once = late
    held = rows_of(once / "alien" / "validation-00000.parquet")
    rng = np.random.default_rng(2)
    added = [document("zebra", f"a{i}", near_copy(row["text"], rng)) for i, row in enumerate(held)]
    add_source(made, "zebra", added + [document("zebra", f"z{i}", words(rng, 120)) for i in range(20)])
    sources = ("alien", "manuals", "web", "zebra")
    twice, _ = run(made, section=section, name="twice", sources=sources, late=("alien", "zebra"))
    assert bytes_of(twice, sources[:3]) == bytes_of(once, sources[:3])
    copies = {fate for name, fate in fates_of(twice, "zebra").items() if name.startswith("a")}
    assert copies == {"copy_of_held_out" if section["near_duplicates"] is None else "near_duplicate"}


def test_of_documents_of_one_source_with_one_id_the_first_stays(made):
    rng = np.random.default_rng(3)
    rows = [document("web", f"w{i % 12}", words(rng, 120)) for i in range(16)]
    rows += [document("web", "z-copy", rows[5].text.upper()), document("web", "z-near", near_copy(rows[6].text, rng))]
    add_source(made, "web", rows)
    shard_path(made / "extract" / "web", 1).unlink()
    write_scores(made / "score" / "web", 0, [row.id for row in rows], [1.0] + [2.5] * 17)
    lines = []
    out, counts = run(made, say=lines.append)
    assert counts["web"]["dropped"] == {
        "score_too_low": 1,
        "duplicate_id": 3,
        "exact_duplicate": 1,
        "near_duplicate": 1,
    }
    gone = {row["id"]: row["duplicate_of"] for row in rows_of(out / "rejected.parquet")}
    assert (gone["z-copy"], gone["z-near"]) == ("w5", "w6")
    kept = {row["id"]: row["text"] for (source, _), some in kept_rows(out).items() if source == "web" for row in some}
    assert kept == {row.id: row.text for row in [*rows[1:12], rows[12]]}
    assert "select: 3 documents dropped: the id is that of an earlier one of the source" in lines


def test_ids_that_name_more_than_one_document_each_stop_the_step(made):
    rows = [document("manuals", f"m{i % 10}", words(np.random.default_rng(i), 120)) for i in range(30)]
    add_source(made, "manuals", rows)
    shard_path(made / "extract" / "manuals", 1).unlink()
    with pytest.raises(
        DataError, match=r"20 of 30 documents of source 'manuals' have the id of an earlier one(.|\n)*'m0'"
    ):
        run(made)
