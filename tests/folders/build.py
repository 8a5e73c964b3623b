"""Twenty-one messy folders, as people have them, from the documentation that any installation holds: nothing is downloaded.

    cd tests && python -m folders.build OUT       all of them, to look at

The material is Python's own sources and docstrings, the descriptions and licences of installed packages, and word lists of
languages; what is made of it does not depend on chance, only on what is installed.
"""

from __future__ import annotations

import ast
import csv
import gzip
import html
import io
import json
import random
import re
import shutil
import sys
import sysconfig
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import justext

from hostile.books import book, chapter, zipped
from hostile.pages import sound

Build = Callable[[Path], None]
STDLIB = Path(sysconfig.get_paths()["stdlib"])
CHATS = Path(__file__).parents[2] / "samples" / "quickstart" / "chat" / "everyday.jsonl"
PLACES = [f"{part}{number}" for part in ("a", "b", "c") for number in range(4)]


# ── material ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Page:
    """A text and a name for it."""

    name: str
    text: str


@cache
def docstrings() -> tuple[Page, ...]:
    """Docstrings of the standard library's modules and of all that is in them, longer than a line or two."""
    pages, seen = [], set[str]()
    for path in sorted(STDLIB.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                if len(text) > 250 and text not in seen:
                    seen.add(text)
                    pages.append(Page(f"{path.stem}.{getattr(node, 'name', 'module')}.{len(pages)}", text))
    return tuple(pages)


@cache
def descriptions() -> tuple[Page, ...]:
    """What installed packages say of themselves."""
    found = {}
    for folder in sorted(Path(justext.__file__).parents[1].glob("*.dist-info")):
        text = (folder / "METADATA").read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]
        if len(text) > 1000:
            found[folder.name.partition("-")[0]] = text
    return tuple(Page(name, text) for name, text in found.items())


@cache
def sources() -> tuple[Page, ...]:
    """Python's sources."""
    return tuple(
        Page(path.name, path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(STDLIB.glob("*.py"))
        if path.stat().st_size > 2000
    )


def sentences(language: str, *, seed: int) -> Iterator[str]:
    """Endless sentences of a language's commonest words, in no sense but its own letters."""
    words = (Path(justext.__file__).parent / "stoplists" / f"{language}.txt").read_text(encoding="utf-8").split()
    chance = random.Random(seed)
    while True:
        chosen = [words[int(len(words) * chance.random() ** 2)] for _ in range(chance.randint(5, 16))]
        yield " ".join(chosen).capitalize() + chance.choice([".", ".", ".", "?", "!"])


def foreign(language: str, *, pages: int, seed: int) -> Iterator[Page]:
    """Texts of a language."""
    endless = sentences(language, seed=seed)
    for number in range(pages):
        yield Page(f"{language}-{number}", "\n\n".join(" ".join(islice(endless, 8)) for _ in range(6)))


def pages(num_bytes: int, *, start: int = 0) -> list[Page]:
    """Docstrings of about so many bytes."""
    chosen, size = [], 0
    for page in docstrings()[start:]:
        chosen.append(page)
        size += len(page.text)
        if size >= num_bytes:
            break
    return chosen


def as_html(page: Page, language: str = "en") -> str:
    """A page of the web around a text."""
    paragraphs = "\n".join(f"<p>{html.escape(part)}</p>" for part in page.text.split("\n\n"))
    return (
        f'<!doctype html><html lang="{language}"><head><title>{html.escape(page.name)}</title></head><body>'
        f"<nav><a href='/'>Home</a> <a href='/about'>About</a></nav><main><article><h1>{html.escape(page.name)}</h1>\n"
        f"{paragraphs}\n</article></main><footer>All of this is documentation.</footer></body></html>"
    )


def plain(text: str) -> str:
    """Letters that any font has, and no brackets, which end a string of a PDF file."""
    return re.sub(r"[()\\\\]", "", text.encode("ascii", "ignore").decode())


def wrapped(paragraph: str) -> list[str]:
    """A paragraph in lines of a page."""
    return textwrap.wrap(paragraph, 80, break_long_words=False) or [""]


def put(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Writes a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding, "replace"))


