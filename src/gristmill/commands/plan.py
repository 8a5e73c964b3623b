"""COMMAND plan: what a recipe will take, and what a changed recipe would remake; starts nothing, writes nothing."""

from __future__ import annotations

import json

from rich.console import Console

from gristmill.commands.plan_page import print_forecast
from gristmill.commands.run_folder import print_place
from gristmill.forecast import Forecast, check_caps, check_present, make_forecast
from gristmill.graph.machine import Machine
from gristmill.planning.devices import Fleet
from gristmill.planning.fetches import Told
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.resolved import resolved_yaml
from gristmill.store.store import RunLinks, Store


def plan(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    console: Console,
    resolved: bool = False,
    as_json: bool = False,
    price_per_hour: float | None = None,
    without_files: bool = False,
    fleet: Fleet | None = None,
) -> Forecast:
    """Show what the recipe will take and return it.

    resolved: show the recipe itself instead, with the origin of each value. price_per_hour: of this machine, in any currency.
    fleet: devices that are not here, which training is planned for.
    without_files: plan although files are missing, sources by their declared tokens. Servers are asked for the sizes of what is to be
    fetched, unless the machine is offline.
    Raises RecipeError, after the page, when a source would be read more often than its cap. Before it: RecipeError when files are
    missing and when a rule or a column is named that does not exist, DataError when the first rows of a pack, of annotations or of
    conversations are malformed.
    """
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    made = make_forecast(
        loaded, machine, price_per_hour=price_per_hour, told=_told(loaded, machine, links), fleet=fleet
    )
    if not without_files and not resolved:
        check_present(made)
    if resolved:
        console.out(resolved_yaml(loaded), highlight=False, end="")
    elif as_json:
        console.out(json.dumps(made.to_json(), indent=1, ensure_ascii=False), highlight=False)
    else:
        print_place(links, loaded.folder, console)
        print_forecast(made, machine, console)
    check_caps(made)
    return made


def _told(loaded: LoadedRecipe, machine: Machine, links: RunLinks) -> dict[str, Told]:
    """What is known of the sources that were never fetched: by tables of ids here, and by servers."""
    asked = {
        name: source.fetch
        for name, source in loaded.recipe.sources.items()
        if source.fetch is not None and links.before(f"fetch/{name}") is None
    }
    if not asked:
        return {}
    from gristmill.data.fetch_size import ask_sizes, count_ids  # the Hub's client takes a while to import

    return count_ids(asked, loaded.folder) | ({} if machine.offline else ask_sizes(asked))
