"""How deeply the elements of a page nest, told before any parser sees it.

Most pages are cleared by a bound: few start tags, or a sum over tags that is never too small. The exact loop over tags runs where the
bound does not clear a page.
"""

from __future__ import annotations

import re

import numpy as np

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)[^<>]*((?<=/)>)?")
_VOID = "area base br col embed hr img input link meta param source track wbr"
_CLOSED_BY_ITSELF = "p li dt dd tr td th thead tbody tfoot option optgroup colgroup html head body rt rp"
# Elements that have no end tag, or that HTML closes by itself: they do not nest without a container that is counted.
_NOT_NESTING = frozenset([*_VOID.split(), *_CLOSED_BY_ITSELF.split()])
_FLAT_BYTES = 8  # of the longest of these names
_NAME_BYTES = 16  # of a name, that are looked at
_FLAT_NAMES = np.array([int.from_bytes(name.encode(), "little") for name in sorted(_NOT_NESTING)], dtype=np.uint64)
_IN_NAME = np.array([chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) == "-") for byte in range(256)])
_LETTER = np.array([chr(byte).isascii() and chr(byte).isalpha() for byte in range(256)])
_MASKS = np.array([256**length - 1 for length in range(_FLAT_BYTES + 1)], dtype=np.uint64)


def is_deeper(html: str, lowered: bytes, bound: int) -> int | None:
    """The depth of the tree where it is above the bound, else None: an upper bound of it, from start and end tags only. lowered: the
    page in UTF-8 and lower case."""
    if lowered.count(b"<") - lowered.count(b"</") <= bound or _most(lowered) <= bound:
        return None
    depth = deepest_nesting(html)
    return depth if depth > bound else None


def deepest_nesting(html: str) -> int:
    """An upper bound of the depth of the tree, from start and end tags only; unclosed tags count to the end."""
    depth = deepest = 0
    for slash, name, self_closed in _TAG.findall(html):
        if self_closed or name.lower() in _NOT_NESTING:
            continue
        if slash:
            depth = max(0, depth - 1)
        else:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


def _most(lowered: bytes) -> int:
    """At least `deepest_nesting`: the same sum, in which an element that closes itself (`<path/>`) stays open, and an end tag closes
    nothing that has a very long name, or more than a name in it."""
    padded = np.frombuffer(lowered + bytes(_NAME_BYTES + 2), dtype=np.uint8)
    at_T = np.flatnonzero(padded == ord("<")) + 1
    is_end_T = padded[at_T] == ord("/")
    at_T += is_end_T
    is_tag_T = _LETTER[padded[at_T]]
    at_T, is_end_T = at_T[is_tag_T], is_end_T[is_tag_T]
    if not len(at_T):
        return 0
    in_name_TB = _IN_NAME[padded[at_T[:, None] + np.arange(_NAME_BYTES)]]
    length_T = np.where(in_name_TB.all(axis=1), _NAME_BYTES, in_name_TB.argmin(axis=1))
    eights = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))
    names_T = eights[at_T] & _MASKS[np.minimum(length_T, _FLAT_BYTES)]
    nests_T = (length_T > _FLAT_BYTES) | ~np.isin(names_T, _FLAT_NAMES)
    closes_T = padded[at_T + length_T] == ord(">")
    sum_T = np.cumsum(np.where(is_end_T, -1 * closes_T, 1) * nests_T)
    return int((sum_T - np.minimum(0, np.minimum.accumulate(sum_T))).max())
