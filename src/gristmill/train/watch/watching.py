"""What a pretraining measures of itself: held-out text, packs, texts it writes; and what it notes of that for who shows it.

What is asked for when, cadence.py says; how much of it there is time for, pace.py. It reads the model and changes nothing of the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gristmill.data.packs import Item, Pack
from gristmill.graph.ranks import is_first
from gristmill.model.generate import check_fit, generate
from gristmill.recipe.schema.training import Pretrain
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import derive_seed, fingerprint
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.cadence import PACKS, STAGE, TEXT, measured_after
from gristmill.train.course import Course, Segment
from gristmill.train.events import AboveGuessingEvent
from gristmill.train.loop import Hook, Progress
from gristmill.train.outputs import BITS, WATCHING_SECONDS, eval_metric, interval_of
from gristmill.train.scorer import BitsPerByte, Score, bits_per_byte, part_of, score_pack
from gristmill.train.session import Session
from gristmill.train.watch.gold import check_gold, gold_bits_per_byte, guessing_level, with_gold
from gristmill.train.watch.long_context import LongContext
from gristmill.train.watch.pace import FEWEST_BYTES, Amounts, Pace, affordable_part
from gristmill.train.watch.positions import edges_of, find_needles, read_long
from gristmill.train.watch.watched import (
    ACCURACY,
    ACCURACY_PER_BYTE,
    GOLD_BITS,
    WATCHING,
    Reference,
    StageEnd,
    Watched,
    WatchedPack,
    WatchedText,
    curve,
    left_guessing,
    measured_lines,
)

NOTES = "watching"  # a key of what a checkpoint carries along
BYTES_PER_TOKEN = 4.0  # where there is no held-out text to count
SAMPLE_TOKENS = 64
SAMPLE_TEMPERATURE = 0.8
SAMPLE_TOP_P = 0.95


@dataclass(kw_only=True)
class Watcher:
    """What is measured on the way, and written into the metrics log.

    validation: held-out text of each source. packs: by kind, PACKS or STAGE. reference_of: finds the curves of an earlier run of what is
    measured.
    """

    session: Session
    tokenizer: Tokenizer
    section: Pretrain
    course: Course
    validation: Mapping[str, TokenShard]
    packs: Mapping[str, Mapping[str, Pack]]
    seed: int
    reference_of: Callable[[Sequence[WatchedPack], Sequence[WatchedText]], Reference | None] = lambda packs, texts: None
    says_that_it_is_slower: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for name, pack in self._all_packs.items():
            check_gold(pack, name)
        check_fit(self.session.model, self.prompt_ids(), 1)  # now, not after the first stage
        self.ends = [segment.last_step for segment in self.course.segments]
        self.amounts = self._affordable()
        watch = self.section.watch
        self.pace = Pace(
            stage_ends=self.ends,
            max_share=watch.max_share,
            tokens=self._tokens(self.amounts),
            between=[TEXT, PACKS] if self.packs[PACKS] or self.section.sample_prompts else [TEXT],
            **self.session.notes.get(NOTES, {}),
        )
        self.watched = self._watched()
        if is_first(self.session.runtime.ranks):
            write_json(self.session.out / WATCHING, self.watched.to_json())

    def hooks(self) -> list[Hook]:
        """Long texts around a context extension; and wherever something is due, on which all ranks agree, while the first one knows whether there
        is time for it."""
        return [
            Hook(at=lambda step: bool(self.course.extensions_at(step)), run=self.read_long_texts),
            Hook(at=lambda step: bool(self.due(step)), run=self.watch),
        ]

    def due(self, step: int) -> list[str]:
        """The kinds that are asked for after a step."""
        return measured_after(step, self.course, self.section)

    def watch(self, progress: Progress) -> None:
        """Measures what is due and allowed, notes what that took, and tells of a pack that has left guessing behind."""
        step, seconds = progress.step, progress.seconds
        kinds = [kind for kind in self.due(step) if self.pace.allows(kind, step=step, training_seconds=seconds)]
        if kinds != self.due(step):
            self._say_that_it_is_slower(progress)
        values: dict[str, float] = {}
        took: dict[str, float] = {}
        for kind in kinds:
            started = time.perf_counter()
            values |= self._texts(progress) if kind == TEXT else self._scores(kind)
            if kind == PACKS and progress.step:
                self.write_samples(progress)
            took[kind] = time.perf_counter() - started
        self.pace.took(took, step=step)
        self.session.notes[NOTES] = self.pace.to_json()
        if not values:
            return
        values[WATCHING_SECONDS] = sum(took.values())
        self.session.monitor.evaluation(step, progress.tokens, values)
        for event in self._left_guessing(progress):
            self.session.monitor.event(event)
            self.session.runtime.say(str(event))

    # ── what is measured ──

    def _texts(self, progress: Progress) -> dict[str, float]:
        """Bits per byte of every source that has validation text. Positions beyond the stage's length are untrained."""
        values: dict[str, float] = {}
        for name, shard in self._scored_text.items():
            bits = bits_per_byte(
                self.session.model,
                self.tokenizer,
                shard,
                max_bytes=self.amounts.validation_bytes,
                cuts_last=True,
                window=self._segment(progress).seq_len,
            )
            values |= _with_interval(eval_metric(BITS, name), bits)
        return values

    def _scores(self, kind: str) -> dict[str, float]:
        """Accuracy where the model chooses, bits per byte of the right answer where it would write."""
        values: dict[str, float] = {}
        for name, pack in self.packs[kind].items():
            if pack.kind == "multiple_choice":
                score = score_pack(self.session.model, self.tokenizer, pack, max_items=self.amounts.max_items)
                values |= _with_interval(eval_metric(ACCURACY, name), score.accuracy)
                values |= _with_interval(eval_metric(ACCURACY_PER_BYTE, name), score.accuracy_per_byte)
            else:
                bits = gold_bits_per_byte(self.session.model, self.tokenizer, pack, max_items=self.amounts.max_items)
                values |= {} if bits is None else _with_interval(eval_metric(GOLD_BITS, name), bits)
        return values

    def read_long_texts(self, progress: Progress) -> None:
        """Before and after each stage that extends the context: the loss by position, and after it the map of needles."""
        model = self.session.model
        for number in self.course.extensions_at(progress.step):
            old, new = (self.course.segments[place].seq_len for place in (number - 1, number))
            is_after = progress.step == self.course.segments[number].last_step
            needles = (
                find_needles(model, self.tokenizer, self._scored_text, old=old, new=new, seed=self.seed)
                if is_after
                else ()
            )
            line = LongContext(
                step=progress.step,
                tokens=progress.tokens,
                kind="positions",
                stage=self.stage_name(number),
                is_after=is_after,
                old=old,
                new=new,
                edges=edges_of(old, new),
                documents=read_long(model, self.tokenizer, self._scored_text, old=old, new=new),
                needles=needles,
            )
            self.session.monitor.positions(line.to_json())

    def write_samples(self, progress: Progress) -> None:
        """Continues each of the recipe's prompts; the same prompt draws the same random numbers at every step."""
        prompts, ids = self.section.sample_prompts, self.prompt_ids()
        room = self.session.model.config.max_position_embeddings - max(map(len, ids), default=0)
        texts = generate(
            self.session.model,
            ids,
            max_new_tokens=max(1, min(SAMPLE_TOKENS, room)),
            stop_ids=[self.tokenizer.eos_id],
            temperature=SAMPLE_TEMPERATURE,
            top_p=SAMPLE_TOP_P,
            seeds=[derive_seed(self.seed, "sample", prompt) for prompt in prompts],
        )
        for prompt, new_ids in zip(prompts, texts, strict=True):
            kept = [token for token in new_ids if token != self.tokenizer.eos_id]
            sample = {
                "stage": self.stage_name(self.course.segments.index(self._segment(progress))),
                "prompt": prompt,
                "text": self.tokenizer.decode(kept),
            }
            self.session.monitor.sample(progress.step, progress.tokens, sample)

    def prompt_ids(self) -> list[list[int]]:
        """The recipe's prompts, each after an end-of-text token."""
        return [[self.tokenizer.eos_id, *self.tokenizer.encode(prompt)] for prompt in self.section.sample_prompts]

    def stage_name(self, number: int) -> str:
        """What the recipe calls the stage."""
        return self.section.stages[number].name

    def _left_guessing(self, progress: Progress) -> Iterator[AboveGuessingEvent]:
        """An event for each pack of letters whose latest measurement is the one that proves it."""
        letters = [pack for pack in self.watched.packs if pack.is_of_letters]
        lines = measured_lines(self.session.out) if letters else []
        for pack in letters:
            points, level = curve(lines, pack.key), pack.guessing or 0.0
            if not points or points[-1].step != progress.step or left_guessing(points[:-1], level) is not None:
                continue
            found = left_guessing(points, level)
            if found is not None and found.low is not None:
                yield AboveGuessingEvent(
                    step=found.step,
                    tokens=found.tokens,
                    pack=pack.name,
                    guessing=level,
                    value=found.value,
                    low=found.low,
                )

    # ── how much, and of what ──

    @cached_property
    def _all_packs(self) -> dict[str, Pack]:
        return {name: pack for packs in self.packs.values() for name, pack in packs.items()}

    @cached_property
    def _scored_text(self) -> dict[str, TokenShard]:
        return {name: shard for name, shard in self.validation.items() if shard.num_documents}

    def _affordable(self) -> Amounts:
        """What the recipe asks for, or as much of it as stage ends may take."""
        watch = self.section.watch
        asked = Amounts(
            max_items=min(watch.max_items, max((len(pack.items) for pack in self._all_packs.values()), default=0)),
            validation_bytes=min(
                watch.validation_bytes, max((s.num_bytes for s in self._scored_text.values()), default=0)
            ),
        )
        tokens = self._tokens(asked)
        part = affordable_part(
            scored_tokens=(len(self.ends) + 1) * (tokens[TEXT] + tokens[PACKS]) + len(self.ends) * tokens[STAGE],
            trained_tokens=self.section.total_tokens,
            max_share=watch.max_share,
        )
        amounts = asked.reduced(part)
        if amounts != asked:
            fewer = (
                (amounts.max_items, asked.max_items, "items of a pack"),
                (amounts.validation_bytes, asked.validation_bytes, "bytes of a source's held-out text"),
            )
            told = " and ".join(f"{some:,} of {every:,} {what}" for some, every, what in fewer if some < every)
            self.session.runtime.say(
                f"Watching is to take {watch.max_share:.2g} of the time of training at most (pretrain.watch.max_share): {told} are scored."
            )
        return amounts

    def _tokens(self, amounts: Amounts) -> dict[str, float]:
        """About how many tokens one measurement scores, by kind."""
        shards = self._scored_text.values()
        text_bytes = sum(shard.num_bytes for shard in shards)
        bytes_per_token = text_bytes / sum(shard.num_tokens for shard in shards) if text_bytes else BYTES_PER_TOKEN
        scored = {TEXT: sum(min(shard.num_bytes, amounts.validation_bytes) for shard in shards)}
        scored |= {
            kind: sum(_asked_bytes(pack, amounts) for pack in packs.values()) for kind, packs in self.packs.items()
        }
        return {kind: num_bytes / bytes_per_token for kind, num_bytes in scored.items()}

    def _watched(self) -> Watched:
        """What is measured, for who shows it."""
        packs = [self._watched_pack(name, pack) for name, pack in self._all_packs.items()]
        texts = [
            WatchedText(source=name, text_hash=_text_hash(shard, self.tokenizer, self.amounts.validation_bytes))
            for name, shard in self._scored_text.items()
        ]
        batch = self.section.global_batch_tokens
        ends = [StageEnd(name=self.stage_name(n), step=end, tokens=end * batch) for n, end in enumerate(self.ends)]
        reference = self.reference_of(packs, texts)
        if reference is not None and reference.left_out:
            self.session.runtime.say(
                f"Not compared with {reference.folder}, which did not measure the same items or text: {', '.join(reference.left_out)}."
            )
        return Watched(packs=packs, texts=texts, stage_ends=ends, reference=reference)

    def _watched_pack(self, name: str, pack: Pack) -> WatchedPack:
        group = pack.group or name
        if pack.kind != "multiple_choice":
            items = part_of(with_gold(pack), self.amounts.max_items)
            return WatchedPack(
                name=name, group=group, metric=GOLD_BITS, items=len(items), items_sha256=_items_hash(pack, items)
            )
        items = part_of(pack.items, self.amounts.max_items)
        return WatchedPack(
            name=name,
            group=group,
            metric=ACCURACY if pack.metric == "acc" else ACCURACY_PER_BYTE,
            items=len(items),
            items_sha256=_items_hash(pack, items),
            guessing=guessing_level(items, pack.chance) if pack.is_of_letters else pack.chance,
            is_of_letters=pack.is_of_letters,
        )

    def _say_that_it_is_slower(self, progress: Progress) -> None:
        """Once."""
        if self.says_that_it_is_slower:
            self.says_that_it_is_slower = False
            self.session.runtime.say(
                f"Watching: at step {progress.step:,} nothing or not all is measured, so that it takes no more than "
                f"{self.section.watch.max_share:.2g} of the time of training; a step takes {progress.seconds / max(1, progress.step):.2g} s, one "
                f"measurement {self.pace.cost([TEXT, PACKS]):.2g} s. Stage ends are always measured."
            )

    def _segment(self, progress: Progress) -> Segment:
        """The stage that was trained last."""
        return next(segment for segment in self.course.segments if progress.step <= segment.last_step)


