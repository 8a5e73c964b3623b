"""`gristmill init`: a commented recipe over a person's own folder of text, counted and sized to it, which runs as it is."""

from __future__ import annotations

import math
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from gristmill.commands.init_count import count_text, held_out, look_ahead, train_tokens
from gristmill.commands.init_folder import general_text, look_into, refuse_to_overwrite, texts_in
from gristmill.commands.init_page import say_what_has_no_share, say_what_is_left, say_what_was_made, sources_table
from gristmill.data.outside import without_dots
from gristmill.display import doing
from gristmill.draft.conversations import ChatPlan, with_context, write_conversations
from gristmill.draft.count import Count, SourceCount
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import FEWEST_CHARS, FEWEST_LONG_CHARS, passage_chars
from gristmill.draft.hours import Asked, PlannedTime
from gristmill.draft.interval import Estimate
from gristmill.draft.released import Released, read_released, released_shape
from gristmill.draft.sample import Limits
from gristmill.draft.size import (
    MIN_TOKENS,
    Shape,
    Wish,
    budget_for,
    check_size,
    deepened,
    shape_for,
)
from gristmill.draft.write import (
    Written,
    failed_share,
    raised_limit,
    recipe_text,
)
from gristmill.errors import DataError, RecipeError
from gristmill.graph.machine import Machine
from gristmill.planning.speed import keep_matmul, machine_speed
from gristmill.recipe.json_schema import schema_text
from gristmill.recipe.load import CONVERSATIONS_FILE, IN_FOLDER, SCHEMA_FILE
from gristmill.recipe.schema.curation import Source
from gristmill.store.durable import write_text
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import counted, in_bytes

MAX_FAILED: float = Source.model_fields["max_failed"].default
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
    """Looks at the text, counts it, sizes a model to it, and writes the recipe."""
    recipe_dir, released = without_dots(folder.absolute()), asked.released
    speed = cache(lambda parameters: machine_speed(parameters, machine)[0])
    planned_over = partial(PlannedTime, folder=recipe_dir, machine=machine, speed=speed, released=released)
    with doing(console, "looking at the files") as say, tempfile.TemporaryDirectory(prefix="gristmill-") as work:
        looked = look_into(texts, recipe_dir, replay=general)
        chat = write_conversations(folder, looked.conversations) if asked.chat else None
        keep_matmul(machine)
        planned = planned_over(looked.sources, chat=chat)
        forecast, text_bytes = planned.of_curation()
        looked = replace(looked, sources=_cut(looked.sources, text_bytes, asked))
        ahead = look_ahead(
            forecast, sum(text_bytes.values()), planned.speed, asked, machine=machine, limits=limits, say=say
        )
        speed.cache_clear()  # it may have been measured just now
        wish = asked.wish(planned)
        found = count_text(
            looked.sources,
            planned,
            wish,
            released,
            recipe_dir=recipe_dir,
            work=Path(work),
            machine=machine,
            limits=limits,
            ahead=ahead,
        )
        if chat is not None and found.tokenizer is not None:
            chat = with_context(chat, folder / CONVERSATIONS_FILE, Tokenizer.load(found.tokenizer))
    own = {source.name for source in looked.sources if not source.is_replayed}
    validation = held_out(looked.sources, found.text_bytes, found.documents)
    tokens = train_tokens(found, validation)
    if looked.sources:
        console.print(sources_table(looked, found, tokens))
    say_what_is_left(looked, found, [texts, *([] if general is None else [general])], asked.chat, console)
    own_tokens = sum(one.value for name, one in tokens.items() if name in own)
    _check_enough(texts, sum(size for name, size in found.text_bytes.items() if name in own), own_tokens)
    sources = {source.name: source for source in looked.sources}
    planned = planned_over(
        [sources[name] for name in found.priority], chat=chat, text_bytes=found.text_bytes, documents=found.documents
    )
    counted_by, wish = wish, asked.wish(planned)
    shape = _shape(found, own_tokens, wish, chat, released, counted_by=counted_by)
    budget = budget_for(shape, tokens, wish, replayed=sources.keys() - own)
    say_what_has_no_share(found.priority, budget, console)
    text = recipe_text(
        [_written(sources[name], found.sources[name], tokens[name]) for name in found.priority],
        found,
        budget,
        folder=recipe_dir,
        texts=texts,
        validation=validation,
        chat=chat,
        released=released,
        asked=asked.in_words(),
    )
    write_text(folder / SCHEMA_FILE, schema_text())
    recipe = folder / IN_FOLDER
    write_text(recipe, text)  # last: with it, the folder is a project
    say_what_was_made(recipe, budget, asked, planned, chat, console)
    return recipe


def _shape(
    found: Count,
    own_tokens: float,
    wish: Wish,
    chat: ChatPlan | None,
    released: Released | None,
    *,
    counted_by: Wish,
) -> Shape:
    """The model for the text that was counted, or the released one. counted_by: the wish by which the vocabulary was chosen."""
    if released is not None:
        return released_shape(released, own_tokens, wish)
    shape = replace(shape_for(sum(found.text_bytes.values()), counted_by), vocab_size=found.vocab_size)
    return deepened(shape if chat is None else shape.with_context(chat.context), own_tokens, wish)


def _cut(sources: Sequence[FolderSource], text_bytes: Mapping[str, float], asked: Asked) -> list[FolderSource]:
    """With long documents cut by how much text there is; not below the context, where something else than the text decides on it."""
    is_by_text = asked.parameters is None and asked.released is None and not asked.chat
    least = FEWEST_CHARS if is_by_text else FEWEST_LONG_CHARS
    return [source.cut_at(passage_chars(text_bytes[source.name], least=least)) for source in sources]


def _written(source: FolderSource, found: SourceCount, tokens: Estimate) -> Written:
    max_failed = raised_limit(failed_share(found), MAX_FAILED)
    return Written(source=source, found=found, train_tokens=tokens, max_failed=max_failed)


def parameters_of(size: str) -> int:
    """ "10M" → 10,000,000. Raises RecipeError for anything else."""
    found = SIZE.fullmatch(size.strip())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise RecipeError(f"--size is {size[:40]!r}; expected parameters such as 800k, 10M or 135M.")
    return round(float(found[1]) * FACTORS[found[2].lower()])


def _check_enough(texts: Path, text_bytes: float, tokens: float) -> None:
    if tokens < MIN_TOKENS:
        raise DataError(
            f"{texts} holds {counted(round(tokens), 'token')} to train on, in {in_bytes(text_bytes)} of text without copies; "
            f"a model needs at least {MIN_TOKENS:,}, about {in_bytes(4 * MIN_TOKENS)}.\n"
            f"  {shlex.join(['gristmill', 'inspect', str(texts)])} shows what was found, and what is not read."
        )
