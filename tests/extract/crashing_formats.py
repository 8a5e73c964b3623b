"""Jobs whose readers crash, hang or raise at marked records: child processes of test_shard.py load them by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from gristmill.data.record import RawDocument, Record
from gristmill.extract.curate import Settings
from gristmill.extract.shard import CurateJob, Shard
from gristmill.formats.format import Content, Format, Span


class Crashing(Format[Any]):
    """As another format, but reading a marked record ends the process or raises."""

    def __init__(self, inner: Format[Any]) -> None:
        self.inner = inner

    def read(self, span: Span, settings: Any) -> Iterator[Record]:
        for record in self.inner.read(span, settings):
            if isinstance(record, RawDocument) and record.text is not None:
                if record.text.startswith("crash"):
                    os.kill(os.getpid(), signal.SIGSEGV)
                if record.text.startswith("raise"):
                    raise KeyError("no reader expects this")
                if record.text.startswith("crowd") and not span.alone:
                    raise MemoryError
                if record.text.startswith("grow"):
                    with span.path.open("ab") as file:
                        file.write(b'{"text": "one more"}\n')
            yield record

    def next_entry(self, span: Span, entry: int) -> int | None:
        return self.inner.next_entry(span, entry)

    def content(self, span: Span, settings: Any) -> Content:
        return self.inner.content(span, settings)


class CrashingJob(CurateJob):
    """A job whose reader crashes."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        super().__init__(settings, shard)
        self.format = Crashing(self.format)
