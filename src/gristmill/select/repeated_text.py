"""Repeated text as `select` asks for it: who takes part, the search, the account of what went, and the refusal where it is too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.data.executor import Executor
from gristmill.data.ledger import EXCERPT_CHARACTERS
from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import RepeatedText
from gristmill.select.catalogue import Catalogue, read_column, search_corpus, survivor_ranks
from gristmill.select.files import new_array
from gristmill.select.levels import TRAIN, VALIDATION
from gristmill.select.outputs import RepeatedReport, RepeatedUnit, TextTaken
from gristmill.select.repeated import Repeated, RepeatedRules, find_repeated
from gristmill.select.stages import Stage
from gristmill.select.units import unit_hashes, units_of
from gristmill.units import counted

WORKER_BYTES = 500_000_000
NAMED_UNITS = 3  # in a message


def search_repeated(
    ctx: StepContext, catalogue: Catalogue, side_D: NDArray[np.int8], *, work: Path, executor: Executor
) -> Repeated | None:
    """What training text repeats, by the recipe; None where it does not ask. side_D: the sides of all documents, as they were split."""
    section = ctx.config.get("repeated_text")
    if section is None:
        return None
    work.mkdir(exist_ok=True)
    masks = {name: work / f"{name}.npy" for name in ("passed", "held", "scores")}
    passed_D, held_D = (new_array(masks[name], np.bool_, len(catalogue)) for name in ("passed", "held"))
    score_D = new_array(masks["scores"], np.float32, len(catalogue))
    for shard in catalogue.shards:
        if shard.source in section["sources"]:
            mine = slice(shard.first, shard.end)
            held_D[mine] = side_D[mine] == VALIDATION
            passed_D[mine] = (side_D[mine] == TRAIN) | held_D[mine]
            if shard.scores is not None:
                score_D[mine] = read_column(shard.scores, "score")
    for array in (passed_D, held_D, score_D):
        array.flush()
    ranks = survivor_ranks(ctx.config["early"], ctx.config["late"], ctx.config["priority"])
    return find_repeated(
        Stage(
            folder=work,
            texts=executor,
            columns=executor,
            array_bytes=WORKER_BYTES,
            should_stop=ctx.should_stop,
            say=ctx.say,
            progress=ctx.progress,
        ),
        search_corpus(catalogue, ranks, turns=masks["passed"], scores=masks["scores"]),
        rules=RepeatedRules(
            unit=section["unit"], min_words=section["min_words"], min_documents=section["min_documents"]
        ),
        level_S=[shard.level for shard in catalogue.shards],
        held=masks["held"],
        worker_bytes=WORKER_BYTES,
    )


def repeated_report(
    catalogue: Catalogue, repeated: Repeated, taken: Mapping[str, TextTaken], train_bytes: Mapping[str, int]
) -> RepeatedReport:
    """The account. taken, train_bytes: of the sources that took part; the second as it was written, without what went."""
    return RepeatedReport(
        unit=repeated.rules.unit,
        min_words=repeated.rules.min_words,
        min_documents=repeated.rules.min_documents,
        train_bytes={source: train_bytes[source] + lost.num_bytes for source, lost in taken.items()},
        taken=taken,
        most_frequent=tuple(_most_frequent(catalogue, repeated)),
    )


def _most_frequent(catalogue: Catalogue, repeated: Repeated) -> Iterable[RepeatedUnit]:
    """The units that most documents lost, as the documents that keep them have them."""
    frequent = repeated.most_frequent
    ids, texts = dict(catalogue.ids_of(frequent["owner"])), dict(catalogue.texts_of(frequent["owner"]))
    for row in frequent:
        owner = int(row["owner"])
        units = [texts[owner][first:end] for first, end in units_of(texts[owner], repeated.rules.unit)]
        hashes_U2, _ = unit_hashes(units)
        place = int(np.flatnonzero((hashes_U2[:, 0] == row["high"]) & (hashes_U2[:, 1] == row["low"]))[0])
        yield RepeatedUnit(
            lost_by=int(row["lost"]),
            kept_by=ids[owner],
            kept_in=catalogue.source_of(owner),
            held_out=bool(row["is_held"]),
            excerpt=units[place][:EXCERPT_CHARACTERS],
        )


def check_repeated(report: RepeatedReport | None, section: RepeatedText | None) -> None:
    """Raises DataError where a source loses a larger share of its training text than the recipe allows, with what repeats most."""
    if report is None or section is None:
        return
    for source, taken in report.taken.items():
        if report.share(source) <= section.max_loss:
            continue
        named = "".join(f"\n  {one.lost_by:,} × {one.excerpt!r}" for one in report.most_frequent[:NAMED_UNITS])
        raise DataError(
            f"source {source!r} would lose {taken.num_bytes:,} of {report.train_bytes[source]:,} bytes of training text "
            f"({report.share(source):.0%}) as repeated {report.unit}s: {counted(taken.edited_documents, 'document')} edited, "
            f"{taken.dropped_documents:,} dropped; the limit is {section.max_loss:.0%}. What most documents of all sources lose:{named}\n"
            "  If these belong to the texts (a licence, a form, the lines of logs), leave the source out of "
            "select.repeated_text.sources, or raise min_words or min_documents. If the same texts are cut in other ways, keep "
            "one of them. If it is boilerplate, raise select.repeated_text.max_loss."
        )
