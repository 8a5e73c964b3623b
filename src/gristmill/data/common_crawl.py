"""Pages of Common Crawl: index ─→ places of records ─→ ranges of archives ─→ WARC files of a bounded size.

    index.jsonl      a line per page of the index that was read: what was chosen of it; decided once
    files/           records as they were sent, each a gzip member of its own, in the order of archive and offset
    records.jsonl    a line per record: where it came from, where it lies, or why it failed

Records that lie close together are asked for at once. One connection, one request at a time: what the hosts of Common Crawl ask
for. A record is written before its line, so a start after a kill cuts the files to what the lines say and goes on. Hosts answer 403 to
those who ask too much: records that were refused last are asked for again by the next start.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gristmill.data.crawl_index import MAX_RECORD_BYTES, Place, Query
from gristmill.data.crawl_table import Table
from gristmill.data.download import Client, RefusedError
from gristmill.data.patience import UnreachableError
from gristmill.errors import DataError, Interrupted
from gristmill.graph.progress import Position, Report
from gristmill.store.durable import flush_to_disk, out_of_space_is_a_resource_error
from gristmill.store.jsonl import append_jsonl, read_sound, write_jsonl

FILE_BYTES = 128_000_000  # a file of them is closed once it has so many
GAP_BYTES = 65_536  # a request costs about as much as these; between two pages lie a request and metadata, some 1 kB
RANGE_BYTES = 8_000_000
HOPELESS = (
    20  # records that fail from the first one on, or ranges that are refused one after the other: it is not the records
)
HEAD_BYTES = 65_536
REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is fetched of which crawl. data: the host of the archives."""

    query: Query | Table
    data: str
    max_records: int
    max_bytes: int | None


def fetch_crawl(
    client: Client, wish: Wish, out: Path, *, progress: Report, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fetches what is missing into `out`; returns counts: records, failed by reason, lines of the index, bytes that no record is in.

    Raises DataError where the index finds nothing, or where nothing it finds can be fetched, UnreachableError where the host refuses one
    range after the other.
    """
    chosen, passed = _choose(client, wish, out / "index.jsonl", progress, say)
    places = sorted(chosen, key=lambda place: (place.archive, place.offset, place.num_bytes))
    writer = _Writer(out, prefix=wish.query.crawl)
    for places_of_range in _ranges(places[writer.num_done :]):
        if client.should_stop():
            raise Interrupted("stopped between two ranges; the records that were fetched are kept.")
        writer.write(_read_range(client, wish.data, places_of_range))
        writer.refuse_hopeless(wish.data)
        progress(
            Position(
                done=writer.num_done,
                total=len(places),
                unit="page",
                counts={"page": writer.num_done, "byte": writer.size},
            )
        )
    if not writer.num_files:
        raise DataError(f"none of {len(places):,} records could be fetched: {_listed(writer.failed)}.")
    if writer.failed:
        say(f"{wish.query.crawl}: {sum(writer.failed.values()):,} records failed: {_listed(writer.failed)}")
    return {
        "records": len(places) - sum(writer.failed.values()),
        "failed": dict(sorted(writer.failed.items())),
        "index_lines": {"chosen": len(places), **passed},
        "overhead_bytes": sum(_between(group) for group in _ranges(places)),
    }


# ── which records ────────────────────────────────────────────────────────────────────────────────────────────────────


def _choose(
    client: Client, wish: Wish, log: Path, progress: Report, say: Callable[[str], None]
) -> tuple[list[Place], dict[str, int]]:
    """The first records that the caps allow, and the lines that were passed over by reason."""
    read = read_sound(log)
    write_jsonl(log, read)  # without a torn line
    chosen, reasons = list[Place](), Counter[str]()
    seen: set[tuple[str, int]] = set()
    size, page, pages = 0, 0, read[0]["of"] if read else wish.query.num_pages(client)
    while page < pages:
        if page == len(read):
            progress(Position.doing(f"asking the index, page {page + 1:,} of {pages:,}"))
            found, passed = wish.query.page_of(client, page)
            row = {"page": page, "of": pages, "places": [asdict(place) for place in found], "passed": passed}
            append_jsonl(log, [row])
            read.append(row)
        reasons.update(read[page]["passed"])
        for place in (Place(**entry) for entry in read[page]["places"]):
            if (place.archive, place.offset) in seen:
                reasons["repeated"] += 1
                continue
            size += place.num_bytes
            is_over = len(chosen) == wish.max_records or (wish.max_bytes is not None and size > wish.max_bytes)
            if is_over:
                page = pages
                break
            seen.add((place.archive, place.offset))
            chosen.append(place)
        page += 1
    if not chosen:
        raise DataError(
            f"the index of {wish.query.crawl} has nothing for {wish.query} that fits: {_listed(reasons) or 'no line'}.\n"
            f"  Look at mime, language, status and max_bytes. It was asked: {wish.query.asked}"
        )
    say(
        f"{wish.query.crawl}: {len(chosen):,} records for {wish.query}, by {len(read):,} of {pages:,} pages of the index"
    )
    return chosen, dict(sorted(reasons.items()))


def _ranges(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Records that are worth one request: of one archive, apart by GAP_BYTES at most, together RANGE_BYTES at most."""
    group: list[Place] = []
    for place in places:
        if group and (
            place.archive != group[0].archive
            or not 0 <= place.offset - group[-1].end <= GAP_BYTES
            or place.end - group[0].offset > RANGE_BYTES
        ):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _between(group: Sequence[Place]) -> int:
    """Bytes of a range that are in no record."""
    return group[-1].end - group[0].offset - sum(place.num_bytes for place in group)


# ── their bytes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_range(client: Client, data: str, places: list[Place]) -> list[tuple[Place, bytes | str]]:
    """Of each record its member, or the reason why there is none."""
    first, last = places[0].offset, places[-1].end - 1
    url = f"{data.rstrip('/')}/{places[0].archive}"
    try:
        body = client.read(url, span=(first, last), max_bytes=last - first + 1)
    except RefusedError as error:
        reason = {403: REFUSED, 404: "missing", 410: "missing", 416: "outside_of_archive"}.get(
            error.status, "other_answer"
        )
        return [(place, reason) for place in places]
    found: list[tuple[Place, bytes | str]] = []
    for place in places:
        member = body[place.offset - first : place.end - first]
        found.append((place, what_is_wrong(member, url=place.url, num_bytes=place.num_bytes) or member))
    return found


def what_is_wrong(member: bytes, *, url: str, num_bytes: int) -> str | None:
    """Why bytes are not the one gzip member with the WARC record of a page; None where they are."""
    if len(member) < num_bytes:
        return "cut"
    unpacker, head, size, data = zlib.decompressobj(31), b"", 0, member
    try:
        while data and not unpacker.eof:
            piece = unpacker.decompress(data, 1 << 20)
            head += piece[: HEAD_BYTES - len(head)]
            size += len(piece)
            if size > MAX_RECORD_BYTES:
                return "too_large"
            data = unpacker.unconsumed_tail
            if not piece and not data:
                break
    except zlib.error:
        return "not_a_gzip_member"
    if not unpacker.eof or unpacker.unused_data:
        return "not_one_gzip_member"
    fields = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    if not fields[0].startswith(b"WARC/"):
        return "not_a_warc_record"
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in fields[1:])}
    is_page = named.get(b"warc-target-uri", b"").strip(b"<>") == url.encode("utf-8", "surrogatepass")
    return None if is_page else "of_another_url"


