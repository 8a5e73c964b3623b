"""Electronic books (EPUB 2 and 3): the chapters in reading order, each a document.

    META-INF/container.xml → package document (.opf) → its spine, in order → pages of XHTML

A document is an item of the spine, not the book: chapters can lie on both sides of the validation split, a chapter that crashes the
parser costs only itself, and no text exceeds the limits of a page. A page is kept in full: a main-text extractor made for the web treats
lists and notes as navigation and lost 8 to 25 % of the words of four manuals. A book's bytes are those on disk: a chapter has the bytes of
its slot in the archive; everything else (pictures, styles, the directory) is skipped and counted.

XML is parsed without entities, without network and with limited depth. A book whose package gives no reading order is one failure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from lxml import etree

from gristmill.data.record import MAX_DOCUMENT_BYTES, RawDocument, Record, Skip, Unread, failed
from gristmill.formats.format import Content, Format, Span, size_of, unreadable
from gristmill.formats.zip import Refused, ZipMember, list_zip, unpacked_whole
from gristmill.recipe.schema.formats import ReadEpub

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
MAX_PACKAGE_BYTES = 10_000_000
PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")


class Epub(Format[ReadEpub]):
    """A chapter is a document."""

    shard_bytes = (1_000_000, 32_000_000)

    def read(self, span: Span, settings: ReadEpub) -> Iterator[Record]:
        """The chapters of the book."""
        return read_epub(span.path, name=span.name)

    def content(self, span: Span, settings: ReadEpub) -> Content:
        """The file as it lies on the disk."""
        return Content(num_bytes=size_of(span.path))


FORMAT = Epub()


def read_epub(path: Path, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Iterator[Record]:
    """The chapters of a book, "name#member" each.

    Fails as a whole: unreadable_file, corrupt_archive, too_many_members, no_container, no_package, no_spine. Fails by chapter:
    missing_chapter, encrypted, and as members of ZIP archives do (zip.py). Dropped: navigation, not_html.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        yield unreadable(path, name, error)
        return
    with file:
        try:
            listing = list_zip(file)
            members = {member.name: member for member in listing.members}
            spine = _spine(file, members)
        except Refused as error:
            yield failed(f"{name}#0", error.reason, bytes_in=size_of(path), detail=str(error))
            return
        read: set[str] = set()
        for item in spine:
            if item.member not in read:
                read.add(item.member)
                yield _chapter(file, members.get(item.member), item, f"{name}#{item.member}", max_bytes)
        for member in listing.members:
            if member.name not in read or members[member.name] is not member:
                yield Skip(reason="no_chapter", num_bytes=member.num_bytes)
        yield Skip(reason="zip_framing", num_bytes=listing.tail)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """An item of the spine."""

    member: str
    media_type: str
    is_navigation: bool
    is_encrypted: bool


def _chapter(
    file: IO[bytes], member: ZipMember | None, item: _Item, origin: str, max_bytes: int
) -> RawDocument | Unread:
    if member is None:
        return failed(origin, "missing_chapter", bytes_in=0, detail="the spine names it")
    if item.is_encrypted:
        return failed(origin, "encrypted", bytes_in=member.num_bytes, detail=f"{ENCRYPTION} names it")
    if item.is_navigation or item.media_type not in PAGES:
        reason = "navigation" if item.is_navigation else "not_html"
        return Unread(
            id=origin,
            origin=origin,
            bytes_in=member.num_bytes,
            kind="dropped",
            reason=reason,
            detail=item.media_type[:80],
        )
    try:
        payload = unpacked_whole(file, member, max_bytes=max_bytes)
    except Refused as error:
        return failed(origin, error.reason, bytes_in=member.num_bytes, detail=str(error))
    return RawDocument(id=origin, origin=origin, bytes_in=member.num_bytes, payload=payload, is_all_text=True)


# ── package ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _spine(file: IO[bytes], members: Mapping[str, ZipMember]) -> list[_Item]:
    """The items of the spine, in their order. Raises Refused."""
    if CONTAINER not in members and (deeper := [name for name in members if name.endswith(f"/{CONTAINER}")]):
        folder = deeper[0].removesuffix(CONTAINER)
        raise Refused("no_container", f"META-INF lies in {folder}; pack what is in that folder, not the folder")
    container = _parsed(file, members.get(CONTAINER), "no_container")
    files = [element.get("full-path", "") for element in container.iter("{*}rootfile")]
    package_name = next((name for name in files if name in members), files[0] if files else "")
    package = _parsed(file, members.get(package_name), "no_package")
    folder = posixpath.dirname(package_name)
    manifest = {element.get("id"): element for element in package.iterfind("{*}manifest/{*}item")}
    encrypted = _encrypted(file, members.get(ENCRYPTION))
    contents = {
        _member_name(folder, guide.get("href", ""))
        for guide in package.iterfind("{*}guide/{*}reference")
        if guide.get("type") == "toc"
    }
    spine: list[_Item] = []
    for reference in package.iterfind("{*}spine/{*}itemref"):
        item = manifest.get(reference.get("idref"))
        if item is not None:
            member = _member_name(folder, item.get("href", ""))
            spine.append(
                _Item(
                    member=member,
                    media_type=item.get("media-type", "").strip().lower(),
                    is_navigation="nav" in item.get("properties", "").split() or member in contents,
                    is_encrypted=member in encrypted,
                )
            )
    if not spine:
        raise Refused("no_spine", f"{package_name} names no chapter")
    return spine


def _encrypted(file: IO[bytes], member: ZipMember | None) -> set[str]:
    """The encrypted members: in many books only fonts, in protected books the chapters."""
    if member is None:
        return set()
    root = _parsed(file, member, "encrypted")
    return {_member_name("", reference.get("URI", "")) for reference in root.iter("{*}CipherReference")}


def _parsed(file: IO[bytes], member: ZipMember | None, reason: str) -> etree._Element:
    """The root of an XML member, recovered from errors where possible. Raises Refused."""
    if member is None:
        raise Refused(reason)
    data = unpacked_whole(file, member, max_bytes=MAX_PACKAGE_BYTES)
    parser = etree.XMLParser(recover=True, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Refused(reason, f"{member.name} is no XML: {error}"[:200]) from error
    if root is None:
        raise Refused(reason, f"{member.name} is no XML")
    return root


def _member_name(folder: str, reference: str) -> str:
    """The member that a reference of a package names; "" if it lies outside the book."""
    try:
        path = unquote(urlsplit(reference).path)
    except ValueError:
        return ""
    name = posixpath.normpath(posixpath.join(folder, path)) if path else ""
    return "" if name.startswith(("/", "..")) else name
