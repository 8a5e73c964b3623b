"""All hostile sets by name."""

from __future__ import annotations

from hostile import archives, books, lines, office, tables, texts, trees
from hostile.hostile import Maker

SETS: dict[str, Maker] = {
    maker.__name__: maker for module in (lines, texts, trees, tables, archives, books, office) for maker in module.SETS
}
