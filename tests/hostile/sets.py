"""All hostile sets by name."""

from __future__ import annotations

from hostile import archives, lines, mails, tables, texts, trees
from hostile.hostile import Maker

SETS: dict[str, Maker] = {
    maker.__name__: maker for module in (lines, texts, trees, tables, archives, mails) for maker in module.SETS
}
