"""The questions of packs as words: without the wording of their pack, each word weighed, and which runs of words are rare.

    question without the wording of its pack ─→ words ─→ weight a word ─→ seeds: 4 words in a row that few questions share

Passages, options and instructions stay out, so that a page with a passage is no hit. The weight of a word is its information in
English pages (`word_shares`) or among the questions of all packs, whichever is less; words that stand only in runs that many
questions share weigh nothing. For the rule that was published with FineMath (arXiv 2502.02737, 3.3), `prompts_of` takes whole
prompts and runs of 13 words instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gristmill.data.packs import Item, Pack
from gristmill.select.plain import plain
from gristmill.select.questions import BARE, NOT, ONE_RUN, WITH_ANSWER, Float32, Questions, weight_each
from gristmill.select.word_shares import information
from gristmill.select.words import Int64, UInt64, Words, mix, ngram_hashes, split_words

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

SEED_WORDS, FINEMATH_WORDS = 4, 13
BARE_WORDS = 8
RUN_WORDS = 5
ANSWER_WORDS = 13  # of a long answer so many count
COMMON_ITEMS = 20  # words in a row that more questions share are wording, not a question
WORDING_SHARE = 0.5  # of the prompts of a pack begin, or end, with a word that belongs to its form
WORDING_ITEMS = 5  # fewer prompts show no form
SMALL_SUITE = 400  # questions without the word, added when words are counted, so that a small pack has weights too
SHARED_ANSWERS, SHARED_ANSWERS_SHARE = 5, 0.05  # items of a pack with the same answer, from which that tells nothing
LEAST_SEED = 4.0  # information of a run of words that is looked up: ordinary pages are full of those with less
LEAST_BARE = 9.0  # weight of a question that is looked for without its answer
LEAST_WHOLE = 8.0  # and of what is looked for as a whole
LABEL_CHARS = 12  # that may stand before an option in its line
_LABEL = re.compile(r"(?:(?:^|\n)[\W_]*|[(\[]?\b\w{1,2}[)\].:]\s*)\Z")
LONG_QUESTION = 18  # words
LEAST_SHARE, LEAST_SHARE_SHORT, FINEMATH_SHARE = 0.6, 0.7, 0.6
# Of a long question not all runs are looked up, but the rarest of every few that follow one another.
ALL_SEEDS_BELOW, WINDOW, LONG_WORDS, LONG_WINDOW = LONG_QUESTION, 3, 45, 6


def questions_of(packs: Sequence[Pack]) -> Questions:
    """The questions of all items of the packs, in their order."""
    items = [item for pack in packs for item in pack.items]
    pack_I = np.repeat(np.arange(len(packs)), [len(pack.items) for pack in packs])
    asked = split_words([plain(searched(item)) for item in items])
    words, tells, starts = asked.hashes_W, information(asked), asked.offsets_D1
    answers, answer_tells, answer_starts = _answers(items)
    answer_tells_I = weight_each(answer_tells, answer_starts)
    begins, lengths = starts[:-1].copy(), np.diff(starts)
    apart = _apart(asked)
    for k, pack in enumerate(packs):
        mine = pack_I == k
        whole = np.array([bool(item.question) for item in pack.items], dtype=bool)
        begins[mine], lengths[mine] = without_wording(words, apart, begins[mine], lengths[mine], whole)
        answer_tells_I[mine] = np.where(_shared([item.gold for item in pack.items]), 0, answer_tells_I[mine])
    options_I = np.diff(split_words([" ".join(item.choices) for item in items]).offsets_D1)
    behind_I = starts[1:] - begins - lengths + options_I
    way_I = np.select([lengths >= BARE_WORDS, lengths >= RUN_WORDS], [BARE, WITH_ANSWER], NOT).astype(np.int8)
    answered = np.diff(answer_starts) > 0
    # Question and answer in a row, where the question is short: of the whole prompt, since an answer follows that.
    in_a_row = (way_I == NOT) & answered & (np.diff(starts) < BARE_WORDS)
    in_a_row &= np.minimum(np.diff(starts) + np.diff(answer_starts), ANSWER_WORDS) >= RUN_WORDS
    way_I[in_a_row] = ONE_RUN
    way_I[(way_I == WITH_ANSWER) & ~answered] = NOT
    begins[in_a_row], lengths[in_a_row] = starts[:-1][in_a_row], np.diff(starts)[in_a_row]
    run_on = np.where(in_a_row, np.minimum(np.diff(answer_starts), ANSWER_WORDS - lengths), 0)
    both = (np.concatenate([words, answers]), np.concatenate([tells, answer_tells]))
    ranges = np.stack([begins, answer_starts[:-1] + len(words)], axis=1).ravel()
    (word_Q, tells_Q), ends = _cut(both, ranges, np.stack([lengths, run_on], axis=1).ravel())
    weight_Q, shared_Q, rare_Q = _weighed(word_Q, tells_Q, ends[::2], way_I, pack_I)
    return _indexed(
        tells_Q,
        shared_Q,
        rare_Q,
        Questions(
            seed_words=SEED_WORDS,
            names=tuple(item_name(pack, item) for pack in packs for item in pack.items),
            way_I=way_I,
            need_I=np.where(np.diff(ends[::2]) < LONG_QUESTION, LEAST_SHARE_SHORT, LEAST_SHARE).astype(np.float32),
            word_Q=word_Q,
            weight_Q=weight_Q,
            start_I1=ends[::2],
            asked_I=lengths,
            behind_I=behind_I,
            answer_A=answers,
            answer_start_I1=answer_starts,
            answer_tells_I=answer_tells_I,
            hash_S=np.empty(0, np.uint64),
            item_S=np.empty(0, np.int32),
            place_S=np.empty(0, np.int32),
        ),
    )


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
        behind_I=np.zeros(len(lengths), np.int64),
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


def searched(item: Item) -> str:
    """The text of an item that is looked for: its question, else its prompt up to where its options are listed."""
    if item.question:
        return item.question.strip()
    starts: list[int] = []
    for choice in item.choices:
        place = _listed_at(item.prompt, choice.strip(), starts[-1] + 1 if starts else 0)
        if place < 0:
            return item.prompt.strip()
        starts.append(place)
    before = item.prompt[: starts[0]].strip() if len(starts) > 1 else ""
    return before or item.prompt.strip()


def without_wording(
    words: UInt64, apart: NDArray[np.bool_], begins: Int64, lengths: Int64, whole: NDArray[np.bool_]
) -> tuple[Int64, Int64]:
    """First word and number of words of each text without the words that at least half of the texts begin or end with, up to a
    mark or a line break: "Question:" is wording, "What is the name of" is not.

    apart: whether there is more than a blank before each word, and at the end of all. Texts in `whole` are questions alone and stay
    as they are.
    """
    begins, lengths = begins.copy(), lengths.copy()
    rows = np.flatnonzero(~whole)
    if len(rows) < WORDING_ITEMS:
        return begins, lengths
    place = np.arange(len(apart))
    before = np.maximum.accumulate(np.where(apart, place, 0))
    after = np.minimum.accumulate(np.where(apart, place, len(place))[::-1])[::-1]
    for at_end in (False, True):
        first, end = begins.copy(), begins + lengths
        shared = rows
        while len(shared := shared[first[shared] < end[shared]]):
            edge = words[end[shared] - 1 if at_end else first[shared]]
            values, counts = np.unique(edge, return_counts=True)
            if counts.max() < max(WORDING_SHARE * len(rows), WORDING_ITEMS):
                break
            shared = shared[edge == values[counts.argmax()]]
            first[shared] += 0 if at_end else 1
            end[shared] -= 1 if at_end else 0
        first, end = np.maximum(before[first], begins), np.minimum(after[end], begins + lengths)
        begins, lengths = first, np.maximum(end - first, 0)
    return begins, lengths


def _apart(words: Words) -> NDArray[np.bool_]:
    """For each word whether a mark or a line break stands between it and the word before, full-width marks included, which are
    words; True for the first word of a text and behind the last of all."""
    raw = np.frombuffer(words.buffer, dtype=np.uint8)
    apart = np.ones(len(words.hashes_W) + 1, dtype=bool)
    ends, starts = words.ends_W[:-1], words.starts_W[1:]
    mark = (raw[words.starts_W[:-1]] == 0xEF) & (ends - words.starts_W[:-1] == 3)
    apart[1:-1] = mark | (starts - ends > 1) | ((starts - ends == 1) & (raw[ends] != 0x20))
    apart[words.offsets_D1] = True
    return apart


def _listed_at(prompt: str, option: str, start: int) -> int:
    """Where an option is listed, its label included: at the beginning of a line or behind "B." or "(2)"; -1 where it is not."""
    while option and (place := prompt.find(option, start)) >= 0:
        label = _LABEL.search(prompt, max(start, place - LABEL_CHARS), place)
        if label is not None and not prompt[place + len(option) : place + len(option) + 1].isalnum():
            return label.start()
        start = place + 1
    return -1


def _shared(answers: list[str]) -> NDArray[np.bool_]:
    """Which answers are also those of many other items, such as "yes"."""
    _, group, counts = np.unique(np.array(answers, dtype=object), return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = counts[group] >= max(SHARED_ANSWERS, SHARED_ANSWERS_SHARE * len(answers))
    return found


def _weighed(
    word_Q: UInt64, tells_Q: Float32, start_I1: Int64, way_I: NDArray[np.int8], pack_I: Int64
) -> tuple[Float32, Int64, NDArray[np.bool_]]:
    """Of each word its weight, how many questions share the run of words that begins there, and whether it is a run that few do."""
    lengths = np.diff(start_I1)
    item_Q = np.repeat(np.arange(len(lengths)), lengths)
    place_Q = np.arange(len(word_Q)) - start_I1[item_Q]
    distinct_I = _distinct_questions(word_Q, place_Q, start_I1, pack_I)
    per_item = _counts(word_Q, item_Q, distinct_I[item_Q])
    among_items = np.log((distinct_I.sum() + SMALL_SUITE) / (per_item + 1.0)).astype(np.float32)
    weight_Q = np.minimum(tells_Q, np.maximum(among_items, 0))
    whole_Q = place_Q <= lengths[item_Q] - SEED_WORDS  # the run that begins here lies inside the item
    shared_Q = np.where(whole_Q, _counts(_runs(word_Q), item_Q, whole_Q & distinct_I[item_Q]), 0)
    rare_Q = whole_Q & (shared_Q <= COMMON_ITEMS)
    told = np.zeros(len(word_Q), dtype=bool)
    for k in range(SEED_WORDS):
        told[k:] |= rare_Q[: len(rare_Q) - k]
    return np.where(told | (way_I[item_Q] != BARE), weight_Q, np.float32(0)), shared_Q, rare_Q


def _distinct_questions(word_Q: UInt64, place_Q: Int64, start_I1: Int64, pack_I: Int64) -> NDArray[np.bool_]:
    """Which questions count: of equal ones as many as the pack that has it most often. A set that is in two packs counts once,
    and a question that a pack asks of many passages is wording."""
    until = np.concatenate((np.zeros(1, np.uint64), np.cumsum(mix(word_Q + mix(place_Q.astype(np.uint64))))))
    identity = until[start_I1[1:]] - until[start_I1[:-1]]
    order = np.lexsort((identity, pack_I))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(identity[order]) != 0) | (np.diff(pack_I[order]) != 0)
    row = np.arange(len(order))
    times_I = np.empty(len(order), dtype=np.uint64)
    times_I[order] = row - np.maximum.accumulate(np.where(new, row, 0))
    _, firsts = np.unique(mix(identity + mix(times_I)), return_index=True)
    distinct_I = np.zeros(len(order), dtype=bool)
    distinct_I[firsts] = True
    return distinct_I


def _indexed(tells_Q: Float32, shared_Q: Int64, rare_Q: NDArray[np.bool_], asked: Questions) -> Questions:
    """The questions with their seeds; those that tell too little, or have no seed, are looked for with their answer or not at all."""
    lengths, way_I, total_I, gram_Q = asked.length_I, asked.way_I, asked.total_I, _runs(asked.word_Q)
    item_Q = np.repeat(np.arange(len(lengths)), lengths)
    place_Q = np.arange(len(item_Q)) - asked.start_I1[item_Q]
    until = np.concatenate(([0.0], np.cumsum(tells_Q, dtype=np.float64), np.zeros(SEED_WORDS)))
    told_Q = until[SEED_WORDS : SEED_WORDS + len(item_Q)] - until[: len(item_Q)]
    good_Q = rare_Q & (told_Q >= LEAST_SEED)
    has_seed = np.bincount(item_Q[good_Q], minlength=len(lengths)) > 0

    tells_enough = total_I >= np.array([0, LEAST_BARE, LEAST_WHOLE, LEAST_WHOLE], np.float32)[way_I]
    tells_enough &= (way_I != BARE) | has_seed
    with_answer = total_I + asked.answer_tells_I >= LEAST_WHOLE
    tells_enough |= (way_I == WITH_ANSWER) & with_answer
    falls_back = (way_I == BARE) & ~tells_enough & (np.diff(asked.answer_start_I1) > 0) & with_answer
    way_I = np.select([tells_enough, falls_back], [way_I, WITH_ANSWER], NOT).astype(np.int8)

    seed_Q = good_Q & (way_I[item_Q] == BARE) & _rarest(shared_Q, gram_Q, good_Q, item_Q, lengths)
    whole_Q = place_Q <= lengths[item_Q] - SEED_WORDS
    exact = np.flatnonzero(whole_Q & ((way_I[item_Q] == WITH_ANSWER) | (way_I[item_Q] == ONE_RUN)))
    if len(exact):  # the rarest run of each, of the answer where that has one
        across = (way_I[item_Q[exact]] == ONE_RUN) & (place_Q[exact] < asked.asked_I[item_Q[exact]])
        order = exact[np.lexsort((gram_Q[exact], shared_Q[exact], across, item_Q[exact]))]
        seed_Q[order[np.concatenate(([True], np.diff(item_Q[order]) != 0))]] = True
    chosen = np.flatnonzero(seed_Q)
    chosen = chosen[np.lexsort((item_Q[chosen], gram_Q[chosen]))]
    # A run that an item repeats is a seed once: "ha ha ha ..." would have pairs without number with itself.
    again = (np.diff(gram_Q[chosen]) == 0) & (np.diff(item_Q[chosen]) == 0)
    chosen = chosen[np.concatenate(([True], ~again))[: len(chosen)]]
    return replace(
        asked,
        way_I=way_I,
        hash_S=gram_Q[chosen],
        item_S=item_Q[chosen].astype(np.int32),
        place_S=place_Q[chosen].astype(np.int32),
    )


def _runs(word_Q: UInt64) -> UInt64:
    """The hash of the SEED_WORDS words that begin at each; 0 for the last few."""
    gram_Q = np.zeros(len(word_Q), dtype=np.uint64)
    flat = ngram_hashes(word_Q, SEED_WORDS)
    gram_Q[: len(flat)] = flat
    return gram_Q


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


def _answers(items: Sequence[Item]) -> tuple[UInt64, Float32, Int64]:
    """The first words of all answers, their information, and where each answer begins."""
    words = split_words([plain(item.gold) for item in items])
    lengths = np.minimum(np.diff(words.offsets_D1), ANSWER_WORDS)
    (answers, tells), starts = _cut((words.hashes_W, information(words)), words.offsets_D1[:-1], lengths)
    return answers, tells, starts


def _cut(columns: tuple[UInt64, Float32], begins: Int64, lengths: Int64) -> tuple[tuple[UInt64, Float32], Int64]:
    """The words of the ranges, one range after another, and where each begins."""
    starts = np.concatenate(([0], np.cumsum(lengths)))
    index = np.repeat(begins - starts[:-1], lengths) + np.arange(starts[-1])
    return (columns[0][index], columns[1][index]), starts
