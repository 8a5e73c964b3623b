"""All hostile sets by name."""

from __future__ import annotations

from hostile import archives, books, lines, mails, manuals, office, pages, responses, tables, texts, trees, zips
from hostile.hostile import Maker

MODULES = (lines, texts, mails, manuals, trees, tables, archives, responses, books, office, pages, zips)
SETS: dict[str, Maker] = {maker.__name__: maker for module in MODULES for maker in module.SETS}
