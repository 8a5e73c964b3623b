"""Every dropped document that names another one names one that is kept, or says who keeps the text of the one it names."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console
from searched import quick_folder
from selecting import kept_rows, rejected_rows, rows_of, run_selection
from test_repeated_text import SIDES, document, words, write_corpus

from gristmill.commands.why import why
from gristmill.recipe.schema.curation import NearDuplicates, RepeatedText, Validation

CHAPTERS = [words(np.random.default_rng((1, n)), 45) for n in range(4)]
SECTION = {
    "near_duplicates": NearDuplicates(max_source_loss=1.0),
    "validation": Validation(fraction=0.1, min_bytes=200, max_bytes=2_000),
    "repeated_text": RepeatedText(unit="paragraph", min_words=10, max_loss=1.0),
}
HAS_GONE = re.compile(r"; that one leaves as only_repeated, most of it stands in (\S+) of source (\S+)$")

SOURCES = st.sampled_from(["manuals", "web", "news"])
CHAPTER_SETS = st.lists(st.sampled_from(range(len(CHAPTERS))), min_size=1, max_size=3, unique=True)
AS_ONE = st.booleans()  # one line, so that no paragraph of it is one of others
BOOKS = st.tuples(SOURCES, CHAPTER_SETS, st.just(90), AS_ONE)
PAGES = st.tuples(
    SOURCES, CHAPTER_SETS, st.sampled_from([0, 4, 12]), AS_ONE
)  # near copies where their chapters are the same


def corpus_of(rows):
    """Documents of (source, chapters, words of its own, as one line), and one more in each source that stays."""
    rng = np.random.default_rng(5)
    sources = {source: [document(source, f"{source}-alone", words(rng, 80))] for source in ("manuals", "web", "news")}
    for n, (source, chapters, own, as_one) in enumerate(rows):
        paragraphs = [*(CHAPTERS[c] for c in sorted(chapters)), *([words(rng, own)] if own else [])]
        sources[source].append(document(source, f"d{n}", *([" ".join(paragraphs)] if as_one else paragraphs)))
    return sources


def check(out):
    """The law. Returns how often each form of it occurred."""
    kept = {(row["source"], row["id"]) for side in SIDES for row in kept_rows(out, "*", side)}
    rejected = {(row["source"], row["id"]): row for row in rejected_rows(out)}
    source_of = {id: source for source, id in [*kept, *rejected]}
    forms = Counter()
    for row in rejected.values():
        named = source_of[row["duplicate_of"]], row["duplicate_of"]
        gone = HAS_GONE.search(row["detail"])
        assert (gone is None) == (named in kept), row
        assert named[0] in row["detail"]
        if gone is not None:
            assert rejected[named]["reason"] == "only_repeated"
            assert rejected[named]["duplicate_of"] == gone[1]
            assert (gone[2], gone[1]) in kept
        forms[row["reason"], gone is not None] += 1
    for row in rows_of(out, "*/edited-*.parquet"):
        assert (row["kept_in"], row["kept_by"]) in kept
    return forms


@settings(
    max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate]
)  # a smaller failing corpus takes minutes
@given(st.lists(BOOKS, min_size=2, max_size=5), st.lists(PAGES, min_size=4, max_size=12))
def test_whom_a_dropped_document_names_is_kept_or_the_row_says_who_keeps_its_text(books, pages):
    with quick_folder() as folder:
        write_corpus(folder, corpus_of([*books, *pages]), shards=2)
        out, _ = run_selection(folder, SECTION, sources=("manuals", "web", "news"), late=("news",))
        check(out)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A page that says nothing but what two books have, its copies, before and after it, and one in a late source."""
    folder = tmp_path_factory.mktemp("chain")
    books = [("manuals", [0], 90, False), ("manuals", [1, 2], 90, False)]
    pages = [("web", [0, 1, 2], own, as_one) for own, as_one in ((8, False), (0, False), (0, True))]
    write_corpus(folder, corpus_of([*books, *pages, ("news", [0, 1, 2], 6, False)]), shards=2)
    section = {**SECTION, "priority": ["manuals"]}
    out, _ = run_selection(folder, section, sources=("manuals", "web", "news"), late=("news",))
    return out


def test_copies_of_a_document_whose_text_is_repeated_leave_with_it_and_say_where_it_stands(chain):
    assert check(chain) == {("only_repeated", False): 1, ("near_duplicate", True): 3}
    assert {row["id"] for row in rejected_rows(chain)} == {"d2", "d3", "d4", "d5"}


def told(out, name):
    console = Console(file=io.StringIO(), width=300)
    why(out.parent, name, console=console)
    return console.file.getvalue()


def test_why_tells_the_chain_from_a_copy_to_who_keeps_its_text(chain):
    assert "copy of d2" in told(chain, "d3")
    assert "; that one leaves as only_repeated, most of it stands in d1 of source manuals" in told(chain, "d3")
    text = told(chain, "d2")
    assert "only_repeated  8 against the limit 10  most of it stands in d1" in text
    assert "3 left because of it" in text
