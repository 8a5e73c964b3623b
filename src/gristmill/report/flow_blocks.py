"""The flow of documents and bytes as blocks of the page: what was fetched, the figure of all sources, a row a source, each source step by
step, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from gristmill.data.ledger import Count, SourceLedger
from gristmill.report.blocks import figure, fold, table
from gristmill.report.charts import Bar, FlowRow, flow_chart, share_bar
from gristmill.report.flow import SELECTION, Flow, Passage, step_of_extraction, together
from gristmill.report.origins import Origin
from gristmill.units import counted, in_bytes, scale

REASONS_SHOWN = 14
REASONS_OF_STEP = 3
ALL_DIGITS = 100_000  # above it a figure beside a bar has three


def fetched(origins: Mapping[str, Origin]) -> Iterator[Markup]:
    """What was fetched, and what could not be."""
    rows = [
        (
            source,
            one.place,
            one.files,
            in_bytes(one.num_bytes),
            one.num_items,
            ", ".join(f"{in_words(reason)} {count:,}" for reason, count in one.failed.items()),
            one.licence,
            one.commit[:10],
        )
        for source, origin in origins.items()
        if (one := origin.fetched) is not None
    ]
    if rows:
        headings = ("source", "from", "files", "bytes", "pages that came", "failed", "licence there", "commit")
        yield table(
            "What was fetched. Pages that failed are in no file, so they are not among the documents below",
            headings,
            rows,
            numbers=(2, 3, 4),
        )


def whole_flow(flows: Mapping[str, Flow]) -> Markup:
    """The figure of all sources together."""
    caption = (
        "Each bar is what was there; its end in another colour is what left. Bytes are those of the files as they were read, markup "
        "included. Steps that lost nothing are left out."
    )
    return figure(_chart(together(flows.values())), caption)


def source_by_source(flows: Mapping[str, Flow]) -> Markup:
    """Every step of every source in numbers, and its figure, behind a click."""
    blocks = []
    for source, flow in flows.items():
        blocks.append(_in_numbers(source, flow))
        if len(flows) > 1:
            blocks.append(figure(_chart(flow), ""))
    return fold("Source by source, step by step, in documents and bytes", blocks)


def fates_by_source(flows: Mapping[str, Flow], origins: Mapping[str, Origin]) -> Markup:
    """A row a source: in = to train on + held out + dropped + failed, and a bar."""
    rows = []
    for source, flow in flows.items():
        came, dropped, failed = flow.came_in, _total(flow, "dropped"), _total(flow, "failed")
        parts = (("kept", flow.kept), ("dropped", dropped), ("failed", failed))
        bar = Markup(share_bar([(name, count.documents / max(came.documents, 1)) for name, count in parts]))
        documents = (came, flow.train, flow.held_out, dropped, failed)
        size = f"{in_bytes(came.num_bytes)} → {in_bytes(flow.train.num_bytes)}"
        rows.append((source, origins[source].licence_words, *(count.documents for count in documents), size, bar))
    headings = (
        "source", "licence", "documents in", "to train on", "held out", "dropped", "failed", "bytes in → to train on", "shares",
    )  # fmt: skip
    caption = (
        "What became of the documents; the bar shows kept, dropped and failed. Documents in = to train on + held out + dropped by "
        "reason + failed, for every source, in documents and in bytes: the steps refuse to commit a ledger that does not add up. Bytes "
        "also lose what is no document (blank lines, headers of archives) and repeated text that kept documents lost"
    )
    return table(caption, headings, rows, numbers=(2, 3, 4, 5, 6, 7))


def reasons(ledgers: Mapping[str, tuple[SourceLedger, SourceLedger]]) -> Iterator[Markup]:
    """Why documents and bytes were lost: the most frequent reasons, and the others behind a click. ledgers: of extraction and selection."""
    rows = sorted(
        (row for source, both in ledgers.items() for row in _reasons(source, *both)), key=lambda row: (row[2], -row[1])
    )
    yield _reason_table("Why documents and bytes left", rows[:REASONS_SHOWN])
    if more := rows[REASONS_SHOWN:]:
        yield fold(counted(len(more), "more reason"), [_reason_table("Why fewer left", more)])


def in_words(reason: str) -> str:
    """A reason as it is read."""
    return reason.replace("_", " ")


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Row = tuple[tuple[str, str, str, int | None, str], int, bool]


def _reasons(source: str, extracted: SourceLedger, selected: SourceLedger) -> Iterator[Row]:
    """A row of the table of each reason of a source, with its documents, and whether nothing was lost by it. Only counted: rules that are
    off, or not for the language of the document."""

    def row(step: str, words: str, count: Count, *, has_documents: bool = True, is_quiet: bool = False) -> Row:
        shown = count.documents if has_documents else None
        return (source, step, words, shown, in_bytes(count.num_bytes)), count.documents, is_quiet

    for reason, count in extracted.reasons("dropped").items():
        yield row(step_of_extraction(reason), in_words(reason), count)
    for reason, count in extracted.reasons("failed").items():
        yield row(step_of_extraction(reason, failed=True), f"{in_words(reason)} (failed)", count)
    for reason, count in selected.reasons("dropped").items():
        yield row(SELECTION.get(reason, "other"), in_words(reason), count)
    for reason, count in selected.edited.items():
        yield row("repeated text", f"{in_words(reason)} (taken out of kept documents)", count)
    for reason, size in extracted.skipped.most_common():
        yield row("read", f"{in_words(reason)} (no document)", Count(num_bytes=size), has_documents=False)
    for reason, count in extracted.reasons("would_drop").items():
        words = f"{in_words(reason)} (only counted: the rule is off, or not for its language)"
        yield row("rules", words, count, is_quiet=True)


def _reason_table(caption: str, rows: list[Row]) -> Markup:
    headings = ("source", "step", "reason", "documents", "bytes")
    return table(caption, headings, [row for row, *_ in rows], numbers=(3, 4), grey=[quiet for *_, quiet in rows])


def _total(flow: Flow, what: str) -> Count:
    total = Count()
    for step in flow.steps:
        count: Count = getattr(step, what)
        total.add(count.documents, count.num_bytes)
    return total


def _chart(flow: Flow) -> str:
    came, kept, held, train = flow.came_in, flow.kept, flow.held_out, flow.train
    rows = [
        FlowRow(name="came in", bars=_bars(came, Count(), "kept", came)),
        *(FlowRow(name=step.step, bars=_bars(step.came_in, step.lost, "lost", step.lost, step)) for step in flow.shown),
        *([FlowRow(name="held out", bars=_bars(kept, held, "held", held))] if held.documents else []),
        FlowRow(name="to train on", bars=_bars(train, Count(), "kept", train)),
    ]
    label = f"Flow of documents: {came.documents:,} came in, {train.documents:,} are left to train on, {held.documents:,} are held out"
    return flow_chart(rows, units=("documents", "bytes"), label=label)


def _bars(before: Count, left: Count, kind: str, shown: Count, step: Passage | None = None) -> tuple[Bar, Bar]:
    """The two bars of a row. shown: the figures beside them, with a minus where they are a loss."""
    sign = "" if shown is before else "−"
    edited = (
        f"; {counted(step.edited.documents, 'kept document')} lost a part" if step and step.edited.documents else ""
    )
    documents, size = (_digits(shown.documents), in_bytes(shown.num_bytes))
    return (
        Bar(before=before.documents, left=left.documents, kind=kind, figure=f"{sign if shown.documents else ''}{documents}",
            title=f"{left.documents:,} of {counted(before.documents, 'document')} left{edited}"),
        Bar(before=before.num_bytes, left=left.num_bytes, kind=kind, figure=f"{sign if shown.num_bytes else ''}{size}",
            title=f"{left.num_bytes:,} of {counted(before.num_bytes, 'byte')} left"),
    )  # fmt: skip


def _digits(number: int) -> str:
    return f"{number:,}" if number < ALL_DIGITS else scale(number)


def _in_numbers(source: str, flow: Flow) -> Markup:
    rows = [
        (
            step.step,
            step.came_in.documents,
            step.dropped.documents,
            step.failed.documents,
            step.edited.documents,
            in_bytes(step.came_in.num_bytes),
            in_bytes(step.lost.num_bytes),
            _most(step),
        )
        for step in flow.shown
    ]
    kept, train, held = flow.kept, flow.train, flow.held_out
    end = (
        f"{train.documents:,} to train on, {held.documents:,} held out", kept.documents, None, None, None, in_bytes(kept.num_bytes), "", "",
    )  # fmt: skip
    headings = ("step", "documents in", "dropped", "failed", "edited", "bytes in", "bytes lost", "most of them")
    return table(f"{source}, step by step", headings, [*rows, end], numbers=(1, 2, 3, 4, 5, 6))


def _most(step: Passage) -> str:
    """The most frequent reasons of a step, and what left that was no document."""
    most = [f"{in_words(reason)} {count:,}" for reason, count in step.reasons.most_common(REASONS_OF_STEP)]
    if step.skipped_bytes:
        most.append(f"{in_bytes(step.skipped_bytes)} that are no document")
    return ", ".join(most)