class _Writer:
    """The files and the lines that say what is in them; opened again where an earlier start left off."""

    def __init__(self, out: Path, *, prefix: str) -> None:
        self.folder, self.log, self.prefix = out / "files", out / "records.jsonl", prefix
        rows = read_sound(self.log)
        while rows and rows[-1].get("failed") == REFUSED:
            rows.pop()
        write_jsonl(self.log, rows)
        self.num_refused = 0  # ranges one after the other
        ends: dict[str, int] = {}
        for row in rows:
            if "file" in row:
                ends[row["file"]] = row["at"] + row["num_bytes"]
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            if path.name in ends:
                os.truncate(path, ends[path.name])
            else:
                path.unlink()
        self.num_done, self.num_files = len(rows), len(ends)
        self.failed = Counter(row["failed"] for row in rows if "failed" in row)
        self.size = sum(ends.values())
        self.end = list(ends.values())[-1] if ends else 0

    def write(self, records: list[tuple[Place, bytes | str]]) -> None:
        """Adds the records of a range."""
        rows: list[dict[str, Any]] = []
        for place, member in records:
            if isinstance(member, str):
                rows.append({**asdict(place), "failed": member})
                self.failed[member] += 1
                continue
            if not self.num_files or self.end >= FILE_BYTES:
                self.num_files, self.end = self.num_files + 1, 0
            name = f"{self.prefix}-{self.num_files - 1:05}.warc.gz"
            path = self.folder / name
            with out_of_space_is_a_resource_error(path), path.open("ab") as file:
                file.write(member)
            rows.append({**asdict(place), "file": name, "at": self.end})
            self.end += len(member)
            self.size += len(member)
        for name in dict.fromkeys(row["file"] for row in rows if "file" in row):
            flush_to_disk(self.folder / name)
        append_jsonl(self.log, rows)
        self.num_done += len(rows)
        self.num_refused = self.num_refused + 1 if all(row.get("failed") == REFUSED for row in rows) else 0

    def refuse_hopeless(self, data: str) -> None:
        """Raises DataError where nothing but failures came from the first record on, UnreachableError where the host refuses all at last."""
        if not self.num_files and self.num_done >= HOPELESS:
            raise DataError(
                f"the first {self.num_done:,} records all failed: {_listed(self.failed)}. Is {data} the host of the archives?"
            )
        if self.num_files and self.num_refused >= HOPELESS:
            raise UnreachableError(
                f"{data} answers 403, {self.num_refused} times in a row, after {self.num_done:,} records: it may find that too much is asked.\n"
                "  What was fetched stays: run the same command again later, and what was refused at last is asked for again."
            )


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
