"""OLMo 2's rule against runs: an n-gram that is repeated on the spot, which makes the loss of a training spike.

Source: OLMo 2 (2025, arXiv 2501.00656, section 3.1 on instabilities). There n-grams are of the model's own tokens; rules come before a
tokenizer, so here they are of words and of runs of one mark, which a tokenizer takes as one token or a few.
"""

from __future__ import annotations

from gristmill.extract.rules import at_most, of_words

MAX_NGRAM = 13

OLMO2 = of_words(at_most("ngram_repeated_in_a_row", 31, lambda text: text.most_repeats_in_a_row(MAX_NGRAM)))
