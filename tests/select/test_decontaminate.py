"""Decontamination: what is planted is found, what is ordinary is not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.select.decontaminate import Decontaminator, plant, planted_recall

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prst"]
LONG = "A farmer had seventeen sheep in the north field and all but nine of them ran away in the night"
ITEMS = (
    Item(id="long", prompt=f"{LONG} so how many sheep are left?", choices=("Eight", "nine", "none"), answer=1),
    Item(id="short", prompt="What is the capital of France?", choices=("Lyon", "Paris"), answer=1),
    Item(id="tiny", prompt="A dog is", choices=("a tame animal of the wolf's family", "a fish"), answer=0),
    Item(id="sum", prompt="3 + 4 =", target="7"),
)
ORDINARY = [
    "In spring the farmer walks to the north field and counts his sheep. " * 4,
    "Paris is the capital of France, and has been for centuries. What is the reason? Nobody knows for certain.",
    "A dog is a friend. The wolf's family is large, and a tame animal costs time.",
]


def pack(items, name="quiz"):
    return Pack(
        name=name, version=1, kind="generate", metric="acc", chance=0.0, items=tuple(items), sha256="0", path=Path(name)
    )


FINDER = Decontaminator([pack(ITEMS)])


def random_words(rng, count):
    return " ".join(rng.choice(VOCABULARY, count))


def found(text, finder=FINDER):
    match = finder.match(text)
    return None if match is None else (match.item_ids, match.rule)


def test_a_long_question_is_enough():
    assert found(f"Riddle: {LONG.upper()}, so how many sheep are left? No idea.") == (("quiz/long",), "long_question")


def test_part_of_a_question_counts_only_with_the_answer():
    part = "he said a farmer had seventeen sheep in the north field and all but nine of them were sold"
    assert found(part) == (("quiz/long",), "question_and_answer")
    assert found(part.replace("nine", "ten")) is None


def test_a_short_question_counts_whole_and_with_the_answer_behind_it():
    assert found("Quiz! What is the capital of France? (a) Lyon (b) Paris") == (("quiz/short",), "short_item")
    assert found("What is the capital of France? I never learnt it.") is None
    assert found("What is the capital of Italy? Not Paris.") is None


def test_where_the_question_is_tiny_question_and_answer_count_as_one():
    assert found("A dog is a tame animal of the wolf's family.") == (("quiz/tiny",), "short_item")


def test_an_item_too_short_for_all_is_named_as_unprotected():
    assert FINDER.unprotected == ("quiz/sum",)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_on_the_same_subject_is_not_flagged(text):
    assert FINDER.match(text) is None


def test_the_span_is_that_of_the_original_text():
    text = "Ünïcode “first” — " + "What is the\u00a0capital of FRANCE?" + " Paris!"
    match = FINDER.match(text)
    assert match is not None
    assert text[match.start : match.end] == match.excerpt == "What is the\u00a0capital of FRANCE"
    assert "quiz/short by short_item" in match.detail


def test_all_items_in_a_text_are_named():
    both = f"{ITEMS[0].prompt} nine. {ITEMS[1].prompt} Paris."
    match = FINDER.match(both)
    assert match is not None
    assert match.item_ids == ("quiz/long", "quiz/short")


@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_every_protected_item_is_found_wherever_it_is_planted(seed, question_words, answer_words):
    rng = np.random.default_rng(seed)
    items = [
        Item(id=str(i), prompt=random_words(rng, question_words) + "?", target=random_words(rng, answer_words))
        for i in range(5)
    ]
    quiz = pack(items)
    finder = Decontaminator([quiz])
    assert finder.unprotected == ()
    for planted in plant(quiz, [random_words(rng, 50), "word", ""], seed=seed):
        match = finder.match(planted.text)
        assert match is not None
        assert planted.item_id in match.item_ids


def test_random_text_from_the_vocabulary_of_the_items_is_not_flagged():
    rng = np.random.default_rng(8)
    items = [
        Item(id=str(i), prompt=random_words(rng, n), target=random_words(rng, 2)) for i, n in enumerate((5, 9, 30) * 30)
    ]
    finder = Decontaminator([pack(items)])
    assert [finder.match(random_words(rng, 300)) for _ in range(200)] == [None] * 200


def test_wording_that_many_items_share_is_not_an_item():
    rng = np.random.default_rng(9)
    preamble = random_words(rng, 40)
    items = [Item(id=str(i), prompt=f"{preamble} {random_words(rng, 15)}", target="yes") for i in range(60)]
    quiz = pack(items)
    finder = Decontaminator([quiz])
    assert finder.match(f"{preamble} and then something else, yes") is None
    assert planted_recall(finder, ["some text"], seed=0)["quiz"].found == 60


def test_texts_together_match_as_they_do_alone():
    texts = [*ORDINARY, "What is the capital of France? Paris", "", f"{LONG} so how many sheep are left"]
    assert FINDER.match_all(texts) == [FINDER.match(text) for text in texts]
    assert [match is not None for match in FINDER.match_all(texts)] == [False, False, False, True, False, True]


def test_recall_is_reported_per_pack_and_a_missed_item_stops():
    report = planted_recall(FINDER, ORDINARY, seed=1)["quiz"]
    assert (report.planted, report.found, report.unprotected_items) == (3, 3, 1)
    blind = Decontaminator([pack(ITEMS)])
    blind._items = [
        type(item)(id="x/y", question=item.question, answer=item.answer, need=item.need) for item in blind._items
    ]
    with pytest.raises(DataError, match="missed 3 of 3 planted items of pack 'quiz'"):
        planted_recall(blind, ORDINARY, seed=1)


def test_no_packs_match_nothing():
    assert Decontaminator([]).match("anything at all, in any number of words, whatever it may be about") is None
