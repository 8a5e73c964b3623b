"""What reading a web archive costs, and what is found in it: this reader, fastwarc and warcio on the same records in four layouts.

    python benchmarks/warc_reading.py [ARCHIVE] [--repeats 5]

The sound records of ARCHIVE (the quickstart's sample by default) are packed anew: one gzip member each, one member for all,
members cut every 100,000 bytes, and plain. All three read each block and compare one digest per record. Coverage is the measure
that is held against what was read. Times are CPU time of one process, the best of `--repeats`. warcio is left out where it is
not installed. Prints a table: milliseconds, and how many of the records were found; "-" where the reader gave up.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator

from gristmill.data.record import RawDocument, Unread
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


def milliseconds(read: Callable[[Path], int], path: Path, repeats: int) -> tuple[float, int]:
    """(best CPU time, records found) of reading a file."""
    times = []
    found = 0
    for _ in range(repeats):
        start = time.process_time()
        found = read(path)
        times.append(time.process_time() - start)
    return 1000 * min(times), found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    readers = {"gristmill": ours, "coverage": unpacked_bytes, "fastwarc": with_fastwarc, "warcio": with_warcio}
    records = plain_records(arguments.archive)
    print(f"{len(records):,} records, {sum(map(len, records)):,} bytes")
    print("layout".ljust(20), *(name.rjust(18) for name in readers))
    with tempfile.TemporaryDirectory() as folder:
        for layout, data in layouts(records).items():
            path = Path(folder) / ("x.warc" if layout == "plain" else "x.warc.gz")
            path.write_bytes(data)
            cells = []
            for read in readers.values():
                try:
                    best, found = milliseconds(read, path, arguments.repeats)
                except Exception:  # a reader that gives up, or is not there
                    cells.append("-")
                else:
                    cells.append(f"{best:.0f} ms" + ("" if read is unpacked_bytes else f", {found:,}"))
            print(layout.ljust(20), *(cell.rjust(18) for cell in cells), flush=True)


if __name__ == "__main__":
    main()
