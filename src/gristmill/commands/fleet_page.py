"""How training on devices that are not here is shown: what they are, the layouts with their memory, device-hours and price."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.commands.page import section
from gristmill.forecast import Forecast
from gristmill.planning.fleet import USABLE, FleetPlan, Layout
from gristmill.units import in_units, scale, seconds

LEGEND = (
    "replicas: each device holds weights, gradients and moments; sharded: its part of them (FSDP full shard)",
    "recomputed: activations are made twice (activation checkpointing), for a third more operations",
)


def print_fleet(plan: Forecast, console: Console) -> None:
    """The devices, what their training takes, and how it could lie in their memory."""
    planned = plan.fleet
    if planned is None:
        return
    title = f"training on {planned.fleet}"
    if planned.fleet.price is not None:
        title += f", at {planned.fleet.price:g} per device-hour"
    section(console, title, [str(planned.fleet.device), planned.mfu_words, *_costs(plan, planned)])
    console.print(_layouts(planned))
    for line in LEGEND:
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    if (chosen := planned.chosen) is not None:
        console.print(Text(f"  times and tokens/s are those of the first that fits: {_words(chosen)}"), soft_wrap=True)
    for line in (planned.advice, *planned.uneven):
        if line:
            console.print(Text(f"  {line}", style="yellow"), soft_wrap=True)


def _costs(plan: Forecast, planned: FleetPlan) -> Iterator[str]:
    """Time, device-hours and price of each training step that is still to be done, and of all."""
    costs = [(step.step, step.seconds) for step in plan.steps if step.fleet and step.seconds]
    if len(costs) > 1:
        costs.append(("all of these", sum(time for _, time in costs)))
    for name, time in costs:
        price = planned.price(time)
        money = "" if price is None else f", price {price:,.2f}"
        rate = f" ({scale(plan.recipe.pretrain.total_tokens / time)} tokens/s)" if name == "pretrain" else ""
        yield f"{name}: {spent_words(time, planned.device_hours(time), rate=rate)}{money}"


def spent_words(time: float, hours: float, *, rate: str = "") -> str:
    """Seconds and device-hours, in units that are not too large for them. rate: what follows the time."""
    spent = "under 1 s" if 0 < time < 0.5 else seconds(time)
    return f"{spent}{rate}, {_hours(hours)} device-hours"


def _layouts(planned: FleetPlan) -> Table:
    memory = planned.fleet.device.memory_bytes
    title = f"memory of a device: {in_units(USABLE * memory, 'B')} are usable, {USABLE:.0%} of {in_units(memory, 'B')}"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("layout", "micro-batches", "states", "activations", "all", ""):
        table.add_column(name, justify="left" if name in ("layout", "") else "right", no_wrap=True)
    for layout in planned.layouts:
        held = layout.memory
        table.add_row(
            _words(layout),
            f"{layout.accumulation:,} × {layout.micro_batch_tokens:,}",
            in_units(held.weights + held.gradients + held.moments + held.copies, "B"),
            in_units(held.activations + held.logits, "B"),
            in_units(held.total, "B"),
            Text("fits", style="green") if layout.fits else Text("no", style="red"),
        )
    return table


def _words(layout: Layout) -> str:
    return f"{'replicas' if layout.num_shards == 1 else 'sharded'}{', recomputed' if layout.recomputes else ''}"


def _hours(hours: float) -> str:
    if 0 < hours < 0.01:
        return "under 0.01"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
