"""How a plan is shown on a terminal: the budget table first, then schedule, model, time, devices, cost, curation, changes, warnings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.cautions import FEW_DOCUMENTS, what_a_mean_tells
from gristmill.changed import RecipeChange
from gristmill.commands.fleet_page import print_fleet
from gristmill.commands.page import section
from gristmill.commands.schedule_page import print_schedule
from gristmill.durations import StepForecast
from gristmill.forecast import Forecast
from gristmill.graph.machine import Machine
from gristmill.graph.state import States, by_kind
from gristmill.pipeline import kept_steps, repeated_sources
from gristmill.planning.budget import SelectionBudget
from gristmill.planning.cost import tokens_at_once
from gristmill.planning.devices import published_share, read_fleet
from gristmill.recipe.schema.curation import LanguageFilter, Source
from gristmill.recipe.schema.recipe import Recipe
from gristmill.remake import remade_words, remakes, resume_point
from gristmill.units import counted, in_units, percent, scale, seconds

VERDICT_STYLES = {
    "fine": "green",
    "repeated": "yellow",
    "allowed": "yellow",
    "too many": "bold red",
    "too short": "bold red",
    "unknown": "yellow",
}
YARDSTICK_FROM_HOURS = 100.0


def print_forecast(plan: Forecast, machine: Machine, console: Console) -> None:
    """The whole page."""
    recipe = plan.recipe
    console.print(Text.assemble((recipe.name, "bold"), f"  {recipe.description}"))
    for table in _budget_tables(plan, console):
        console.print(table)
    section(console, "to fetch", [f"{name}: {facts}" for name, facts in plan.fetches.items()])
    print_schedule(plan, console)
    section(console, "model", _model_lines(plan))
    console.print()
    console.print(_time_table(plan))
    print_fleet(plan, console)
    section(console, "cost", _cost_lines(plan, machine))
    section(console, "curation", _curation_lines(plan))
    section(console, "after pretraining", _later_lines(recipe))
    section(console, "changed since the run that is there", [*map(_change_words, plan.changes)])
    section(console, "the next run", _next_run_lines(plan.states, machine, plan.recipe))
    section(console, "notes", list(plan.notes))
    section(console, "warnings", list(plan.warnings), style="yellow")
    section(console, "missing, so run would refuse", list(plan.missing), style="yellow")


def _change_words(change: RecipeChange) -> str:
    """ "pretrain.optimizer.peak_lr: 0.004 → 0.003; remakes pretrain and 6 steps that follow (at most 9.1 min)"."""
    if not change.remade:
        return f"{change.line}; nothing is remade"
    own = [name for name in change.remade if name in change.asked_of] or change.remade[:1]
    follow = len(change.remade) - len(own)
    more = f" and {counted(follow, 'step')} that follow{'s' if follow == 1 else ''}" if follow else ""
    return f"{change.line}; remakes {', '.join(by_kind(own))}{more} (at most {seconds(change.seconds)})"


def _next_run_lines(states: States | None, machine: Machine, recipe: Recipe) -> list[str]:
    """What a run would do about what is there: what it remakes and the time of that at most, where training resumes."""
    lines: list[str] = []
    if states is None:
        return lines
    ahead = remakes(states, machine, wanted=states.steps, kept=kept_steps(recipe))
    for remake in ahead:
        if states[remake.step].before is not None or remake.seconds > 0:
            lines.append(f"{remake.step}: {'; '.join(remake.reasons)} ({seconds(remake.seconds)})")
    if (point := resume_point(states, machine)) is not None and (point.step or point.notes):
        lines.append("; ".join([f"pretrain {point}", *point.notes]))
    if words := remade_words(ahead):
        lines.append(words)
    if others := [state.step.name for state in states.all() if state.is_made_but_not_linked]:
        lines.append(f"made earlier, and linked again by the next run: {', '.join(others)}")
    return lines


def _time_table(plan: Forecast) -> Table:
    """A row for each kind of step: how long it takes here, how long what is left of it, what that rests on, what it works through."""
    is_begun = any(step.left_seconds < step.seconds for step in plan.steps)
    where = "this machine" if plan.fleet is None else f"this machine, training on {plan.fleet.fleet}"
    table = Table(title=f"time of each step on {where}", title_justify="left", box=None)
    for name in ("step", "time", *(["to do"] if is_begun else []), "known", "works through"):
        table.add_column(
            name, justify="right" if name in ("time", "to do") else "left", no_wrap=name != "works through"
        )
    kinds: dict[str, list[StepForecast]] = {}
    for step in plan.steps:
        kinds.setdefault(step.step.partition("/")[0], []).append(step)
    for kind, steps in kinds.items():
        is_done = all(step.is_done for step in steps)
        table.add_row(
            kind,
            *_times(steps, is_begun=is_begun),
            "done" if is_done else _how_timed(steps),
            _works_through(kind, steps),
        )
    table.add_row("all", *_times(plan.steps, is_begun=is_begun), "", "one after the other", style="bold")
    return table


def _times(steps: Sequence[StepForecast], *, is_begun: bool) -> list[str]:
    """The seconds of steps together; where something is made already, then of what is left."""
    left = [] if all(step.is_done for step in steps) else [seconds(sum(step.left_seconds for step in steps))]
    return [seconds(sum(step.seconds for step in steps)), *((left or ["·"]) if is_begun else [])]


def _works_through(kind: str, steps: Sequence[StepForecast]) -> str:
    if len(steps) > 1:
        return f"{len(steps)} {'classifiers' if kind == 'classifier' else 'sources'}"
    [step], point = steps, steps[0].resumes
    left = "" if point is None else f"; {point.num_steps - point.step:,} of {point.num_steps:,} steps to make"
    return f"{step.work.words}{left}"


def _how_timed(steps: list[StepForecast]) -> str:
    """What the time of steps of one kind rests on."""
    if steps[0].fleet:
        return steps[0].fleet
    if steps[0].step == "pretrain" and not steps[0].num_records:
        return "speed below"
    records = sum(step.num_records for step in steps)
    return counted(records, "record") + " here" if records else "ratios of the demo"


def _budget_tables(plan: Forecast, console: Console) -> list[Table]:
    """One table; on a narrow terminal two, stages first."""
    stages = [(stage.name, "right") for stage in plan.recipe.pretrain.stages]
    sums = [("total", "right"), ("unique", "right"), ("known", "left"), ("epochs", "right"), ("verdict", "left")]
    rows = [_budget_cells(row, plan) for row in plan.budget]
    totals = [scale(stage.tokens) for stage in plan.recipe.pretrain.stages]
    rows.append(["all", *totals, scale(plan.recipe.pretrain.total_tokens), "", "", "", ""])
    title = "tokens asked of each source, and how often they are read"
    whole = _table(title, [*stages, *sums], rows)
    if console.measure(whole, options=console.options.update(width=10_000)).maximum <= console.width:
        return [whole]
    split = 1 + len(stages)
    return [
        _table("tokens asked of each source by each stage", stages, [row[:split] for row in rows]),
        _table("how often they are read", sums, [[row[0], *row[split:]] for row in rows]),
    ]


def _table(title: str, columns: list[tuple[str, str]], rows: list[list[str | Text]]) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("source", no_wrap=True)
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_row(*rows[-1], style="bold")
    return table


def _budget_cells(row: SelectionBudget, plan: Forecast) -> list[str | Text]:
    source, minimum = row.selection
    is_known = row.unique_tokens is not None
    verdict = row.verdict
    words = f"allowed to {row.max_epochs:g}" if verdict == "allowed" else verdict
    return [
        source if minimum is None else f"{source} ≥{minimum:,}",
        *(scale(asked) if asked else "·" for asked in row.asked_tokens),
        scale(row.total_tokens),
        scale(row.unique_tokens) if row.unique_tokens is not None else "",
        plan.sources[source].how_known if is_known else "not yet",
        f"{'≥ ' if row.is_lower_bound else ''}{row.epochs[-1]:.2f}" if row.epochs else "",
        Text(words, style=VERDICT_STYLES.get(verdict, "dim")),
    ]


def _model_lines(plan: Forecast) -> list[str]:
    model, vocab_size = plan.recipe.model, plan.recipe.tokenizer.vocab_size
    tied = "tied" if model.tie_word_embeddings else "not tied"
    return [
        f"{plan.parameters:,} parameters: {model.num_hidden_layers} layers of {model.hidden_size}, "
        f"{model.num_attention_heads} heads ({model.num_key_value_heads} for keys and values), "
        f"feed-forward {model.intermediate_size}, vocabulary {vocab_size:,}, embeddings {tied}",
        f"context of the released model: {model.max_position_embeddings:,}",
    ]


def _cost_lines(plan: Forecast, machine: Machine) -> list[str]:
    flops, memory, disk = plan.flops, plan.memory, plan.disk
    lines = [
        f"operations: {scientific(flops.six_nd)} by 6 · parameters · tokens; {scientific(flops.with_attention)} with attention over full windows"
    ]
    if plan.fleet is None:
        rate = plan.speed.flops_per_second * plan.recipe.pretrain.total_tokens / flops.with_attention
        lines.append(
            f"training on this machine: {rate:,.0f} tokens/s ("
            f"{in_units(plan.speed.flops_per_second, 'FLOP/s')}; {plan.speed.how_known})"
        )
        if plan.hours > YARDSTICK_FROM_HOURS:
            one = read_fleet("H100")
            published = published_share(plan.parameters, one.device)
            hours = flops.with_attention / (one.device.peak_flops * published.share) / 3600
            lines.append(
                f"for scale: {hours:,.0f} hours of one H100 at {percent(published.share)} of its peak, by {published.what}; "
                "--devices 64xH100 plans for 64"
            )
    fetched = f"fetched {in_units(disk.fetched, 'B')}, " if disk.fetched else ""
    repeated = f", up to {in_units(disk.repeated, 'B')} while repeated text is" if disk.repeated else ""
    if plan.price is not None:
        which = "all steps" if plan.fleet is None else "the steps on this machine"
        lines.append(f"price of {which} at the given rate: {plan.price:,.2f}")
    if plan.fleet is None:
        lines.append(
            f"memory of pretraining, which needs most: about {in_units(memory.total, 'B')} with micro-batches of {tokens_at_once(plan.recipe, machine.micro_batch_tokens):,} tokens "
            f"(torch itself {in_units(memory.framework, 'B')}, what curation leaves {in_units(memory.curation, 'B')}, weights, gradients and moments "
            f"{in_units(memory.weights + memory.gradients + memory.moments, 'B')}, activations and logits "
            f"{in_units(memory.activations + memory.logits, 'B')}, holes between them {in_units(memory.holes, 'B')})"
        )
    lines.append(
        f"disk: about {in_units(disk.total, 'B')} ({fetched}documents {in_units(disk.documents, 'B')}, signatures "
        f"{in_units(disk.signatures, 'B')}, shards {in_units(disk.shards, 'B')}, up to {disk.num_checkpoints} checkpoints "
        f"{in_units(disk.checkpoints, 'B')}); up to {in_units(disk.search, 'B')} more while duplicates are searched{repeated}"
    )
    return lines


def _curation_lines(plan: Forecast) -> list[str]:
    recipe = plan.recipe
    lines = [f"{name}: {_source_words(source)}" for name, source in recipe.sources.items()]
    lines += [
        f"classifier {name}: learns from {item.annotations}, scores {item.source}"
        for name, item in recipe.classifiers.items()
    ]
    lines += [
        f"select: {source} keeps scores of {limit.classifier} above {limit.above:g}"
        for source, limit in recipe.select.min_scores.items()
    ]
    duplicates = recipe.select.near_duplicates
    if duplicates is None:
        lines.append("select: exact duplicates only; near-duplicates are kept")
    else:
        curve = ", ".join(f"{chance:.3g} at {similarity:g}" for similarity, chance in plan.found_duplicates)
        lines.append(
            f"select: near-duplicates by {duplicates.num_bands} bands × {duplicates.rows_per_band} rows of "
            f"{duplicates.ngram}-grams, verified at {duplicates.min_jaccard:g}; P(found) = {curve}"
        )
    if (repeated := recipe.select.repeated_text) is not None:
        lines.append(
            f"select: {repeated.unit}s of {repeated.min_words} words or more that stand in {repeated.min_documents} documents or more, "
            f"or in validation text, stay in the first only, in {', '.join(repeated_sources(recipe, repeated))}"
        )
    packs = ", ".join(recipe.packs) or "no pack, so nothing is removed"
    lines.append(f"select: decontaminated by {recipe.select.decontaminate.rule} against {packs}")
    validation = recipe.select.validation
    lines.append(
        f"select: {validation.fraction:.1%} of each source is held out, at least {in_units(validation.min_bytes, 'B')}, "
        f"at most {in_units(validation.max_bytes, 'B')}"
    )
    lines += [
        f"select: of {name} about {counted(documents, 'document')}; {what_a_mean_tells(documents)}"
        for name, (documents, _) in plan.held_out.items()
        if documents is not None and documents >= FEW_DOCUMENTS  # of fewer, warnings tell
    ]
    return lines


def _source_words(source: Source) -> str:
    words = [f"read as {source.read.format}"]
    if source.urls is not None:
        words.append(f"URLs by lists of {', '.join(source.urls.lists)}")
    if source.read.format in ("warc", "html"):
        words.append(f"main text by {source.main_text.extractor if source.main_text else 'trafilatura'}")
    if source.language is not None:
        words.append("language " + _scores_in_words(source.language))
    if source.rules.packs:
        words.append(f"rules {', '.join(source.rules.packs)}")
    return " → ".join(words) + f"  (license: {source.license})"


def _scores_in_words(language: LanguageFilter) -> str:
    """ "en or de above 0.65, fr above 0.824"."""
    alike = [code for code in language.keep if code not in language.min_scores]
    shared = [f"{' or '.join(alike)} above {language.min_score:g}"] if alike else []
    return ", ".join([*shared, *(f"{code} above {score:g}" for code, score in language.min_scores.items())])


def _later_lines(recipe: Recipe) -> list[str]:
    lines = []
    if recipe.sft is not None:
        lines.append(f"sft: {recipe.sft.epochs} epochs, batches of {recipe.sft.batch_conversations} conversations")
    if recipe.pairs is not None:
        lines.append(f"pairs: {recipe.pairs.num_prompts:,} prompts, {recipe.pairs.samples_per_prompt} samples each")
    if recipe.dpo is not None:
        lines.append(
            f"dpo: {recipe.dpo.epochs} epochs, batches of {recipe.dpo.batch_pairs} pairs, beta {recipe.dpo.beta:g}"
        )
    measured = ["bits per byte of each source", *recipe.evaluate.packs]
    return [*lines, f"evaluate: {', '.join(measured)}", f"export: {recipe.export.dtype}"]


def scientific(value: float) -> str:
    """1.13e+23 → "1.13e23"."""
    return f"{value:.2e}".replace("e+", "e")
