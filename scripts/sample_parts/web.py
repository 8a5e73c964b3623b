"""The web part: pages of free manuals in one WARC, with the noise a crawl has (navigation, near-duplicates, other
languages, one damaged record)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sample_parts import foreign, warc
from sample_parts.packages import Origin, SampleError, files_in

_SCRIPT = re.compile(r"<(script|style)\b.*?</\1>", re.S | re.I)
_TAG = re.compile(r"<[^>]*>")
_MOST_MARKUP = 5  # bytes of HTML for one character of text; pages above are nearly all markup


@dataclass(frozen=True, kw_only=True)
class Page:
    """One record to be. `kind` is page, navigation, near_duplicate, foreign or corrupt."""

    url: str
    html: bytes
    kind: str
    package: str
    language: str = "en"
    near_duplicate_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Which pages of a package are taken: those whose path matches and whose text length (characters, tags taken off)
    lies between the bounds; of them the first `count` in the order of their URL's hash."""

    package: str
    prefix: str
    base: str
    path: str
    least: int
    most: int
    count: int
    only_math: bool = False


_PYTHON = ("python3.11-doc", "usr/share/doc/python3.11/html/", "https://docs.python.org/3.11/")
_POSTGRES = ("postgresql-doc-15", "usr/share/doc/postgresql-doc-15/html/", "https://www.postgresql.org/docs/15/")
_SQLITE = ("sqlite3-doc", "usr/share/doc/sqlite3/", "https://www.sqlite.org/")
_MPMATH = ("python-mpmath-doc", "usr/share/doc/python-mpmath-doc/html/", "https://mpmath.org/doc/1.2.1/")
_SCIPY = ("python-scipy-doc", "usr/share/doc/python-scipy-doc/html/", "https://docs.scipy.org/doc/scipy-1.10.1/")


def _pick(where: tuple[str, str, str], path: str, least: int, most: int, count: int, math: bool = False) -> Pick:
    package, prefix, base = where
    return Pick(
        package=package, prefix=prefix, base=base, path=path, least=least, most=most, count=count, only_math=math
    )


PICKS: tuple[Pick, ...] = (
    _pick(_PYTHON, r"(tutorial|howto|faq)/(?!index)[a-z0-9-]+\.html", 2_500, 24_000, 25),
    _pick(_PYTHON, r"(reference|extending|using|installing|distributing)/[a-z0-9-]+\.html", 2_500, 20_000, 9),
    _pick(_PYTHON, r"library/(?!index)[a-z0-9._-]+\.html", 3_500, 11_000, 46),
    _pick(_PYTHON, r"c-api/(?!index)[a-z0-9_-]+\.html", 3_500, 16_000, 4),
    _pick(
        _POSTGRES, r"(?!(release-|bookindex|sql-commands|index|contrib-)|extend\.)[a-z0-9-]+\.html", 3_000, 10_500, 170
    ),
    _pick(_SQLITE, r"(?!c3ref/intro|docs\.|keyword|sitemap|doclist)(c3ref/)?[a-z0-9_]+\.html", 3_000, 12_000, 75),
    _pick(_MPMATH, r"(?!genindex|index|search|py-modindex)[a-z/_0-9]+\.html", 3_000, 30_000, 20),
    _pick(_SCIPY, r"(tutorial/.*|reference/generated/scipy\.[a-z_.]+)\.html", 4_000, 12_000, 14, True),
)

NAVIGATION: tuple[tuple[tuple[str, str, str], str], ...] = (
    (_PYTHON, "index.html"),
    (_PYTHON, "genindex.html"),
    (_PYTHON, "genindex-J.html"),
    (_PYTHON, "genindex-Q.html"),
    (_PYTHON, "py-modindex.html"),
    (_PYTHON, "library/index.html"),
    (_POSTGRES, "index.html"),
    (_POSTGRES, "sql-commands.html"),
    (_POSTGRES, "reference-client.html"),
    (_SQLITE, "docs.html"),
    (_SQLITE, "c3ref/funclist.html"),
    (_MPMATH, "genindex.html"),
    (_MPMATH, "index.html"),
)

_COPIES = ((_PYTHON, "https://docs.python.org/3/", 8), (_POSTGRES, "https://www.postgresql.org/docs/current/", 7))


def text_length(html: str) -> int:
    """Characters of text once scripts, styles and tags are taken off and runs of white space are one blank."""
    return len(" ".join(_TAG.sub(" ", _SCRIPT.sub(" ", html)).split()))


