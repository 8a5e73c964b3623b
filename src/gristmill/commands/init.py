"""`gristmill init`: a commented recipe over a person's own folder of text, counted and sized to it, which runs as it is."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.doctor import measure_training
from gristmill.commands.survey import EMPTY, MESSAGES, heads_of, look
from gristmill.data.outside import visible_files, without_dots
from gristmill.draft.conversations import TURNS, ChatPlan, with_context, write_conversations
from gristmill.draft.count import Count, SourceCount, count
from gristmill.draft.folder import PASSAGE_CHARS, FolderSource, files_by_kind, sources_of
from gristmill.draft.held_out import train_share
from gristmill.draft.hours import PlannedTime
from gristmill.draft.interval import Estimate, unique_tokens
from gristmill.draft.sample import Limits
from gristmill.draft.size import (
    MAX_EPOCHS,
    MIN_STEPS,
    MIN_TOKENS,
    SHAPES,
    Budget,
    Wish,
    budget_for,
    check_size,
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
from gristmill.extract.not_read import not_read_in
from gristmill.formats.format import size_of
from gristmill.graph.cores import busy_cores
from gristmill.graph.machine import Machine
from gristmill.planning.speed import Speed, hardware_name, keep_matmul, keep_speed, load_note, machine_speed
from gristmill.recipe.json_schema import schema_text
from gristmill.recipe.load import CONVERSATIONS_FILE, SCHEMA_FILE, load_recipe
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.formats import READERS
from gristmill.recipe.schema.recipe import Recipe
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import counted, in_bytes, megabytes, scale, seconds

SEED = 8
MAX_FAILED: float = Source.model_fields["max_failed"].default
SHOWN_REASONS = 4
SHOWN_PLACES = 3
PLACED_BYTES = 20_000_000  # of a source, looked at again for where its failures are
UNREADABLE = "not of its format, or not to be opened"
KEPT = 1.1  # of a time that was asked for
MEASURED_MOST_SECONDS = 30.0
MEASURED_SECONDS = 2.0  # per shape, where no profile says how fast the machine trains
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMbBgG]?)")
FACTORS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What lies in the folder. without_text: files of known formats that are no part of a source, and why."""

    sources: list[FolderSource]
    conversations: list[Path]
    without_text: dict[Path, str]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the person asked for."""

    minutes: float | None
    parameters: int | None
    chat: bool

    def wish(self, planned: PlannedTime) -> Wish:
        """With the tokens that fit into the time, where there is one to keep."""
        if self.minutes is None:
            return Wish(parameters=self.parameters)
        return Wish(
            parameters=self.parameters, tokens_in_time=partial(planned.tokens_within, seconds=60 * self.minutes)
        )

    def in_words(self) -> str:
        """What pretraining was sized to."""
        words = [f"{self.minutes:g} minutes on the machine it was made on"] if self.minutes is not None else []
        words += [f"{scale(self.parameters)} parameters"] if self.parameters is not None else []
        return f"Sized to {' and '.join(words) or 'the text'}"


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
    texts = _texts(folder, data)
    with _new_folder(folder):
        return _init(folder, texts, asked, machine=machine, limits=limits, console=console)


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """The folder is there, for patterns are relative to it; where it was not, and nothing comes of it, it is gone again."""
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not was_there:
            for name in (SCHEMA_FILE, CONVERSATIONS_FILE):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # it holds what somebody else put there
                folder.rmdir()
        raise


def _init(folder: Path, texts: Path, asked: Asked, *, machine: Machine, limits: Limits, console: Console) -> Path:
    recipe_dir = without_dots(folder.absolute())
    with _Live(console) as say, tempfile.TemporaryDirectory(prefix="gristmill-") as work:
        looked = _look(texts, recipe_dir)
        plan = write_conversations(folder, looked.conversations) if asked.chat else None
        planned = PlannedTime(
            looked.sources, folder=recipe_dir, machine=machine, speed=_speed(machine, asked, say), chat=plan
        )
        wish = asked.wish(planned)
        found = count(
            looked.sources,
            partial(_draft, looked.sources),
            vocab_size_for=lambda text_bytes: shape_for(text_bytes, wish).vocab_size,
            recipe_dir=recipe_dir,
            work=Path(work),
            machine=machine,
            limits=limits,
            seed=SEED,
            say=say,
        )
        if plan is not None and found.tokenizer is not None:
            plan = with_context(plan, folder / CONVERSATIONS_FILE, Tokenizer.load(found.tokenizer))
    tokens = _train_tokens(found)
    if looked.sources:
        console.print(_table(looked, found, tokens))
    _say_what_is_left(looked, found, texts, asked.chat, console)
    _check_enough(texts, found, tokens)
    shape = replace(shape_for(sum(found.text_bytes.values()), wish), vocab_size=found.vocab_size)
    shape = shape if plan is None else shape.with_context(plan.context)
    budget = budget_for(shape, tokens, wish)
    say_what_has_no_share(found.priority, budget, console)
    by_name = {source.name: source for source in looked.sources}
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
    (folder / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    _say_what_was_made(recipe, budget, asked, planned, plan, console)
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
    if found is None or float(found[1]) <= 0:
        raise RecipeError(f"--size is {size!r}; expected parameters such as 800k, 10M or 135M.")
    return round(float(found[1]) * FACTORS[found[2].lower()])


# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(folder: Path, data: Path | None) -> Path:
    """The folder of text. Raises RecipeError where nothing can be written, or where there is none."""
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        raise RecipeError(f"{recipe} exists already; nothing was changed. Choose another folder or move it away.")
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file; name a folder for the recipe: gristmill init mymodel --data FOLDER")
    texts = without_dots((data or folder / "data").absolute())
    if not texts.exists() and data is not None:
        raise RecipeError(f"--data: {texts} does not exist; name the folder, or the file, that holds your text.")
    if not texts.exists():
        texts.mkdir(parents=True)
        raise RecipeError(
            f"{folder / 'data'} was not there; it is now, and empty.\n  Put your text into it, in any of the formats "
            f"{', '.join(READERS)}, and run the same command again, or name your folder: "
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


def _speed(machine: Machine, asked: Asked, say: Callable[[str], None]) -> Callable[[int], Speed]:
    """The speed of training, by parameters: of the machine's profile. Where there is none, a matmul is measured now, or steps if a
    time is to be kept, and remembered for plan."""
    keep_matmul(machine)
    if asked.minutes is not None and not machine_speed(1_000_000, machine)[0].is_measured:
        say(f"measuring how fast this machine trains, at most {MEASURED_MOST_SECONDS:.0f} s")
        about, points = measure_training(machine, seconds=MEASURED_SECONDS, deadline_seconds=MEASURED_MOST_SECONDS)
        device = about.get("device", "cpu")
        for point in points:
            keep_speed(point, machine, device=device, hardware=about["gpu"] if device == "cuda" else hardware_name())
    return cache(lambda parameters: machine_speed(parameters, machine)[0])


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Live(AbstractContextManager[Callable[[str], None]]):
    """One line on a terminal that says what is done now; nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._status: Any = console.status("looking") if console.is_terminal else nullcontext()

    def __enter__(self) -> Callable[[str], None]:
        self._status.__enter__()
        return self._say

    def __exit__(self, *reason: Any) -> None:
        self._status.__exit__(*reason)

    def _say(self, line: str) -> None:
        if not isinstance(self._status, nullcontext):
            self._status.update(Text(line))


