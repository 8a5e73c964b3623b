"""What extract leaves, for one source."""

from __future__ import annotations

from gristmill.data.ledger import Ledger, read_ledger
from gristmill.graph.outputs import File, Files, Outputs


class Extracted(Outputs):
    """Kept documents in shards, why the others were not kept, and the account of all of them."""

    documents = Files("documents-[0-9][0-9][0-9][0-9][0-9].parquet")
    accounts = File("ledger.json")
    rejected = Files("rejected-[0-9][0-9][0-9][0-9][0-9].parquet", notes=True)

    @property
    def ledger(self) -> Ledger:
        """Documents and bytes: in, kept, dropped, failed."""
        return read_ledger(self.accounts)
