"""What select leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Files, Outputs


class Selected(Outputs):
    """Per source the documents to train on and those held out; then the account, and the evidence for each decision."""

    train = Files("{source}/train-[0-9][0-9][0-9][0-9][0-9].parquet")
    validation = Files("{source}/validation-[0-9][0-9][0-9][0-9][0-9].parquet")
    accounts = File("ledger.json", notes=True)
    rejected = File("rejected.parquet", notes=True)
    thresholds = File("thresholds.json", notes=True)
    near_duplicates = File("near_duplicates.json", notes=True)
    decontamination = File("decontamination.json", notes=True)
    split = File("split.json", notes=True)
