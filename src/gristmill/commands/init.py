"""`gristmill init`: a commented recipe over a person's own folder of text, counted and sized to it, which runs as it is."""

from __future__ import annotations

import math
import re
import shlex
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from gristmill.commands.doctor import measure_training
from gristmill.commands.init_folder import general_text, look_into, refuse_to_overwrite, texts_in
from gristmill.commands.init_page import say_what_has_no_share, say_what_is_left, say_what_was_made, sources_table
from gristmill.data.outside import without_dots
from gristmill.display import doing
from gristmill.draft.ahead import Ahead
from gristmill.draft.conversations import with_context, write_conversations
from gristmill.draft.count import Count, SourceCount, count
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import FEWEST_CHARS, FEWEST_LONG_CHARS, passage_chars, train_share, validation_for
from gristmill.draft.hours import Asked, PlannedTime
from gristmill.draft.interval import Estimate, unique_tokens
from gristmill.draft.released import Released, read_released, released_shape
from gristmill.draft.sample import Limits
from gristmill.draft.size import (
    MIN_TOKENS,
    budget_for,
    check_size,
    deepened,
    shape_for,
)
from gristmill.draft.write import (
    Written,
    draft_recipe,
    failed_share,
    raised_limit,
    recipe_text,
)
from gristmill.errors import DataError, RecipeError
from gristmill.graph.cores import NOTABLE, CoreWatch, busy_cores, times_as_long
from gristmill.graph.machine import Machine
from gristmill.planning.reading import keep_readings
from gristmill.planning.speed import hardware_name, keep_matmul, keep_speed, machine_speed
from gristmill.recipe.json_schema import schema_text
from gristmill.recipe.load import CONVERSATIONS_FILE, IN_FOLDER, SCHEMA_FILE
from gristmill.recipe.schema.curation import Source, Validation
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import write_text
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import counted, in_bytes

SEED = 8
MAX_FAILED: float = Source.model_fields["max_failed"].default
MEASURED_MOST_SECONDS = 30.0
MEASURED_USUAL_SECONDS = 15.0
MEASURED_SECONDS = 2.0  # per shape, where no profile says how fast the machine trains
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMbBgG]?)")
FACTORS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}


def init(
    folder: Path,
    *,
    data: Path | None,
    console: Console,
    machine: Machine | None = None,
    limits: Limits | None = None,
    minutes: float | None = None,
    size: str | None = None,
    chat: bool = False,
    released: Path | None = None,
    replay: Path | None = None,
) -> Path:
    """Writes FOLDER/recipe.yaml over the text in `data` (or FOLDER/data), and the schema that editors check it by.

    minutes: what the run may take on this machine; size: parameters of the model, such as "10M"; chat: with conversations.
    released: the folder of a model that is continued; replay: of general text, of which it then reads some, too.
    Raises RecipeError when a recipe is there already or the model is none that can be continued, and DataError when there is too
    little text.
    """
    machine, limits = machine or Machine(), limits or Limits()
    if size is not None:
        check_size(parameters_of(size))
    parameters = None if size is None else parameters_of(size)
    _check_options(size=size, chat=chat, released=released, replay=replay)
    refuse_to_overwrite(folder, chat=chat)
    model = None if released is None else read_released(released, without_dots(folder.absolute()))
    asked = Asked(minutes=minutes, parameters=parameters, chat=chat, released=model)
    texts = texts_in(folder, data)
    general = None if replay is None else general_text(replay, texts)
    with _new_folder(folder):
        return _init(folder, texts, general, asked, machine=machine, limits=limits, console=console)


