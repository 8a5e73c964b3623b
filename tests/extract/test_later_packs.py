"""dclm-rw@1, openwebmath@1, olmo2@1 and starcoder@1: the published limits, each rule at its limit, and what they decided when they were frozen."""

from __future__ import annotations

import hashlib
from collections import Counter

import fasttext
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rule_texts import rule_texts

from gristmill.extract.comments import comment_share
from gristmill.extract.dclm_pack import _count_words, edit_dclm
from gristmill.extract.judge import PACKS, judge, limits_of, reasons_of
from gristmill.extract.measures import Measures
from gristmill.extract.starcoder_pack import ANY_CHARACTERS, ANY_LINES, INCLUDED, LETTERS, visible_text

LATER = ("dclm-rw@1", "openwebmath@1", "olmo2@1", "starcoder@1")
PUBLISHED = {
    "dclm-rw@1": {"too_many_words_removed": ("max", 0.05)},  # DCLM's configuration; RefinedWeb, appendix G.2
    "openwebmath@1": {  # OpenWebMath's filter
        "too_few_characters": ("min", 100),
        "too_many_accented_letters": ("max", 0.015),
    },
    "olmo2@1": {"ngram_repeated_in_a_row": ("max", 31)},  # OLMo 2, section 3.1: 32 or more
    "starcoder@1": {  # BigCode's table; SantaCoder, section 3; DeepSeek-Coder, section 2.1
        "unlisted_extension": ("max", 0),
        "line_too_long": ("max", 1000),
        "lines_too_long_on_average": ("max", 100),
        "too_few_letters_and_digits": ("min", 0.25),
        "too_few_letters": ("min", 0.25),
        "too_few_comments": ("min", 0.01),
        "too_many_comments": ("max", 0.8),
        "xml_header": ("max", 0),
        "too_little_visible_text": ("min", 0.2),
        "too_few_visible_characters": ("min", 100),
        "data_file_too_short": ("min", 50),
        "data_file_too_long": ("max", 5000),
    },
}
TEN = "One two three four five six seven eight nine ten."


def test_the_limits_are_the_published_ones() -> None:
    assert {pack: {limit.reason: (limit.kind, limit.limit) for limit in limits_of(pack)} for pack in LATER} == PUBLISHED


def dropped(text: str, pack: str, name: str = "") -> str | None:
    drop = judge(text, [pack], name=name).drop
    return drop and drop.reason


# ── dclm-rw ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ABC def", None),  # 3 of 7
        ("ABCD def", None),  # 4 of 8: the limit is allowed
        ("ABCDE def", "mostly_capitals"),
        ("12345", "all_digits"),
        ("12345 6", None),
        ("3 likes", "counter"),
        ("  1,204.5K   Followers ·", "counter"),
        ("3 likes and more", None),
        ("word", "one_word"),
        ("two words", None),
        ("", None),
        ("3 Items in cart", None),  # "3" is left
        ("Items in Cart", "boilerplate"),
        ("the story Read More...", None),
        ("read more now", None),  # four characters behind "more"
        ("read more: a", "boilerplate"),
        ("Sign-in items in cart", "boilerplate"),
        ("sign-in here a b c d e f g h i j k", None),
    ],
)
def test_a_line_leaves_for_its_reason(line: str, reason: str | None) -> None:
    edited = edit_dclm(f"{TEN}\n{line}\n{TEN}")
    assert edited.lines_removed == ({reason: 1} if reason else {})


def test_boilerplate_is_cut_out_of_short_lines_only() -> None:
    long = "a b c d e f g h i read more..."
    text = f"{TEN}\n0 items in cart\nsee it read more!!!\nSign-in now or\n{long}\n{TEN}"
    assert edit_dclm(text).text == f"{TEN}\n0\nsee it\nnow or\n{long}\n{TEN}"


def test_a_page_may_lose_a_twentieth_of_its_words() -> None:
    lines = "\n".join([TEN] * 2)
    allowed, beyond = f"{lines[:-5]}\nword", f"{lines[:-5]}\nword\nword"  # 1 of 20, 2 of 21
    assert dropped(allowed, "dclm-rw@1") is None
    assert judge(allowed, ["dclm-rw@1"]).text == lines[:-5]
    assert dropped(beyond, "dclm-rw@1") == "too_many_words_removed"
    for nothing in ("", "word", "...\n...", "CAPITALS ALL"):
        assert dropped(nothing, "dclm-rw@1") == "too_many_words_removed"


def test_lines_without_blanks_stay_in_languages_that_have_none() -> None:
    text = "他早上很早就起来了。\n然后他走到河边去。\n水车从秋天起就没有动过。"
    verdict = judge(text, ["dclm-rw@1"], language=lambda: "zh")
    assert (verdict.text, verdict.drop) == (text, None)
    assert judge(text, ["dclm-rw@1"], language=lambda: "en").drop is not None


