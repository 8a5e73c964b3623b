"""What the steps of scoring leave."""

from __future__ import annotations

from gristmill.graph.outputs import File, Files, Outputs


class TrainedClassifier(Outputs):
    """A classifier, the out-of-fold scores of the documents it was trained on, and what each threshold would keep."""

    model = File("model.npz")
    out_of_fold = File("out_of_fold.parquet")
    report = File("report.json", notes=True)


class Scored(Outputs):
    """A score for each document of one source, shard by shard."""

    scores = Files("scores-[0-9][0-9][0-9][0-9][0-9].parquet")
