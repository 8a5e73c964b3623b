"""Which of two copies stays in a project of init: plain text, then pages, PDF last; of the same kind that of the larger source."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gristmill.draft.count import _turn
from gristmill.recipe.schema.formats import READERS


def test_plain_text_stays_before_pages_and_pdf_comes_last() -> None:
    sizes = {"pdf": 900, "html": 800, "text": 10, "epub": 20}
    samples: dict[str, Any] = {kind: SimpleNamespace(text_bytes=size) for kind, size in sizes.items()}
    reads = {kind: READERS[kind].model_validate({"format": kind, "paths": ["x"]}) for kind in sizes}
    order = sorted(sizes, key=lambda kind: _turn(cast(Any, reads[kind]), samples[kind]))
    assert order == ["epub", "text", "html", "pdf"]
