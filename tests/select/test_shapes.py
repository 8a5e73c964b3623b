"""Shapes of text of which published searches for duplicates removed nearly all: here every copy goes, and nothing else."""

from collections import Counter

import oracle
import pytest
import shapes
from searched import quick_folder, search, write_corpus

from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.select.resemblance import HeldOutTexts
from gristmill.select.select import duplicate_rules

RULES = duplicate_rules(NearDuplicates())
SHAPES = {
    "templates": shapes.templates,
    "books": shapes.books,
    "dialogues": shapes.dialogues,
    "call_logs": shapes.call_logs,
}


def copies_among(shaped, *, one_bucket=False):
    """(removed text, its survivor) of all copies that the search finds; one_bucket: all are candidates of all."""
    documents = [oracle.Document(id=f"d{d:04d}", source="web", text=one.text) for d, one in enumerate(shaped)]
    keys = [[1] * RULES.num_bands] * len(shaped) if one_bucket else None
    with quick_folder() as folder:
        corpus = write_corpus(folder, documents, rules=RULES, shard_size=100, keys=keys)
        found = search(corpus, folder / "work", rules=RULES)
    return [(shaped[copy.document], shaped[copy.survivor]) for copy in found.copies]


def jaccard(one, other):
    mine, theirs = (oracle.ngrams(of.text, RULES.ngram) for of in (one, other))
    return len(mine & theirs) / len(mine | theirs)


def planted(shaped):
    """How many texts are near copies of an earlier one."""
    return sum(count - 1 for count in Counter(one.origin for one in shaped).values())


@pytest.mark.parametrize("shape", SHAPES)
def test_of_each_published_failure_shape_the_planted_copies_go_and_nothing_else(shape):
    shaped = SHAPES[shape](0)
    copies = copies_among(shaped)
    assert [(one.origin, other.origin) for one, other in copies if one.origin != other.origin] == []
    assert len(copies) == planted(shaped) > 0


def test_texts_of_two_origins_are_under_the_limit_in_every_shape_but_logs_whose_ngrams_are_all_the_same():
    for shape, of in (("templates", shapes.templates), ("dialogues", shapes.dialogues)):
        one, other = (text for text in of(0)[1:5:2])
        assert 0.3 < jaccard(one, other) < RULES.min_jaccard, shape
    logs = shapes.call_logs(0)
    assert jaccard(logs[2], logs[3]) > 0.95


def test_a_chain_of_small_changes_loses_only_what_is_alike_to_the_link_that_is_kept():
    links = shapes.chain(0)
    copies = copies_among(links, one_bucket=True)
    assert copies
    assert all(jaccard(one, other) >= RULES.min_jaccard for one, other in copies)
    gone = {one.origin for one, _ in copies}
    assert len(links) - len(gone) >= len(links) // 3
    assert jaccard(links[0], links[-1]) == 0


def test_signatures_that_collide_with_all_others_remove_no_book():
    """As where signatures are saturated: only the texts tell the books apart."""
    shaped = shapes.books(1, words=20_000)
    copies = copies_among(shaped, one_bucket=True)
    assert all(one.origin == other.origin for one, other in copies)
    assert len(copies) == planted(shaped)


def test_a_log_that_is_held_out_takes_its_near_copy_from_training_text_and_no_other_log():
    shaped = shapes.call_logs(0, count=60)
    held = [(d, shaped[d].text) for d in range(0, len(shaped), 11)]
    asked = [(d, one.text) for d, one in enumerate(shaped) if d % 11]
    found = HeldOutTexts([held], RULES).find(asked)
    assert {d: shaped[one.held].origin for d, one in found.items()} == {d: shaped[d].origin for d in found}
    assert set(found) == {d + 1 for d, _ in held}
