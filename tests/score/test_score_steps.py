"""The steps classifier/<name> and score/<source>: joined by id or URL, judged out of fold, nothing dropped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from gristmill.context import context_of
from gristmill.data.document import Document, read_documents, shard_path, write_documents
from gristmill.data.packs import Item, write_pack
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.recipe import Recipe
from gristmill.score import score, train_classifier
from gristmill.score.thresholds import folds_of, out_of_fold_scores

GOOD = ["the", "theorem", "follows", "because", "each", "number", "has", "one", "successor"]
BAD = ["buy", "cheap", "shoes", "now", "click", "here", "for", "the", "best", "price"]
SMALL = yaml.safe_load((Path(__file__).parents[1] / "recipe" / "small.yaml").read_text(encoding="utf-8"))
SECTION = {"source": "web", "annotations": "labels.jsonl", "max_chars": 500, "num_folds": 4, "min_class_size": 10}


def document(i, label, rng):
    text = " ".join(str(rng.choice(GOOD if rng.random() < label / 3 else BAD)) for _ in range(40)) + f" number {i}"
    return Document(
        id=f"<urn:uuid:{i}>", source="web", text=text, license="x", origin="f#0", bytes_in=900, url=f"https://x.org/{i}"
    )


@pytest.fixture
def made(tmp_path):
    """An extract artefact of two shards and a file with 80 labels, half of them by id and half by URL."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120).tolist()
    documents = [document(i, label, rng) for i, label in enumerate(labels)]
    extract = tmp_path / "extract"
    extract.mkdir()
    write_documents(shard_path(extract, 0), documents[:70])
    write_documents(shard_path(extract, 1), documents[70:])
    rows = [{"record_id": str(i), "label": labels[i]} for i in range(40)]
    rows += [{"url": f"https://x.org/{i}", "label": labels[i]} for i in range(80, 120)]
    rows += [{"url": "https://x.org/gone", "label": 1}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hold_out(tmp_path)
    return tmp_path


def hold_out(folder, *ids):
    """The recipe's pack, with an item that was cut from these documents."""
    items = [Item(id="x", prompt="What does it say?", target="nothing", ids=ids)]
    write_pack(
        folder / "packs" / "facts", name="facts", version=1, kind="generate", metric="acc", chance=0, items=items
    )


def context(folder, name, folders, section=SECTION, **more):
    out = folder / name.replace("/", "-")
    out.mkdir(exist_ok=True)
    recipe = {
        **SMALL,
        "classifiers": {"edu": section},
        "select": {"min_scores": {"web": {"classifier": "edu", "above": 1.5}}},
    }
    return context_of(
        Recipe.model_validate(recipe),
        name,
        folders=folders,
        recipe_dir=folder,
        out=out,
        machine=Machine(processes=1),
        **more,
    )


def train(folder, **more):
    ctx = context(folder, "classifier/edu", {"extract/web": folder / "extract"}, **more)
    return ctx.out, train_classifier.run(ctx)


def test_labels_of_another_rubric_are_refused(made):
    rows = [json.loads(line) for line in (made / "labels.jsonl").read_text().splitlines()]
    (made / "labels.jsonl").write_text("".join(json.dumps({**row, "rubric": "maths-v2"}) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"labels\.jsonl has labels under the rubric 'maths-v2'; the recipe's is 'edu-v1'"
    ):
        train(made)
    assert train(made, section={**SECTION, "rubric": "maths-v2"})[1]["labelled_documents"] == 80


def test_training_reports_each_threshold_with_intervals_and_numbers(made):
    out, counts = train(made)
    report = json.loads((out / "report.json").read_text())
    assert counts == {"labelled_documents": 80, "annotations_without_document": 1}
    assert [row["above"] for row in report["thresholds"]] == [0.5, 1.0, 1.5, 2.0, 2.5]
    middle = report["thresholds"][2]
    assert middle["test_documents"] == 80
    assert middle["f1"]["low"] < middle["f1"]["value"] < middle["f1"]["high"]
    assert middle["f1"]["value"] > 0.75
    shares = [row["kept_byte_share"] for row in report["thresholds"]]
    assert shares == sorted(shares, reverse=True)
    assert report["source_documents"] == report["scored_documents"] == 120
    assert report["agreement"] is None


def test_documents_that_a_pack_holds_out_are_neither_learnt_from_nor_counted(made):
    before = (train(made)[0] / "model.npz").read_bytes()
    hold_out(made, "<urn:uuid:3>", "<urn:uuid:90>", "<urn:uuid:50>")
    out, counts = train(made)
    assert counts == {"labelled_documents": 78, "annotations_without_document": 3}
    assert {"<urn:uuid:3>", "<urn:uuid:90>"}.isdisjoint(pq.read_table(out / "out_of_fold.parquet")["id"].to_pylist())
    report = json.loads((out / "report.json").read_text())
    assert report["source_documents"] == report["scored_documents"] == 117
    assert (out / "model.npz").read_bytes() != before


def test_documents_with_one_id_have_one_label_and_are_scored_alike(made):
    rows = list(read_documents(shard_path(made / "extract", 1)))
    write_documents(shard_path(made / "extract", 1), [replace(row, id=rows[0].id) for row in rows])
    out, counts = train(made)
    assert counts["labelled_documents"] == 41
    names = pq.read_table(out / "out_of_fold.parquet")["id"].to_pylist()
    assert len(names) == len(set(names))


def test_second_annotations_give_the_agreement(made):
    lines = (made / "labels.jsonl").read_text().splitlines()[:40]
    (made / "second.jsonl").write_text("\n".join(lines))
    out, _ = train(made, section={**SECTION, "second_annotations": "second.jsonl"})
    agreement = json.loads((out / "report.json").read_text())["agreement"]
    assert agreement["count"] == 40
    assert agreement["kappa"]["value"] == 1.0


def test_training_again_gives_the_same_files(made):
    first = {path.name: path.read_bytes() for path in sorted(train(made)[0].iterdir())}
    second = {path.name: path.read_bytes() for path in sorted(train(made)[0].iterdir())}
    assert first == second
    assert sorted(first) == ["model.npz", "out_of_fold.parquet", "report.json"]


def test_annotations_of_other_documents_stop_with_their_names(made):
    (made / "labels.jsonl").write_text('{"url": "https://y.org", "label": 1}\n')
    with pytest.raises(DataError, match=r"only 0 of them name a document that source 'web' kept(.|\n)*https://y\.org"):
        train(made)


def test_one_label_alone_teaches_nothing(made):
    rows = [{"record_id": str(i), "label": 2} for i in range(40)]
    (made / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"all 40 labelled documents .* have the label 2"):
        train(made)


def run_score(folder, **more):
    inputs = {"extract/web": folder / "extract", "classifier/edu": folder / "classifier-edu"}
    ctx = context(folder, "score/web", inputs, **more)
    return ctx.out, score.run(ctx)


def test_every_document_gets_a_score_in_order_and_labelled_ones_their_out_of_fold_score(made):
    train(made)
    out, counts = run_score(made)
    assert counts["documents"] == 120
    tables = [pq.read_table(out / f"scores-0000{n}.parquet") for n in (0, 1)]
    assert [table.num_rows for table in tables] == [70, 50]
    ids = [name for table in tables for name in table.column("id").to_pylist()]
    assert ids == [f"<urn:uuid:{i}>" for i in range(120)]
    scores = dict(zip(ids, (s for table in tables for s in table.column("score").to_pylist()), strict=True))
    known = score.read_scores(made / "classifier-edu" / "out_of_fold.parquet")
    assert len(known) == 80
    assert all(scores[name] == value for name, value in known.items())


def test_a_stopped_run_goes_on_to_the_same_files(made):
    train(made)
    with pytest.raises(Interrupted):
        run_score(made, should_stop=lambda: True)
    out, counts = run_score(made)
    resumed = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        path.unlink()
    run_score(made)
    assert resumed == {path.name: path.read_bytes() for path in out.iterdir()}
    assert counts["documents"] == 120


def test_folds_are_even_by_label_and_hold_equal_texts_together():
    texts = [f"text {i}" for i in range(60)] + ["text 0", "text 1"]
    labels = [i % 3 for i in range(60)] + [0, 1]
    fold_N = folds_of(texts, labels, num_folds=5, seed=3)
    assert fold_N[60] == fold_N[0]
    assert fold_N[61] == fold_N[1]
    for label in range(3):
        assert np.bincount(fold_N[:60][np.array(labels[:60]) == label], minlength=5).tolist() == [4] * 5


def test_no_text_is_scored_by_a_model_that_saw_it():
    texts = [f"text {i}" for i in range(20)]
    fold_N = folds_of(texts, [0, 1] * 10, num_folds=4, seed=0)

    class Remembers:
        def __init__(self, seen):
            self.seen = set(seen)

        def score(self, asked):
            assert not self.seen & set(asked)
            return np.full(len(asked), len(self.seen), dtype=np.float32)

    scores = out_of_fold_scores(texts, [0, 1] * 10, fold_N, fit=lambda some, _: Remembers(some))
    assert scores.tolist() == [15.0] * 20


def test_ids_are_compared_without_the_decoration_of_warc():
    assert {train_classifier.bare_id(name) for name in ("<urn:uuid:a-1>", "urn:uuid:a-1", "a-1")} == {"a-1"}