@given(st.text(st.sampled_from("aB1.é \n\t\x0b\r\u00a0 …")))
def test_words_are_counted_as_fasttext_cuts_them(text: str) -> None:
    assert _count_words(text) == sum(word[0].isalnum() for word in fasttext.FastText.tokenize(text))


# ── openwebmath ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_openwebmath_at_its_limits() -> None:
    assert dropped("x" * 100, "openwebmath@1") is None
    assert dropped("x" * 99, "openwebmath@1") == "too_few_characters"
    assert dropped("é" * 3 + "x" * 197, "openwebmath@1") is None
    assert dropped("É" * 4 + "x" * 196, "openwebmath@1") == "too_many_accented_letters"
    text = f"{'x' * 100}\n\\newcommand a \\newcommand b\n\\newcommand c"
    verdict = judge(text, ["openwebmath@1"])
    assert verdict.text == f"{'x' * 100}\n\\newcommand c"
    assert verdict.lines_removed == {"several_newcommands": 1}


# ── olmo2 ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 6))
def test_repeats_in_a_row_are_those_of_a_plain_count(tokens: list[str], n: int) -> None:
    def repeats(first: int, length: int) -> int:
        gram, count = tokens[first : first + length], 1
        while tokens[first + count * length : first + (count + 1) * length] == gram:
            count += 1
        return count

    places = [(first, k) for k in range(1, n + 1) for first in range(len(tokens) - k + 1)]
    wanted = max((repeats(*place) for place in places), default=0)
    assert Measures(" ".join(tokens)).most_repeats_in_a_row(n) == wanted


@pytest.mark.parametrize("length", [1, 2, 13, 14])
def test_olmo2_at_its_limit(length: int) -> None:
    gram = "".join(f"w{chr(97 + place)} " for place in range(length))
    assert dropped("Begin " + 31 * gram + "end", "olmo2@1") is None
    assert dropped("Begin " + 32 * gram + "end", "olmo2@1") == ("ngram_repeated_in_a_row" if length <= 13 else None)
    assert dropped("Begin " + 32 * gram.replace(" ", ",") + "end", "olmo2@1") == (
        "ngram_repeated_in_a_row" if length <= 6 else None
    )


def test_ruled_lines_are_no_runs() -> None:
    assert dropped(f"{'=' * 80}\nA head\n{'-' * 80}\n# {'* ' * 31}", "olmo2@1") is None


# ── starcoder ────────────────────────────────────────────────────────────────────────────────────────────────────────

CODE = "let value = compute(other);\n"
PY = '"""Says what it does."""\n' + "value = compute(other)\n" * 10
PAGE = "<html><script>let a = 1;</script><style>b {}</style><!-- no -->\n<p class='x'>"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a/b.rs", CODE, None),
        ("a/B.RS", CODE, None),
        ("tree.tar#a/b.rs#0", CODE, None),
        ("Makefile", CODE, None),
        ("a.v/README", CODE, "unlisted_extension"),
        ("a/b.rkt", CODE, "unlisted_extension"),
        ("a/b.mt", CODE, None),
        ("a/b.wlt", CODE, "unlisted_extension"),
        ("", CODE, "unlisted_extension"),
        ("a.c", "x" * 1000 + "\n" * 20, None),
        ("a.c", "x" * 1001 + "\n" * 20, "line_too_long"),
        ("a.fsh", "x" * 500 + "\n" * 20, None),
        ("a.fsh", "x" * 501 + "\n" * 20, "line_too_long"),
        ("a.md", "x" * 5000, None),
        ("a.c", "x" * 100 + "\n" + "x" * 100, None),
        ("a.c", "x" * 101 + "\n" + "x" * 100, "lines_too_long_on_average"),
        ("a.c", "x+++", None),
        ("a.c", "x++++", "too_few_letters_and_digits"),
        ("a.sas", "x++++", None),
        ("a.c", "1234", None),
        ("a.sv", "1234", "too_few_letters"),
        ("a.json", "x" * 50 + "1" * 50, None),
        ("a.json", "x" * 50 + "1" * 51, "too_few_letters"),
        ("a.py", PY, None),
        ("a.py", "value = 1\n" * 10, "too_few_comments"),
        ("a.py", "# " + "why " * 20, "too_many_comments"),
        ("a.java", "// " + "why " * 20 + "\n" + CODE * 5, None),
        ("a.js", CODE * 5, "too_few_comments"),
        ("a.c", CODE * 5, None),
        ("a.c", "x" * 40 + "\n" + "x" * 45 + "<?xml version=1", "xml_header"),
        ("a.xslt", " " * 10 + "<?xml version='1.0' ?> <template/>", None),
        ("a.html", f"{PAGE}{'word ' * 20}</p>", None),
        ("a.html", f"{PAGE}{'word ' * 20}</p>" + "<br><br><br><br>\n" * 30, "too_little_visible_text"),
        ("a.html", f"{PAGE}{'word ' * 19}</p>", "too_few_visible_characters"),
        ("a.yaml", "abcd: " * 8, "data_file_too_short"),
        ("a.yaml", "abcd: efgh\n" * 454, None),
        ("a.yaml", "abcd: efgh\n" * 455, "data_file_too_long"),
    ],
)
def test_starcoder_by_extension(name: str, text: str, reason: str | None) -> None:
    assert dropped(text, "starcoder@1", name) == reason


