"""What reading a web archive costs, and what is found in it: this reader, fastwarc and warcio on the same records in four layouts.

    python benchmarks/warc_reading.py [ARCHIVE] [--rounds 5]

The sound records of ARCHIVE (the quickstart's sample by default) are packed anew: one gzip member each, one member for all,
members cut every 100,000 bytes, and plain. All three read each block and compare one digest per record. Coverage is the measure
that is held against what was read. Times are CPU time of one process, the best of `--rounds`, in each of which every reader has its
turn. warcio is left out where it is not installed. Prints a table: milliseconds, and how many of the records were found; "-" where the
reader gave up. The last column is warcio's time over that of reading and coverage together, by CPU and by wall time.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator

from gristmill.data.record import RawDocument, Unread
from gristmill.formats import inflate
from gristmill.formats.coverage import unpacked_bytes
from gristmill.formats.warc import read_warc
from gristmill.formats.warc_records import Block, records_of

SAMPLE = Path(__file__).parents[1] / "samples" / "quickstart" / "web" / "manuals.warc.gz"
MAX_BYTES = 20_000_000
CUT_BYTES = 100_000


def plain_records(path: Path) -> list[bytes]:
    """The bytes of each whole record of an archive with one gzip member per record."""
    data = path.read_bytes()
    places = [
        item.place.entry
        for item in records_of(path, name="x", start=0, end=None, max_bytes=MAX_BYTES)
        if isinstance(item, Block) and item.place.entry is not None
    ]
    return [gzip.decompress(data[place : data.index(b"\x1f\x8b\x08", place + 1)]) for place in places[:-1]]


def layouts(records: list[bytes]) -> dict[str, bytes]:
    """The same records, packed in different ways."""
    plain = b"".join(records)
    cut = b"".join(gzip.compress(plain[start : start + CUT_BYTES]) for start in range(0, len(plain), CUT_BYTES))
    return {
        "member per record": b"".join(map(gzip.compress, records)),
        "one member": gzip.compress(plain),
        "cut members": cut,
        "plain": plain,
    }


def ours(path: Path) -> int:
    """Records that are documents, or were before they were dropped."""
    return sum(isinstance(item, RawDocument | Unread) for item in read_warc(path, name="x"))


def with_fastwarc(path: Path) -> int:
    """The same with fastwarc."""
    found = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            found += record.headers["WARC-Type"] in ("response", "resource", "conversion")
            if "WARC-Block-Digest" in record.headers:
                record.verify_block_digest()
            else:
                record.reader.read(MAX_BYTES)
    return found


def with_warcio(path: Path) -> int:
    """The same with warcio."""
    warcio: Any = importlib.import_module("warcio.archiveiterator")
    found = 0
    with path.open("rb") as file:
        for record in warcio.ArchiveIterator(file, check_digests=True):
            found += record.rec_type in ("response", "resource", "conversion")
            record.content_stream().read()
    return found


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One reading of a file."""

    cpu_seconds: float
    wall_seconds: float
    found: int


def turn(read: Callable[[Path], int], path: Path) -> Turn | None:
    """Reads a file; None where the reader gives up, or is not there."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        found = read(path)
    except Exception:  # each reader has errors of its own
        return None
    return Turn(cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall, found=found)


def best(turns: list[Turn | None]) -> Turn | None:
    """The least times; None where a turn was given up."""
    done = [one for one in turns if one is not None]
    if len(done) < len(turns):
        return None
    cpu, wall = min(one.cpu_seconds for one in done), min(one.wall_seconds for one in done)
    return Turn(cpu_seconds=cpu, wall_seconds=wall, found=done[0].found)


READERS: dict[str, Callable[[Path], int]] = {
    "gristmill": ours,
    "coverage": unpacked_bytes,
    "fastwarc": with_fastwarc,
    "warcio": with_warcio,
}


def row(results: dict[str, Turn | None]) -> list[str]:
    """The cells of a layout: each reader, then the ratio."""
    cells = ["-"] * len(results)
    for number, (name, result) in enumerate(results.items()):
        if result is not None:
            cells[number] = f"{1000 * result.cpu_seconds:.0f} ms" + (f", {result.found:,}" * (name != "coverage"))
    reading, coverage, warcio = results["gristmill"], results["coverage"], results["warcio"]
    if reading is None or coverage is None or warcio is None:
        return [*cells, "-"]
    cpu = warcio.cpu_seconds / (reading.cpu_seconds + coverage.cpu_seconds)
    wall = warcio.wall_seconds / (reading.wall_seconds + coverage.wall_seconds)
    return [*cells, f"{cpu:.2f}, {wall:.2f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    records = plain_records(arguments.archive)
    print(f"{len(records):,} records, {sum(map(len, records)):,} bytes, unpacked by {inflate.LIBRARY.__name__}")
    print("layout".ljust(20), *(name.rjust(16) for name in [*READERS, "warcio / both"]))
    with tempfile.TemporaryDirectory() as folder:
        for layout, data in layouts(records).items():
            path = Path(folder) / ("x.warc" if layout == "plain" else "x.warc.gz")
            path.write_bytes(data)
            rounds = [[turn(read, path) for read in READERS.values()] for _ in range(arguments.rounds)]
            results = {name: best(list(turns)) for name, turns in zip(READERS, zip(*rounds, strict=True), strict=True)}
            print(layout.ljust(20), *(cell.rjust(16) for cell in row(results)), flush=True)


if __name__ == "__main__":
    main()
