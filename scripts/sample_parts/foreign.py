"""Pages in other languages: PostgreSQL's own message translations, and translated READMEs of MIT packages."""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator

from sample_parts.packages import Origin, SampleError, files_in

# (package, program, language): the messages of one program in one language
_MESSAGES = (
    ("postgresql-client-15", "psql", "de"),
    ("postgresql-client-15", "pg_dump", "fr"),
    ("postgresql-15", "initdb", "ja"),
    ("postgresql-client-15", "psql", "ru"),
    ("postgresql-15", "pg_upgrade", "es"),
    ("postgresql-client-15", "pg_basebackup", "zh_CN"),
    ("postgresql-15", "pg_ctl", "ko"),
    ("postgresql-15", "pg_rewind", "it"),
    ("postgresql-15", "plpgsql", "sv"),
    ("postgresql-client-15", "pg_dump", "uk"),
)
_READMES = (
    ("svgo", "README.ru.md", "ru"),
    ("npkill", "README.es.md", "es"),
    ("npkill", "README.pt.md", "pt"),
    ("vxe-table", "README.ja-JP.md", "ja"),
    ("vxe-table", "README.zh-TW.md", "zh"),
    ("@arco-design/web-react", "README.zh-CN.md", "zh"),
)
_MESSAGES_ON_A_PAGE = 80


def pages(origins: dict[str, Origin]) -> Iterator[tuple[str, bytes, str, str]]:
    """(URL, HTML, package, language) of each page."""
    for package, program, language in _MESSAGES:
        path = f"usr/share/locale/{language}/LC_MESSAGES/{program}-15.mo"
        messages = _translations(files_in(origins[package], path)[""])
        url = f"https://babel.postgresql.org/po-15-branch/{program}-{language}.html"
        yield url, _message_page(program, language, messages), package, language.split("_")[0]
    for package, path, language in _READMES:
        origin = origins[package]
        markdown = files_in(origin, "package/" + path)[""].decode("utf-8")
        url = f"https://unpkg.com/{package}@{origin.version}/{path}"
        yield url, _readme_page(package, language, markdown), package, language


def _translations(raw: bytes) -> list[str]:
    """The translated messages of a GNU .mo file, in the order of their English originals."""
    if raw[:4] != b"\xde\x12\x04\x95":
        raise SampleError(f"a .mo file begins with {raw[:4]!r}, expected the little-endian magic number")
    count, _, translated = struct.unpack("<III", raw[8:20])
    out = []
    for i in range(1, count):  # message 0 is the header
        length, at = struct.unpack_from("<II", raw, translated + 8 * i)
        text = raw[at : at + length].decode("utf-8").split("\0")[0]
        if len(text) >= 20:
            out.append(text)
    return out[:_MESSAGES_ON_A_PAGE]


def _message_page(program: str, language: str, messages: list[str]) -> bytes:
    items = "\n".join(f"<li>{html.escape(' '.join(message.split()))}</li>" for message in messages)
    return _document(f"{program} (PostgreSQL 15): {language}", language.replace("_", "-"), f"<ul>\n{items}\n</ul>")


def _readme_page(name: str, language: str, markdown: str) -> bytes:
    return _document(name, language, "\n".join(_blocks(markdown)))


def _blocks(markdown: str) -> Iterator[str]:
    """Headings, list items, code and paragraphs; images and inline HTML are left out."""
    code: list[str] | None = None
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            if code is not None:
                yield "<pre>" + html.escape("\n".join(code)) + "</pre>"
            code = [] if code is None else None
            continue
        if code is not None:
            code.append(line)
            continue
        text = re.sub(r"<[^>]*>|!\[[^\]]*\]\([^)]*\)", "", line)
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).strip()
        if heading := re.match(r"(#{1,6})\s+(.*)", text):
            level = len(heading.group(1))
            yield f"<h{level}>{html.escape(heading.group(2))}</h{level}>"
        elif item := re.match(r"[-*+]\s+(.*)", text):
            yield f"<li>{html.escape(item.group(1))}</li>"
        elif text:
            yield f"<p>{html.escape(text)}</p>"


def _document(title: str, language: str, body: str) -> bytes:
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
        f"<body>\n<main>\n<h1>{html.escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    ).encode()
