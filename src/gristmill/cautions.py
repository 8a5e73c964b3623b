"""What to watch out for in a forecast: values of a recipe that are allowed and seldom meant, text that is too little, a machine that is
too small."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from statistics import NormalDist

from gristmill.amounts import Found
from gristmill.graph.machine import Machine, usable_memory
from gristmill.planning.budget import SelectionBudget, asked_readings
from gristmill.planning.cost import Disk, Memory
from gristmill.recipe.schema.formats import ReadCode
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import Pretrain
from gristmill.select.split import most_bytes
from gristmill.units import counted, in_units, scale

LONG_BYTES = 20_000  # of a document that is worth cutting
SHORT_UNIT = 8  # words: shorter runs are phrases that unrelated texts share
MOST_REPEATED = 0.5  # of a source's text
SCARCE = 0.05  # of all tokens that are trained on: a source of fewer cannot be much of a stage
MORE_OFTEN = 1.25  # times the passes over all sources together; sources that are read by their sizes differ by less
CONTINUED_PEAK_LR = 5e-5  # of FineMath's continued trainings of Llama-3.2-3B; recipes/domain.yaml says more
FAR_ABOVE = 10  # times it
FEWEST_FOR_MEAN = 5  # items
FEW_DOCUMENTS = 20  # held out: with fewer the interval of a mean is wide, and itself unsure


def recipe_cautions(recipe: Recipe, budget: Sequence[SelectionBudget], found: Found) -> list[str]:
    """Text that is repeated, too little or read too early, shares that draw nothing, a context that grows without rope_theta, a
    released model that is continued at a rate by which it forgets."""
    return [
        *_epoch_warnings(budget),
        *_scarce_warnings(recipe, budget),
        *_recipe_warnings(recipe),
        *_released_warnings(recipe.pretrain),
        *_held_out_warnings(recipe, found),
    ]


def machine_cautions(memory: Memory | None, disk: Disk, machine: Machine) -> list[str]:
    """More memory or disk than there is. memory: of training on this machine; None where it is planned for devices elsewhere."""
    warnings = []
    usable = usable_memory().total
    if memory is not None and machine.device != "cuda" and memory.total > usable:
        warnings.append(
            f"training needs about {in_units(memory.total, 'B')} of memory, it may use {in_units(usable, 'B')} here; "
            f"a smaller micro-batch than {machine.micro_batch_tokens:,} tokens lowers the activations"
        )
    folder = next(
        folder for folder in (machine.runs_dir.absolute(), *machine.runs_dir.absolute().parents) if folder.exists()
    )
    if disk.total > (free := shutil.disk_usage(folder).free):
        warnings.append(
            f"the run leaves about {in_units(disk.total, 'B')}, {machine.runs_dir} has {in_units(free, 'B')} free"
        )
    return warnings


def _epoch_warnings(budget: Sequence[SelectionBudget]) -> list[str]:
    warnings = []
    for row in budget:
        if row.verdict == "repeated":
            warnings.append(
                f"{row.selection} is read {row.epochs[-1]:.1f} times; repeats are worth less after {row.warn_epochs:g}"
            )
        elif row.verdict == "allowed":
            warnings.append(
                f"{row.selection} is read {row.epochs[-1]:.1f} times, allowed because: {row.allowed_because}"
            )
        elif row.verdict == "unknown":
            warnings.append(f"the token count of {row.selection} is not known yet; its cap is checked after tokenize")
    return warnings


def _scarce_warnings(recipe: Recipe, budget: Sequence[SelectionBudget]) -> Iterator[str]:
    """Small sources that are read more often than the others, and mostly before the rate begins to fall."""
    pretrain = recipe.pretrain
    decay_begins = pretrain.total_tokens - pretrain.decay_tokens
    known = [row for row in budget if row.unique_tokens and row.epochs]
    usual = max(1.0, pretrain.total_tokens / max(1, sum(row.unique_tokens or 0 for row in known)))  # epochs
    early = []
    for row in known:
        before = begins = 0.0
        for stage, asked in zip(pretrain.stages, row.asked_tokens):
            before += asked * min(1.0, max(0.0, (decay_begins - begins) / stage.tokens))
            begins += stage.tokens
        is_scarce = (row.unique_tokens or 0) < SCARCE * pretrain.total_tokens and row.epochs[-1] > MORE_OFTEN * usual
        if is_scarce and before > row.total_tokens / 2:
            early.append(
                f"{row.selection} ({before / row.total_tokens * row.epochs[-1]:.2f} of {row.epochs[-1]:.2f} epochs)"
            )
    if early:
        yield (
            f"scarce text is read mostly before the decay, where it is worth most (SmolLM2, arXiv 2502.02737, section 4): "
            f"{', '.join(early)}; keep it for the stages from {scale(decay_begins)} tokens on, or give it less weight before"
        )


def _recipe_warnings(recipe: Recipe) -> list[str]:
    warnings = []
    stages = recipe.pretrain.as_changed().stages
    for stage, readings in zip(stages, asked_readings(stages)):
        for reading in readings:
            if reading.tokens < stage.seq_len:
                warnings.append(
                    f"pretrain.stages.{stage.name}.mixture: {reading.selection} has {counted(reading.tokens, 'token')} of "
                    f"{stage.tokens:,}, less than one sequence of {stage.seq_len:,}, so it may not be drawn at all; raise its weight to "
                    f"{math.ceil(1e6 * stage.seq_len / stage.tokens) / 1e6:g} or more, or take it out"
                )
    for before, stage in zip(recipe.pretrain.stages, recipe.pretrain.stages[1:]):
        if stage.seq_len > before.seq_len and stage.rope_theta is None:
            warnings.append(
                f"stage {stage.name} goes from {before.seq_len:,} to {stage.seq_len:,} tokens of context with the same "
                "rope_theta; a longer context usually needs a larger one"
            )
    return [*warnings, *_source_warnings(recipe), *_repeated_text_warnings(recipe)]


def _released_warnings(pretrain: Pretrain) -> Iterator[str]:
    """A rise of the rate that costs a released model more than it has to of what it knows."""
    if pretrain.init_from is None:
        return
    if pretrain.warmup_tokens == 0:
        yield (
            "pretrain.init_from without warm-up: a released model ended at a rate of zero, and its first steps at the peak undo some of "
            f"what it knows; set pretrain.warmup_tokens, for example to a tenth of the tokens, {pretrain.total_tokens // 10:,}"
        )
    peak = max(pretrain.optimizer.peak_lr, *(change.peak_lr or 0.0 for change in pretrain.changes), 0.0)
    if peak > FAR_ABOVE * CONTINUED_PEAK_LR:
        yield (
            f"pretrain.init_from with a peak rate of {peak:g}, {peak / CONTINUED_PEAK_LR:,.0f} times the {CONTINUED_PEAK_LR:g} of published "
            "continued trainings (FineMath, arXiv 2502.02737): the released model forgets more of what it knows, the higher the rate rises; "
            "lower pretrain.optimizer.peak_lr, or replay more general text"
        )


def _source_warnings(recipe: Recipe) -> Iterator[str]:
    """Filters of a source that judge by what its documents do not have."""
    for name, source in recipe.sources.items():
        if source.language is not None and isinstance(source.read, ReadCode):
            yield (
                f"sources.{name}.language judges files of source code by their comments and names, and drops most; leave it out, and "
                "choose files by read.extensions"
            )
        key = next((key for key in ("url_field", "url_column") if hasattr(source.read, key)), None)
        if source.urls is not None and key is not None and getattr(source.read, key) is None:
            yield f"sources.{name}.urls drops nothing: no document has a URL without read.{key}"


def _repeated_text_warnings(recipe: Recipe) -> Iterator[str]:
    """Settings of repeated text by which documents lose what belongs to them."""
    section = recipe.select.repeated_text
    if section is None:
        return
    if section.min_words < SHORT_UNIT:
        yield (
            f"select.repeated_text.min_words is {section.min_words}: {section.unit}s so short are answers, headings and phrases that "
            f"unrelated texts share, and are taken out of all but one; {SHORT_UNIT} or more leave them"
        )
    if section.unit == "line" and section.min_documents == 2:
        yield (
            "select.repeated_text takes a line out of a text as soon as another document has it, quotations and verses too; "
            "min_documents: 10 takes what stands on many pages"
        )
    code = [name for name in section.sources or () if isinstance(recipe.sources[name].read, ReadCode)]
    if code:
        yield (
            f"select.repeated_text takes part in {', '.join(code)}, whose files lose licence heads and lines that programs need; "
            "leave code out of select.repeated_text.sources"
        )
    if section.max_loss > MOST_REPEATED:
        yield (
            f"select.repeated_text.max_loss lets {section.max_loss:.0%} of a source go; a source that repeats so much is one text many "
            "times, or forms and logs whose lines belong to each of them"
        )


def what_a_mean_tells(count: int) -> str:
    """With what error bar so many items come, in words."""
    if count < FEWEST_FOR_MEAN:
        return f"fewer than {FEWEST_FOR_MEAN} have no error bar of use"
    return f"where one differs from the next by x, the mean over {count:,} is sure to ± {mean_half_width(count):.2g} x, 95 times in 100"


def mean_half_width(count: int) -> float:
    """Half of the 95 % interval of a mean over so many items of one size, FEWEST_FOR_MEAN at least, in standard deviations of an item.

    Student's t by its expansion about the normal quantile (Abramowitz and Stegun 26.7.5), to 0.3 %: a plan does not wait for scipy.
    """
    z, v = NormalDist().inv_cdf(0.975), count - 1
    terms = (
        (z**3 + z) / (4 * v),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3),
    )
    return (z + sum(terms)) / math.sqrt(count)


def _held_out_warnings(recipe: Recipe, found: Found) -> list[str]:
    """Sources whose held-out text is too little to say how well they are learnt, or may be one document."""
    warnings = []
    for name, (path, size) in found.largest.items():
        wanted, most = (
            found.held_out[name][1],
            most_bytes(round(found.facts[name].text_bytes), recipe.select.validation),
        )
        told = f"{path.name} of {name} is one document of about {in_units(size, 'B')} of text"
        cut = f"sources.{name}.read.passage_chars: {LONG_BYTES} cuts long documents" if size > 2 * LONG_BYTES else None
        if wanted < size <= most:
            warnings.append(
                f"{told}, more than the {in_units(wanted, 'B')} that are held out: it may be all that is held out, and what is alike "
                f"to it then leaves the training text; {cut or 'a larger select.validation.min_bytes holds out more documents'}"
            )
        elif size > most:
            warnings.append(
                f"{told}, more than may be held out ({in_units(most, 'B')}), and is trained on as a whole: little or nothing of {name} "
                f"is held out, so no score tells of it; {cut or 'add text if one should'}"
            )
    few = {
        name: (documents, num_bytes)
        for name, (documents, num_bytes) in found.held_out.items()
        if documents is not None and documents < FEW_DOCUMENTS
    }
    if few:
        least = min(few, key=lambda name: few[name])
        uncut = ", ".join(
            name
            for name, (documents, num_bytes) in few.items()
            if recipe.sources[name].read.passage_chars is None and num_bytes > LONG_BYTES * documents
        )
        warnings.append(
            f"fewer than {FEW_DOCUMENTS} documents of {', '.join(few)} are held out ({'fewest of ' if len(few) > 1 else ''}{least}: "
            f"about {counted(few[least][0], 'document')}, {in_units(few[least][1], 'B')}), too few for a useful error bar: "
            f"{what_a_mean_tells(few[least][0])}; "
            "raise select.validation.fraction or min_bytes, or add text"
            + (f", or cut long documents of {uncut} by read.passage_chars" if uncut else "")
        )
    return warnings
