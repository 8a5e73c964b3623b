"""Connected parts of a graph of documents. The file is by itself because SciPy, which workers over shards do without, takes 20 MB."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gristmill.select.words import Int64


def components(count: int, links_E2: Int64) -> Int64:
    """The number of the connected part of each of `count` nodes: that of its lowest member."""
    ends = (links_E2[:, 0], links_E2[:, 1])
    graph = coo_array((np.ones(len(links_E2), dtype=np.int8), ends), shape=(count, count))
    parts, label_D = connected_components(graph, directed=False)
    lowest = np.full(parts, count, dtype=np.int64)
    np.minimum.at(lowest, label_D, np.arange(count))
    component_D: Int64 = lowest[label_D]
    return component_D
