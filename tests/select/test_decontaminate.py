"""Decontamination: what is planted is found in any form, what is ordinary is not; against slow and plain reckonings."""

import difflib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.select import decontaminate as d
from gristmill.select.decontaminate import Decontaminator, longest_common_subsequence
from gristmill.select.item_words import questions_of, searched
from gristmill.select.planting import FORMS, foreign, plant, planted_recall
from gristmill.select.questions import Questions
from gristmill.select.words import split_words

VOCABULARY = [f"{a}{b}{c}{e}" for a in "bdfgklmn" for b in "aeiou" for c in "prst" for e in "ou"]
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


FINDER = Decontaminator.of([pack(ITEMS)])


def random_words(rng, count):
    return " ".join(rng.choice(VOCABULARY, count))


def found(text, finder=FINDER):
    match = finder.match(text)
    return None if match is None else (match.item_ids, match.rule)


# ── what is found ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        f"Riddle: {LONG.upper()}, so how many sheep are left? No idea.",
        f"he said {LONG.replace('sheep', 'goats')} and so how many goats are left, friend?",
        json.dumps(json.dumps({"q": f"{LONG}\nso how many sheep are left?"})),
        "> " + f"{LONG} so how many sheep are left?".replace(" ", "\n> "),
        LONG.replace("seventeen", "seven-\nteen").replace("farmer", "far\u200bmer") + " so how many sheep are left",
        LONG.replace("farmer had", "farmer once had").replace("north ", ""),
    ],
    ids=["upper case", "two words changed", "JSON in JSON", "a word a line", "hyphenated", "a word more and one less"],
)
def test_a_long_question_is_found_without_its_answer_in_any_form(text):
    assert found(text) == (("quiz/long",), "question")


def test_part_of_a_long_question_is_ordinary_text():
    assert found("the farmer had seventeen sheep in the north field, said the neighbour") is None


def test_a_short_question_counts_whole_and_with_the_answer_on_either_side():
    assert found("Quiz! What is the capital of France? (a) Lyon (b) Paris") == (("quiz/short",), "question_and_answer")
    assert found("Paris! What is the capital of France?") == (("quiz/short",), "question_and_answer")
    assert found("What is the capital of France? I never learnt it.") is None
    assert found("What is the capital of Italy? Not Paris.") is None
    assert found(f"What is the capital of France? {'hm ' * (d.ANSWER_WINDOW + 3)} Paris") is None


def test_an_answer_that_tells_nothing_counts_only_next_to_its_question():
    rng = np.random.default_rng(7)
    others = [Item(id=str(i), prompt=random_words(rng, 12), target="yes") for i in range(5)]
    finder = Decontaminator.of(
        [pack([Item(id="x", prompt="Do walruses sleep on floating ice?", target="yes"), *others])]
    )
    assert finder.match("Do walruses sleep on floating ice? The answer is yes.") is not None
    assert finder.match("Do walruses sleep on floating ice? I wondered for a while, but then I had to say yes.") is None


def test_where_the_question_is_tiny_question_and_answer_count_as_one():
    assert found("A dog is a tame animal of the wolf's family.") == (("quiz/tiny",), "one_run")
    assert found("Q: A dog is ... A: a tame animal of the wolf's family") == (("quiz/tiny",), "one_run")
    assert found("A dog, to all who know them well, is a tame animal of the wolf's family.") is None
    assert found("A dog is a really tame animal of the wolf's family.") is None


def test_an_item_too_short_for_all_is_named_as_unprotected():
    assert FINDER.unprotected == ("quiz/sum",)


def test_a_run_of_numbers_or_letters_is_no_question():
    items = [Item(id="n", prompt="1 2 3 4 5 6 7 8 9", target="10"), Item(id="l", prompt="a b c d e f g h", target="i")]
    assert Decontaminator.of([pack(items)]).unprotected == ("quiz/n", "quiz/l")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_on_the_same_subject_is_not_flagged(text):
    assert FINDER.match(text) is None