def rank(key: str) -> str:
    """A stable order that has nothing to do with the alphabet."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def build(origins: dict[str, Origin], filename: str) -> tuple[bytes, list[dict[str, object]]]:
    """The whole WARC file and its manifest, one row for each response record in the order of the file."""
    pages = sorted(_pages(origins), key=lambda page: rank(page.url))
    names = [page.url for page in pages]
    if len(set(names)) != len(names):
        raise SampleError("two pages of the sample have the same URL")
    middle, corrupt = len(pages) // 2, [page for page in pages if page.kind == "corrupt"]
    pages = [page for page in pages if page.kind != "corrupt"]
    pages[middle:middle] = corrupt
    parts, rows = [warc.warcinfo(filename)], []
    offset = len(parts[0])
    for page in pages:
        member = warc.response(page.url, page.html)
        if page.kind == "corrupt":
            member = warc.damage(member)
        rows.append(_row(page, origins[page.package], offset, len(member)))
        parts.append(member)
        offset += len(member)
    return b"".join(parts), rows


def _row(page: Page, origin: Origin, offset: int, length: int) -> dict[str, object]:
    return {
        "record_id": warc.record_id(page.url),
        "url": page.url,
        "kind": page.kind,
        "near_duplicate_of": page.near_duplicate_of,
        "language": page.language,
        "package": page.package,
        "version": origin.version,
        "licence": origin.package.licence,
        "html_bytes": len(page.html),
        "offset": offset,
        "length": length,
    }


def _pages(origins: dict[str, Origin]) -> Iterator[Page]:
    stock = {
        where[0]: files_in(origins[where[0]], where[1], ".html")
        for where in (_PYTHON, _POSTGRES, _SQLITE, _MPMATH, _SCIPY)
    }
    spare: list[Page] = []
    chosen: list[Page] = []
    for pick in PICKS:
        taken, left = _choose(pick, stock[pick.package])
        chosen += taken
        spare += left
    yield from chosen
    for where, path in NAVIGATION:
        yield Page(url=where[2] + path, html=stock[where[0]][path], kind="navigation", package=where[0])
    for where, base, count in _COPIES:
        originals = [page for page in chosen if page.package == where[0] and _can_be_copied(page)]
        for page in sorted(originals, key=lambda page: rank("copy " + page.url))[:count]:
            yield _copy(page, page.url.replace(where[2], base))
    broken = min((page for page in spare if page.package == _POSTGRES[0]), key=lambda page: rank("broken " + page.url))
    yield replace(broken, kind="corrupt")
    for url, html, package, language in foreign.pages(origins):
        yield Page(url=url, html=html, kind="foreign", package=package, language=language)


def _choose(pick: Pick, stock: dict[str, bytes]) -> tuple[list[Page], list[Page]]:
    pattern = re.compile(pick.path)
    fitting: list[Page] = []
    for path, raw in stock.items():
        if not pattern.fullmatch(path) or b"toctree-wrapper" in raw or (pick.only_math and rb"\(" not in raw):
            continue
        length = text_length(raw.decode("utf-8", "replace"))
        if pick.least <= length <= pick.most and len(raw) <= _MOST_MARKUP * length:
            fitting.append(Page(url=pick.base + path, html=raw, kind="page", package=pick.package))
    fitting.sort(key=lambda page: rank(page.url))
    if len(fitting) < pick.count:
        raise SampleError(f"{pick.package}: {len(fitting)} pages match {pick.path!r}, expected at least {pick.count}")
    return fitting[: pick.count], fitting[pick.count :]


def _can_be_copied(page: Page) -> bool:
    html = page.html.decode("utf-8")
    return text_length(html) >= 7_000 and html.count("</p>") >= 15


def _copy(page: Page, url: str) -> Page:
    """The page as a second site keeps it: its header and footer gone and its last two paragraphs not there."""
    html = page.html.decode("utf-8")
    html = re.sub(r'<div class="(navheader|navfooter)">.*?</table>(<hr />)?</div>', "", html, flags=re.S)
    html = re.sub(r'<div class="(related|footer)".*?</div>', "", html, flags=re.S)
    end = html.find('<div class="sphinxsidebar"')
    body, rest = (html[:end], html[end:]) if end > 0 else (html, "")
    last = list(re.finditer(r"<p\b[^>]*>.*?</p>", body, re.S))[-2:]
    for match in reversed(last):
        body = body[: match.start()] + body[match.end() :]
    return replace(page, url=url, html=(body + rest).encode("utf-8"), kind="near_duplicate", near_duplicate_of=page.url)
