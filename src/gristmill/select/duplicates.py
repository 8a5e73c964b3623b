"""STEP duplicates: which documents take part, and which of them are copies of which, over all sources together.

    matches, scores, prints ─→ fates.npy                      opted out, held out, below the threshold, an item of a pack, a second id
    those that pass ─→ copies.parquet, links.parquet          `dedup`; the survivor of each copy, and what a split must not part
                    ─→ near_duplicates.json                   losses by source, the largest clusters with excerpts

A document that holds an item is out before survivors are chosen, so it takes no clean copy along. Late sources come after all
others in the survivor order, so they change nothing that is found among those. The step stops where one survivor would take
too much of a source; what it has found by then is kept in the working folder.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.lists import Lists
from gristmill.errors import Interrupted
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.curation import NearDuplicates, OptOut
from gristmill.select.catalogue import (
    Catalogue,
    blocks,
    catalogue_of,
    executor_of,
    search_corpus,
    survivor_ranks,
)
from gristmill.select.dedup import DuplicateCounts, find_duplicates
from gristmill.select.fates import OPTED_OUT, PASSED, LookAtShard, decide_fates
from gristmill.select.files import new_array
from gristmill.select.losses import CopiesFound, check_losses, near_duplicates_report
from gristmill.select.outputs import Deduplicated
from gristmill.select.rules import DuplicateRules
from gristmill.store.durable import write_json
from gristmill.units import counted

VERSION = 2


def run(ctx: StepContext) -> dict[str, Any]:
    """Finds the copies. Raises DataError when one survivor takes more of a source than the recipe allows."""
    left = Deduplicated(ctx.out)
    catalogue = catalogue_of(ctx)
    rules = duplicate_rules(ctx.config["near_duplicates"])
    work = ctx.out / "work"
    work.mkdir(exist_ok=True)
    scores = work / "scores.npy"
    if not left.near_duplicates.is_file():
        _decide(ctx, catalogue, left.fates, scores)
        found = _search(ctx, catalogue, rules, left.fates, scores)
        for path in (left.copies, left.links):
            if (made := work / path.name).is_file():
                os.replace(made, path)
        copies = CopiesFound.read(left.copies, catalogue, left.fates)
        limit = _limit(ctx)
        if limit is not None:
            check_losses(catalogue, copies, max_source_loss=limit)
        report = near_duplicates_report(catalogue, copies, found, rules, max_source_loss=limit)
        write_json(left.near_duplicates, report.to_json())
    shutil.rmtree(work)
    return _counts(ctx, left)


def duplicate_rules(section: NearDuplicates | None) -> DuplicateRules:
    """The rules of the recipe; without the section near copies are still found, for the split, but kept."""
    chosen = NearDuplicates().inside() if section is None else section
    return DuplicateRules(
        num_bands=chosen.num_bands,
        rows_per_band=chosen.rows_per_band,
        ngram=chosen.ngram,
        min_jaccard=chosen.min_jaccard,
        remove_near=section is not None,
    )


def _limit(ctx: StepContext) -> float | None:
    near: NearDuplicates | None = ctx.watching.config["near_duplicates"]
    return None if near is None else near.max_source_loss


def _decide(ctx: StepContext, catalogue: Catalogue, fates: Path, scores: Path) -> None:
    looks = ctx.out / "work" / "looks"
    looks.mkdir(exist_ok=True)
    executor = executor_of(ctx, catalogue)
    above = {source: threshold["above"] for source, threshold in ctx.config["min_scores"].items()}
    opt_out = Lists.among(ctx.files, OptOut.model_fields)
    function = LookAtShard(above=above, opt_out=opt_out, out=looks)
    doubles = decide_fates(catalogue, function, executor, fates=fates, scores=scores)
    for source, count in doubles.items():
        if count:
            ctx.say(f"duplicates: {counted(count, 'document')} of {source} dropped: an earlier one has the same id")
    if opt_out is not None:
        fate_D = np.load(fates, mmap_mode="r")
        count = sum(int((fate_D[some] == OPTED_OUT).sum()) for some in blocks(0, len(fate_D)))
        ctx.say(f"duplicates: {counted(count, 'document')} opted out")
    _leave_if_asked(ctx)


def _search(
    ctx: StepContext, catalogue: Catalogue, rules: DuplicateRules, fates: Path, scores: Path
) -> DuplicateCounts:
    ranks = survivor_ranks(ctx.config["early"], ctx.config["late"], ctx.config["priority"])
    work = ctx.out / "work"
    passed = work / "passed.npy"
    fate_D = np.load(fates, mmap_mode="r")
    passed_D = new_array(passed, np.bool_, len(fate_D))
    for some in blocks(0, len(fate_D)):
        passed_D[some] = fate_D[some] == PASSED
    passed_D.flush()
    corpus = search_corpus(catalogue, ranks, turns=passed, scores=scores)
    executor = executor_of(ctx, catalogue)
    return find_duplicates(
        corpus,
        rules=rules,
        work=work,
        executor=executor,
        should_stop=ctx.should_stop,
        say=ctx.say,
        progress=ctx.progress,
    )


def _counts(ctx: StepContext, left: Deduplicated) -> dict[str, Any]:
    report = left.findings
    exact = sum(row.exact_copies for row in report.sources.values())
    near = sum(row.near_copies for row in report.sources.values())
    ctx.say(
        f"duplicates: among {counted(report.documents, 'document')} that take part, {exact:,} exact and {near:,} near copies"
    )
    for source, row in report.sources.items():
        if row.max_source_loss is not None and row.lost_share > row.max_source_loss:
            ctx.say(f"duplicates: {source} loses {row.lost_share:.0%} of its documents to copies of many")
    return {
        "documents": report.documents,
        "exact_copies": exact,
        "near_copies": near,
        "compared_pairs": report.compared_pairs,
    }


def _leave_if_asked(ctx: StepContext) -> None:
    if ctx.should_stop():
        raise Interrupted("stopped between two stages of the search for duplicates; what is done is kept.")