def test_the_span_is_that_of_the_original_text():
    text = "Ünïcode “first” \u200b — " + "What is the\u00a0capi\u200btal of FRANCE?" + " Paris!"
    match = FINDER.match(text)
    assert match is not None
    assert text[match.start : match.end] == match.excerpt == "What is the\u00a0capi\u200btal of FRANCE"
    assert "quiz/short by question_and_answer" in match.detail


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_span_begins_and_ends_with_words_of_the_question_where_words_were_added_or_left_out(seed, left_out, added):
    rng = np.random.default_rng(seed)
    question = rng.permutation(VOCABULARY)[:20].tolist()
    finder = Decontaminator.of([pack([Item(id="x", prompt=" ".join(question))])])
    edited = question[left_out:9] + ["more"] * added + question[9:18]
    match = finder.match(f"before {' '.join(edited)} after")
    assert match is not None
    assert match.excerpt.split() == edited


def test_the_span_of_question_and_answer_in_a_row_begins_with_the_question():
    match = FINDER.match("Q: A dog is ... A: a tame animal of the wolf's family")
    assert match is not None
    assert match.excerpt == "A dog is ... A: a tame animal of the wolf's family"


def test_part_of_a_question_at_the_edge_of_a_text_is_found():
    rng = np.random.default_rng(17)
    question = random_words(rng, 30).split()
    finder = Decontaminator.of([pack([Item(id="x", prompt=" ".join(question))])])
    assert finder.match(" ".join(question[:20])) is not None
    assert finder.match(" ".join(question[10:])) is not None
    assert finder.match(" ".join(question[12:20])) is None


def test_all_items_in_a_text_are_named_and_the_first_is_shown():
    match = FINDER.match(f"{ITEMS[0].prompt} nine. {ITEMS[1].prompt} Paris.")
    assert match is not None
    assert match.item_ids == ("quiz/long", "quiz/short")
    assert (match.share, match.need, match.words) == (1.0, 0.6, 26)


@given(st.integers(0, 10_000), st.integers(8, 60), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_a_changed_word_and_a_moved_start_hide_no_question(seed, question_words, answer_words):
    rng = np.random.default_rng(seed)
    items = [
        Item(id=str(i), prompt=random_words(rng, question_words), target=random_words(rng, answer_words))
        for i in range(5)
    ]
    finder = Decontaminator.of([pack(items)])
    assert finder.unprotected == ()
    for item in items:
        words = item.prompt.split()
        words[rng.integers(len(words))] = "unheard"
        changed = f"{random_words(rng, rng.integers(0, 9))} {' '.join(words)} {random_words(rng, 3)}"
        match = finder.match(changed)
        assert match is not None
        assert f"quiz/{item.id}" in match.item_ids


@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(1, 13))
@settings(max_examples=40, deadline=None)
def test_every_protected_item_is_found_wherever_and_however_it_is_planted(seed, question_words, answer_words):
    rng = np.random.default_rng(seed)
    items = [
        Item(id=str(i), prompt=random_words(rng, question_words) + "?", target=random_words(rng, answer_words))
        for i in range(len(FORMS))
    ]
    quiz = pack(items)
    finder = Decontaminator.of([quiz])
    assert finder.unprotected == ()
    for planted in plant(quiz, [random_words(rng, 50), "word", ""], seed=seed):
        match = finder.match(planted.text)
        assert match is not None, planted.form
        assert planted.item_id in match.item_ids


# ── what is not ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_random_text_from_the_vocabulary_of_the_items_is_not_flagged():
    rng = np.random.default_rng(8)
    items = [
        Item(id=str(i), prompt=random_words(rng, n), target=random_words(rng, 2)) for i, n in enumerate((5, 9, 30) * 30)
    ]
    finder = Decontaminator.of([pack(items)])
    assert [finder.match(random_words(rng, 300)) for _ in range(200)] == [None] * 200


