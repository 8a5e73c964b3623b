"""OpenWebMath's rules about the text of a page.

Source: OpenWebMath's published filter (Paster et al. 2023, arXiv 2310.06786, section 3; `filter_dataset.py` of its repository). Left out
is what needs models that are not published with it (the score for maths, the perplexity) and what it decides by the URL.
"""

from __future__ import annotations

from collections import Counter

from gristmill.extract.english_words import english_words
from gristmill.extract.rules import Edited, EditingPack, Language, Limit, Tokens, not_known

ACCENTED = frozenset("üïöêäâîûôèéà")


def edit_openwebmath(text: str, tokens: Tokens = english_words, language: Language = not_known) -> Edited:
    """The text without lines that define more than one command, which are preambles of LaTeX."""
    lines = text.split("\n")
    kept = [line for line in lines if line.count("newcommand") <= 1]
    text = "\n".join(kept)
    accented = sum(character in ACCENTED for character in text.lower())
    return Edited(
        text=text,
        lines_removed=+Counter({"several_newcommands": len(lines) - len(kept)}),
        measured={"too_few_characters": len(text), "too_many_accented_letters": accented / max(1, len(text))},
    )


OPENWEBMATH = EditingPack(
    edit=edit_openwebmath,
    limits=(
        Limit(reason="too_few_characters", kind="min", limit=100),
        Limit(reason="too_many_accented_letters", kind="max", limit=0.015),
    ),
)
