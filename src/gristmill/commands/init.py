"""`gristmill init`: a commented recipe over a person's own folder of text, counted and sized to it, which runs as it is."""

from __future__ import annotations

import json
import math
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from gristmill.commands.doctor import measure_training
from gristmill.commands.init_page import say_what_has_no_share, say_what_is_left, say_what_was_made, sources_table
from gristmill.commands.survey import heads_of
from gristmill.commands.survey_job import EMPTY, MESSAGES
from gristmill.data.outside import visible_files, why_no_file, without_dots
from gristmill.display import doing
from gristmill.draft.ahead import Ahead
from gristmill.draft.conversations import with_context, write_conversations
from gristmill.draft.count import Count, SourceCount, count
from gristmill.draft.folder import FolderSource, Looked, files_by_kind, sources_of
from gristmill.draft.held_out import train_share
from gristmill.draft.hours import Asked, PlannedTime
from gristmill.draft.interval import Estimate, unique_tokens
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
    validation_for,
)
from gristmill.errors import DataError, RecipeError
from gristmill.formats.format import size_of
from gristmill.graph.cores import NOTABLE, CoreWatch, busy_cores, times_as_long
from gristmill.graph.machine import Machine
from gristmill.planning.reading import keep_readings
from gristmill.planning.speed import hardware_name, keep_matmul, keep_speed, machine_speed
from gristmill.recipe.json_schema import schema_text
from gristmill.recipe.load import CONVERSATIONS_FILE, IN_FOLDER, SCHEMA_FILE, named_nearly
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.formats import READERS
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import write_text
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import counted, in_bytes

SEED = 8
MAX_FAILED: float = Source.model_fields["max_failed"].default
UNREADABLE = "damaged, or cannot be opened"
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
) -> Path:
    """Writes FOLDER/recipe.yaml over the text in `data` (or FOLDER/data), and the schema that editors check it by.

    minutes: what the run may take on this machine; size: parameters of the model, such as "10M"; chat: with conversations.
    Raises RecipeError when a recipe is there already, and DataError when there is too little text.
    """
    machine, limits = machine or Machine(), limits or Limits()
    if size is not None:
        check_size(parameters_of(size))
    asked = Asked(minutes=minutes, parameters=None if size is None else parameters_of(size), chat=chat)
    _refuse_to_overwrite(folder, chat=chat)
    texts = _texts(folder, data)
    with _new_folder(folder):
        return _init(folder, texts, asked, machine=machine, limits=limits, console=console)


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


