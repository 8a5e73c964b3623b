"""How far the extraction of a source is: records and bytes as the children that read them count, the share kept by shard."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gristmill.data.ledger import Ledger
from gristmill.extract.shard import Behind, Shard
from gristmill.graph.progress import Position, Report
from gristmill.store.durable import read_json
from gristmill.units import in_bytes, percent


class Meter:
    """Adds up what the shards of a source report, from several threads.

    Bytes of shards that an earlier attempt finished count as done.
    """

    def __init__(self, source: str, shards: Sequence[Shard], *, waiting: Sequence[Shard], report: Report) -> None:
        self._source, self._report = source, report
        self._total = sum(map(_num_bytes, shards))
        self._bytes = self._total - sum(map(_num_bytes, waiting))
        self._reading: dict[int, Behind] = {}
        self._documents = self._kept = 0
        self._lock = threading.Lock()
        self._report(self._position())

    def reads(self, shard: Shard, behind: Behind) -> None:
        """How far the reading of a shard is."""
        with self._lock:
            self._reading[shard.number] = behind
            position = self._position()
        self._report(position)

    def finishes(self, shard: Shard, kept: int) -> None:
        """A shard is done."""
        documents = Ledger.from_json(read_json(shard.record_path)).source(self._source).came_in.documents
        with self._lock:
            self._reading.pop(shard.number, None)
            self._documents += documents
            self._kept += kept
            self._bytes += _num_bytes(shard)
            position = self._position()
        self._report(position)

    def _position(self) -> Position:
        seen = self._documents + sum(behind.records for behind in self._reading.values())
        done = self._bytes + sum(behind.num_bytes for behind in self._reading.values())
        figures = [f"{seen:,} documents"] if seen else []
        figures += [f"{percent(self._kept / self._documents)} kept"] if self._documents else []
        figures += [] if done == self._total else [f"{in_bytes(self._total - done)} left"]
        return Position(done=done, total=self._total, unit="byte", counts={"documents": seen}, figures=tuple(figures))


def _num_bytes(shard: Shard) -> int:
    return sum(span.size for span in shard.spans)
