"""The columnar index of a crawl of Common Crawl: which of its records have a top-level domain, a language, a type and a status, over all sites.

    TABLE/crawl=CC-MAIN-2024-10/subset=warc/*.parquet      a page of the index is a file, its rows in the order of hosts

Of a row group that may hold a row, the columns that decide are read, and those that tell the place only where a row fits. Rows are in the
order of hosts, so most groups are passed over by the least and the greatest domain in them. The columns are those of
https://github.com/commoncrawl/cc-index-table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.data.crawl_index import Place, place_of
from gristmill.data.download import Client
from gristmill.errors import DataError, Interrupted
from gristmill.store.remote import Remote

TLD, STATUS, MIME, LANGUAGES = "url_host_tld", "fetch_status", "content_mime_detected", "content_languages"
DECIDE = (TLD, STATUS, MIME, LANGUAGES)
PLACE = {
    "filename": "warc_filename",
    "offset": "warc_record_offset",
    "length": "warc_record_length",
    "url": "url",
    "timestamp": "fetch_time",
    "digest": "content_digest",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """What to look for. None: any. max_records: no more are read of a file."""

    address: str
    crawl: str
    tld: str | None
    mime: str | None
    language: str | None
    status: int
    max_records: int

    def __str__(self) -> str:
        return " in ".join([f"hosts below .{self.tld}" if self.tld else "all hosts", *filter(None, [self.language])])

    @property
    def asked(self) -> str:
        """The folder of its files."""
        return f"{self.address.rstrip('/')}/crawl={self.crawl}/subset=warc"

    @cached_property
    def _remote(self) -> Remote:
        return Remote(self.asked)

    @cached_property
    def _files(self) -> list[str]:
        return sorted(name for name in self._remote.sizes("") if name.endswith(".parquet"))

    def num_pages(self, client: Client) -> int:
        """How many files it has. Raises DataError where there is none."""
        if not self._files:
            raise DataError(
                f"{self.asked} has no .parquet files. Look at the crawl's name and at the address of the table."
            )
        return len(self._files)

    def page_of(self, client: Client, page: int) -> tuple[list[Place], dict[str, int]]:
        """The places of a file, and the rows of it that are none by reason, as far as it was read: not_asked_for, bad_index_line."""
        places, reasons = list[Place](), Counter[str]()
        name = self._files[page]
        with self._remote.opened(name) as opened:
            try:
                file = pq.ParquetFile(opened, pre_buffer=True)
            except pa.ArrowException as error:
                raise DataError(f"{self.asked}/{name} is not a Parquet file: {error}") from error
            if missing := [column for column in (*DECIDE, *PLACE.values()) if column not in file.schema_arrow.names]:
                raise DataError(f"{self.asked}/{name} has no column {', '.join(missing)}: it is no index of a crawl.")
            for group in range(file.num_row_groups):
                if client.should_stop():
                    raise Interrupted("stopped while the index was read; the files of it that were read are kept.")
                found = self._rows(file, group, reasons)
                told = [place_of(row) for row in found]
                places += [place for place in told if place is not None]
                reasons["bad_index_line"] += told.count(None)
                if len(places) >= self.max_records:
                    break
        return places[: self.max_records], {reason: count for reason, count in sorted(reasons.items()) if count}

    def _rows(self, file: pq.ParquetFile, group: int, reasons: Counter[str]) -> list[dict[str, Any]]:
        """The rows of a group that fit, as the other index has its lines."""
        metadata = file.metadata.row_group(group)
        fitting = self._fitting(file, group) if self._may_fit(metadata) else np.empty(0, np.int64)
        reasons["not_asked_for"] += metadata.num_rows - len(fitting)
        if not len(fitting):
            return []
        rows = file.read_row_group(group, columns=[*PLACE.values()]).take(fitting).to_pylist()
        return [_as_line(row) for row in rows]

    def _fitting(self, file: pq.ParquetFile, group: int) -> Any:
        columns = file.read_row_group(group, columns=[*DECIDE])
        fits = pc.equal(columns[STATUS], self.status)
        for column, wanted in ((TLD, self.tld), (MIME, self.mime)):
            if wanted is not None:
                fits = pc.and_(fits, pc.equal(columns[column], wanted))
        if self.language is not None:  # codes of three letters between commas
            fits = pc.and_(fits, pc.match_substring(columns[LANGUAGES], self.language))
        return np.flatnonzero(pc.fill_null(fits, False).to_numpy())

    def _may_fit(self, group: pq.RowGroupMetaData) -> bool:
        for place in range(group.num_columns if self.tld is not None else 0):
            column = group.column(place)
            if column.path_in_schema == TLD and column.statistics is not None and column.statistics.has_min_max:
                return bool(column.statistics.min <= self.tld <= column.statistics.max)
        return True


def _as_line(row: Mapping[str, Any]) -> dict[str, Any]:
    line = {name: row[column] for name, column in PLACE.items()}
    time = line["timestamp"]
    return {**line, "timestamp": "" if time is None else f"{time:%Y%m%d%H%M%S}", "digest": line["digest"] or ""}
