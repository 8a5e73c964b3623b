"""From bytes to text: UTF-16 by its mark or its NUL bytes, transport charset, meta charset, strict UTF-8, then a guess.

A declared charset is believed only if the bytes decode under it without error. Two exceptions: bytes that are valid UTF-8
beyond ASCII are UTF-8 where a Latin single-byte charset or UTF-16 is declared, because nearly any bytes decode under these, and
servers and programs write these labels by default. A page that can be searched for its meta charset is not in UTF-16. What stands in a comment
declares nothing, as in browsers.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from chardetng_py import EncodingDetector

META_BYTES = 4096
BINARY_BYTES = 1 << 16
MAX_CONTROLS = 0.05
MIN_NULS = (
    0.1  # of the characters of a text in UTF-16 without a mark: spaces and line ends alone are more in most scripts
)
_CONTROLS = bytes({*range(32), 127} - set(b"\b\t\n\v\f\r\x1b"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.-]{2,40})""", re.IGNORECASE)
_COMMENT = re.compile(rb"<!(?=--).*?(?:-->|\Z)", re.DOTALL)
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
_WIDE = frozenset({"utf-16", "utf-16-le", "utf-16-be"})
_NO_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})  # kinds of characters
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
    (a tenth are in packed data), or they are a PDF. In UTF-16, its characters count.

    Backspaces and escapes are no sign: manual pages, terminals and ISO 2022 use them.
    """
    first = data[:BINARY_BYTES]
    if utf16_of(first) is not None:
        first = decode(first[: len(first) // 2 * 2])[0].encode("utf-8", "replace")
    return first.startswith(b"%PDF-") or len(first) - len(first.translate(None, _CONTROLS)) > MAX_CONTROLS * len(first)


def utf16_of(first: bytes) -> str | None:
    """utf-16-le or utf-16-be for the beginning of a text in UTF-16, else None.

    It begins with a mark; or NULs are one half of MIN_NULS of its characters or more, mostly the same half, and all
    characters are text when read so.
    """
    for mark, name in _MARKS[1:]:
        if first.startswith(mark):
            return name
    first = first[: BINARY_BYTES // 2 * 2]
    nuls = {"utf-16-be": first[::2].count(0), "utf-16-le": first[1::2].count(0)}
    name, other = sorted(nuls, key=lambda name: -nuls[name])
    if nuls[name] < max(1, MIN_NULS * (len(first) // 2)) or nuls[other] > nuls[name] / 2:
        return None
    try:
        found = {*codecs.getincrementaldecoder(name)().decode(first)}  # a character cut at the end is no error
    except UnicodeDecodeError:
        return None
    found -= {*"\t\n\v\f\r"}
    return None if not found or any(unicodedata.category(sign) in _NO_TEXT for sign in found) else name


def decode(payload: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text and the Python name of the charset it was decoded with; never fails (U+FFFD where nothing fits).

    `declared` is the charset of the transport (an HTTP header), if any.
    """
    for mark, marked in _MARKS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(marked, "replace"), marked
    if (wide := utf16_of(payload)) is not None:
        return payload.decode(wide, "replace"), wide
    own = _label_in(payload)
    for label in (declared, own):
        name = None if label is None else _known(label)
        if name is None or (name in _LATIN and payload.isascii()) or (name in _WIDE and label == own):
            continue
        if (name == "cp1252" or name in _WIDE) and (text := _strict(payload, "utf-8")) is not None:
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
    head = _COMMENT.sub(b"", payload[:META_BYTES])
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