def _init(folder: Path, texts: Path, asked: Asked, *, machine: Machine, limits: Limits, console: Console) -> Path:
    recipe_dir = without_dots(folder.absolute())
    with doing(console, "looking at the files") as say, tempfile.TemporaryDirectory(prefix="gristmill-") as work:
        looked = _look(texts, recipe_dir)
        plan = write_conversations(folder, looked.conversations) if asked.chat else None
        keep_matmul(machine)
        speed = cache(lambda parameters: machine_speed(parameters, machine)[0])
        planned = PlannedTime(looked.sources, folder=recipe_dir, machine=machine, speed=speed, chat=plan)
        forecast, text_bytes = planned.of_curation()
        slower = times_as_long(busy_cores())
        now = {step: slower * took for step, took in forecast.items()}
        ahead = Ahead(say, now, text_bytes=text_bytes, reading_seconds=limits.reading_seconds)
        if asked.minutes is not None and not speed(1_000_000).is_measured:
            _measure_speed(machine, ahead, slower)
            speed.cache_clear()
        wish = asked.wish(planned)
        cores = CoreWatch()
        found = count(
            looked.sources,
            partial(_draft, looked.sources),
            vocab_size_for=lambda text_bytes: shape_for(text_bytes, wish).vocab_size,
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
    tokens = _train_tokens(found)
    if looked.sources:
        console.print(sources_table(looked, found, tokens))
    say_what_is_left(looked, found, texts, asked.chat, console)
    _check_enough(texts, found, tokens)
    shape = replace(shape_for(sum(found.text_bytes.values()), wish), vocab_size=found.vocab_size)
    shape = shape if plan is None else shape.with_context(plan.context)
    by_name = {source.name: source for source in looked.sources}
    planned = PlannedTime(
        [by_name[name] for name in found.priority],
        folder=recipe_dir,
        machine=machine,
        speed=planned.speed,
        chat=plan,
        text_bytes=found.text_bytes,
    )
    wish = asked.wish(planned)
    shape = deepened(shape, sum(one.value for one in tokens.values()), wish)
    budget = budget_for(shape, tokens, wish)
    say_what_has_no_share(found.priority, budget, console)
    text = recipe_text(
        [_written(by_name[name], found.sources[name], tokens[name]) for name in found.priority],
        found,
        budget,
        folder=recipe_dir,
        texts=texts,
        validation=validation_for(found.text_bytes),
        chat=plan,
        asked=asked.in_words(),
    )
    write_text(folder / SCHEMA_FILE, schema_text())
    recipe = folder / IN_FOLDER
    write_text(recipe, text)  # last: with it, the folder is a project
    say_what_was_made(recipe, budget, asked, planned, plan, console)
    return recipe


def _draft(
    sources: Sequence[FolderSource], order: Sequence[str], vocab: int, text_bytes: Mapping[str, float]
) -> Recipe:
    return draft_recipe(sources, order, vocab, validation_for(text_bytes))


def _written(source: FolderSource, found: SourceCount, tokens: Estimate) -> Written:
    max_failed = raised_limit(failed_share(found), MAX_FAILED)
    return Written(source=source, found=found, train_tokens=tokens, max_failed=max_failed)


def parameters_of(size: str) -> int:
    """ "10M" → 10,000,000. Raises RecipeError for anything else."""
    found = SIZE.fullmatch(size.strip())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise RecipeError(f"--size is {size[:40]!r}; expected parameters such as 800k, 10M or 135M.")
    return round(float(found[1]) * FACTORS[found[2].lower()])


# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_to_overwrite(folder: Path, *, chat: bool) -> None:
    """Raises RecipeError where a file is that init would write over, or where the folder should be; a schema that init wrote is none."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file; name a folder for the recipe: gristmill init mymodel --data FOLDER")
    recipe, schema, conversations = (folder / name for name in (IN_FOLDER, SCHEMA_FILE, CONVERSATIONS_FILE))
    if recipe.exists():
        raise RecipeError(f"{recipe} exists already; nothing was changed. Choose another folder or move it away.")
    there = [schema] if schema.exists() and not _is_schema(schema) else []
    there += [conversations] if chat and conversations.exists() else []
    if there:
        raise RecipeError(
            f"{there[0]} exists already, and init would write over it; nothing was changed.\n"
            "  Rename it (init reads text and conversations under any name), or choose another folder for the recipe."
        )


def _is_schema(path: Path) -> bool:
    """Whether it is the schema of a recipe, perhaps of another version."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("title") == Recipe.__name__ and "$defs" in found


def _texts(folder: Path, data: Path | None) -> Path:
    """The folder of text. Raises RecipeError where there is none."""
    texts = without_dots((data or folder / "data").absolute())
    if not texts.exists() and data is not None:
        raise RecipeError(
            f"--data: {texts} does not exist. {named_nearly(texts)}Name the folder, or the file, that holds your text."
        )
    if texts.exists() and (why := why_no_file(texts)) is not None:
        raise RecipeError(f"--data: {texts} is no file that could be read: {why}. Name a file or a folder.")
    if not texts.exists():
        texts.mkdir(parents=True)
        raise RecipeError(
            f"There is no text yet. The folder {folder / 'data'} was made for it just now, and is empty.\n"
            f"  Put your text there, in any of the formats {', '.join(READERS)}, and run the same command again, or name a "
            "folder that holds your text: "
            f"{shlex.join(['gristmill', 'init', str(folder), '--data', 'FOLDER'])}"
        )
    return texts


def _look(texts: Path, recipe_dir: Path) -> Looked:
    if texts.is_dir() and not visible_files(texts):
        raise DataError(f"{texts} holds no files. Put your text there, or name another folder with --data.")
    files = files_by_kind(texts)
    columns: dict[Path, str] = {}
    conversations: list[Path] = []
    without_text: dict[Path, str] = {}
    for kind, paths in files.items():
        if READERS[kind].text_key is None:
            if not any(map(size_of, paths)):
                without_text |= dict.fromkeys(paths, EMPTY)
            continue
        found = heads_of(kind, paths)
        usual = Counter(head.text for head in found.values() if head.text not in (None, MESSAGES)).most_common(1)
        for path in paths:
            head = found.get(path)
            column = None if head is None else head.text
            if column is None and usual and (head is None or not head.columns):  # what cannot be read is counted
                column = usual[0][0]
            if column == MESSAGES:
                conversations.append(path)
            elif column is None:
                without_text[path] = UNREADABLE if head is None else head.why
            else:
                columns[path] = column
    apart = {*conversations, *without_text}
    read = {kind: own for kind, paths in files.items() if (own := [path for path in paths if path not in apart])}
    return Looked(
        sources=sources_of(read, columns, texts, recipe_dir),
        conversations=conversations,
        without_text=without_text,
    )


def _train_tokens(found: Count) -> dict[str, Estimate]:
    """Unique training tokens of each source: what is held out, and what is alike to it, is taken off."""
    if found.is_whole:
        return {
            name: Estimate(value=one.train_tokens, low=one.train_tokens, high=one.train_tokens)
            for name, one in found.sources.items()
        }
    rules = validation_for(found.text_bytes)
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


def _check_enough(texts: Path, found: Count, tokens: Mapping[str, Estimate]) -> None:
    total = sum(one.value for one in tokens.values())
    if total < MIN_TOKENS:
        size = sum(found.text_bytes.values())
        raise DataError(
            f"{texts} holds {counted(round(total), 'token')} to train on, in {in_bytes(size)} of text without copies; "
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