@pytest.mark.parametrize("others", [0, 30_000])
def test_the_instruction_of_a_pack_is_no_item_however_many_others_there_are(others):
    rng = np.random.default_rng(9)
    preamble, middle, end = random_words(rng, 40), random_words(rng, 12), random_words(rng, 9)
    items = [
        Item(id=str(i), prompt=f"{preamble} {random_words(rng, 9)} {middle} {random_words(rng, 9)} {end}", target="yes")
        for i in range(200)
    ]
    other = pack([Item(id=str(i), prompt=random_words(rng, 12), target="no") for i in range(others)], "other")
    finder = Decontaminator.of([pack(items), other])
    for wording in (preamble, middle, end, f"{preamble} {middle} {end}"):
        assert finder.match(f"{wording} and then something else, yes") is None
    assert planted_recall(finder, [pack(items)], ["some text"], seed=0)["quiz"].found == 200


def test_a_bare_question_is_found_though_its_pack_always_puts_words_around_it():
    rng = np.random.default_rng(10)
    bare = [random_words(rng, 8) for _ in range(100)]
    items = [Item(id=str(i), prompt=f"Question: {text}?\nAnswer:", target="yes") for i, text in enumerate(bare)]
    finder = Decontaminator.of([pack(items)])
    assert [found(text, finder) for text in bare] == [((f"quiz/{i}",), "question") for i in range(100)]


def test_options_that_a_prompt_lists_are_no_part_of_the_question():
    question, options = "Which bird of the southern seas cannot fly at all?", ("the albatross", "the king penguin")
    prompt = f"{question}\nA. {options[0]}\nB. {options[1]}\nAnswer:"
    finder = Decontaminator.of([pack([Item(id="x", prompt=prompt, choices=options, answer=1)])])
    assert found(question, finder) == (("quiz/x",), "question")


def test_options_are_listed_only_in_lines_or_behind_labels():
    question, options = "Which of the two is bigger and brighter, the sun or the moon?", ("the sun", "the moon")
    assert searched(Item(id="x", prompt=question, choices=options, answer=0)) == question
    labelled = f"{question} (A) the sun (B) the moon\nAnswer:"
    assert searched(Item(id="x", prompt=labelled, choices=options, answer=0)).strip() == question
    letters = "According to A. Smith, what is B?\nA. the sun\nB. the moon\nAnswer:"
    assert searched(Item(id="x", prompt=letters, choices=("A", "B"), answer=0)) == "According to A. Smith, what is B?"


def test_what_most_questions_begin_with_is_wording_only_up_to_a_mark():
    places = ("Peru", "Chile", "Japan", "Kenya", "Norway", "Mongolia", "Jordan", "Nepal")
    asked = [f"What is the name of the largest city in {place}?" for place in places]
    items = [Item(id=str(i), prompt=f"Question: {text}\nAnswer:", target="?") for i, text in enumerate(asked)]
    finder = Decontaminator.of([pack(items)])
    assert finder.unprotected == ()
    assert [finder.questions.length_I.tolist()] == [[10] * 8]
    assert [found(text, finder) is not None for text in asked] == [True] * 8


def test_a_question_that_a_pack_asks_of_many_passages_is_wording():
    rng = np.random.default_rng(15)
    question = "What is the main idea of this passage?"
    items = [Item(id=str(i), prompt="?", question=question, target=random_words(rng, 6)) for i in range(30)]
    finder = Decontaminator.of([pack(items)])
    assert finder.match(f"He asked us: {question} I slept.") is None
    assert found(f"{question} {items[7].target}", finder) == (("quiz/7",), "question_and_answer")
    copies = [pack([Item(id="x", prompt=random_words(np.random.default_rng(16), 12))], f"copy{k}") for k in range(30)]
    assert len(Decontaminator.of(copies).match(copies[0].items[0].prompt).item_ids) == 30


def test_a_passage_is_no_hit_and_its_question_is():
    rng = np.random.default_rng(11)
    passage, question = random_words(rng, 120), random_words(rng, 12)
    item = Item(id="x", prompt=f"{passage}\n{question}", question=question, passage=passage, target="yes")
    finder = Decontaminator.of([pack([item])])
    assert finder.match(passage) is None
    assert found(question, finder) == (("quiz/x",), "question")