def put_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes rows."""
    put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def plain_notes(out: Path) -> None:
    for page in pages(250_000):
        put(out / f"{page.name}.txt", page.text)


def names_with_spaces_and_umlauts(out: Path) -> None:
    for number, page in enumerate(descriptions()[:60]):
        put(
            out / f"Übung {number % 3} [alt]" / f"Größe & Maß – {number} (Kopie).{['md', 'TXT'][number % 2]}", page.text
        )


def two_formats(out: Path) -> None:
    for page in descriptions()[20:60]:
        put(out / "text" / f"{page.name}.txt", page.text)
        put(out / "web" / f"{page.name}.html", as_html(page))


def one_huge_file(out: Path) -> None:
    put(out / "everything.txt", "\n\n".join(page.text for page in (*descriptions()[:60], *pages(200_000))))
    put(out / "note.txt", "This is a note beside the large file.\n")


def a_single_file(out: Path) -> None:
    put(out / "book.md", "\n\n".join(f"# {page.name}\n\n{page.text}" for page in pages(220_000)))


def a_manual_in_three_formats(out: Path) -> None:
    """A book as PDF, most of its source, with its chapters as EPUB and most of them as pages; and a few notes."""
    chapters = [Page(page.name, plain(page.text)) for page in descriptions()[:28]]
    lines = [line for page in chapters for part in (page.name, *page.text.split("\n\n"), "") for line in wrapped(part)]
    out.mkdir(parents=True)
    (out / "manual.pdf").write_bytes(sound(*("\n".join(lines[n : n + 45]) for n in range(0, len(lines), 45))))
    body = {
        f"OEBPS/c{number}.xhtml": chapter(number, "</p><p>".join(map(html.escape, page.text.split("\n\n"))))
        for number, page in enumerate(chapters)
    }
    (out / "manual.epub").write_bytes(zipped(book(len(chapters), **body)))
    for page in chapters[:20]:
        put(out / "pages" / f"{page.name}.html", as_html(page))
    for page in pages(40_000, start=600):
        put(out / "notes" / f"{page.name}.txt", page.text)


def tiny(out: Path) -> None:
    for page in descriptions()[40:56]:
        put(out / f"{page.name}.txt", page.text[:7_000])


def three_languages(out: Path) -> None:
    for page in pages(120_000, start=300):
        put(out / "en" / f"{page.name}.txt", page.text)
    for language, code in (("German", "de"), ("French", "fr")):
        for page in foreign(language, pages=120, seed=1):
            put(out / code / f"{page.name}.txt", page.text)


def mostly_code(out: Path) -> None:
    for page in sources()[:25]:
        put(out / "src" / "lib" / page.name, page.text)
    for page in descriptions()[:8]:
        put(out / "docs" / f"{page.name}.md", page.text)


def mostly_tables(out: Path) -> None:
    rows = pages(240_000)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["id", "wert", "beschreibung", "leer"])
    writer.writerows([number, number * 17 % 101, page.text, ""] for number, page in enumerate(rows))
    put(out / "tabelle.csv", table.getvalue())
    put(
        out / "more.tsv",
        "name\ttext\n" + "".join(f"{p.name}\t{' '.join(p.text.split())}\n" for p in pages(80_000, start=900)),
    )
    put(out / "readme.txt", "The tables are exports.\n")


def mostly_copies(out: Path) -> None:
    kept = descriptions()[:40]
    for page in kept:
        put(out / "original" / f"{page.name}.txt", page.text)
    for number in range(80):
        put(out / "copies" / f"copy {number}.txt", kept[0].text)
    for number, page in enumerate(kept[:30]):
        put(out / "backup" / f"{page.name}.txt", page.text)
        put(out / "edited" / f"{number}.txt", page.text + "\nA line was added to this copy.\n")


def empty_files(out: Path) -> None:
    for number in range(60):
        put(out / f"empty-{number}.txt", "\n" * (number % 3))
    for page in pages(160_000, start=100):
        put(out / f"{page.name}.txt", page.text)
    (out / "empty folder").mkdir()


def odd_columns(out: Path) -> None:
    put_jsonl(out / "a.jsonl", [{"id": p.name, "body": p.text, "tags": ["x"]} for p in pages(120_000)])
    put_jsonl(
        out / "b" / "a.jsonl", [{"content": p.text, "n": 1, "meta": {"k": p.name}} for p in pages(120_000, start=500)]
    )
    put_jsonl(out / "c.ndjson", [{"title": p.name, "body": p.text} for p in pages(60_000, start=700)])
    put_jsonl(out / "numbers.jsonl", [{"a": n, "b": [n]} for n in range(200)])
    with (out / "a.jsonl").open("a") as file:
        file.write('{"id": "broken"\n{"id": "no body"}\n')


def old_encodings(out: Path) -> None:
    for number, page in enumerate(foreign("German", pages=150, seed=2)):
        put(out / f"brief{number}.txt", page.text, ["latin-1", "cp1252", "utf-8", "utf-16"][number % 4])
    for number, page in enumerate(foreign("Spanish", pages=60, seed=3)):
        put(out / f"carta{number}.txt", page.text, "latin-1")


def html_alone(out: Path) -> None:
    for number, page in enumerate(descriptions()[:50]):
        put(out / PLACES[number % len(PLACES)] / f"{page.name}.{['html', 'htm'][number % 2]}", as_html(page))
        put(out / "css" / f"style{number}.woff", "\0\1\2" * 50)


def deep_folders(out: Path) -> None:
    for number, page in enumerate(pages(180_000, start=200)):
        put(out.joinpath(*["deep", "deeper"] * (number % 12), f"level {number % 7}", f"{page.name}.rst"), page.text)
    put(out / ".hidden" / "secret.txt", "never read " * 1000)


def conversations_beside(out: Path) -> None:
    out.mkdir(parents=True)
    shutil.copy(CHATS, out / "chats.jsonl")
    for page in pages(150_000, start=50):
        put(out / "texts" / f"{page.name}.md", page.text)


def binary_junk(out: Path) -> None:
    chance = random.Random(5)
    for suffix in ("bin", "png", "exe", "dat", "sqlite", "mp3"):
        put(out / f"junk.{suffix}", "")
        (out / f"junk.{suffix}").write_bytes(chance.randbytes(30_000))
    (out / "broken.parquet").write_bytes(b"PAR1" + chance.randbytes(5_000))
    (out / "broken.txt.gz").write_bytes(chance.randbytes(5_000))
    for page in pages(160_000, start=700):
        put(out / f"{page.name}.txt", page.text)


def packed(out: Path) -> None:
    out.mkdir(parents=True)
    with tarfile.open(out / "src.tar.gz", "w:gz") as archive:
        for page in sources()[40:70]:
            data = page.text.encode()
            info = tarfile.TarInfo(f"src/{page.name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for number, page in enumerate(descriptions()[:40]):
        (out / f"{number}.txt.gz").write_bytes(gzip.compress(page.text.encode(), mtime=0))


def everything(out: Path) -> None:
    mostly_code(out / "code")
    odd_columns(out / "rows")
    binary_junk(out / "junk")
    mostly_tables(out / "Tabellen")
    for page in descriptions()[60:80]:
        put(out / "web" / f"{page.name}.html", as_html(page))
        put(out / "web" / f"{page.name}.md", page.text)


def licences(out: Path) -> None:
    """Many near copies: licences differ in a line."""
    for page in pages(120_000, start=400):
        put(out / f"{page.name}.txt", page.text)
    for number, path in enumerate(sorted(Path(justext.__file__).parents[1].glob("*.dist-info/**/LICENSE*"))[:150]):
        if path.is_file():
            put(out / "licences" / f"LICENSE-{number}.txt", path.read_text(encoding="utf-8", errors="replace"))


FOLDERS: dict[str, Build] = {
    build.__name__: build
    for build in (
        plain_notes, names_with_spaces_and_umlauts, two_formats, one_huge_file, a_single_file, a_manual_in_three_formats, tiny, three_languages, mostly_code,
        mostly_tables, mostly_copies, empty_files, odd_columns, old_encodings, html_alone, deep_folders, conversations_beside,
        binary_junk, packed, everything, licences,
    )
}  # fmt: skip


if __name__ == "__main__":
    for name, build in FOLDERS.items():
        build(Path(sys.argv[1]) / name)
