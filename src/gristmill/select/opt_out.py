"""Documents whose authors do not want them trained on, by lists of the recipe: found by URL, by domain, or by id."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gristmill.data.lists import Lists
from gristmill.data.packs import is_held_out
from gristmill.extract.urls import UrlFilter

IsOptedOut = Callable[[str, str | None], bool]  # of an id and a URL


@cache
def opted_out_by(lists: Lists) -> IsOptedOut:
    """Whether a document is on one of the lists; an id takes the passages of the document along."""
    urls, ids = UrlFilter(lists.entries), frozenset(lists.entries("ids"))
    return lambda id, url: is_held_out(id, ids) or (url is not None and urls.blocks(url) is not None)