def test_a_question_that_its_passage_holds_is_unprotected_and_one_that_it_holds_in_part_needs_more():
    rng = np.random.default_rng(12)
    whole, partly = random_words(rng, 20), random_words(rng, 20)
    inside = " ".join(partly.split()[:14])
    passage = f"{random_words(rng, 40)} {whole} {random_words(rng, 40)} {inside} {random_words(rng, 40)}"
    items = [
        Item(id=name, prompt="?", question=question, passage=passage, target="yes")
        for name, question in (("whole", whole), ("partly", partly))
    ]
    finder = Decontaminator.of([pack(items)])
    assert finder.unprotected == ("quiz/whole",)
    assert finder.match(passage) is None
    assert found(partly, finder) == (("quiz/partly",), "question")


# ── against plain reckonings ─────────────────────────────────────────────────────────────────────────────────────────


def shares_by_hand(finder, text):
    """Per item the largest share of a question's weight that stands within SHIFT places of one beginning, over all beginnings."""
    asked, words = finder.questions, split_words([text]).hashes_W.tolist()
    best = {}
    for item, name in enumerate(asked.names):
        question = asked.question(item).tolist()
        weights = asked.weight_Q[asked.start_I1[item] : asked.start_I1[item + 1]]
        for begin in range(-len(question), len(words)):
            there = [
                question[k] in words[max(0, begin + k - d.SHIFT) : max(0, begin + k + d.SHIFT + 1)]
                for k in range(len(question))
            ]
            best[name] = max(
                best.get(name, 0), sum(weights[k] for k in range(len(question)) if there[k]) / sum(weights)
            )
    return best


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_hit_has_more_than_the_best_share_by_hand_and_whole_questions_have_all(seed):
    rng = np.random.default_rng(seed)
    items = [Item(id=str(i), prompt=random_words(rng, rng.integers(8, 24))) for i in range(4)]
    finder = Decontaminator.of([pack(items)])
    for item in items:
        words = item.prompt.split()
        for _ in range(rng.integers(0, 6)):
            words[rng.integers(len(words))] = str(rng.choice(VOCABULARY))
        text = f"{random_words(rng, 20)} {' '.join(words)} {random_words(rng, 20)}"
        match, by_hand = finder.match(text), shares_by_hand(finder, text)
        if match is not None:
            assert match.share <= by_hand[match.item_ids[0]] + 1e-4
            assert match.share >= match.need
        if " ".join(words) == item.prompt:
            assert match is not None
            assert match.share == 1.0


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_the_longest_common_subsequence_is_that_of_the_textbook(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    found = longest_common_subsequence(np.array(one, dtype=np.uint64), np.array(other, dtype=np.uint64))
    assert found == table[-1, -1]
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    assert found >= sum(block.size for block in blocks)


def test_the_published_rule_needs_thirteen_words_in_a_row_and_six_tenths_of_the_prompt():
    rng = np.random.default_rng(13)
    prompt = random_words(rng, 30).split()
    finder = Decontaminator.of([pack([Item(id="x", prompt=" ".join(prompt), target="yes")])], rule="finemath@1")
    around = " ".join(f"other{k}" for k in range(40))
    assert found(f"{around} {' '.join(prompt[:18])} {around}", finder) == (("quiz/x",), "finemath@1")
    assert finder.match(f"{around} {' '.join(prompt[:17])} {around}") is None
    in_pieces = " ".join(f"{word} unheard" if k % 12 == 11 else word for k, word in enumerate(prompt))
    assert finder.match(f"{around} {in_pieces}") is None
    short = Decontaminator.of([pack([Item(id="x", prompt=" ".join(prompt[:12]), target="yes")])], rule="finemath@1")
    assert short.unprotected == ("quiz/x",)


def alike(rng, count, own):
    """Prompts that begin with the same 20 words."""
    wording = random_words(rng, 20)
    return [Item(id=str(i), prompt=f"{wording}: {random_words(rng, own)}", target="yes") for i in range(count)]


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_in_pieces_and_with_words_counted_first_the_rule_of_finemath_finds_what_it_says(seed):
    rng = np.random.default_rng(seed)
    items = [*alike(rng, 9, int(rng.integers(2, 30))), Item(id="long", prompt=random_words(rng, 60))]
    finder = Decontaminator.of([pack(items)], rule="finemath@1")
    words = " ".join(items[int(k)].prompt for k in rng.integers(0, 10, 4)).split()
    for place in rng.integers(0, len(words), len(words) // 5):
        words[place] = str(rng.choice(VOCABULARY))
    words = [word.strip(":") for word in words]
    best = {}
    for item in items:
        prompt = item.prompt.replace(":", "").split()
        own_at = {tuple(prompt[own : own + 13]): own for own in range(len(prompt) - 12)}
        grams = (tuple(words[at : at + 13]) for at in range(len(words) - 12))
        begins = {at - own_at[gram] for at, gram in enumerate(grams) if gram in own_at}
        n = len(prompt)
        shares = [common_words(prompt, words[max(0, begin - n) : begin + 2 * n]) / n for begin in begins]
        best[f"quiz/{item.id}"] = max(shares, default=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d, "PIECE_WORDS", int(rng.integers(5, 200)))
        match = finder.match(" ".join(words))
    names = set() if match is None else set(match.item_ids)
    assert all(best[name] >= 0.6 for name in names)
    # Of places within SHIFT of each other the first is compared, which may lack as many words at an end; prompts have 22 or more.
    assert names >= {name for name, share in best.items() if share >= 0.6 + d.SHIFT / 22}


def common_words(one, other):
    """The length of the longest common subsequence, by the table."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for k, there in enumerate(other):
            row.append(before[k] + 1 if word == there else max(before[k + 1], row[k]))
    return row[-1]


def test_a_text_of_prompts_that_begin_alike_costs_by_its_length_and_not_by_the_pairs(monkeypatch):
    rng = np.random.default_rng(4)
    items = alike(rng, 40, 25)
    finder = Decontaminator.of([pack(items)], rule="finemath@1")
    monkeypatch.setattr(d, "PIECE_WORDS", 2_000)
    calls, real = [], d.longest_common_subsequence
    monkeypatch.setattr(d, "longest_common_subsequence", lambda one, other: calls.append(one) or real(one, other))
    for times in (10, 100):
        calls.clear()
        match = finder.match("\n".join(item.prompt for item in items * times))
        assert match is not None
        assert len(match.item_ids) == 40
        assert len(calls) < 3_000  # of 16,000 and 160,000 pairs of a place and a prompt


def test_look_ups_are_those_of_a_dictionary():
    rng = np.random.default_rng(14)
    asked = questions_of([pack([Item(id=str(i), prompt=random_words(rng, 12)) for i in range(50)])])
    grams = np.concatenate([rng.choice(asked.hash_S, 40), rng.integers(0, 2**63, 60).astype(np.uint64)])
    rng.shuffle(grams)
    expected = {(p, s) for p, gram in enumerate(grams) for s in np.flatnonzero(asked.hash_S == gram)}
    assert set(zip(*(column.tolist() for column in asked.look_up(grams)), strict=True)) == expected


def test_texts_together_match_as_they_do_alone():
    texts = [*ORDINARY, "What is the capital of France? Paris", "", f"{LONG} so how many sheep are left"]
    assert FINDER.match_all(texts) == [FINDER.match(text) for text in texts]
    assert [match is not None for match in FINDER.match_all(texts)] == [False, False, False, True, False, True]


@pytest.mark.parametrize("seed", range(12))
def test_an_edited_question_matches_the_same_whatever_stands_before_its_text(seed):
    rng = np.random.default_rng(seed)
    items = [Item(id=str(i), prompt=random_words(rng, rng.integers(8, 24))) for i in range(6)]
    finder = Decontaminator.of([pack(items)])
    for item in items:
        words = item.prompt.split()
        for place in rng.integers(0, len(words) - 2, 4).tolist():
            words[place : place + int(rng.integers(2))] = [str(rng.choice(VOCABULARY))] * int(rng.integers(2))
        text = f"{random_words(rng, rng.integers(4))} {' '.join(words)} {random_words(rng, 5)}"
        assert [finder.match_all(["word " * k, text])[1] for k in range(4)] == [finder.match(text)] * 4


def test_candidates_compared_a_few_at_a_time_match_as_they_do_together(monkeypatch):
    rng = np.random.default_rng(18)
    items = [Item(id=str(i), prompt=random_words(rng, 6 + i % 20), target=random_words(rng, 3)) for i in range(60)]
    finder = Decontaminator.of([pack(items)])
    texts = [" ".join(f"{items[k].prompt} {items[k].target}" for k in rng.integers(0, 60, 9)) for _ in range(9)]
    together = finder.match_all(texts)
    monkeypatch.setattr(d, "COMPARED_WORDS", 30)
    assert finder.match_all(texts) == together
    assert None not in together


def test_a_question_across_two_texts_is_in_neither():
    half = len(LONG) // 2
    assert FINDER.match_all([LONG[:half], LONG[half:]]) == [None, None]


def test_questions_are_the_same_when_they_are_read_back(tmp_path):
    FINDER.questions.write(tmp_path)
    again = Decontaminator(Questions.read(tmp_path))
    texts = [item.prompt + " " + item.gold for item in ITEMS]
    assert again.match_all(texts) == FINDER.match_all(texts)
    assert again.unprotected == FINDER.unprotected


def test_names_are_the_same_when_they_are_read_back_whatever_they_are(tmp_path):
    finder = Decontaminator.of([pack([Item(id=name, prompt=LONG) for name in ("a\nb", "c\rd", "\ud800", "é")])])
    finder.questions.write(tmp_path)
    assert Questions.read(tmp_path).names == finder.questions.names


# ── planting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_recall_is_reported_per_pack_and_form_and_a_missed_item_stops():
    report = planted_recall(FINDER, [pack(ITEMS)], ORDINARY, seed=1)["quiz"]
    assert (report.planted, report.found, report.unprotected_items) == (3, 3, 1)
    assert sum(found for found, _ in report.by_form.values()) == 3
    blind = Decontaminator(FINDER.questions)
    blind.match_all = lambda texts: [None] * len(texts)
    with pytest.raises(DataError, match=r"missed 1 planted items of pack 'quiz', the first is 'quiz/long'"):
        planted_recall(blind, [pack(ITEMS)], ORDINARY, seed=1)


STATEMENTS = [
    [f"{a} {b} are older than the hills that they climb on a day in the autumn" for b in ("goats", "sheep", "cows")]
    for a in ("white", "black", "brown", "yellow", "grey", "green")
]


@pytest.mark.parametrize(
    "items",
    [
        [Item(id="x", prompt=" ".join(str(k * k) for k in range(25)), target="625")],
        [
            Item(id=str(i), prompt="Which is true?\nA. {}\nB. {}\nC. {}\nAnswer:".format(*of), choices=of, answer=2)
            for i, of in enumerate(STATEMENTS)
        ],
        [
            Item(
                id=str(i),
                prompt="What is said of {}?\nA. {}\nB. {}\nC. {}\nAnswer:".format(" ".join(of[0].split()[:2]), *of),
                choices=("A", "B", "C"),
                answer=2,
            )
            for i, of in enumerate(STATEMENTS)
        ],
        [
            Item(
                id=str(i),
                prompt=f"How many {of[0].split()[0]} {a} are on board?\n{'Think step by step. ' * 9}",
                target="3",
            )
            for i, (of, a) in enumerate(zip(STATEMENTS, ("walruses", "pilots", "cooks", "pandas", "nuns", "smiths")))
        ],
    ],
    ids=["numbers", "options and a tiny question", "options named by letters", "a long instruction behind"],
)
def test_all_that_is_looked_for_is_found_as_question_and_answer_whatever_the_pack_is_like(items):
    quiz = pack(items)
    finder = Decontaminator.of([quiz])
    assert finder.unprotected == ()
    for seed in range(6):
        found, planted = planted_recall(finder, [quiz], ORDINARY, seed=seed)["quiz"].by_form["row"]
        assert found == planted > 0


def test_planting_uses_other_forms_than_the_prompt_of_the_pack():
    items = [
        Item(id=str(i), prompt=f"Pack's own words: what number is {i}?", question=f"what number is {i}?", target="one")
        for i in range(10)
    ]
    planted = plant(pack(items), ["a document of some words"], seed=0)
    assert {p.form for p in planted} == set(FORMS)
    assert not any("own words" in p.text for p in planted)


def asked(rng, count, *, template):
    """Items without a `question`, in the wording of a pack."""
    return [
        Item(id=str(i), prompt=template.format(random_words(rng, 11) + "?"), target=random_words(rng, 2))
        for i in range(count)
    ]


TEMPLATES = {
    "a label on either side": "Question: {}\nAnswer:",
    "an instruction of many words": f"{' '.join(VOCABULARY[:30])}:\n{{}}\nNow say what you think of it. The answer is",
    "two shots before": "Q: How old is it?\nA: Nine.\n\nQ: What is that?\nA: A dog.\n\nQ: {}\nA:",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_what_a_pack_says_around_each_item_is_planted_in_one_form_only(template):
    rng = np.random.default_rng(3)
    items = asked(rng, 12, template=template)
    quiz = pack(items)
    own = [
        item.prompt.removeprefix(template.partition("{}")[0]).removesuffix(template.partition("{}")[2])
        for item in items
    ]
    for planted in plant(quiz, ["one", "document of some words"], seed=0):
        place = int(planted.item_id.removeprefix("quiz/"))
        assert (items[place].prompt in planted.text) == (planted.form == "row")
        words = planted.text.replace("\n> ", " ")
        assert own[place] in words
        if planted.form != "row":
            assert not any(one in words for one in template.split("{}") if len(one.split()) > 1)
            assert "Question:" not in words
    assert planted_recall(Decontaminator.of([quiz]), [quiz], ORDINARY, seed=1)["quiz"].found == len(items)


def test_planting_shows_that_items_are_looked_for_with_the_wording_of_their_pack(monkeypatch):
    """Such questions are found where a text has that wording, too, so whole prompts would be found all the same."""
    quiz = pack(asked(np.random.default_rng(3), 12, template=TEMPLATES["an instruction of many words"]))
    monkeypatch.setattr(
        "gristmill.select.item_words.without_wording", lambda words, apart, begins, lengths, whole: (begins, lengths)
    )
    report = planted_recall(Decontaminator.of([quiz]), [quiz], ORDINARY, seed=1)["quiz"]
    assert report.by_form["row"] == (2, 2)
    assert report.found == 2


@pytest.mark.parametrize(
    ("prompts", "own"),
    [
        (["What is the name of a?"] * 3 + ["What is the name of b?"] * 3, None),  # no mark before the name
        (["Q: one two?"] * 4, None),  # too few to show a form
        (
            ["Q: one?", "Q: two?", "Q: three?", "Q: four?", "Q: five?", "six?"],
            ["one?", "two?", "three?", "four?", "five?", "six?"],
        ),
        (
            ["Q: one?", "Q: two?", "Q: three?", "A: four?", "A: five?", "A: six?", "B: seven?"],
            None,
        ),  # of no form half of all
        (["Q: a? A:", "Q: b? A:", "Q: c? A:", "Q: d? A:", "Q: e? A:"], ["a?", "b?", "c?", "d?", "e?"]),
        (["the same."] * 6, None),  # nothing would be left
    ],
)
def test_the_wording_of_a_pack_is_what_half_of_its_prompts_begin_or_end_with_up_to_a_mark(prompts, own):
    items = [Item(id=str(i), prompt=prompt, target="x") for i, prompt in enumerate(prompts)]
    assert [searched(item) for item in foreign(items)] == (own or prompts)


def test_an_item_that_names_its_question_tells_nothing_of_the_wording():
    items = [Item(id=str(i), prompt="Q: it?", question="Q: it?", target="x") for i in range(9)]
    items += [Item(id=f"{name}", prompt=f"Now: {name}?") for name in ("a", "b", "c", "d", "e")]
    assert [searched(item) for item in foreign(items)] == ["Q: it?"] * 9 + ["a?", "b?", "c?", "d?", "e?"]


def test_no_packs_match_nothing():
    assert Decontaminator.of([]).match("anything at all, in any number of words, whatever it may be about") is None
