"""How far two people, or models, agree on the same documents."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.errors import DataError
from gristmill.score.annotations import Annotation
from gristmill.score.outputs import Agreement
from gristmill.statistics import cohen_kappa


def agreement(first: Sequence[Annotation], second: Sequence[Annotation], *, seed: int = 0) -> Agreement:
    """Agreement on the documents in both lists. Raises DataError when there is none."""
    other = {name: annotation.label for annotation in second for name in annotation.names}
    pairs: list[tuple[int, int]] = []
    for annotation in first:
        known = [other[name] for name in annotation.names if name in other]
        pairs += [(annotation.label, label) for label in known[:1]]
    if not pairs:
        raise DataError(
            "The second annotations label none of the documents of the first; compare record_id and url of both files."
        )
    mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    return Agreement(
        count=len(pairs),
        equal_share=sum(a == b for a, b in pairs) / len(pairs),
        kappa=cohen_kappa(mine, theirs, seed=seed),
        quadratic_kappa=cohen_kappa(mine, theirs, quadratic=True, seed=seed),
    )
