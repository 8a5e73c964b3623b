"""Late sources through all steps of selection: nothing before them changes, and what they have of held-out text leaves."""

import json

import numpy as np
import pytest
from selecting import bytes_of, fates_of, kept_rows, rejected_rows, run_selection, write_source
from test_select import QUESTION, SELECT, SIDES, document, near_copy, words, write_corpus

from gristmill.data.ledger import read_ledger
from gristmill.recipe.schema.curation import NearDuplicates


def run(folder, *, section, **more):
    return run_selection(folder, section, **more)


def traps(before, source, rng):
    """A late source with every way to touch what is there, and some text of its own."""
    trained = [row["text"] for row in kept_rows(before, "manuals", "train")]
    held = [row["text"] for row in kept_rows(before, "manuals", "validation")]
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


@pytest.fixture(scope="module", params=[True, False], ids=["near copies go", "near copies stay"])
def late(tmp_path_factory, request):
    """(section, output without late sources, output with one) where near copies go, and where they stay."""
    made = write_corpus(tmp_path_factory.mktemp("late"))
    near = NearDuplicates(num_bands=48, rows_per_band=1) if request.param else None
    section = {**SELECT, "near_duplicates": near}
    before, _ = run(made, section=section, name="before")
    write_source(made, "alien", traps(before, "alien", np.random.default_rng(1)))
    once, _ = run(made, section=section, name="once", sources=("alien", "manuals", "web"), late=("alien",))
    return section, before, once


def test_a_late_source_changes_no_byte_of_the_others_nor_their_rows_in_reports(late):
    _, before, once = late
    assert bytes_of(once, ("manuals", "web")) == bytes_of(before, ("manuals", "web"))
    for source in ("manuals", "web"):
        assert fates_of(once, source) == fates_of(before, source)
        assert read_ledger(once / "ledger.json").source(source) == read_ledger(before / "ledger.json").source(source)
    for rows in ("sources", "survivor_source"):
        files = [out.with_name(f"{out.name}.steps") / "duplicates" / "near_duplicates.json" for out in (before, once)]
        old, new = (json.loads(file.read_text())[rows] for file in files)
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
    held = kept_rows(before, "manuals", "validation")
    row = next(row for row in rejected_rows(once) if row["id"] == "around-held")
    assert (row["duplicate_of"], row["value"], row["limit"]) == (held[2]["id"], 1.0, 0.95)
    assert row["detail"].startswith("validation text of source manuals, Jaccard 0.1")


def test_a_late_document_that_touches_training_text_alone_takes_its_cluster(late):
    section, before, once = late
    trained = [row["cluster"] for row in kept_rows(before, "manuals", "train")]
    cluster = {row["id"]: row["cluster"] for row in kept_rows(once, "alien", "train")}
    if section["near_duplicates"] is None:
        assert cluster["near-train"] == trained[1]
    else:
        assert cluster["around-train"] == trained[2]
        assert cluster["bridge-train"] == min(trained[5:7])
    held = {row["cluster"] for row in kept_rows(once, "alien", "validation")}
    assert held.isdisjoint(
        {row["cluster"] for source in ("manuals", "web") for side in SIDES for row in kept_rows(once, source, side)}
    )


def test_a_second_late_source_changes_no_byte_of_the_first(late):
    section, _, once = late
    made = once.parent
    held = kept_rows(once, "alien", "validation")
    rng = np.random.default_rng(2)
    added = [document("zebra", f"a{i}", near_copy(row["text"], rng)) for i, row in enumerate(held)]
    write_source(made, "zebra", added + [document("zebra", f"z{i}", words(rng, 120)) for i in range(20)])
    sources = ("alien", "manuals", "web", "zebra")
    twice, _ = run(made, section=section, name="twice", sources=sources, late=("alien", "zebra"))
    assert bytes_of(twice, sources[:3]) == bytes_of(once, sources[:3])
    copies = {fate for name, fate in fates_of(twice, "zebra").items() if name.startswith("a")}
    assert copies == {"copy_of_held_out" if section["near_duplicates"] is None else "near_duplicate"}
