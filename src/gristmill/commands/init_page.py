"""How `gristmill init` tells what it found and made: a table of the sources, what was left out and why."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.cautions import FEW_DOCUMENTS, what_a_mean_tells
from gristmill.commands.survey import look
from gristmill.commands.survey_job import ADVICE
from gristmill.draft.conversations import TURNS, ChatPlan
from gristmill.draft.count import LEAST_BYTES, Count, SourceCount
from gristmill.draft.folder import Looked
from gristmill.draft.hours import Asked, PlannedTime
from gristmill.draft.interval import Estimate
from gristmill.draft.size import MAX_EPOCHS, MIN_STEPS, REPLAY_SHARE, SHAPES, Budget
from gristmill.extract.not_read import not_read_in
from gristmill.graph.cores import busy_cores
from gristmill.planning.speed import load_note
from gristmill.recipe.load import load_recipe
from gristmill.select.outputs import MOST_SEEN
from gristmill.units import counted, in_bytes, megabytes, passes, scale, seconds

SHOWN_REASONS = 4
SHOWN_PLACES = 3
SHOWN_UNREAD = 8  # kinds of files, the largest first
SLOW = ("timeout", "out_of_memory", "killed:")  # failures that are not worth the time to meet them again
PLACED_BYTES = 20_000_000  # of a source, looked at again for where its failures are
LEAST_NAMED = 0.05  # of all time
KEPT = 1.1  # of a time that was asked for
USED = 0.9  # of it, at least, or what binds is said


def sources_table(looked: Looked, found: Count, tokens: Mapping[str, Estimate]) -> Table:
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
            str(tokens[source.name]) if source.name in tokens else "too few",
        )
    return table


def _copies(one: SourceCount) -> int:
    return one.copies.exact_copies + one.copies.near_copies if one.copies else 0


def _taken_by_the_split(one: SourceCount) -> tuple[str, str]:
    if one.split is None:
        return "", ""
    total = max(1, one.split.total_bytes)
    return f"{one.split.held_bytes / total:.0%}", f"{one.split.alike_bytes / total:.0%}"


def _held_out(one: SourceCount) -> str:
    """How many documents, and what can be told with them."""
    assert one.split is not None
    number, texts = one.split.held_documents, one.split.held_texts
    many = (
        counted(number, "document")
        if not one.passages
        else f"{counted(number, 'passage')} of {counted(texts, 'document')}"
    )
    many += "" if one.share_read == 1 else " of what was read"
    words = f"{many}; {what_a_mean_tells(number)}."
    return (
        words
        if number >= FEW_DOCUMENTS
        else f"{words} That is rough: more text, or more of it held out, would tell smaller differences."
    )


def _left_out(one: SourceCount) -> str:
    """Why documents of what was read are no part of it, most first."""
    copies = _copies(one)
    reasons = Counter({"copies": copies} if copies else {})
    for kind in ("dropped", "failed"):
        for reason, amount in one.account.reasons(kind).items():
            reasons[reason] += amount.documents
    listed = [f"{reason} {number:,}" for reason, number in reasons.most_common(SHOWN_REASONS)]
    return ", ".join(listed) + (", …" if len(reasons) > SHOWN_REASONS else "")


def say_what_is_left(looked: Looked, found: Count, texts: Sequence[Path], chat: bool, console: Console) -> None:
    """Languages, what was read in part, and what was not read at all, with what to do. texts: the folders."""

    def say(line: str) -> None:
        console.print(Text(line))

    for name, one in (*found.sources.items(), *found.emptied.items()):
        if left_out := _left_out(one):
            say(f"Left out of {name}: {left_out}.")
    if any(one.split is not None and one.split.alike_documents for one in found.sources.values()):
        say("alike: text that resembles held-out text, so it is neither trained on nor held out.")
    if seen := [f"{name} {share:.0%}" for name, share in found.seen.items() if share > MOST_SEEN]:
        say(
            f"Held-out text that stands in training text, too: {', '.join(seen)}. A score on it says little about new text. Where the "
            "same text lies there in several formats, keep one of them, or take what repeats out of training text: "
            "`select: {repeated_text: {unit: line, min_words: 8}}` in the recipe."
        )
    few = [name for name, one in found.emptied.items() if one.text_bytes < LEAST_BYTES * one.share_read]
    if few:
        say(f"Not in the recipe: {', '.join(few)}; less than {in_bytes(LEAST_BYTES)} of text.")
    if copied := [name for name in found.emptied if name not in few]:
        say(f"Not in the recipe: {', '.join(copied)}; almost all of it is a copy of other text.")
    if cut := [name for name, one in found.sources.items() if one.passages]:
        chars = {source.name: source.read["passage_chars"] for source in looked.sources}
        named = ", ".join(f"{name} ({chars[name]:,})" for name in cut)
        say(f"Documents of more characters than this are cut into passages: {named}.")
    for name, one in found.sources.items():
        say(f"Held out of {name}: {_held_out(one)}")
    if listed := [source for source in looked.sources if source.is_listed and source.name in found.sources]:
        named = ", ".join(f"{source.name} ({counted(len(source.files), 'file')})" for source in listed)
        say(f"Listed one by one in the recipe: {named}. A file added later is not read until its path is added there.")
    languages: Counter[str] = Counter()
    for name, one in found.sources.items():
        for language, share in one.languages.shares.items():
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
        reasons = {*one.account.reasons("failed"), *(one.account.reasons("dropped").keys() & ADVICE.keys())}
        if reasons and not any(reason.startswith(SLOW) for reason in reasons):
            lost = look(source.kind, source.files, 0, read_bytes=PLACED_BYTES).lost
            for record in [record for record in lost if record.reason in reasons][:SHOWN_PLACES]:
                say(f"{source.name}: cannot be read: {record}")
    for folder in texts:
        _say_what_is_not_read(folder, console)


def _say_what_is_not_read(texts: Path, console: Console) -> None:
    left = not_read_in(texts)
    for other in left[:SHOWN_UNREAD]:
        console.print(Text(f"not read: {other}"))
    if more := left[SHOWN_UNREAD:]:
        size = in_bytes(sum(one.num_bytes for one in more))
        inspect = shlex.join(["gristmill", "inspect", str(texts)])
        files = counted(sum(one.files for one in more), "file")
        console.print(Text(f"not read: {files} of {len(more)} more kinds, {size}; {inspect} lists them"))


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


def _longest(took: Mapping[str, float]) -> str:
    """The kinds of steps that take most of the time, pretraining in any case, and the others together."""
    kinds = dict[str, float]()
    for step, spent in took.items():
        kind = step.partition("/")[0]
        kinds[kind] = kinds.get(kind, 0.0) + spent
    total = sum(kinds.values())
    named = [
        kind
        for kind, spent in sorted(kinds.items(), key=lambda pair: -pair[1])
        if kind == "pretrain" or spent > LEAST_NAMED * total
    ]
    rest = total - sum(kinds[kind] for kind in named)
    words = [f"{kind} {seconds(kinds[kind])}" for kind in named]
    return ", ".join([*words, *([f"the others {seconds(rest)}"] if rest >= 0.5 else [])])


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return names + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def say_what_was_made(
    recipe: Path, budget: Budget, asked: Asked, planned: PlannedTime, chat: ChatPlan | None, console: Console
) -> None:
    """Size and hours of the recipe, how the chat was balanced, and the next two commands."""
    parameters = budget.shape.parameters
    took = {step.step: step.seconds for step in planned.of(load_recipe(recipe))}
    total = sum(took.values())
    console.print(
        f"Wrote {recipe}: {scale(parameters)} parameters, {scale(budget.total_tokens)} tokens in {counted(budget.steps, 'step')} "
        f"({passes(budget.epochs)}). All steps take about {seconds(total)} here: {_longest(took)}.",
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
    if asked.minutes is not None and total < USED * 60 * asked.minutes:
        bound = f"the text is drawn {budget.epochs:.1f} times, and more passes teach little that is new"
        larger = ", nor do more parameters than tokens"
        if asked.parameters is not None or asked.released is not None:
            larger = "; a larger --size takes longer" if asked.released is None else ""
        console.print(f"  Of {asked.minutes:g} minutes {seconds(total)} are used: {bound}{larger}.", highlight=False)
    if asked.released is not None:
        _say_what_is_forgotten(budget, console)
    elif parameters > budget.total_tokens:
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
            f"  Chat: {counted(chat.conversations, 'conversation')} {whose}, each {chat.copies} times, {chat.share:.0%}; "
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


def _say_what_is_forgotten(budget: Budget, console: Console) -> None:
    if not budget.replay_share:
        words = "Some of what the released model knows will be forgotten. --replay FOLDER names general text to keep more of it; the recipe has the lines to add."
    else:
        words = f"{budget.replay_share:.0%} of what it reads is general text, so that it forgets less of what it knows"
        words += "." if budget.replay_share > 0.99 * REPLAY_SHARE else f"; there is not enough for {REPLAY_SHARE:.0%}."
    console.print(f"  {words}", highlight=False)