def _check_options(*, size: str | None, chat: bool, released: Path | None, replay: Path | None) -> None:
    """Raises RecipeError for options that exclude each other."""
    if released is None and replay is not None:
        raise RecipeError(
            "--replay is general text for a released model that is trained further; name its folder with --from, or leave --replay out."
        )
    if released is not None and size is not None:
        raise RecipeError("--size and --from exclude each other: a released model has its size. Leave --size out.")
    if released is not None and chat:
        raise RecipeError(
            "--chat and --from exclude each other. Leave --chat out; the sections of chat can be added to the recipe afterwards, as "
            "recipes/quickstart.yaml has them."
        )


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """The folder is there, for patterns are relative to it. Where no recipe comes of it, what was not there before is gone again."""
    new = [path for path in (folder / SCHEMA_FILE, folder / CONVERSATIONS_FILE, folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in new if not (folder / IN_FOLDER).exists() else ():
            with suppress(OSError):  # the folder may hold what somebody else put there
                path.rmdir() if path == folder else path.unlink()


def _init(
    folder: Path,
    texts: Path,
    general: Path | None,
    asked: Asked,
    *,
    machine: Machine,
    limits: Limits,
    console: Console,
) -> Path:
    recipe_dir, released = without_dots(folder.absolute()), asked.released
    with doing(console, "looking at the files") as say, tempfile.TemporaryDirectory(prefix="gristmill-") as work:
        looked = look_into(texts, recipe_dir, replay=general)
        plan = write_conversations(folder, looked.conversations) if asked.chat else None
        keep_matmul(machine)
        speed = cache(lambda parameters: machine_speed(parameters, machine)[0])
        planned = PlannedTime(
            looked.sources, folder=recipe_dir, machine=machine, speed=speed, chat=plan, released=released
        )
        forecast, text_bytes = planned.of_curation()
        looked = replace(looked, sources=_cut(looked.sources, text_bytes, asked))
        slower = times_as_long(busy_cores())
        now = {step: slower * took for step, took in forecast.items()}
        ahead = Ahead(say, now, text_bytes=sum(text_bytes.values()), reading_seconds=limits.reading_seconds)
        if asked.minutes is not None and not speed(1_000_000).is_measured:
            _measure_speed(machine, ahead, slower)
            speed.cache_clear()
        wish = asked.wish(planned)
        cores = CoreWatch()
        found = count(
            looked.sources,
            partial(_draft, looked.sources, released),
            vocab_size_for=lambda text_bytes: (
                shape_for(text_bytes, wish).vocab_size if released is None else released.vocab_size
            ),
            recipe_dir=recipe_dir,
            work=Path(work),
            machine=machine,
            limits=limits,
            seed=SEED,
            ahead=ahead,
        )
        if looked.sources and (cores.busy_cores() or 0.0) < NOTABLE:  # the forecasts are those of idle cores
            keep_readings(machine.runs_dir, planned.of_reading({**found.emptied, **found.sources}))
        if plan is not None and found.tokenizer is not None:
            plan = with_context(plan, folder / CONVERSATIONS_FILE, Tokenizer.load(found.tokenizer))
    replayed = {source.name for source in looked.sources if source.is_replayed}
    validation = _validation(replayed, found.text_bytes, found.documents)
    tokens = _train_tokens(found, validation)
    if looked.sources:
        console.print(sources_table(looked, found, tokens))
    say_what_is_left(looked, found, [texts, *([] if general is None else [general])], asked.chat, console)
    own = sum(one.value for name, one in tokens.items() if name not in replayed)
    _check_enough(texts, sum(size for name, size in found.text_bytes.items() if name not in replayed), own)
    by_name = {source.name: source for source in looked.sources}
    planned = PlannedTime(
        [by_name[name] for name in found.priority],
        folder=recipe_dir,
        machine=machine,
        speed=planned.speed,
        chat=plan,
        released=released,
        text_bytes=found.text_bytes,
        documents=found.documents,
    )
    if released is None:
        shape = replace(shape_for(sum(found.text_bytes.values()), wish), vocab_size=found.vocab_size)
        shape = shape if plan is None else shape.with_context(plan.context)
        wish = asked.wish(planned)
        shape = deepened(shape, own, wish)
    else:
        wish = asked.wish(planned)
        shape = released_shape(released, own, wish)
    budget = budget_for(shape, tokens, wish, replayed=replayed)
    say_what_has_no_share(found.priority, budget, console)
    text = recipe_text(
        [_written(by_name[name], found.sources[name], tokens[name]) for name in found.priority],
        found,
        budget,
        folder=recipe_dir,
        texts=texts,
        validation=validation,
        chat=plan,
        released=released,
        asked=asked.in_words(),
    )
    write_text(folder / SCHEMA_FILE, schema_text())
    recipe = folder / IN_FOLDER
    write_text(recipe, text)  # last: with it, the folder is a project
    say_what_was_made(recipe, budget, asked, planned, plan, console)
    return recipe


def _draft(
    sources: Sequence[FolderSource],
    released: Released | None,
    order: Sequence[str],
    vocab: int,
    text_bytes: Mapping[str, float],
    documents: Mapping[str, float],
) -> Recipe:
    validation = _validation({source.name for source in sources if source.is_replayed}, text_bytes, documents)
    return draft_recipe(sources, order, vocab, validation, released=released)


def _cut(sources: Sequence[FolderSource], text_bytes: Mapping[str, float], asked: Asked) -> list[FolderSource]:
    """With long documents cut by how much text there is; not below the context, where something else than the text decides on it."""
    is_by_text = asked.parameters is None and asked.released is None and not asked.chat
    least = FEWEST_CHARS if is_by_text else FEWEST_LONG_CHARS
    return [source.cut_at(passage_chars(text_bytes[source.name], least=least)) for source in sources]


def _validation(
    replayed: Collection[str], text_bytes: Mapping[str, float], documents: Mapping[str, float]
) -> Validation:
    """How much is held out, by one's own text."""
    own = {name: size for name, size in text_bytes.items() if name not in replayed}
    return validation_for(own, documents)


def _written(source: FolderSource, found: SourceCount, tokens: Estimate) -> Written:
    max_failed = raised_limit(failed_share(found), MAX_FAILED)
    return Written(source=source, found=found, train_tokens=tokens, max_failed=max_failed)


def parameters_of(size: str) -> int:
    """ "10M" → 10,000,000. Raises RecipeError for anything else."""
    found = SIZE.fullmatch(size.strip())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise RecipeError(f"--size is {size[:40]!r}; expected parameters such as 800k, 10M or 135M.")
    return round(float(found[1]) * FACTORS[found[2].lower()])


def _train_tokens(found: Count, rules: Validation) -> dict[str, Estimate]:
    """Unique training tokens of each source: what is held out, and what is alike to it, is taken off."""
    if found.is_whole:
        return {
            name: Estimate(value=one.train_tokens, low=one.train_tokens, high=one.train_tokens)
            for name, one in found.sources.items()
        }
    kept = {}
    for name, tokens in unique_tokens(found.tally, seed=SEED).items():
        one = found.sources[name]
        assert one.split is not None
        num_bytes = tokens.value * found.bytes_per_token[name]
        share = (
            one.split.train_share
            if found.tally[name].is_counted
            else train_share(one.split, rules, num_bytes=num_bytes, share_read=one.share_read)
        )
        kept[name] = Estimate(
            value=tokens.value * share.value, low=tokens.low * share.low, high=tokens.high * share.high
        )
    return kept


def _check_enough(texts: Path, text_bytes: float, tokens: float) -> None:
    if tokens < MIN_TOKENS:
        raise DataError(
            f"{texts} holds {counted(round(tokens), 'token')} to train on, in {in_bytes(text_bytes)} of text without copies; "
            f"a model needs at least {MIN_TOKENS:,}, about {in_bytes(4 * MIN_TOKENS)}.\n"
            f"  {shlex.join(['gristmill', 'inspect', str(texts)])} shows what was found, and what is not read."
        )


def _measure_speed(machine: Machine, ahead: Ahead, slower: float) -> None:
    """Trains for some seconds, as a time is to be kept, and keeps the speed in the machine's profile, for plan, too. slower: than on idle
    cores."""
    usual = min(MEASURED_MOST_SECONDS, slower * MEASURED_USUAL_SECONDS)
    ahead.waits("measuring how fast this machine trains", usual)
    about, points = measure_training(machine, seconds=MEASURED_SECONDS, deadline_seconds=MEASURED_MOST_SECONDS)
    device = about.get("device", "cpu")
    for point in points:
        keep_speed(point, machine, device=device, hardware=about["gpu"] if device == "cuda" else hardware_name())
