"""What datatrove's rules decide on texts. Runs in the environment that ask_datatrove.py makes; needs nothing of ours but the rules.

Without arguments: for each text of the sample a line with the id, a hash of the text, and the reason of each pack, or "-"; for C4 a
hash of the text that it left. With a file of texts: on how many texts, by pack, ours decides otherwise, and how much time both took.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb  # type: ignore[import-not-found]
import datatrove.pipeline.filters.gopher_quality_filter as gopher  # type: ignore[import-not-found]
import datatrove.pipeline.filters.gopher_repetition_filter as repetition  # type: ignore[import-not-found]
from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.pipeline.filters import C4QualityFilter  # type: ignore[import-not-found]
from datatrove.utils.text import split_into_words  # type: ignore[import-not-found]
from rule_texts import rule_texts

from gristmill.extract.judge import judge

FILTERS = {
    "gopher_repetition@1": repetition.GopherRepetitionFilter(),
    "gopher_quality@1": gopher.GopherQualityFilter(),
    "c4@1": C4QualityFilter(filter_no_terminal_punct=False),  # as FineWeb has it
    "fineweb@1": fineweb.FineWebQualityFilter(),
}
REASONS = {
    "dup_para_frac": "repeated_paragraphs",
    "dup_para_char_frac": "repeated_paragraph_characters",
    "dup_line_frac": "repeated_lines",
    "dup_line_char_frac": "repeated_line_characters",
    **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"repeated_{n}_grams" for n in range(5, 11)},
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "words_too_short",
    "gopher_above_avg_threshold": "words_too_long",
    "gopher_too_many_hashes": "too_many_hashes",
    "gopher_too_many_ellipsis": "too_many_ellipses",
    "gopher_too_many_bullets": "too_many_bullet_lines",
    "gopher_too_many_end_ellipsis": "too_many_lines_end_in_ellipsis",
    "gopher_below_alpha_threshold": "too_few_tokens_with_letters",
    "gopher_enough_stop_words": "too_few_stop_words",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "too_few_sentences",
    "line_punct_ratio": "too_few_lines_end_in_punctuation",
    "short_line_ratio": "too_many_short_lines",
    "char_dup_ratio": "too_many_duplicate_line_characters",
    "list_ratio": "too_many_newlines_per_word",
}


def decide(pack: str, text: str) -> tuple[str | None, str]:
    """Datatrove's reason, in our word, and the text that it left."""
    document = Document(text=text, id="")
    told = FILTERS[pack].filter(document)
    return None if told is True else REASONS[told[1]], document.text


def hash_of(text: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(texts: Iterable[tuple[str, str]]) -> None:
    """The table, to standard output."""
    print("\t".join(("id", "sha256", *FILTERS, "left by c4@1")))
    for name, text in texts:
        found = {pack: decide(pack, text) for pack in FILTERS}
        left = "-" if found["c4@1"][0] else hash_of(found["c4@1"][1])
        print("\t".join((name, hash_of(text), *(reason or "-" for reason, _ in found.values()), left)))


def compare(texts: Sequence[str]) -> None:
    """By pack, with its tokens and with ours: texts that are decided otherwise, and the times."""
    theirs: dict[str, list[Any]] = {}
    for pack in FILTERS:
        started = time.process_time()
        theirs[pack] = [decide(pack, text) for text in texts]
        seconds = time.process_time() - started
        for tokens in (None, lambda text: split_into_words(text, "eng")):
            started = time.process_time()
            verdicts = [judge(text, [pack], **({} if tokens is None else {"tokens": tokens})) for text in texts]
            took = time.process_time() - started
            ours = [(verdict.drop and verdict.drop.reason, verdict.text) for verdict in verdicts]
            other = sum(
                mine[0] != his[0] or (not his[0] and mine[1] != his[1])
                for mine, his in zip(ours, theirs[pack], strict=True)
            )
            print(
                f"{pack:20} {'our' if tokens is None else 'its'} tokens: {other:,} of {len(texts):,} decided otherwise; "
                f"{seconds / took:.1f} times as fast"
            )


if __name__ == "__main__":
    if sys.argv[1:]:
        with open(sys.argv[1], encoding="utf-8") as file:
            compare([json.loads(line)["text"] for line in file])
    else:
        write(rule_texts())
