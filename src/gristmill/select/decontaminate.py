"""Evaluation items found in any text: documents, conversations, preference pairs.

    text ─→ plain ─→ words ─→ seeds of questions in it ─→ (item, where it would begin) ─→ compared word by word

A question counts as found where enough of it stands in the text: the weight of its words that are there, each within SHIFT places of
where it should be, against the weight of all. So words may be changed, left out or added; upper case, line breaks, quoting and
JSON change nothing. Rules, by the way an item is looked for (`questions`):

    question             .6 of the weight, .7 of a question below 18 words, and no less than LEAST_FOUND in all
    question_and_answer  the whole question, and the right answer within ANSWER_WINDOW words of it, on either side
    one_run              question and answer, with SHIFT words between them at most

An answer alone, a passage, options or the wording of a pack are ordinary text. Where the passage of an item holds part of its
question, more of it must be found; where it holds all, the item is not looked for, and counted as unprotected: its documents must
be held out by id.

`finemath@1` is the published rule instead: 13 words in a row of the prompt, and a longest common subsequence of .6 of its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.data.packs import Pack
from gristmill.select.item_words import FINEMATH_WORDS, LEAST_BARE, prompts_of, questions_of
from gristmill.select.plain import origin, plain
from gristmill.select.questions import BARE, ONE_RUN, WITH_ANSWER, Questions
from gristmill.select.words import Int64, UInt64, Words, composed, ngrams_per_text, split_words

VERSION = 2  # of every step that uses it: rises when the meaning of what it computes changes

RULES = ("coverage@1", "finemath@1")
SHIFT = 3
LEAST_FOUND, LEAST_FOUND_WORDS = 11.0, 7  # weight and number of the words that were found
WHOLE_SHARE = 0.97  # so much of a question is the question itself, and need only weigh LEAST_BARE
ANSWER_WINDOW, LITTLE_ANSWER_WINDOW = 30, 6
LITTLE_ANSWER = 3.0  # information of an answer such as "yes", which stands near anything
EXCERPT_CHARS = 200
BATCH_PASSAGES = 200


@dataclass(frozen=True, kw_only=True)
class Match:
    """Items found in a text. `start` and `end` are characters of the first hit in the composed text (NFC), `words` how many of
    its words were found, `share` how much of the item that is, by weight, and `need` what is asked for."""

    item_ids: tuple[str, ...]
    rule: str
    share: float
    need: float
    words: int
    start: int
    end: int
    excerpt: str

    @property
    def detail(self) -> str:
        """One line for a ledger."""
        return f"{', '.join(self.item_ids[:5])} by {self.rule}, characters {self.start}-{self.end}: {self.excerpt!r}"


@dataclass(frozen=True, kw_only=True)
class _Hits:
    """Hits in a batch of texts, in the order of texts and places. first, end: words of the text."""

    text_H: Int64
    item_H: Int64
    share_H: NDArray[np.float32]
    words_H: Int64
    first_H: Int64
    end_H: Int64

    def chosen(self, which: NDArray[np.bool_] | Int64) -> _Hits:
        return _Hits(**{name: value[which] for name, value in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[_Hits]) -> _Hits:
        whole = cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__})
        return whole.chosen(np.lexsort((whole.item_H, -whole.end_H, whole.first_H, whole.text_H)))


class Decontaminator:
    """Finds items in texts. `unprotected` are the ids of items that are not looked for."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.rule = RULES[questions.seed_words == FINEMATH_WORDS]
        self.unprotected = questions.unprotected

    @classmethod
    def of(cls, packs: Iterable[Pack], *, rule: str = RULES[0]) -> Decontaminator:
        """Looks for the items of these packs by one of RULES."""
        packs = tuple(packs)
        if rule == "finemath@1":
            return cls(prompts_of(packs))
        finder = cls(questions_of(packs))
        return cls(finder.questions.asking_more(finder.in_own_passages(packs)))

    def match(self, text: str) -> Match | None:
        """The items in one text, or None."""
        return self.match_all([text])[0]

    def match_all(self, texts: Sequence[str]) -> list[Match | None]:
        """As match, for many texts at once; the cost per text is a few look-ups in sorted tables."""
        found: list[Match | None] = [None] * len(texts)
        if not texts or not len(self.questions.hash_S):
            return found
        words = split_words([plain(text) for text in texts])
        hits = self._hits(words)
        for text in np.unique(hits.text_H).tolist():
            found[text] = self._match(hits.chosen(hits.text_H == text), words, texts[text])
        return found

    def in_own_passages(self, packs: Sequence[Pack]) -> NDArray[np.float32]:
        """Of each item the largest share that is found in a passage of its own pack, 0 for most: a page with that passage would be
        taken for the item."""
        share_I = np.zeros(len(self.questions.names), dtype=np.float32)
        first = 0
        for pack in packs:
            end = first + len(pack.items)
            passages = sorted({item.passage for item in pack.items if item.passage})
            for begin in range(0, len(passages), BATCH_PASSAGES):
                hits = self._hits(split_words([plain(text) for text in passages[begin : begin + BATCH_PASSAGES]]))
                own = hits.chosen((hits.item_H >= first) & (hits.item_H < end))
                np.maximum.at(share_I, own.item_H, own.share_H)
            first = end
        return share_I

    def _hits(self, words: Words) -> _Hits:
        asked = self.questions
        grams, offsets = ngrams_per_text(words, asked.seed_words)
        places, seeds = asked.look_up(grams)
        text = np.searchsorted(offsets, places, side="right") - 1
        item = asked.item_S[seeds].astype(np.int64)
        begin = places - offsets[text] + words.offsets_D1[text] - asked.place_S[seeds]
        bare = asked.way_I[item] == BARE
        near = self._finemath if self.rule == "finemath@1" else self._covered
        whole = _distinct(text[~bare], item[~bare], begin[~bare], 1)
        return _Hits.joined(
            [near(words, *_distinct(text[bare], item[bare], begin[bare], SHIFT + 1)), self._whole(words, *whole)]
        )

    def _covered(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Questions of which enough stands in the text."""
        asked = self.questions
        there, place, starts = _compared(words, asked, text, item, begin, SHIFT)
        weight = np.where(there, asked.weight_Q[place], np.float32(0))
        found = _sum_each(weight, starts)
        share = found / np.maximum(asked.total_I[item], np.float32(1e-9))
        enough = np.where(share >= WHOLE_SHARE, np.float32(LEAST_BARE), np.float32(LEAST_FOUND))
        count = _sum_each(there.astype(np.int64), starts)
        held = (share >= asked.need_I[item]) & (found >= enough) & (count >= LEAST_FOUND_WORDS)
        order = np.arange(len(there)) - np.repeat(starts[:-1], np.diff(starts))
        last = np.maximum.reduceat(np.where(there, order, -1), starts[:-1]) if len(item) else order
        first = np.minimum.reduceat(np.where(there, order, len(order)), starts[:-1]) if len(item) else order
        lowest, highest = words.offsets_D1[text], words.offsets_D1[text + 1]
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=share.astype(np.float32),
            words_H=count,
            first_H=np.clip(begin + first, lowest, highest - 1),
            end_H=np.clip(begin + last + 1, lowest + 1, highest),
        ).chosen(held)

    def _whole(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Questions that stand in the text as they are, with their answer where it is asked for."""
        asked = self.questions
        there, place, starts = _compared(words, asked, text, item, begin, 0)
        length = asked.length_I[item]
        before_answer = place - np.repeat(asked.start_I1[item], length) < np.repeat(asked.asked_I[item], length)
        moved = before_answer & np.repeat(asked.way_I[item] == ONE_RUN, length)
        there |= moved & _compared(words, asked, text, item, begin, SHIFT)[0]
        held = _sum_each(there.astype(np.int64), starts) == length
        for hit in np.flatnonzero(held & (asked.way_I[item] == WITH_ANSWER)).tolist():
            lowest, highest = words.offsets_D1[text[hit]], words.offsets_D1[text[hit] + 1]
            answer = asked.answer(int(item[hit]))
            little = asked.answer_tells_I[item[hit]] < LITTLE_ANSWER
            reach = len(answer) + (LITTLE_ANSWER_WINDOW if little else ANSWER_WINDOW)
            end = begin[hit] + length[hit]
            before = words.hashes_W[max(lowest, begin[hit] - reach) : begin[hit]]
            held[hit] = _stands_in(answer, words.hashes_W[end : min(highest, end + reach)]) or _stands_in(
                answer, before
            )
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=np.ones(len(item), np.float32),
            words_H=length,
            first_H=np.maximum(begin, words.offsets_D1[text]),
            end_H=begin + length,
        ).chosen(held)

    def _finemath(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Prompts that have a long common subsequence with the part of the text where they would stand."""
        lowest, highest = words.offsets_D1[text], words.offsets_D1[text + 1]
        length = self.questions.length_I[item]
        first, end = np.maximum(lowest, begin - length), np.minimum(highest, begin + 2 * length)
        common = [
            longest_common_subsequence(self.questions.question(i), words.hashes_W[a:b])
            for i, a, b in zip(item.tolist(), first.tolist(), end.tolist(), strict=True)
        ]
        share = (np.array(common, dtype=np.int64) / np.maximum(length, 1)).astype(np.float32)
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=share,
            words_H=np.array(common, dtype=np.int64),
            first_H=np.clip(begin, lowest, highest - 1),
            end_H=np.clip(begin + length, lowest + 1, highest),
        ).chosen(share >= self.questions.need_I[item])

    def _match(self, hits: _Hits, words: Words, text: str) -> Match:
        asked = self.questions
        first, end = words.characters(int(hits.text_H[0]), *self._within(hits, words))
        start, end = origin(text, first), origin(text, end - 1) + 1
        rules = {BARE: "question", WITH_ANSWER: "question_and_answer"}
        rule = rules.get(int(asked.way_I[hits.item_H[0]]), "one_run")
        return Match(
            item_ids=tuple(dict.fromkeys(asked.names[item] for item in hits.item_H.tolist())),
            rule=self.rule if self.rule == "finemath@1" else rule,
            share=round(float(hits.share_H[0]), 4),
            need=round(float(asked.need_I[hits.item_H[0]]), 4) if rule == "question" else 1.0,
            words=int(hits.words_H[0]),
            start=start,
            end=end,
            excerpt=composed(text)[start : min(end, start + EXCERPT_CHARS)],
        )

    @staticmethod
    def _within(hits: _Hits, words: Words) -> tuple[int, int]:
        """The first hit as words of its text."""
        offset = int(words.offsets_D1[hits.text_H[0]])
        return int(hits.first_H[0]) - offset, int(hits.end_H[0]) - offset


def longest_common_subsequence(one: UInt64, other: UInt64) -> int:
    """Its length, with a machine word a row (Hyyrö 2004): a step for each word of the other, whatever the length of the one."""
    places: dict[int, int] = {}
    for place, word in enumerate(one.tolist()):
        places[word] = places.get(word, 0) | 1 << place
    ones = (1 << len(one)) - 1
    row = ones
    for word in other.tolist():
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & ones
    return len(one) - row.bit_count()


def _distinct(text: Int64, item: Int64, begin: Int64, width: int) -> tuple[Int64, Int64, Int64]:
    """One of the places of each item in each text that lie within `width` words."""
    order = np.lexsort((begin, item, text))
    text, item, begin = text[order], item[order], begin[order]
    new = np.ones(len(text), dtype=bool)
    new[1:] = (np.diff(text) != 0) | (np.diff(item) != 0) | (np.diff(begin // width) != 0)
    return text[new], item[new], begin[new]


def _compared(
    words: Words, asked: Questions, text: Int64, item: Int64, begin: Int64, shift: int
) -> tuple[NDArray[np.bool_], Int64, Int64]:
    """For all words of the questions one after another: whether it stands in the text within `shift` places of its own, and its
    place among the words of all questions; then where each question begins."""
    length = asked.length_I[item]
    starts = np.concatenate(([0], np.cumsum(length)))
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], length)
    place = np.repeat(asked.start_I1[item], length) + within
    wanted, at = asked.word_Q[place], np.repeat(begin, length) + within
    lowest, highest = np.repeat(words.offsets_D1[text], length), np.repeat(words.offsets_D1[text + 1], length)
    there = np.zeros(len(at), dtype=bool)
    for moved in range(-shift, shift + 1):
        inside = (at + moved >= lowest) & (at + moved < highest)
        there |= inside & (words.hashes_W[np.where(inside, at + moved, 0)] == wanted)
    return there, place, starts


def _sum_each(values: NDArray[np.number[Any]], starts: Int64) -> NDArray[Any]:
    """The sum of the values of each question."""
    return np.add.reduceat(values, starts[:-1]) if len(starts) > 1 else values[:0]


def _stands_in(answer: UInt64, words_W: UInt64) -> bool:
    begins = np.flatnonzero(words_W == answer[0]).tolist()
    return any(np.array_equal(words_W[place : place + len(answer)], answer) for place in begins)
