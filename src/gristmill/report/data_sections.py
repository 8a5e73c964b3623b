"""Sections on the data: what came in and what was dropped, quality scores, duplicates and contamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gristmill.report.blocks import Section, figure, fold, heading, paragraph, prose, table
from gristmill.report.charts import Series, line_chart
from gristmill.report.facts import Facts, plus_minus
from gristmill.report.flow import flows_of
from gristmill.report.flow_blocks import fates_by_source, fetched, in_words, reasons, source_by_source, whole_flow
from gristmill.report.impact import Impact
from gristmill.report.origins import origins_of
from gristmill.score.outputs import ClassifierReport
from gristmill.select.outputs import ContaminationHit, ContaminationReport, NearDuplicateReport, RepeatedReport
from gristmill.units import counted, in_bytes, percent, scale
from gristmill.written import Estimate

REASONS_SHOWN = 14
SUBJECTS_SHOWN = 3
SPANS_SHOWN = 3


def what_came_in(facts: Facts) -> Section | None:
    """What was fetched; the flow of documents and bytes, of all sources and of each; the reasons; samples of what was dropped."""
    flows, origins = flows_of(facts), origins_of(facts)
    blocks = [
        *fetched(origins),
        whole_flow(flows),
        fates_by_source(flows, origins),
        source_by_source(flows),
        *reasons(facts.ledgers),
        *_impact(facts.impact),
    ]
    if facts.replaced:
        told = "; ".join(f"{source}: {words}" for source, words in facts.replaced.items())
        blocks.append(paragraph(f"Replaced in the text by what documentation uses in their place: {told}."))
    if facts.not_read:
        blocks.append(what_was_not_read(facts))
    if samples := facts.rejected_samples:
        title = f"{counted(len(samples), 'sample')} of rejected documents, one or two of each reason"
        blocks.append(fold(title, [_sample_table(samples)]))
    return Section(
        title="What came in",
        intro=how_it_came_in(facts),
        blocks=blocks,
    )


def how_it_came_in(facts: Facts) -> str:
    """What was done to the sources, in a sentence: what any of them asks for."""
    asked = facts.asked_of_sources
    filters = (["by language"] if "language" in asked else []) + (
        ["by rules with published limits that are chosen for this source"] if "rules" in asked else []
    )
    done = [
        "Each source is read",
        *(["reduced to its main text"] if "main_text" in asked else []),
        *([f"filtered {' and '.join(filters)}"] if filters else []),
    ]
    return f"{', '.join(done)}; then all sources together lose what scores low, what tests ask, and copies."


def _impact(impact: Mapping[str, Impact]) -> Iterator[Markup]:
    """What each reason takes more of than of the rest; in words where it is nearly all of a language, site or subject."""
    rows = [
        (
            source,
            in_words(reason),
            count,
            f"{count / found.documents:.1%}",
            "; ".join(hit.words for hit in hits),
        )
        for source, found in impact.items()
        for reason, count in found.dropped.most_common()
        if (hits := found.of(reason))
    ]
    if not rows:
        if any(found.dropped for found in impact.values()):
            yield paragraph(
                "No reason took much more of a language, a site or a subject than of the rest of its source, beyond chance."
            )
        return
    caption = (
        "What the reasons hit. A language, a site or a word among the first letters of which a reason took at least twice as large a "
        "share as of the rest of its source, beyond what chance explains. Other reasons hit nothing in particular"
    )
    headings = ("source", "reason", "documents", "of the source", "takes most of")
    yield table(caption, headings, rows[:REASONS_SHOWN], numbers=(2, 3))
    for source, found in impact.items():
        for hit in found.nearly_all[:SUBJECTS_SHOWN]:
            yield paragraph(f"In {source}, {in_words(hit.reason)} took {hit.words}: is that meant?")


def what_was_not_read(facts: Facts) -> Markup:
    """Files beside those of the sources, by suffix, with what to do."""
    rows = [(one.title, one.files, in_bytes(one.num_bytes), prose(one.advice)) for one in facts.not_read]
    headings = ("files beside those of the sources", "number", "bytes", "what to do")
    return table("What was not read", headings, rows, numbers=(1, 2), has_sentences=True)


def _sample_table(samples: list[dict[str, Any]]) -> Markup:
    rows = [
        (
            in_words(row["reason"]),
            row["id"],
            plus_minus(row["value"]),
            plus_minus(row["limit"]),
            row["excerpt"][:160],
        )
        for row in samples
    ]
    return table(
        "What rejected documents look like", ("reason", "id", "measured", "limit", "begins"), rows, numbers=(2, 3)
    )


def quality(facts: Facts) -> Section | None:
    """What each classifier learnt, and what each threshold would keep."""
    if not facts.classifiers:
        return None
    blocks: list[Markup] = []
    for name, report in facts.classifiers.items():
        blocks += [heading(f"Classifier {name}"), *_classifier(name, report)]
    for source, used in facts.thresholds.items():
        blocks.append(paragraph(f"Used: {source} keeps what scores above {used.above:g} by {used.classifier}."))
    return Section(
        title="Quality scores",
        intro="A threshold is a choice between amount and quality; this table is what it was chosen from. Each figure carries its 95 % interval.",
        blocks=blocks,
    )


def _classifier(name: str, report: ClassifierReport) -> Iterator[Markup]:
    labels = ", ".join(f"{count} × {label}" for label, count in report.labels.items())
    yield paragraph(
        f"{report.labelled_documents} documents of {report.source} labelled under the rubric {report.rubric} by: "
        f"{', '.join(report.annotators)}. Labels: {labels}. Scored on {report.crop}; a labelled document is scored by a model that "
        f"did not see it ({report.num_folds} folds)."
    )
    merged = [f"{label} into {target}" for label, target in report.trained_as.items() if int(label) != int(target)]
    if merged:
        yield paragraph(f"Classes that were too small were merged: {', '.join(merged)}.")
    if (twice := report.agreement) is not None:
        kappas = f"Cohen's kappa {_with_interval(twice.kappa)}, quadratic kappa {_with_interval(twice.quadratic_kappa)}"
        yield paragraph(f"{twice.count} documents were labelled twice: {kappas}.")
    rows = [
        (
            f"above {row.above:g}",
            percent(row.kept_document_share),
            row.kept_documents,
            scale(row.kept_tokens_estimate),
            _with_interval(row.f1),
            _with_interval(row.precision),
            _with_interval(row.recall),
            row.test_documents,
        )
        for row in report.thresholds
    ]
    yield table(
        f"What each threshold on {name} would keep, and how well it judges",
        ("threshold", "share kept", "documents", "tokens, estimated", "F1", "precision", "recall", "judged on"),
        rows,
        numbers=(1, 2, 3, 4, 5, 6, 7),
    )


def _with_interval(found: Estimate) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def duplicates_and_contamination(facts: Facts) -> Section | None:
    """Near-duplicates with their evidence; overlap with task packs; planted recall."""
    near = facts.near_duplicates
    found = _near_duplicates(near) if near is not None else []
    repeated = _repeated_text(facts, facts.repeated_text) if facts.repeated_text is not None else []
    blocks = [heading("Duplicates"), *found, *repeated, *_contamination(facts.contamination)]
    return Section(title="Duplicates and contamination", intro="", blocks=blocks)


def _near_duplicates(near: NearDuplicateReport) -> Iterator[Markup]:
    yield paragraph(
        f"{near.candidate_pairs:,} candidate pairs among {near.documents:,} documents; each was compared on its full text before "
        "anything was removed."
    )
    rows = [
        (cluster.source, cluster.survivor, cluster.removed, f"{cluster.weakest_jaccard:.2f}", cluster.excerpt[:110])
        for cluster in near.largest_clusters[:6]
    ]
    if rows:
        headings = ("source", "survivor", "copies removed", "least similarity", "begins")
        caption = (
            "The largest groups of near-duplicates. Similarity: Jaccard of word 5-grams; below the recipe's limit where nearly all of a "
            "copy stands in a longer document"
        )
        yield table(caption, headings, rows, numbers=(2, 3))
    curve = Series(name="found", xs=[point.jaccard for point in near.curve], ys=[point.found for point in near.curve])
    chart = line_chart([curve], x_label="Jaccard similarity of word 5-grams", y_label="probability", from_zero=True)
    yield fold("How likely a pair of a given similarity is found", [figure(chart, "Theory of the bands used.")])


def _repeated_text(facts: Facts, found: RepeatedReport) -> Iterator[Markup]:
    """What was taken out of documents, source by source, and the units that most of them lost."""
    yield paragraph(
        f"Training text lost each {found.unit} of {found.min_words} words or more that validation text has, or that stands in "
        f"{found.min_documents} documents or more and in one before it in the order of survivors. Documents of which less than "
        f"{found.min_words} words were left were dropped. Bytes in = kept + dropped + failed + taken out in this way."
    )
    rows = [
        (
            source,
            taken.edited_documents,
            taken.edited_units,
            taken.dropped_documents,
            in_bytes(taken.num_bytes),
            percent(found.share(source)),
            "" if (tokens := facts.repeated_tokens(source)) is None else scale(tokens),
        )
        for source, taken in found.taken.items()
    ]
    headings = (
        "source",
        "documents edited",
        f"{found.unit}s taken out",
        "documents dropped",
        "text",
        "of its training text",
        "tokens, about",
    )
    yield table("Repeated text", headings, rows, numbers=(1, 2, 3, 4, 5, 6))
    if found.most_frequent:
        units = [
            (one.lost_by, one.kept_in, one.kept_by + (" (held out)" if one.held_out else ""), one.excerpt[:160])
            for one in found.most_frequent
        ]
        named = table(
            f"The {found.unit}s that most documents lost: is it boilerplate?",
            ("documents", "kept in", "by", "begins"),
            units,
            numbers=(0,),
        )
        yield fold("What was taken out most often", [named])


def _contamination(found: ContaminationReport) -> Iterator[Markup]:
    if not found.packs:
        yield paragraph("The recipe names no task packs, so the text was not searched for their items.")
    else:
        yield table(
            "Task packs: is what they ask in the training text?",
            ("pack", "items", "planted and found", "not looked for", "documents removed"),
            [
                (
                    name,
                    pack.items,
                    f"{pack.found} of {pack.planted}",
                    pack.unprotected_items,
                    found.by_pack.get(name, 0),
                )
                for name, pack in found.packs.items()
            ],
            numbers=(1, 2, 3, 4),
        )
        forms = Counter[str](), Counter[str]()
        for pack in found.packs.values():
            for form, (seen, planted) in pack.by_form.items():
                forms[0][form] += seen
                forms[1][form] += planted
        told = ", ".join(f"{form} {forms[0][form]:,} of {planted:,}" for form, planted in forms[1].items() if planted)
        yield paragraph(
            "Items were planted into copies of real documents, as question and answer in several forms, and looked for "
            f"by the rule {found.rule}: {told or 'none could be'}. Items that are not looked for have too few words, or stand in "
            "their own passage; documents that they were cut from leave by their ids. Real documents that held an item and were "
            f"removed: {found.documents_removed:,}."
        )
    if spans := [row for pack in found.packs for row in _spans(pack, found.hits)]:
        headings = ("pack", "source", "document", "item", "of it", "words", "span")
        caption = f"Spans that match an item. Of each pack the first {SPANS_SHOWN}, to judge whether they are the item"
        yield fold("Documents that held an item, pack by pack", [table(caption, headings, spans, numbers=(4, 5))])


def _spans(pack: str, hits: Sequence[ContaminationHit]) -> list[tuple[str, ...]]:
    """The first documents that held items of a pack, each with the span: characters from start to end."""
    found = [(hit, items) for hit in hits if (items := [name for name in hit.items if name.startswith(f"{pack}/")])]
    return [
        (
            pack,
            hit.source,
            f"{hit.id}, characters {hit.start:,}–{hit.end:,}",
            ", ".join(name.removeprefix(f"{pack}/") for name in items)[:60],
            f"{hit.share:.0%}",
            f"{hit.words:,}",
            hit.excerpt[:110],
        )
        for hit, items in found[:SPANS_SHOWN]
    ]
