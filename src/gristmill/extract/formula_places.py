"""The places of formulas in a page, rewritten where an extractor would drop them with what surrounds them.

Both extractors tell navigation by signs that pages of mathematics show too. Trafilatura leaves out divisions that stand among
paragraphs, and lists with many links, such as the description of a function whose signature links its types. Resiliparse leaves out
parts by words in their ids, such as a section `local-linear-trends`. A formula outside links is text, and so is what holds it: a
division that is only formulas becomes a paragraph, lists lose the tags of their links, sections their ids. No word changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from selectolax.lexbor import LexborHTMLParser

_LISTS = frozenset(["dl", "ul", "ol"])


def show_as_text(tree: LexborHTMLParser, parents: Sequence[Any], word: str) -> None:
    """Rewrites what is around formulas. parents: the elements that hold them, in the order of the page; word: the
    pattern of what a formula is in the tree."""
    lists, sections = _lists_and_sections(parents)
    for node in lists:
        node.unwrap_tags(["a"])
    for node in sections:
        del node.attrs["id"]
    only_formulas = re.compile(rf"(?:\s*{word})+\s*")
    for node in parents:
        if node.tag == "div" and _is_among_paragraphs(node) and only_formulas.fullmatch(text := node.text(deep=True)):
            paragraph = tree.create_node("p")
            paragraph.insert_child(text)
            node.replace_with(paragraph)


def _lists_and_sections(parents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The outermost lists that hold a formula outside links, and the sections with an id. Looks at each element once."""
    lists, sections = list[Any](), list[Any]()
    in_list: dict[int, bool] = {}
    for parent in parents:
        node, path = parent, list[Any]()
        while node is not None and node.tag != "a" and node.mem_id not in in_list:
            path.append(node)
            node = node.parent
        if node is not None and node.tag == "a":
            continue
        inside = node is not None and in_list[node.mem_id]
        for node in reversed(path):
            if node.tag in _LISTS and not inside:
                lists.append(node)
                inside = True
            elif node.tag == "section" and "id" in node.attributes:
                sections.append(node)
            in_list[node.mem_id] = inside
    return lists, sections


def _is_among_paragraphs(node: Any) -> bool:
    """Whether the element before or after is a paragraph."""
    before, after = node.prev, node.next
    while before is not None and before.tag.startswith(("-", "_")):
        before = before.prev
    while after is not None and after.tag.startswith(("-", "_")):
        after = after.next
    return any(one is not None and one.tag == "p" for one in (before, after))
