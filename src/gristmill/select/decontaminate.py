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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.data.packs import Pack
from gristmill.select.item_words import FINEMATH_WORDS, LEAST_BARE, prompts_of, questions_of
from gristmill.select.plain import origin, plain
from gristmill.select.questions import BARE, ONE_RUN, WITH_ANSWER, Questions
from gristmill.select.words import Int64, UInt64, Words, composed, ngram_hashes, ngrams_per_text, split_words

VERSION = 2  # of every step that uses it: rises when the meaning of what it computes changes

RULES = ("coverage@1", "finemath@1")
SHIFT = 3
LEAST_FOUND, LEAST_FOUND_WORDS = 11.0, 7  # weight and number of the words that were found
WHOLE_SHARE = 0.97  # so much of a question is the question itself, and need only weigh LEAST_BARE
ANSWER_WINDOW, LITTLE_ANSWER_WINDOW = 30, 6
LITTLE_ANSWER = 3.0  # information of an answer such as "yes", which stands near anything
EXCERPT_CHARS = 200
BATCH_PASSAGES = 200
PIECE_WORDS = 1 << 13  # of a text in which prompts are looked for together, by the rule of FineMath
COMPARED_WORDS = 1_000_000  # at once; arrays take some 60 bytes a word


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

    def chosen(self, which: NDArray[np.bool_] | Int64 | slice) -> _Hits:
        return _Hits(**{name: value[which] for name, value in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[_Hits]) -> _Hits:
        whole = cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__})
        return whole.chosen(np.lexsort((whole.item_H, -whole.end_H, -whole.share_H, whole.first_H, whole.text_H)))


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
        firsts = np.unique(hits.text_H, return_index=True)[1].tolist()
        for first, end in pairwise([*firsts, len(hits.text_H)]):
            text = int(hits.text_H[first])
            found[text] = self._match(hits.chosen(slice(first, end)), words, texts[text])
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
        if self.rule == "finemath@1":
            return _Hits.joined([hits for k in range(len(words.offsets_D1) - 1) for hits in self._published(words, k)])
        grams, offsets = ngrams_per_text(words, asked.seed_words)
        places, seeds = asked.look_up(grams)
        text = np.searchsorted(offsets, places, side="right") - 1
        item = asked.item_S[seeds].astype(np.int64)
        begin = places - offsets[text] + words.offsets_D1[text] - asked.place_S[seeds]
        bare = asked.way_I[item] == BARE
        offset = words.offsets_D1[text]
        text, item, begin = _distinct(text, item, begin, np.where(bare, (begin - offset) // (SHIFT + 1), begin))
        cuts = np.flatnonzero(np.diff(np.cumsum(asked.length_I[item]) // COMPARED_WORDS)) + 1
        parts = []
        for first, end in pairwise([0, *cuts.tolist(), len(item)]):
            here = slice(first, end)
            bare = asked.way_I[item[here]] == BARE
            parts.append(self._covered(words, text[here][bare], item[here][bare], begin[here][bare]))
            parts.append(self._whole(words, text[here][~bare], item[here][~bare], begin[here][~bare]))
        return _Hits.joined(parts)

    def _covered(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Questions of which enough stands in the text."""
        asked = self.questions
        lowest, highest = words.offsets_D1[text], words.offsets_D1[text + 1]
        length, start = asked.length_I[item], asked.start_I1[item]
        # Of a question that reaches over the end of the text no more can be there than lies inside.
        inside = [np.clip(edge - begin, 0, length) for edge in (lowest - SHIFT, highest + SHIFT)]
        most = asked.weight_until_Q1[start + inside[1]] - asked.weight_until_Q1[start + inside[0]]
        likely = most >= (asked.need_I * asked.total_I)[item] - 1e-3
        text, item, begin = text[likely], item[likely], begin[likely]
        there, place, starts = _compared(words, asked, text, item, begin, SHIFT)
        weight = np.where(there, asked.weight_Q[place], np.float32(0))
        found = _sum_each(weight, starts)
        share = found / np.maximum(asked.total_I[item], np.float32(1e-9))
        enough = np.where(share >= WHOLE_SHARE, np.float32(LEAST_BARE), np.float32(LEAST_FOUND))
        count = _sum_each(there.astype(np.int64), starts)
        held = (share >= asked.need_I[item]) & (found >= enough) & (count >= LEAST_FOUND_WORDS)
        text, item, begin = text[held], item[held], begin[held]
        first_H, end_H = _span(words, asked, text, item, begin)
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=share[held].astype(np.float32),
            words_H=count[held],
            first_H=first_H,
            end_H=end_H,
        )

    def _whole(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Questions that stand in the text as they are, with their answer where it is asked for."""
        asked = self.questions
        there, place, starts = _compared(words, asked, text, item, begin, 0)
        length = asked.length_I[item]
        before_answer = place - np.repeat(asked.start_I1[item], length) < np.repeat(asked.asked_I[item], length)
        moved = before_answer & np.repeat(asked.way_I[item] == ONE_RUN, length)
        there |= moved & _compared(words, asked, text, item, begin, SHIFT)[0]
        held = _sum_each(there.astype(np.int64), starts) == length
        asked_with = np.flatnonzero(held & (asked.way_I[item] == WITH_ANSWER))
        new = (np.diff(text[asked_with]) != 0) | (np.diff(item[asked_with]) != 0)
        for hits in np.split(asked_with, np.flatnonzero(new) + 1) if len(asked_with) else ():
            held[hits] = self._has_answer(words, int(text[hits[0]]), int(item[hits[0]]), begin[hits])
        text, item, begin = text[held], item[held], begin[held]
        first_H, end_H = _span(words, asked, text, item, begin)
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=np.ones(len(item), np.float32),
            words_H=length[held],
            first_H=first_H,
            end_H=end_H,
        )

    def _has_answer(self, words: Words, text: int, item: int, begins: Int64) -> NDArray[np.bool_]:
        """Whether the answer stands close by, for each place where the question does in the text."""
        asked, answer = self.questions, self.questions.answer(item)
        offset, in_text = words.offsets_D1[text], words.of(text)
        places = np.arange(max(0, len(in_text) - len(answer) + 1))
        for k, word in enumerate(answer):
            places = places[in_text[places + k] == word]
        if not len(places):
            return np.zeros(len(begins), dtype=bool)
        places += offset
        reach = LITTLE_ANSWER_WINDOW if asked.answer_tells_I[item] < LITTLE_ANSWER else ANSWER_WINDOW
        ends = begins + asked.length_I[item]
        after = places[np.minimum(np.searchsorted(places, ends), len(places) - 1)] - ends
        before = begins - places[np.maximum(np.searchsorted(places, begins - len(answer), side="right") - 1, 0)]
        found: NDArray[np.bool_] = (after >= 0) & (after <= reach + asked.behind_I[item])
        return found | ((before >= len(answer)) & (before <= reach + len(answer)))

    def _published(self, words: Words, text: int) -> Iterator[_Hits]:
        """Prompts that stand in one text by the rule of FineMath. Where many prompts begin with the same words, each place with these may be
        any of them, so the text is taken in pieces, and a prompt that was found in one is not looked for in the next."""
        asked, offset = self.questions, int(words.offsets_D1[text])
        grams = ngram_hashes(words.of(text), asked.seed_words)
        found = np.zeros(len(asked.names), dtype=bool)
        for first in range(0, max(1, len(grams)), PIECE_WORDS):
            places, seeds = asked.look_up(grams[first : first + PIECE_WORDS])
            item = asked.item_S[seeds].astype(np.int64)
            begin = places + first + offset - asked.place_S[seeds]
            item, begin = item[~found[item]], begin[~found[item]]
            texts = np.full(len(item), text)
            hits = self._finemath(words, *_distinct(texts, item, begin, (begin - offset) // (SHIFT + 1)))
            found[hits.item_H] = True
            yield hits

    def _finemath(self, words: Words, text: Int64, item: Int64, begin: Int64) -> _Hits:
        """Prompts that have a long common subsequence with the part of the text where they would stand. It is no longer than the
        words of the prompt that stand there in any order are many, which are counted first."""
        lowest, highest = words.offsets_D1[text], words.offsets_D1[text + 1]
        length, need = self.questions.length_I[item], self.questions.need_I[item]
        least = (need * length - 1e-3).tolist()
        first, end = np.maximum(lowest, begin - length), np.minimum(highest, begin + 2 * length)
        common = np.zeros(len(item), dtype=np.int64)
        there: dict[tuple[int, int], frozenset[int]] = {}
        for n, (i, a, b) in enumerate(zip(item.tolist(), first.tolist(), end.tolist(), strict=True)):
            if (around := there.get((a, b))) is None:
                around = there[a, b] = frozenset(words.hashes_W[a:b].tolist())
            question = self.questions.question(i)
            if sum(map(around.__contains__, question.tolist())) >= least[n]:
                common[n] = longest_common_subsequence(question, words.hashes_W[a:b])
        share = (common / np.maximum(length, 1)).astype(np.float32)
        return _Hits(
            text_H=text,
            item_H=item,
            share_H=share,
            words_H=common,
            first_H=np.clip(begin, lowest, highest - 1),
            end_H=np.clip(begin + length, lowest + 1, highest),
        ).chosen(share >= need)

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


def _distinct(text: Int64, item: Int64, begin: Int64, group: Int64) -> tuple[Int64, Int64, Int64]:
    """The first of the places of each item in each text that have the same group."""
    order = np.lexsort((begin, item, text))
    text, item, begin, group = text[order], item[order], begin[order], group[order]
    new = np.ones(len(text), dtype=bool)
    new[1:] = (np.diff(text) != 0) | (np.diff(item) != 0) | (np.diff(group) != 0)
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


def _span(words: Words, asked: Questions, text: Int64, item: Int64, begin: Int64) -> tuple[Int64, Int64]:
    """First and end of the words of each question that stand in the text, each as near to its own place as it does."""
    there, place, starts = _compared(words, asked, text, item, begin, SHIFT)
    at = np.arange(starts[-1]) + np.repeat(begin - starts[:-1], np.diff(starts))
    lowest, highest = (np.repeat(words.offsets_D1[text + k], np.diff(starts)) for k in (0, 1))
    stands, missing = at.copy(), there.copy()
    for moved in sorted(range(-SHIFT, SHIFT + 1), key=abs):
        near = np.clip(at + moved, lowest, highest - 1)
        here = missing & (near == at + moved) & (words.hashes_W[near] == asked.word_Q[place])
        stands[here] += moved
        missing &= ~here
    first = np.minimum.reduceat(np.where(there, stands, len(words.hashes_W)), starts[:-1])
    last = np.maximum.reduceat(np.where(there, stands, -1), starts[:-1])
    return first, last + 1