def _table(looked: Looked, found: Count, tokens: Mapping[str, Estimate]) -> Table:
    """A row a source: documents of what was read, how many are kept, and what the split takes of their text."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("source", "files", "MB", "read", "documents", "kept", "held out", "alike", "training tokens"):
        table.add_column(heading, justify="left" if heading == "source" else "right", no_wrap=True)
    for source in looked.sources:
        one = found.sources.get(source.name) or found.emptied[source.name]
        table.add_row(
            Text(source.name),
            f"{len(source.files):,}",
            megabytes(source.num_bytes),
            f"{one.share_read:.0%}" if one.share_read < 1 else "all",
            f"{one.account.came_in.documents:,}",
            f"{one.account.total('kept').documents - _copies(one):,}",
            *_taken_by_the_split(one),
            _in_words(tokens[source.name]) if source.name in tokens else "too few",
        )
    return table


def _copies(one: SourceCount) -> int:
    return one.copies.exact_copies + one.copies.near_copies if one.copies else 0


def _taken_by_the_split(one: SourceCount) -> tuple[str, str]:
    if one.split is None:
        return "", ""
    total = max(1, one.split.total_bytes)
    return f"{one.split.held_bytes / total:.0%}", f"{one.split.alike_bytes / total:.0%}"


def _left_out(one: SourceCount) -> str:
    """Why documents of what was read are no part of it, most first."""
    copies = _copies(one)
    reasons = Counter({"copies": copies} if copies else {})
    for kind in ("dropped", "failed"):
        for reason, amount in one.account.reasons(kind).items():
            reasons[reason] += amount.documents
    listed = [f"{reason} {number:,}" for reason, number in reasons.most_common(SHOWN_REASONS)]
    return ", ".join(listed) + (", …" if len(reasons) > SHOWN_REASONS else "")


def _in_words(tokens: Estimate) -> str:
    if tokens.is_counted:
        return f"{tokens.value:,.0f}"
    value, low, high = (scale(round(size)) for size in (tokens.value, tokens.low, tokens.high))
    return f"≈ {value} ({low}-{high})"


def _say_what_is_left(looked: Looked, found: Count, texts: Path, chat: bool, console: Console) -> None:
    """Languages, what was read in part, and what was not read at all, with what to do."""

    def say(line: str) -> None:
        console.print(Text(line))

    for name, one in (*found.sources.items(), *found.emptied.items()):
        if left_out := _left_out(one):
            say(f"Left out of {name}: {left_out}.")
    if any(one.split is not None and one.split.alike_documents for one in found.sources.values()):
        say("alike: text that resembles held-out text, so it is neither trained on nor held out.")
    if emptied := [*found.emptied]:
        say(f"Not in the recipe: {', '.join(emptied)}; almost all of it is a copy of other text.")
    if cut := [name for name, one in found.sources.items() if one.passages]:
        say(f"Documents of more than {PASSAGE_CHARS:,} characters are cut into passages: {', '.join(cut)}.")
    languages: Counter[str] = Counter()
    for name, one in found.sources.items():
        for language, share in one.languages.items():
            languages[language] += round(share * found.text_bytes[name])
    total = max(1, languages.total())
    told = [f"{name} {size / total:.0%}" for name, size in languages.most_common(5) if size >= 0.005 * total]
    if told:
        say(f"Languages, by bytes of text: {', '.join(told)}.")
    if not found.is_whole:
        say(
            "Only random groups of files and the beginnings of large files were read; ≈ marks estimates, with 95 % intervals."
        )
    if looked.conversations and not chat:
        say(
            f"Conversations in {counted(len(looked.conversations), 'file')} are not used for pretraining; --chat uses them."
        )
    for why in dict.fromkeys(looked.without_text.values()):
        names = _some([path for path, its_why in looked.without_text.items() if its_why == why])
        say(f"Left out, {why}." if why.startswith(names) else f"Left out, {why}: {names}.")
    for source in looked.sources:
        one = found.sources.get(source.name) or found.emptied[source.name]
        if one.account.total("failed").documents:
            lost = look(source.kind, source.files, 0, read_bytes=PLACED_BYTES).lost
            for record in [record for record in lost if record.reason in one.account.reasons("failed")][:SHOWN_PLACES]:
                say(f"{source.name}: cannot be read: {record}")
    for other in not_read_in(texts):
        say(f"not read: {other}")


def say_what_has_no_share(sources: Sequence[str], budget: Budget, console: Console) -> None:
    """Names the sources that have no share of the budget, and why: they may have no text, or have too little."""
    if budget.too_small:
        console.print(
            Text(
                f"Not in the recipe: {', '.join(budget.too_small)}. Too little text to draw one sequence of "
                f"{budget.shape.seq_len:,} tokens in each stage; join it with the text of another source, or add to it."
            )
        )
    if unsure := [name for name in sources if name not in budget.weights and name not in budget.too_small]:
        console.print(
            Text(
                f"Not in the recipe: {', '.join(unsure)}. Too little was read to tell whether there is text to train on; "
                "read longer with --max-seconds."
            )
        )


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return names + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _say_what_was_made(
    recipe: Path, budget: Budget, asked: Asked, planned: PlannedTime, chat: ChatPlan | None, console: Console
) -> None:
    parameters = budget.shape.parameters
    took = {step.step: step.seconds for step in planned.of(load_recipe(recipe))}
    total = sum(took.values())
    console.print(
        f"Wrote {recipe}: {scale(parameters)} parameters, {scale(budget.total_tokens)} tokens in {counted(budget.steps, 'step')} "
        f"({budget.epochs:.1f} passes). All steps take about {seconds(total)} here, pretraining {seconds(took['pretrain'])} of it.",
        highlight=False,
        markup=False,
    )
    if note := load_note(busy_cores(), planned.speed(parameters)):
        console.print(f"  {note[0].upper()}{note[1:]}.", highlight=False)
    if asked.minutes is not None and total > KEPT * 60 * asked.minutes:
        console.print(
            f"  {asked.minutes:g} minutes are not enough: the other steps take {seconds(total - took['pretrain'])}, and "
            f"pretraining has at least {MIN_STEPS} steps.",
            highlight=False,
        )
    if parameters > budget.total_tokens:
        more = "more text" if asked.minutes is None or budget.epochs > 0.95 * MAX_EPOCHS else "more --minutes"
        smaller = ", or a smaller --size," if parameters > SHAPES[0].parameters else ""
        console.print(
            f"  That is {parameters / budget.total_tokens:.1f} parameters for each token; {more}{smaller} "
            "makes a better model of its size.",
            highlight=False,
        )
    if chat is not None:
        whose = "of yours" if chat.are_own else "that come with gristmill"
        dropped = "".join(f"; left out: {reason} {number:,}" for reason, number in chat.left_out.items())
        console.print(
            f"  Chat: {chat.conversations:,} conversations {whose}, each {chat.copies} times, {chat.share:.0%}; "
            f"{chat.sums:,} sums, {1 - chat.share:.0%}{dropped}. Fine-tuning: {chat.epochs} passes, {counted(chat.steps, 'step')}.",
            highlight=False,
        )
        console.print(
            f"  The context is {budget.shape.seq_len} tokens, for {TURNS} questions and answers of up to {chat.exchange_tokens} tokens.",
            highlight=False,
        )
    for verb in ("plan", "run"):
        console.print(
            f"  {shlex.join(['gristmill', verb, str(recipe)])}", highlight=False, markup=False, soft_wrap=True
        )
