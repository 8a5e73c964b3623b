"""From bytes to text: byte-order mark, transport charset, meta charset, strict UTF-8, then a guess.

A declared charset is believed only if the bytes decode under it without error. One exception to the order: a page that
is declared as a Latin single-byte charset (which nearly any bytes satisfy) but is valid UTF-8 beyond ASCII is UTF-8;
servers send that label by default.
"""

from __future__ import annotations

import codecs
import re

from chardetng_py import EncodingDetector

META_BYTES = 4096
BINARY_BYTES = 1 << 16
MAX_CONTROLS = 0.05
_CONTROLS = bytes({*range(32), 127} - set(b"\b\t\n\v\f\r\x1b"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s{0,64}<\?xml[^>]{0,200}?encoding\s*=\s*["']([a-zA-Z0-9_:.-]{2,40})""")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

# Python's own names. Codecs that are no character sets (or are slow or unsafe on hostile input) are not here.
_ALLOWED = frozenset(
    ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "ascii", "big5", "big5hkscs", "cp866", "cp874", "cp932", "cp949"]
    + ["gb2312", "gbk", "gb18030", "euc_jp", "euc_kr", "shift_jis", "iso2022_jp", "koi8-r", "koi8-u"]
    + ["mac-roman", "mac-cyrillic", *(f"cp{number}" for number in range(1250, 1259))]
    + [f"iso8859-{number}" for number in range(1, 17) if number not in (11, 12)]
)
_LATIN = frozenset({"cp1252", "iso8859-1", "ascii"})
# As browsers do: labels whose strict meaning nobody intends, and detector names that Python spells otherwise.
_READ_AS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_OTHER_NAMES = {
    "windows-874": "cp874",
    "iso-8859-8-i": "iso8859-8",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-sjis": "cp932",
}


def is_binary(data: bytes) -> bool:
    """True for bytes that are no text in any charset here: more than MAX_CONTROLS of the first BINARY_BYTES are control characters
    (a tenth are in packed data, half in UTF-16 without a mark), or they are a PDF. After a mark of UTF-16, its characters count.

    Backspaces and escapes are no sign: manual pages, terminals and ISO 2022 use them.
    """
    first = data[:BINARY_BYTES]
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        first = decode(first[: len(first) // 2 * 2])[0].encode("utf-8", "replace")
    return first.startswith(b"%PDF-") or len(first) - len(first.translate(None, _CONTROLS)) > MAX_CONTROLS * len(first)


def decode(payload: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text and the Python name of the charset it was decoded with; never fails (U+FFFD where nothing fits).

    `declared` is the charset of the transport (an HTTP header), if any.
    """
    for mark, marked in _MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(marked, "replace"), marked
    is_ascii = payload.isascii()
    for label in (declared, _label_in(payload)):
        name = None if label is None else _known(label)
        if name is None or (is_ascii and name in _LATIN):
            continue
        if name == "cp1252" and (text := _strict(payload, "utf-8")) is not None:
            return text, "utf-8"
        if (text := _strict(payload, name)) is not None:
            return text, name
    if (text := _strict(payload, "utf-8")) is not None:
        return text, "utf-8"
    detector = EncodingDetector()
    detector.feed(payload, last=True)
    guess = _known(detector.guess(tld=None, allow_utf8=True)) or "cp1252"
    return payload.decode(guess, "replace"), guess


def _label_in(payload: bytes) -> str | None:
    head = payload[:META_BYTES]
    found = _META.search(head) or _XML.search(head)
    return found.group(1).decode("ascii") if found else None


def _known(label: str) -> str | None:
    """Python's name of a charset label, or None for one that we do not trust or know."""
    label = label.strip().strip("\"'").lower()
    try:
        name = codecs.lookup(_OTHER_NAMES.get(label, label)).name
    except (LookupError, ValueError):
        return None
    return _READ_AS.get(name, name) if name in _ALLOWED else None


def _strict(payload: bytes, name: str) -> str | None:
    try:
        return payload.decode(name)
    except UnicodeError:
        return None
