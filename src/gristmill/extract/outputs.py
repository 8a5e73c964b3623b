"""What extract leaves, for one source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.data.ledger import Ledger, read_ledger
from gristmill.graph.outputs import File, Files, Outputs
from gristmill.recipe.schema.curation import LanguageFilter
from gristmill.store.durable import read_json
from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class TextCounts(Written):
    """text_bytes: UTF-8 bytes of the text that was kept. details: what happened to documents on the way, how often."""

    text_bytes: int
    shards: int
    details: Mapping[str, int]


class Extracted(Outputs):
    """Kept documents in shards, why the others were not kept, and the account of all of them."""

    documents = Files("documents-[0-9][0-9][0-9][0-9][0-9].parquet")
    accounts = File("ledger.json")
    rejected = Files("rejected-[0-9][0-9][0-9][0-9][0-9].parquet", notes=True)

    @property
    def counts(self) -> TextCounts:
        """The counts that ledger.json holds beside the ledger."""
        return TextCounts.from_json(read_json(self.accounts)["counts"], where=self.accounts)

    @property
    def ledger(self) -> Ledger:
        """Documents and bytes: in, kept, dropped, failed."""
        return read_ledger(self.accounts)

    @property
    def asked(self) -> list[str]:
        """Of main_text, language and rules what the source asks for."""
        found = {key: self.record.at("source", key) for key in ("main_text", "language")}
        return [key for key, value in {**found, "rules": self.record.at("source", "rules", "packs")}.items() if value]

    @property
    def language(self) -> LanguageFilter | None:
        """Which languages stayed; None where all did."""
        if self.record.at("source", "language") is None:
            return None
        return self.record.section(LanguageFilter, "source", "language")
