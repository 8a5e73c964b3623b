"""The questions of packs as words: without the wording of their pack, each word weighed, and which runs of words are rare.

    question without the wording of its pack ─→ words ─→ weight a word ─→ seeds: 4 words in a row that few questions share

Passages, options and instructions stay out, so that a page with a passage is no hit. The weight of a word is its information in
English pages (`word_shares`) or among the questions of all packs, whichever is less; words that stand only in runs that many
questions share weigh nothing. For the rule that was published with FineMath (arXiv 2502.02737, 3.3), `prompts_of` takes whole
prompts and runs of 13 words instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gristmill.data.packs import Item, Pack
from gristmill.select.plain import plain
from gristmill.select.questions import BARE, NOT, ONE_RUN, WITH_ANSWER, Float32, Questions, weight_each
from gristmill.select.word_shares import information
from gristmill.select.words import Int64, UInt64, mix, ngram_hashes, split_words

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

SEED_WORDS, FINEMATH_WORDS = 4, 13
BARE_WORDS = 8
RUN_WORDS = 5
ANSWER_WORDS = 13  # of a long answer so many count
COMMON_ITEMS = 20  # words in a row that more questions share are wording, not a question
WORDING_SHARE = 0.5  # of the prompts of a pack begin, or end, with a word that belongs to its form
WORDING_ITEMS = 5  # fewer prompts show no form
SMALL_SUITE = (
    400  # questions without the word that are added when words are counted, so that a small pack has weights too
)
SHARED_ANSWERS, SHARED_ANSWERS_SHARE = 5, 0.05  # items of a pack with the same answer, from which that tells nothing
LEAST_SEED = 4.0  # information of a run of words that is looked up: ordinary pages are full of those with less
LEAST_BARE = 9.0  # weight of a question that is looked for without its answer
LEAST_WHOLE = 8.0  # and of what is looked for as a whole
LONG_QUESTION = 18  # words
LEAST_SHARE, LEAST_SHARE_SHORT, FINEMATH_SHARE = 0.6, 0.7, 0.6
# Of a long question not all runs are looked up, but the rarest of every few that follow one another.
ALL_SEEDS_BELOW, WINDOW, LONG_WORDS, LONG_WINDOW = LONG_QUESTION, 3, 45, 6


def questions_of(packs: Sequence[Pack]) -> Questions:
    """The questions of all items of the packs, in their order."""
    items = [item for pack in packs for item in pack.items]
    words, tells, starts = _split([plain(_searched(item)) for item in items])
    answers, answer_tells, answer_starts = _split([plain(item.gold) for item in items])
    (answers, answer_tells), answer_starts = _cut(
        (answers, answer_tells), answer_starts[:-1], np.minimum(np.diff(answer_starts), ANSWER_WORDS)
    )
    begins, lengths = starts[:-1].copy(), np.diff(starts)
    first = 0
    for pack in packs:
        mine = slice(first, first + len(pack.items))
        whole = np.array([bool(item.question) for item in pack.items], dtype=bool)
        begins[mine], lengths[mine] = without_wording(words, begins[mine], lengths[mine], whole)
        first += len(pack.items)
    way_I = np.select([lengths >= BARE_WORDS, lengths >= RUN_WORDS], [BARE, WITH_ANSWER], NOT).astype(np.int8)
    answered = np.diff(answer_starts) > 0
    # Question and answer in a row, where the question is short: of the whole prompt, since an answer follows that.
    in_a_row = (way_I == NOT) & answered & (np.diff(starts) < BARE_WORDS)
    in_a_row &= np.minimum(np.diff(starts) + np.diff(answer_starts), ANSWER_WORDS) >= RUN_WORDS
    way_I[in_a_row] = ONE_RUN
    way_I[(way_I == WITH_ANSWER) & ~answered] = NOT
    begins[in_a_row], lengths[in_a_row] = starts[:-1][in_a_row], np.diff(starts)[in_a_row]
    behind = np.where(in_a_row, np.minimum(np.diff(answer_starts), ANSWER_WORDS - lengths), 0)
    both = (np.concatenate([words, answers]), np.concatenate([tells, answer_tells]))
    ranges = np.stack([begins, answer_starts[:-1] + len(words)], axis=1).ravel()
    (word_Q, tells_Q), ends = _cut(both, ranges, np.stack([lengths, behind], axis=1).ravel())
    names = tuple(item_name(pack, item) for pack in packs for item in pack.items)
    answer_tells_I = weight_each(answer_tells, answer_starts)
    first = 0
    for pack in packs:
        mine = slice(first, first + len(pack.items))
        answer_tells_I[mine] = np.where(_shared([item.gold for item in pack.items]), 0, answer_tells_I[mine])
        first += len(pack.items)
    return _indexed(names, way_I, word_Q, tells_Q, ends[::2], lengths, answers, answer_starts, answer_tells_I)


def prompts_of(packs: Sequence[Pack]) -> Questions:
    """Whole prompts, for the rule of FineMath: each run of 13 words is a seed, each word weighs the same, and there are no answers."""
    words = split_words([plain(item.prompt) for pack in packs for item in pack.items])
    lengths = np.diff(words.offsets_D1)
    item_Q = np.repeat(np.arange(len(lengths)), lengths)
    place_Q = np.arange(len(item_Q)) - words.offsets_D1[item_Q]
    seeds = np.flatnonzero(place_Q <= lengths[item_Q] - FINEMATH_WORDS)
    hash_S = ngram_hashes(words.hashes_W, FINEMATH_WORDS)[seeds] if len(seeds) else np.empty(0, np.uint64)
    order = np.argsort(hash_S, kind="stable")
    nothing = np.zeros(len(lengths), np.float32)
    return Questions(
        seed_words=FINEMATH_WORDS,
        names=tuple(item_name(pack, item) for pack in packs for item in pack.items),
        way_I=np.where(lengths >= FINEMATH_WORDS, BARE, NOT).astype(np.int8),
        need_I=np.full(len(lengths), FINEMATH_SHARE, np.float32),
        word_Q=words.hashes_W,
        weight_Q=np.ones(len(item_Q), np.float32),
        start_I1=words.offsets_D1,
        asked_I=lengths,
        answer_A=np.empty(0, np.uint64),
        answer_start_I1=np.zeros(len(lengths) + 1, np.int64),
        answer_tells_I=nothing,
        hash_S=hash_S[order],
        item_S=item_Q[seeds][order].astype(np.int32),
        place_S=place_Q[seeds][order].astype(np.int32),
    )


def item_name(pack: Pack, item: Item) -> str:
    """How an item is named in ledgers: "pack/item", which is often what its id says already."""
    return item.id if item.id.startswith(f"{pack.name}/") else f"{pack.name}/{item.id}"


def without_wording(words: UInt64, begins: Int64, lengths: Int64, whole: NDArray[np.bool_]) -> tuple[Int64, Int64]:
    """First word and number of words of each text without the words that at least half of the texts begin or end with.

    Texts in `whole` are questions alone and stay as they are.
    """
    begins, lengths = begins.copy(), lengths.copy()
    rows = np.flatnonzero(~whole)
    if len(rows) < WORDING_ITEMS:
        return begins, lengths
    for at_end in (False, True):
        shared = rows
        while len(shared := shared[lengths[shared] > 0]):
            edge = words[begins[shared] + (lengths[shared] - 1 if at_end else 0)]
            values, counts = np.unique(edge, return_counts=True)
            if counts.max() < max(WORDING_SHARE * len(rows), WORDING_ITEMS):
                break
            shared = shared[edge == values[counts.argmax()]]
            begins[shared] += 0 if at_end else 1
            lengths[shared] -= 1
    return begins, lengths


def _shared(answers: list[str]) -> NDArray[np.bool_]:
    """Which answers are also those of many other items, such as "yes"."""
    _, group, counts = np.unique(np.array(answers, dtype=object), return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = counts[group] >= max(SHARED_ANSWERS, SHARED_ANSWERS_SHARE * len(answers))
    return found


def _searched(item: Item) -> str:
    """The text of an item that is looked for: its question, else its prompt up to where its options are listed."""
    if item.question:
        return item.question
    places = [item.prompt.find(choice.strip()) for choice in item.choices]
    listed = len(places) > 1 and min(places) > 0 and places == sorted(places)
    return item.prompt[: places[0]] if listed else item.prompt


def _indexed(
    names: tuple[str, ...],
    way_I: NDArray[np.int8],
    word_Q: UInt64,
    tells_Q: Float32,
    start_I1: Int64,
    asked_I: Int64,
    answers: UInt64,
    answer_starts: Int64,
    answer_tells_I: Float32,
) -> Questions:
    lengths = np.diff(start_I1)
    item_Q = np.repeat(np.arange(len(names)), lengths)
    place_Q = np.arange(len(word_Q)) - start_I1[item_Q]
    # Equal questions of several packs count once.
    until = np.concatenate((np.zeros(1, np.uint64), np.cumsum(mix(word_Q + mix(place_Q.astype(np.uint64))))))
    identity = until[start_I1[1:]] - until[start_I1[:-1]]
    _, firsts = np.unique(identity, return_index=True)
    distinct_I = np.zeros(len(names), dtype=bool)
    distinct_I[firsts] = True

    per_item = _counts(word_Q, item_Q, distinct_I[item_Q])
    among_items = np.log((distinct_I.sum() + SMALL_SUITE) / (per_item + 1.0)).astype(np.float32)
    weight_Q = np.minimum(tells_Q, np.maximum(among_items, 0))

    gram_Q = np.zeros(len(word_Q), dtype=np.uint64)
    flat = ngram_hashes(word_Q, SEED_WORDS)
    gram_Q[: len(flat)] = flat
    whole_Q = place_Q <= lengths[item_Q] - SEED_WORDS  # the gram that begins here lies inside the item
    shared_Q = np.where(whole_Q, _counts(gram_Q, item_Q, whole_Q & distinct_I[item_Q]), 0)
    rare_Q = whole_Q & (shared_Q <= COMMON_ITEMS)
    told = np.zeros(len(word_Q), dtype=bool)
    for k in range(SEED_WORDS):
        told[k:] |= rare_Q[: len(rare_Q) - k]
    weight_Q = np.where(told | (way_I[item_Q] != BARE), weight_Q, np.float32(0))
    total_I = weight_each(weight_Q, start_I1)
    tells_enough = total_I >= np.array([0, LEAST_BARE, LEAST_WHOLE, LEAST_WHOLE], np.float32)[way_I]
    tells_enough |= (way_I == WITH_ANSWER) & (total_I + answer_tells_I >= LEAST_WHOLE)
    falls_back = (way_I == BARE) & ~tells_enough & (np.diff(answer_starts) > 0)
    falls_back &= total_I + answer_tells_I >= LEAST_WHOLE
    way_I = np.select([tells_enough, falls_back], [way_I, WITH_ANSWER], NOT).astype(np.int8)

    until = np.concatenate(([0.0], np.cumsum(tells_Q, dtype=np.float64), np.zeros(SEED_WORDS)))
    told_Q = until[SEED_WORDS : SEED_WORDS + len(word_Q)] - until[: len(word_Q)]
    good_Q = rare_Q & (told_Q >= LEAST_SEED)
    seed_Q = good_Q & (way_I[item_Q] == BARE) & _rarest(shared_Q, gram_Q, good_Q, item_Q, lengths)
    exact = np.flatnonzero(whole_Q & ((way_I[item_Q] == WITH_ANSWER) | (way_I[item_Q] == ONE_RUN)))
    if len(exact):  # the rarest run of each, of the answer where that has one
        across = (way_I[item_Q[exact]] == ONE_RUN) & (place_Q[exact] < asked_I[item_Q[exact]])
        order = exact[np.lexsort((gram_Q[exact], shared_Q[exact], across, item_Q[exact]))]
        seed_Q[order[np.concatenate(([True], np.diff(item_Q[order]) != 0))]] = True
    chosen = np.flatnonzero(seed_Q)
    chosen = chosen[np.argsort(gram_Q[chosen], kind="stable")]
    return Questions(
        seed_words=SEED_WORDS,
        names=names,
        way_I=way_I,
        need_I=np.where(lengths < LONG_QUESTION, LEAST_SHARE_SHORT, LEAST_SHARE).astype(np.float32),
        word_Q=word_Q,
        weight_Q=weight_Q,
        start_I1=start_I1,
        asked_I=asked_I,
        answer_A=answers,
        answer_start_I1=answer_starts,
        answer_tells_I=answer_tells_I,
        hash_S=gram_Q[chosen],
        item_S=item_Q[chosen].astype(np.int32),
        place_S=place_Q[chosen].astype(np.int32),
    )


def _rarest(
    shared_Q: Int64, gram_Q: UInt64, rare_Q: NDArray[np.bool_], item_Q: Int64, length_I: Int64
) -> NDArray[np.bool_]:
    """Which runs are seeds: all of short questions; of longer ones the rarest of every few that follow one another."""
    rank = np.where(rare_Q, shared_Q, COMMON_ITEMS + 1) * 1.0 + (gram_Q >> np.uint64(12)) / 2.0**52
    length_Q = length_I[item_Q]
    seeds = length_Q < ALL_SEEDS_BELOW
    for window, mine in (
        (WINDOW, (length_Q >= ALL_SEEDS_BELOW) & (length_Q < LONG_WORDS)),
        (LONG_WINDOW, length_Q >= LONG_WORDS),
    ):
        if len(rank) < window:
            continue
        views = np.lib.stride_tricks.sliding_window_view(rank, window)
        starts = np.flatnonzero(mine[: len(views)] & (item_Q[: len(views)] == item_Q[window - 1 :]))
        seeds[starts + views[starts].argmin(axis=1)] = True
    return seeds


def _counts(value_Q: UInt64, item_Q: Int64, counted_Q: NDArray[np.bool_]) -> Int64:
    """For each entry in how many items its value stands, among those that are counted."""
    _, group_Q = np.unique(value_Q, return_inverse=True)
    rows = np.flatnonzero(counted_Q)
    pairs = np.unique(group_Q[rows] * np.int64(item_Q[-1] + 1 if len(item_Q) else 1) + item_Q[rows])
    width = np.int64(item_Q[-1] + 1 if len(item_Q) else 1)
    items_G = np.bincount(pairs // width, minlength=int(group_Q.max()) + 1 if len(group_Q) else 0)
    found: Int64 = items_G[group_Q]
    return found


def _split(texts: list[str]) -> tuple[UInt64, Float32, Int64]:
    words = split_words(texts)
    return words.hashes_W, information(words), words.offsets_D1


def _cut(columns: tuple[UInt64, Float32], begins: Int64, lengths: Int64) -> tuple[tuple[UInt64, Float32], Int64]:
    """The words of the ranges, one range after another, and where each begins."""
    starts = np.concatenate(([0], np.cumsum(lengths)))
    index = np.repeat(begins - starts[:-1], lengths) + np.arange(starts[-1])
    return (columns[0][index], columns[1][index]), starts