def _with_interval(key: str, found: Score | BitsPerByte) -> dict[str, float]:
    low, high = interval_of(key)
    return {key: found.value, low: found.low, high: found.high}


def _asked_bytes(pack: Pack, amounts: Amounts) -> int:
    """Bytes that the model reads to be scored on a pack: the prompt again for each choice."""
    items = part_of(pack.items, amounts.max_items)
    return sum(len((item.prompt + answer).encode()) for item in items for answer in item.choices or (item.gold,))


def _items_hash(pack: Pack, items: Sequence[Item]) -> str:
    """The pack's own where all its items are scored, else one that names those that are: runs are compared on the same ones."""
    if len(items) == len(pack.items):
        return pack.sha256
    return fingerprint({"pack": pack.sha256, "items": [item.id for item in items]})


def _text_hash(shard: TokenShard, tokenizer: Tokenizer, max_bytes: int) -> str:
    """Of the first documents, and of how many bytes are scored, the last document being cut there."""
    texts, num_bytes = list[str](), 0
    for number in range(shard.num_documents):
        if num_bytes >= FEWEST_BYTES:
            break
        texts.append(tokenizer.decode(shard.document(number)[:-1]))
        num_bytes += len(texts[-1].encode())
    return fingerprint({"cut_at_bytes": min(shard.num_bytes, max_bytes), "begin": texts})
