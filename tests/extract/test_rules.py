"""Each rule at its threshold, by texts written for it; and any text gets a verdict."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import RecipeError
from gristmill.extract.judge import PACKS, check_rules, judge, limits_of, reasons_of
from gristmill.extract.web_packs import edit_c4

ALL_REASONS = frozenset(reason for pack in PACKS for reason in reasons_of(pack))

PROSE = (
    "The miller rose before the sun and walked down to the river, where the great wheel had stood still since autumn. "
    "Nobody in the village could remember a winter that had been so cold. "
    "He knew that the ice would not hold for long, and he had promised to have flour ready when the carts came. "
    "With a long pole he broke what was left of it, and the water began to move. "
    "By noon both stones were turning, and people stopped on the bridge to listen."
)


def words(count: int) -> str:
    """As many different words of four letters, each with a letter of its own place."""
    return " ".join(f"w{chr(97 + n // 676 % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(count))


def only(reason: str, text: str, pack: str) -> float | None:
    """What the one rule measured if it drops the text, None if it does not; all other rules are off."""
    drop = judge(text, [pack], off=ALL_REASONS - {reason}).drop
    assert drop is None or drop.reason == reason
    return None if drop is None else drop.value


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ANY_TEXT = st.text(st.characters(exclude_categories=[])) | st.lists(
    st.sampled_from(
        ["the", "a", " ", "\n", "\n\n", ".", "...", "•", "-", "#", "{", "lorem ipsum", "x" * 1001, "éß", "\0"]
    )
).map("".join)


@given(ANY_TEXT)
@settings(deadline=None, max_examples=150)
def test_any_text_gets_a_verdict_from_every_rule(text: str) -> None:
    for pack in PACKS:
        verdict = judge(text, [pack], off=ALL_REASONS)
        assert verdict.drop is None
        assert {failure.reason for failure in verdict.would_drop} <= set(reasons_of(pack))
    verdict = judge(text, list(PACKS))
    assert verdict.drop is None or verdict.drop.reason in ALL_REASONS


@given(ANY_TEXT)
@settings(deadline=None, max_examples=100)
def test_the_first_rule_that_would_drop_is_the_one_that_drops(text: str) -> None:
    packs = ["gopher_repetition@1", "gopher_quality@1", "fineweb@1", "code@1"]
    off, on = judge(text, packs, off=ALL_REASONS), judge(text, packs)
    assert on.drop == (off.would_drop[0] if off.would_drop else None)


@given(ANY_TEXT)
@settings(deadline=None, max_examples=100)
def test_c4_editing_twice_changes_nothing_more(text: str) -> None:
    once = edit_c4(text).text
    assert edit_c4(once).text == once or "[" in text


RUNS = [
    run * (200_000 // len(run)) + "x"
    for run in (".", " ", "1", "a", "é", "'", "1.", "a'", "!\n", "- ", "[", "{", "A" * 63 + "\n")
]


@pytest.mark.parametrize("text", RUNS, ids=lambda text: repr(text[:2]))
def test_long_runs_take_linear_time(text: str) -> None:
    # Nothing is timed: a rule that is quadratic in one of these would take minutes.
    assert judge(text, list(PACKS), off=ALL_REASONS).drop is None


def test_plain_prose_passes_every_text_pack_and_is_not_edited() -> None:
    packs = [pack for pack in PACKS if pack not in ("code@1", "starcoder@1")]
    verdict = judge(PROSE, packs)
    assert (verdict.drop, verdict.would_drop, verdict.text) == (None, (), PROSE)


# ── at the threshold ─────────────────────────────────────────────────────────────────────────────────────────────────

PUBLISHED: dict[str, dict[str, tuple[str, float]]] = {
    "gopher_repetition@1": {  # Rae et al. 2021, arXiv 2112.11446, table A1
        "repeated_paragraphs": ("max", 0.30),
        "repeated_paragraph_characters": ("max", 0.20),
        "repeated_lines": ("max", 0.30),
        "repeated_line_characters": ("max", 0.20),
        "top_2_gram": ("max", 0.20),
        "top_3_gram": ("max", 0.18),
        "top_4_gram": ("max", 0.16),
        "repeated_5_grams": ("max", 0.15),
        "repeated_6_grams": ("max", 0.14),
        "repeated_7_grams": ("max", 0.13),
        "repeated_8_grams": ("max", 0.12),
        "repeated_9_grams": ("max", 0.11),
        "repeated_10_grams": ("max", 0.10),
    },
    "gopher_quality@1": {  # the same, appendix A1.1
        "too_few_words": ("min", 50),
        "too_many_words": ("max", 100_000),
        "words_too_short": ("min", 3),
        "words_too_long": ("max", 10),
        "too_many_hashes": ("max", 0.1),
        "too_many_ellipses": ("max", 0.1),
        "too_many_bullet_lines": ("max", 0.9),
        "too_many_lines_end_in_ellipsis": ("max", 0.3),
        "too_few_tokens_with_letters": ("min", 0.8),
        "too_few_stop_words": ("min", 2),
    },
    "fineweb@1": {  # Penedo et al. 2024, arXiv 2406.17557, section 3.4; newlines per word: the code alone
        "too_few_lines_end_in_punctuation": ("min", 0.12),
        "too_many_short_lines": ("max", 0.67),
        "too_many_duplicate_line_characters": ("max", 0.01),
        "too_many_newlines_per_word": ("max", 0.3),
    },
    "code@1": {  # Li et al. 2023, arXiv 2305.06161, section 3; encoded data: Lozhkov et al. 2024, arXiv 2402.19173
        "line_too_long": ("max", 1000),
        "lines_too_long_on_average": ("max", 100),
        "too_few_letters_and_digits": ("min", 0.25),
        "too_few_letters": ("min", 0.25),
        "xml_header": ("max", 0),
        "generated_file": ("max", 0),
        "encoded_data": ("max", 1024),
    },
}


def test_the_limits_are_the_published_ones() -> None:
    for pack, rules in PUBLISHED.items():
        assert {rule.reason: (rule.kind, rule.limit) for rule in limits_of(pack)} == rules
        assert reasons_of(pack) == list(rules)


LINE = "the quick brown fox went over the lazy dog again."


def lines(distinct: int, copies: int, *, join: str = "\n") -> str:
    """`distinct` lines of equal length, then `copies` more of the first."""
    rows = [f"{chr(97 + number // 26)}{chr(97 + number % 26)} {LINE}" for number in range(distinct)]
    return join.join(rows + rows[:1] * copies)


AT_LIMIT: list[tuple[str, str, str, str]] = [
    # pack, reason, allowed, dropped
    ("gopher_repetition@1", "repeated_paragraphs", lines(7, 3, join="\n\n"), lines(6, 3, join="\n\n")),
    ("gopher_repetition@1", "repeated_lines", lines(7, 3), lines(6, 3)),
    ("gopher_repetition@1", "repeated_paragraph_characters", lines(8, 2, join="\n\n"), lines(7, 2, join="\n\n")),
    ("gopher_repetition@1", "repeated_line_characters", lines(8, 2), lines(7, 2)),
    # "aa bb" is 5 characters: 4 of 100 characters allow a share of exactly .20, 5 do not.
    ("gopher_repetition@1", "top_2_gram", "aa bb c d e " * 4 + "x" * 52, "aa bb c d e " * 5 + "x" * 40),
    ("gopher_repetition@1", "top_3_gram", "a b cc 1 " * 3 + "x" * 73, "a b cc 1 " * 3 + "x" * 72),
    ("gopher_repetition@1", "top_4_gram", "a b c dd 1 " * 2 + "x" * 78, "a b c dd 1 " * 2 + "x" * 77),
    ("gopher_quality@1", "too_few_words", words(50), words(49) + " . , !"),
    ("gopher_quality@1", "too_many_words", "ab " * 100_000, "ab " * 100_001),
    ("gopher_quality@1", "words_too_short", "abc " * 60, "abc " * 59 + "ab"),
    ("gopher_quality@1", "words_too_long", "abcdefghij " * 60, "abcdefghij " * 59 + "abcdefghijk"),
    ("gopher_quality@1", "too_many_hashes", "word " * 9 + "#", "word " * 9 + "##"),
    ("gopher_quality@1", "too_many_ellipses", "word " * 9 + "...", "word " * 8 + "… ..."),
    ("gopher_quality@1", "too_many_bullet_lines", "- a\n" * 9 + "\n", "• a\n" * 10 + "- b"),
    ("gopher_quality@1", "too_many_lines_end_in_ellipsis", "a...\n\n" * 3 + "b\n" * 4, "a… \n" * 4 + "b\n" * 6),
    ("gopher_quality@1", "too_few_tokens_with_letters", "a " * 8 + "1 .", "a " * 7 + "1 2 ."),
    ("gopher_quality@1", "too_few_stop_words", "the cat and dog", "the cat The the AND dog"),
    ("fineweb@1", "too_few_lines_end_in_punctuation", "a.\n" * 3 + "a\n" * 22, "a.\n" * 2 + "a\n" * 15),
    ("fineweb@1", "too_many_short_lines", ("a" * 30 + "\n") * 67 + ("b" * 31 + "\n") * 33, ("a" * 30 + "\n") * 68 + ("b" * 31 + "\n") * 32),
    ("fineweb@1", "too_many_duplicate_line_characters", "x" * 198 + "\na\na\nb" * 1, "x" * 97 + "\na\na\na"),
    ("fineweb@1", "too_many_newlines_per_word", "a b c d e f g\nh\ni\nj", "a b c d e f\ng\nh\ni\nj"),
    ("code@1", "line_too_long", "a" * 1000 + "\nb", "a" * 1001 + "\nb"),
    ("code@1", "lines_too_long_on_average", "a" * 199 + "\n", "a" * 200 + "\n"),
    ("code@1", "too_few_letters_and_digits", "1" + "+" * 3, "1" + "+" * 4),
    ("code@1", "too_few_letters", "a" + "1" * 3, "a" + "1" * 4),
    ("code@1", "xml_header", " " * 100 + "<?xml version", " " * 90 + "<?xml version"),
    ("code@1", "generated_file", "\n" * 5 + "# Do not edit", "\n" * 4 + "# DO NOT EDIT this file"),
    ("code@1", "encoded_data", ("A" * 63 + "\n") * 16 + "x = 1", ("A" * 63 + "\n") * 17 + "x = 1"),
]  # fmt: skip


@pytest.mark.parametrize(("pack", "reason", "allowed", "dropped"), AT_LIMIT, ids=[row[1] for row in AT_LIMIT])
def test_the_limit_is_allowed_and_the_next_step_is_dropped(pack: str, reason: str, allowed: str, dropped: str) -> None:
    assert only(reason, allowed, pack) is None
    value = only(reason, dropped, pack)
    assert value is not None
    kind, limit = PUBLISHED[pack][reason]
    assert value > limit if kind == "max" else value < limit


@pytest.mark.parametrize(("n", "limit"), [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)])
def test_repeated_ngrams_at_their_limit(n: int, limit: float) -> None:
    phrase = " ".join(chr(97 + place) * 2 for place in range(n))  # 2 n characters without blanks
    characters = int(2 * n / limit)
    filler = words(2000)
    allowed = f"{phrase} {phrase} {filler}"[: characters + 1].ljust(characters + 1, "x")
    dropped = f"{phrase} {phrase} {filler}"[: characters - 1].ljust(characters - 1, "x")
    assert only(f"repeated_{n}_grams", allowed, "gopher_repetition@1") is None
    value = only(f"repeated_{n}_grams", dropped, "gopher_repetition@1")
    assert value == pytest.approx(2 * n / (characters - 1))


def test_every_rule_of_every_pack_has_a_vector_here() -> None:
    here = {row[1] for row in AT_LIMIT} | {f"repeated_{n}_grams" for n in range(5, 11)}
    elsewhere = {
        "c4@1",
        "dclm-rw@1",
        "openwebmath@1",
        "olmo2@1",
        "starcoder@1",
        "tree@1",
    }  # test_later_packs.py, test_tree_pack.py
    assert here == {reason for pack in PACKS if pack not in elsewhere for reason in reasons_of(pack)}


# ── C4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

FIVE = "One is here. Two is here. Three is here. Four is here. Five is here."


def test_c4_takes_lines_out_and_strips_citations() -> None:
    text = f"  {FIVE}[12][edit][citation needed] [] \ntwo words\nTurn on JavaScript to read\nRead our privacy policy now\n{'x' * 1001} a b\nend of it"
    verdict = judge(text, ["c4@1"])
    assert verdict.drop is None
    assert verdict.text == f"{FIVE} \nend of it"
    assert verdict.lines_removed == {"too_few_words": 1, "javascript": 1, "policy": 1, "word_too_long": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FIVE, None),
        ("One is here. Two is here. Three is here. Four is here.", "too_few_sentences"),
        ("one line is\none line is\none line is\none line is\none line is", None),
        (f"{FIVE}\nif (x) {{ y", "curly_bracket"),
        (f"{FIVE}\njavascript is {{ on a line that goes", None),
        (f"{FIVE}\n{{ short", None),
        (f"{FIVE}\nof {{ [1]", "curly_bracket"),
        (f"{FIVE}\nand then Lorem Ipsum dolor", "lorem_ipsum"),
        (f"{FIVE}\nlorem ipsum", None),
    ],
)
def test_c4_drops_the_page(text: str, reason: str | None) -> None:
    drop = judge(text, ["c4@1"]).drop
    assert (None if drop is None else drop.reason) == reason


def test_a_later_pack_sees_the_text_that_c4_left() -> None:
    text = f"{FIVE}\n" + "xx yy\n" * 20
    assert judge(text, ["fineweb@1"]).drop is not None
    assert judge(text, ["c4@1", "fineweb@1"]).drop is None


# ── off, limits, names ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_that_is_off_is_judged_all_the_same() -> None:
    verdict = judge("The cat and the dog.", ["gopher_quality@1"], off={"too_few_words"})
    assert verdict.drop is None
    assert [(failure.reason, failure.value, failure.limit) for failure in verdict.would_drop] == [
        ("too_few_words", 5, 50)
    ]


def test_a_limit_can_be_another_for_one_source() -> None:
    text = "The cat and the dog."
    assert judge(text, ["gopher_quality@1"], limits={"too_few_words": 5}).drop is None
    drop = judge(text, ["gopher_quality@1"], limits={"too_few_words": 6}).drop
    assert drop is not None
    assert (drop.reason, drop.value, drop.limit) == ("too_few_words", 5, 6)
    assert judge("a { b c d", ["c4@1"], limits={"curly_bracket": 1, "too_few_sentences": 1}).drop is None


OTHER_LANGUAGES = {
    "fr": "Le meunier se leva avant le soleil et descendit vers la rivière, où la grande roue dormait depuis l'automne. "
    "Personne au village ne se souvenait d'un hiver aussi froid. Il savait que la glace ne tiendrait pas longtemps, et il "
    "avait promis de la farine pour le retour des charrettes. Avec une longue perche il brisa ce qui en restait.",
    "hi": "चक्की वाला सूरज निकलने से पहले उठा और नदी की ओर चला गया, जहाँ बड़ा पहिया शरद ऋतु से रुका हुआ था। गाँव में किसी को इतनी "
    "ठंडी सर्दी याद नहीं थी। उसे पता था कि बर्फ़ ज़्यादा देर नहीं टिकेगी, और उसने आटा तैयार रखने का वादा किया था।",
    "zh": "磨坊主在太阳升起之前就起床了,他走到河边,大水车从秋天起就一直停在那里。村里没有人记得有过这么冷的冬天。他知道冰不会维持太久,"
    "而且他答应过车队到来时要准备好面粉。",
}


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_rules_of_english_words_drop_nothing_in_another_language_and_are_counted(language: str) -> None:
    text, packs = OTHER_LANGUAGES[language], ["gopher_repetition@1", "gopher_quality@1"]
    assert judge(text, packs, language=lambda: "en").drop is not None
    assert judge(text, packs).drop is not None
    verdict = judge(text, packs, language=lambda: language)
    assert verdict.drop is None
    assert "too_few_stop_words" in {failure.reason for failure in verdict.would_drop}


def test_c4_keeps_lines_of_languages_that_write_no_blanks() -> None:
    text = "他早上很早就起来了。\n然后他走到河边去。\n水车从秋天起就没有动过。"
    verdict = judge(text, ["c4@1"], language=lambda: "zh")
    assert (verdict.text, verdict.drop) == (text, None)
    assert [failure.reason for failure in verdict.would_drop] == ["too_few_sentences"]
    assert judge(text, ["c4@1"], language=lambda: "en").drop is not None
    blank = judge(text.replace("\n", "\n\n"), ["c4@1"], language=lambda: "zh")
    assert (blank.text, blank.lines_removed["too_few_words"]) == (text, 2)


def test_rules_of_any_text_drop_in_every_language() -> None:
    drop = judge("- 你好\n" * 100, ["gopher_quality@1"], language=lambda: "zh").drop
    assert drop is not None
    assert drop.reason == "too_many_bullet_lines"


def test_the_language_is_looked_for_only_where_it_matters() -> None:
    judge(PROSE, list(PACKS), language=lambda: pytest.fail("nothing failed that depends on it"))


def test_names_that_do_not_exist_are_refused_with_those_that_do() -> None:
    check_rules(["c4@1"], ["curly_bracket"], {"too_few_sentences": 3}, where="sources.web.rules")
    with pytest.raises(RecipeError, match=r"sources\.web\.rules\.packs names 'c4@2'; there are gopher_repetition@1"):
        check_rules(["c4@2"], [], {}, where="sources.web.rules")
    with pytest.raises(RecipeError, match=r"off names 'curly', a reason of none of its packs"):
        check_rules(["c4@1"], ["curly"], {}, where="sources.web.rules")
    with pytest.raises(RecipeError, match=r"limits names 'too_few_words'"):
        check_rules(["c4@1"], [], {"too_few_words": 3}, where="sources.web.rules")
