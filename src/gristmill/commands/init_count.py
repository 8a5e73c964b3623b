"""What `gristmill init` counts: the text, its training tokens, and before it how long that will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gristmill.commands.doctor import measure_training
from gristmill.draft.ahead import Ahead
from gristmill.draft.count import Count, count
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import train_share, validation_for
from gristmill.draft.hours import Asked, PlannedTime
from gristmill.draft.interval import Estimate, unique_tokens
from gristmill.draft.released import Released
from gristmill.draft.sample import Limits
from gristmill.draft.size import Wish, shape_for
from gristmill.draft.write import draft_recipe
from gristmill.graph.cores import NOTABLE, CoreWatch, busy_cores, times_as_long
from gristmill.graph.machine import Machine
from gristmill.planning.reading import keep_readings
from gristmill.planning.speed import Speed, hardware_name, keep_speed
from gristmill.recipe.schema.curation import Validation
from gristmill.recipe.schema.recipe import Recipe

SEED = 8
MEASURED_MOST_SECONDS = 30.0
MEASURED_USUAL_SECONDS = 15.0
MEASURED_SECONDS = 2.0  # per shape, where no profile says how fast the machine trains


def look_ahead(
    forecast: Mapping[str, float],
    text_bytes: float,
    speed: Callable[[int], Speed],
    asked: Asked,
    *,
    machine: Machine,
    limits: Limits,
    say: Callable[[str, float], None],
) -> Ahead:
    """How long what follows takes on cores as busy as now, by the forecast of idle ones. Measures how fast the machine trains, where a
    time is to be kept and no profile says so."""
    slower = times_as_long(busy_cores())
    now = {step: slower * took for step, took in forecast.items()}
    ahead = Ahead(say, now, text_bytes=text_bytes, reading_seconds=limits.reading_seconds)
    if asked.minutes is not None and not speed(1_000_000).is_measured:
        _measure_speed(machine, ahead, slower)
    return ahead


def _measure_speed(machine: Machine, ahead: Ahead, slower: float) -> None:
    """Trains for some seconds, as a time is to be kept, and keeps the speed in the machine's profile, for plan, too. slower: than on idle
    cores."""
    usual = min(MEASURED_MOST_SECONDS, slower * MEASURED_USUAL_SECONDS)
    ahead.waits("measuring how fast this machine trains", usual)
    about, points = measure_training(machine, seconds=MEASURED_SECONDS, deadline_seconds=MEASURED_MOST_SECONDS)
    device = about.get("device", "cpu")
    for point in points:
        keep_speed(point, machine, device=device, hardware=about["gpu"] if device == "cuda" else hardware_name())


def count_text(
    sources: Sequence[FolderSource],
    planned: PlannedTime,
    wish: Wish,
    released: Released | None,
    *,
    recipe_dir: Path,
    work: Path,
    machine: Machine,
    limits: Limits,
    ahead: Ahead,
) -> Count:
    """Counts the text, and keeps how long reading it took, unless other processes kept the cores busy: forecasts are those of idle cores."""
    cores = CoreWatch()
    found = count(
        sources,
        partial(_draft, sources, released),
        vocab_size_for=lambda text_bytes: (
            shape_for(text_bytes, wish).vocab_size if released is None else released.vocab_size
        ),
        recipe_dir=recipe_dir,
        work=work,
        machine=machine,
        limits=limits,
        seed=SEED,
        ahead=ahead,
    )
    if sources and (cores.busy_cores() or 0.0) < NOTABLE:
        keep_readings(machine.runs_dir, planned.of_reading({**found.emptied, **found.sources}))
    return found


def _draft(
    sources: Sequence[FolderSource],
    released: Released | None,
    order: Sequence[str],
    vocab: int,
    text_bytes: Mapping[str, float],
    documents: Mapping[str, float],
) -> Recipe:
    return draft_recipe(sources, order, vocab, held_out(sources, text_bytes, documents), released=released)


def held_out(
    sources: Sequence[FolderSource], text_bytes: Mapping[str, float], documents: Mapping[str, float]
) -> Validation:
    """How much is held out, by one's own text."""
    replayed = {source.name for source in sources if source.is_replayed}
    own = {name: size for name, size in text_bytes.items() if name not in replayed}
    return validation_for(own, documents)


def train_tokens(found: Count, rules: Validation) -> dict[str, Estimate]:
    """Unique training tokens of each source: what is held out, and what is alike to it, is taken off."""
    if found.is_whole:
        return {
            name: Estimate(value=one.train_tokens, low=one.train_tokens, high=one.train_tokens)
            for name, one in found.sources.items()
        }
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