def test_the_table_of_extensions_is_the_published_one() -> None:
    """Counted in it: 303 rows, 36 of them excluded, one there twice, seven left out; "makefile" is one of those."""
    assert len(INCLUDED) == 303 - 36 - 1 - 7 + 1
    assert ANY_LINES | ANY_CHARACTERS | LETTERS.keys() <= INCLUDED
    assert (len(ANY_LINES), len(LETTERS)) == (30, 19)


def test_comments_and_docstrings_are_told_from_strings() -> None:
    python = (
        '#!x\n"""Doc of\n    two lines."""\na = "# no"\ndef f():\n    """Of f."""  # yes\n    return \'\'\'no\'\'\'\n'
    )
    assert comment_share(python, "py") * len(python) == len("Doc of\ntwo lines.\nOf f.\n!x yes")
    java = 'String a = "// no"; // yes\nchar b = \'"\'; /* and\nthis */ int c = 1;\n'
    assert comment_share(java, "java") * len(java) == len("// yes/* and\nthis */")


def test_visible_text_is_what_is_shown() -> None:
    assert visible_text(f"{PAGE}a &lt; b</p><SCRIPT>x</script> c < d <!-- end") == "\na < b c < d "


# ── laws and what was decided ────────────────────────────────────────────────────────────────────────────────────────


@example("'0\t0", "a.py")
@given(
    st.text(st.characters(exclude_categories=[]))
    | st.lists(
        st.sampled_from(['"', "'", '"""', "#", "//", "/*", "*/", "\\", "\n", "<", ">", "<script>", "`", "3 likes"])
    ).map("".join),
    st.sampled_from(["a.py", "a.js", "a.html", "a.json", "a.md", "x"]),
)
@settings(deadline=None)
def test_any_text_gets_a_verdict_and_editing_twice_changes_nothing_more(text: str, name: str) -> None:
    for pack in LATER:
        verdict = judge(text, [pack], name=name)
        assert verdict.drop is None or verdict.drop.reason in reasons_of(pack)
        assert 0 <= comment_share(text, name.partition(".")[2]) <= 1


@pytest.mark.parametrize(
    "run", ['"', "'", '"""', "'\\", "/*", "#", "<", "<script>", "<!--", "\n0", "0 ", "`", "read more"]
)
def test_long_runs_take_linear_time(run: str) -> None:
    text = run * (300_000 // len(run)) + "\\"
    for name in ("a.py", "a.js", "a.html"):
        judge(text, LATER, off={reason for pack in LATER for reason in reasons_of(pack)}, name=name)


FROZEN = {
    "dclm-rw@1": {"-": 1857, "too_many_words_removed": 458, "sha256": "fffd34b221d9f454"},
    "openwebmath@1": {"-": 2308, "too_many_accented_letters": 6, "too_few_characters": 1, "sha256": "72047d8aa9ed9b46"},
    "olmo2@1": {"-": 2315, "sha256": "6c76d58dc46adab0"},
    "starcoder@1": {
        "-": 2142,
        "too_little_visible_text": 3,
        "lines_too_long_on_average": 153,
        "line_too_long": 15,
        "too_few_visible_characters": 1,
        "too_few_comments": 1,
        "sha256": "b29d58cfe7f28e4b",
    },
}


def test_what_was_decided_when_the_packs_were_frozen() -> None:
    texts = [*rule_texts()]
    for pack in LATER:
        digest, decided = hashlib.sha256(), Counter[str]()
        for name, text in texts:
            verdict = judge(text, [pack], name=name if name.startswith("file-") else f"{name}.html")
            reason = verdict.drop.reason if verdict.drop else "-"
            decided[reason] += 1
            digest.update(f"{name} {reason}\n{verdict.text}\n".encode("utf-8", "surrogatepass"))
        assert {**decided, "sha256": digest.hexdigest()[:16]} == FROZEN[pack]


def test_the_extension_is_that_of_a_file() -> None:
    for name, extension in {
        "a/b.tar.gz": "gz",
        "x#a/B.Py#3#0": "py",
        "a.b/Makefile": "makefile",
        "": "",
        "c#": "",
    }.items():
        assert Measures("", name=name).extension == extension
    assert PACKS.keys() >= set(LATER)
